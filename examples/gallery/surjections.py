# %% [markdown]
# # Signs and orders that data do not have
#
# Positive numbers have an edge that a smooth flow blurs; sorted ones a corner that it overshoots.
# Surjections forget: a latent's signs, or its order. Where all ways are alike, they are exact.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import FlowModel, bijectors, flows
from tfp_flows.distributions import Surjected

rng = np.random.default_rng(0)
strength = rng.normal(size=[4000, 2])  # Two magnitudes, which go together.
positive = np.abs(strength @ [[1.0, 0.6], [0.0, 0.5]]).astype("float32")
ordered = np.sort(rng.gamma(2.0, size=[4000, 2]), axis=1).astype("float32")
data = {
    "AbsoluteValue": (positive, 1.0, lambda x: tf.reduce_all(x >= 0.0, axis=1)),
    "Sort": (ordered, 0.3, lambda x: x[:, 0] <= x[:, 1]),
}

# %% [markdown]
# The same flow twice: of the data as they are, and of a latent behind the transform. Outside the
# region where the data lie the second has no density at all.

# %%
side = np.linspace(-0.8, 4.0, 200, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
figure, axes = plt.subplots(2, 3, figsize=(10, 6.6), sharex=True, sharey=True)
for row, (name, (x, most, allowed)) in zip(axes, data.items(), strict=True):
    row[0].plot(*x.T, ".", ms=1.5)
    row[0].set(title="data: two magnitudes" if name == "AbsoluteValue" else "data: a sorted pair")
    for axis, title in zip(row[1:], ("a flow", f"the flow behind {name}"), strict=True):
        keras.utils.set_random_seed(0)  # The order of the rows in training.
        distribution = flows.real_nvp([2], num_couplings=6, hidden_units=(32, 32), seed=0)
        if "behind" in title:
            distribution = Surjected(distribution, getattr(bijectors, name)())
        model = FlowModel(distribution)
        model.compile(keras.optimizers.Adam(3e-3))
        model.fit(x, batch_size=200, epochs=30, verbose=0)
        nats = model.estimate_log_prob(x[:1000], num_samples=50).log_prob
        wrong = 1 - np.mean(allowed(model.sample(4000, seed=1)))
        print(f"{title:30} {np.mean(nats):.3f} nats a row, {wrong:.1%} of the samples impossible")
        found = model.estimate_log_prob(grid, num_samples=8, batch_size=10_000).log_prob
        axis.pcolormesh(side, side, np.exp(found).reshape(200, 200), cmap="viridis", vmax=most)
        axis.set(title=title, aspect="equal", xlim=(-0.8, 4), ylim=(-0.8, 4))
figure.tight_layout()
plt.show()
