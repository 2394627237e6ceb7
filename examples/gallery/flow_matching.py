# %% [markdown]
# # Flow matching: a field of velocities
#
# A continuous flow carries noise to data along a field that a network gives. Flow matching trains
# it as a regression on straight ways, and no step solves an equation.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows, objectives

x = make_moons(4000, noise=0.05, random_state=0)[0]
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
model = FlowModel(
    flows.continuous([2], hidden_units=(96, 96), seed=0), objective=objectives.FlowMatching()
)
model.compile(keras.optimizers.Adam(3e-3))
model.fit(x, batch_size=200, epochs=150, verbose=0)
loss, nats = model.evaluate(x[:1000], verbose=0)
print(f"squared error {loss:.2f}, by the equation {nats:.3f} nats a row; a Gaussian has 2.838")

# %% [markdown]
# The ways of 60 points from the base, found by small steps along the field, and how much longer
# than straight ones they are: of straight ones a single step would do.

# %%
velocity = model.distribution.bijector.velocity
points = model.distribution.distribution.sample(60, seed=1)
ways = [points]
for time in np.arange(0.0, 1.0, 0.02, dtype="float32"):
    ways.append(ways[-1] + 0.02 * velocity(tf.fill([60], time), ways[-1]))
ways = np.stack(ways)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), sharex=True, sharey=True)
left.plot(ways[..., 0], ways[..., 1], color="C0", lw=0.6)
left.plot(*ways[0].T, ".", color="C7", label="noise")
left.plot(*ways[-1].T, ".", color="C1", label="data")
left.set(title="60 ways", aspect="equal")
left.legend()
right.plot(*model.sample(2000, seed=2).numpy().T, ".", ms=2)
right.set(title="samples", aspect="equal")
plt.show()
length = np.linalg.norm(np.diff(ways, axis=0), axis=-1).sum(axis=0)
straight = np.linalg.norm(ways[-1] - ways[0], axis=-1)
print(f"the ways are {length.sum() / straight.sum():.2f} times as long as straight ones")
