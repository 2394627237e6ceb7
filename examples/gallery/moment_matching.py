# %% [markdown]
# # A generator trained by comparing samples
#
# No density, no inverse: noise goes through an ordinary network, and the maximum mean discrepancy
# between its samples and the data is made small.

# %%
import keras
import matplotlib.pyplot as plt
import tensorflow_probability as tfp
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, distributions, metrics, objectives

tfd = tfp.distributions
data, test = (make_moons(3000, noise=0.05, random_state=n)[0].astype("float32") for n in (0, 1))
keras.utils.set_random_seed(0)
dense = keras.layers.Dense
network = keras.Sequential([*[dense(64, activation="relu") for _ in range(3)], dense(2)])
sampler = distributions.Sampler(network, tfd.Sample(tfd.Uniform(-1.0, 1.0), 2))
model = FlowModel(sampler, objective=objectives.MMD())
model.compile(keras.optimizers.Adam(4e-3))

# %% [markdown]
# The samples after more and more epochs, and their discrepancy from data that were held out.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 2.8), sharex=True, sharey=True)
axes[0].plot(*test[:1500].T, ".", ms=2)
axes[0].set(title="held-out data")
done = 0
for axis, epochs in zip(axes[1:], (2, 15, 100), strict=True):
    model.fit(data, batch_size=300, epochs=epochs, initial_epoch=done, verbose=0)
    done = epochs
    samples = model.sample(1500, seed=0).numpy()
    mmd = metrics.mmd(samples, test[:1500], scales=(0.1, 0.3, 1.0))
    axis.plot(*samples.T, ".", ms=2, color="C1")
    axis.set(title=f"{epochs} epochs: MMD$^2$ {mmd.value:.4f}")
figure.tight_layout()
plt.show()
