# %% [markdown]
# # Integers and noise
#
# A density on integers can grow without bound on them. Noise turns levels into intervals, and the
# mean log-density of the noisy data becomes a lower bound of the true log-probability.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)
levels = rng.choice(4, p=[0.5, 0.1, 0.05, 0.35], size=[4000, 1]).astype("uint8")


def spline_flow(num_bins, **kwargs):
    """A flow of one entry."""
    spline = {"elementwise": "affine_rational_quadratic_spline", "num_bins": num_bins}
    return flows.maf([1], num_layers=2, hidden_units=(16,), **spline, **kwargs)


# %% [markdown]
# Uniform noise wants a density that is flat over every interval, which a flow of few bins is not.
# Noise that a second flow draws, given the level, goes where the density is.

# %%
learned = spline_flow(8, context_size=1, base="logistic", seed=1)
noises = {
    "uniform": preprocessing.UniformDequantization(num_levels=4, seed=0),
    "variational": preprocessing.VariationalDequantization(learned, num_levels=4),
}
share = np.bincount(levels[:, 0]) / len(levels)
points = (np.arange(4000, dtype="float32") + 0.5) / 1000
figure, axes = plt.subplots(1, 2, figsize=(10, 3.2), sharex=True, sharey=True)
for axis, (name, noise) in zip(axes, noises.items(), strict=True):
    density = tfp.distributions.TransformedDistribution(
        spline_flow(4, seed=0), preprocessing.Logit(scale=4.0)
    )
    model = FlowModel(density, dequantization=noise)
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(levels, batch_size=200, epochs=20, verbose=0)
    heights = np.exp(density.log_prob(points[:, np.newaxis]))
    exact = heights.reshape(4, 1000).mean(axis=1)  # The integral over each interval.
    gap = share @ np.log(exact) + model.evaluate(np.tile(levels, [10, 1]), verbose=0)
    print(f"{name:12} exact {share @ np.log(exact):.3f} nats a row, the bound is {gap:.3f} below")
    axis.stairs(share, np.arange(5), fill=True, alpha=0.3, label="shares of the levels")
    axis.plot(points, heights, color="C1", label="density of the flow")
    axis.set(xlabel="level, with noise", title=f"{name} noise", xticks=range(5))
axes[0].set(ylabel="density")
axes[0].legend()
plt.show()
print(f"the data's own entropy: {share @ np.log(share):.3f}")

# %% [markdown]
# ## Categories
#
# Noise between neighbouring levels gives them an order. Kinds of weather have none: each is the
# place of the largest of three numbers, whose density is the flow's. Here of pairs of days.

# %%
days = rng.choice(3, p=[0.6, 0.3, 0.1], size=[4000, 2])
stays = rng.random(4000) < 0.7
days[stays, 1] = days[stays, 0]


def numbers(**kwargs):
    """A flow of three numbers for each of two days."""
    flow = flows.maf([6], num_layers=2, hidden_units=(16,), **kwargs)
    return tfp.distributions.TransformedDistribution(flow, tfp.bijectors.Reshape([2, 3]))


noise = numbers(context_size=6, base="logistic", seed=1)
model = FlowModel(numbers(seed=0), dequantization=preprocessing.Argmax(noise))
model.compile(keras.optimizers.Adam(1e-2))
model.fit(days, batch_size=200, epochs=25, verbose=0)

every = np.argwhere(np.ones([3, 3]))
found = np.exp(model.estimate_log_prob(every, num_samples=1000).log_prob).reshape(3, 3)
print("probabilities of the pairs, which sum up to", found.sum().round(3), "\n", found.round(3))
print("shares in the data\n", (np.histogram2d(*days.T, bins=3)[0] / len(days)).round(3))
