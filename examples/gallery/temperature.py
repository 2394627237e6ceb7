# %% [markdown]
# # Samples by temperature
#
# Latents multiplied by a temperature below 1 lie nearer to the middle of the base, and give
# more typical samples, fewer of the rare ones; above 1 it is the other way round.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

x = make_moons(4000, noise=0.1, random_state=0)[0]
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
model = FlowModel(flows.real_nvp([2], num_couplings=8, hidden_units=(32, 32), seed=0))
model.compile(keras.optimizers.Adam(5e-3))
history = model.fit(x, batch_size=200, epochs=50, verbose=0)
print(f"{history.history['loss'][-1]:.3f} nats a row")

# %% [markdown]
# In the titles: the share of samples that lie far from all data, and the share of data that no
# sample is near to.

# %%
figure, axes = plt.subplots(1, 4, figsize=(12, 3.6), sharex=True, sharey=True)
for axis, temperature in zip(axes, (0.4, 0.7, 1.0, 1.3), strict=True):
    samples = model.sample(2000, seed=1, temperature=temperature).numpy()
    apart = np.linalg.norm(samples[:, np.newaxis] - x[:1000], axis=-1)
    far, missed = np.mean(apart.min(axis=1) > 0.15), np.mean(apart.min(axis=0) > 0.15)
    axis.plot(*samples.T, ".", ms=2)
    axis.set(title=f"temperature {temperature}\n{far:.0%} far off, {missed:.0%} missed")
    axis.set(xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
figure.tight_layout()
plt.show()
