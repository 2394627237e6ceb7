# %% [markdown]
# # Integers and noise
#
# A density on integers can grow without bound on them. Uniform noise turns levels into intervals,
# and the mean log-density of the noisy data becomes a lower bound of the true log-probability.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing

rng = np.random.default_rng(0)
chances = np.array([0.5, 0.1, 0.05, 0.35])
levels = rng.choice(4, p=chances, size=[4000, 1]).astype("uint8")
flow = flows.maf(
    [1],
    num_layers=2,
    hidden_units=(8,),
    elementwise="affine_rational_quadratic_spline",
    num_bins=16,
    seed=0,
)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=4.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=4, seed=0),
)
model.compile(keras.optimizers.Adam(1e-2))
model.fit(levels, batch_size=200, epochs=25, verbose=0)

# %% [markdown]
# With four levels the exact probability of each is an integral that can be computed: that of the
# density over its interval. The bound lies below, by little where the density is flat there.

# %%
points = (np.arange(4000, dtype="float32") + 0.5) / 1000
density = np.exp(model.log_prob(points[:, np.newaxis]))
exact = density.reshape(4, 1000).mean(axis=1)
bound = np.exp(np.log(density).reshape(4, 1000).mean(axis=1))
print("level      data    exact    bound")
for level in range(4):
    share = np.mean(levels == level)
    print(f"{level:5} {share:9.3f}{exact[level]:9.3f}{bound[level]:9.3f}")
figure, axis = plt.subplots(figsize=(6, 3))
axis.stairs(chances, np.arange(5), fill=True, alpha=0.3, label="probabilities of the levels")
axis.plot(points, density, color="C1", label="density of the flow")
axis.set(xlabel="level, with noise", ylabel="density", xticks=range(5))
axis.legend()
plt.show()
nats = np.sum(np.bincount(levels[:, 0]) / len(levels) * np.log([exact, bound]), axis=1)
print(f"nats a row: exact {nats[0]:.3f}, bound {nats[1]:.3f}")
