# %% [markdown]
# # A density carried step by step
#
# A flow is a chain of simple maps. Here samples of the base go through a trained RealNVP one
# coupling at a time: each moves one coordinate, as a function of the other.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

x = make_moons(4000, noise=0.05, random_state=0)[0]
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
model = FlowModel(flows.real_nvp([2], num_couplings=7, hidden_units=(32, 32), seed=0))
model.compile(keras.optimizers.Adam(5e-3))
history = model.fit(x, batch_size=200, epochs=60, verbose=0)
print(f"{history.history['loss'][-1]:.3f} nats a row")

# %% [markdown]
# A chain applies its last part first, so the way from the base to the data goes through it
# backwards. Every point keeps the colour of the angle that it started at.

# %%
z = model.distribution.distribution.sample(3000, seed=1)
angle = np.arctan2(z[:, 1], z[:, 0])
stages = [z]
for step in reversed(model.distribution.bijector.bijectors):
    stages.append(step.forward(stages[-1]))
figure, axes = plt.subplots(2, 4, figsize=(10, 5.4), sharex=True, sharey=True)
for k, (axis, points) in enumerate(zip(axes.flat, stages, strict=True)):
    axis.scatter(*points.numpy().T, s=2, c=angle, cmap="twilight")
    axis.set(title=f"after coupling {k}" if k else "the base", aspect="equal")
    axis.set(xlim=(-3, 3), ylim=(-3, 3))
figure.tight_layout()
plt.show()
