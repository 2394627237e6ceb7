# %% [markdown]
# # The posterior of a simulator
#
# Two parameters, a simulator that throws a point onto a crescent, and a flow that learns the
# parameters given the point from simulations alone. Are its posteriors as wide as they claim?

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from tfp_flows import FlowModel, flows, metrics, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)


def simulate(theta):
    """Two moons: a point on a crescent whose place depends on the parameters."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, len(theta))
    radius = rng.normal(0.1, 0.01, len(theta))
    away = np.stack([-np.abs(theta.sum(1)), theta[:, 1] - theta[:, 0]], axis=1) / np.sqrt(2)
    moon = np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)
    return (moon + away).astype("float32")


theta = rng.uniform(-1, 1, size=(6000, 2)).astype("float32")
flow = flows.maf(
    [2],
    num_layers=4,
    hidden_units=(48, 48),
    elementwise="affine_rational_quadratic_spline",
    context_size=2,
    support=(-1.0, 1.0),  # The box of the prior: no sample leaves it.
    seed=0,
)
model = FlowModel(flow)
model.compile(keras.optimizers.Adam(3e-3, clipnorm=5.0))
history = model.fit(theta, simulate(theta), batch_size=150, epochs=25, verbose=0)
print(f"{history.history['loss'][-1]:.2f} nats; the prior has {np.log(4):.2f}")

# %% [markdown]
# Given the point (0, 0) the parameters lie on two crescents.

# %%
draws = model.sample(3000, context=np.zeros([1, 2], "float32"), seed=1).numpy()
figure, axis = plt.subplots(figsize=(4.4, 4.2))
axis.plot(*draws.T, ".", ms=2)
axis.set(xlim=(-0.6, 0.6), ylim=(-0.6, 0.6), aspect="equal")
axis.set(xlabel="parameter 1", ylabel="parameter 2", title="posterior given (0, 0)")
plt.show()

# %% [markdown]
# For 300 parameters from the prior, and a posterior of each: their ranks among the draws should be
# uniform, and an interval of 80% should hold the truth in four of five cases.

# %%
truths = rng.uniform(-1, 1, size=(300, 2)).astype("float32")
draws = model.sample([99, 300], context=simulate(truths), seed=2)
ranks = metrics.sbc_ranks(draws, truths)
covered = metrics.coverage(draws, truths, levels=(0.2, 0.4, 0.6, 0.8, 0.9))
print(f"ranks uniform: p = {np.min(ranks.p_value):.2f}; 80% intervals hold {covered.observed[3]}")
plots.calibration(ranks, covered)
