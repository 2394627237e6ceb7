# %% [markdown]
# # A density of one's own data
#
# Two moons: a RealNVP of eight couplings, trained by `fit`, and its density.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

x, _ = sklearn.datasets.make_moons(4000, noise=0.05, random_state=0)
x = ((x - x.mean(0)) / x.std(0)).astype("float32")

model = FlowModel(flows.real_nvp([2], num_couplings=8, hidden_units=(32, 32), seed=0))
model.compile(keras.optimizers.Adam(5e-3))
history = model.fit(x, batch_size=200, epochs=50, verbose=0)
print(f"{history.history['loss'][-1]:.3f} nats a row; a Gaussian has {np.log(2 * np.pi) + 1:.3f}")

# %% [markdown]
# The density on a grid, and samples of the flow beside it.

# %%
side = np.linspace(-3, 3, 120, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(8, 4))
left.pcolormesh(side, side, np.exp(model.log_prob(grid)))
left.set(title="density", aspect="equal")
right.scatter(*model.sample(2000, seed=0).numpy().T, s=2)
right.set(title="samples", aspect="equal", xlim=(-3, 3), ylim=(-3, 3))
plt.show()
