# %% [markdown]
# # WaveNet on a signal
#
# Each step is a sine of the one two before, with noise: x(t) = sin(3 x(t - 2)) + 0.2 e(t). A
# linear autoregression sees little of it; a WaveNet finds the rule.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)
x = rng.normal(size=(1200, 96))
for t in range(2, 96):
    x[:, t] = np.sin(3 * x[:, t - 2]) + 0.2 * rng.normal(size=1200)
x = x[:, 32:, np.newaxis].astype("float32")
train, test = x[:1000], x[1000:]
flow = flows.wavenet([64, 1], filters=16, dilations=(1, 2, 4), seed=0)
model = FlowModel(flow)
model.compile(keras.optimizers.Adam(5e-3))
history = model.fit(train, batch_size=50, epochs=15, verbose=0)

# %% [markdown]
# Nats a step, beside an autoregression of 8 steps by least squares with normal errors, and the
# noise's own entropy, below which nothing can go.

# %%
lags = [x[:, 8 - k : 64 - k, 0] for k in range(9)]
design = [np.stack([lag[s].ravel() for lag in lags[1:]], axis=1) for s in np.s_[:1000, 1000:]]
target = [lags[0][s].ravel() for s in np.s_[:1000, 1000:]]
fit = np.linalg.lstsq(design[0], target[0], rcond=None)[0]
scale = np.std(target[0] - design[0] @ fit)
linear = 0.5 * np.mean(((target[1] - design[1] @ fit) / scale) ** 2)
linear += np.log(scale * np.sqrt(2 * np.pi))
print(f"linear autoregression {linear:.3f} nats a step")
print(f"WaveNet               {-np.mean(model.log_prob(test)) / 64:.3f}")
print(f"the noise itself      {np.log(0.2 * np.sqrt(2 * np.pi * np.e)):.3f}")

# %%
samples = model.sample(200, seed=1).numpy()
figure, (top, bottom) = plt.subplots(1, 2, figsize=(10, 3.4))
top.plot(test[0, :, 0], label="data")
top.plot(samples[0, :, 0], label="sample")
top.set(xlabel="step", ylabel="value", title="one sequence of each")
top.legend()
for shown, name in ((test, "data"), (samples, "samples")):
    bottom.plot(shown[:60, :-2].ravel(), shown[:60, 2:].ravel(), ".", ms=2, label=name)
bottom.set(xlabel="x(t - 2)", ylabel="x(t)", title="the rule")
bottom.legend(markerscale=4)
figure.tight_layout()
plt.show()
