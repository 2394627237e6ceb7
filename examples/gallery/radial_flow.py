# %% [markdown]
# # Radial flows: a push from a point, or a pull towards it
#
# One radial map scales the space near its center and leaves what is far away as it is. A ring,
# whose middle is empty, is what a push makes of a normal density.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

side = np.linspace(-3, 3, 25)
lines = np.linspace(-3, 3, 200)
figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), sharex=True, sharey=True)
for axis, beta in zip(axes, (-4.0, 0.0, 4.0), strict=True):
    radial = bijectors.Radial(2, center=[0.5, 0.0], alpha=0.0, beta=beta)
    for place in side:
        for line in ([lines, 0 * lines + place], [0 * lines + place, lines]):
            axis.plot(
                *radial.forward(np.stack(line, axis=1).astype("float32")).numpy().T, "C0", lw=0.6
            )
    axis.plot(0.5, 0.0, "o", color="C1", label="center")
    axis.set(title=f"beta = {beta:g}", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
axes[0].legend(loc="upper right")
figure.suptitle("a square grid after one radial map")
figure.tight_layout()
plt.show()

# %% [markdown]
# Both directions have a formula, so a chain of radial maps is trained by maximum likelihood. The
# first flow below has one of them, the second six.

# %%
rng = np.random.default_rng(0)
angle, radius = rng.uniform(0, 2 * np.pi, 4000), 2.0 + 0.25 * rng.normal(size=4000)
x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).astype("float32")
fitted = {}
for number in (1, 6):
    steps = [bijectors.Radial(2, seed=k) for k in range(number)]
    base = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
    flow = tfp.distributions.TransformedDistribution(
        base, bijectors.Chain([bijectors.Rescale([2]), *steps])
    )
    model = FlowModel(flow)
    model.compile(keras.optimizers.Adam(2e-2))
    model.fit(x, batch_size=400, epochs=60, verbose=0)
    fitted[f"{number} radial map{'s' * (number > 1)}"] = model
    print(f"{number} radial: {model.evaluate(x, verbose=0):.3f} nats a row")
density = -np.mean(
    np.log(np.exp(-0.5 * ((radius - 2) / 0.25) ** 2) / (0.25 * (2 * np.pi) ** 1.5 * radius))
)
print(f"the ring itself: {density:.3f}")
plots.density_2d(
    {k: m.log_prob for k, m in fitted.items()}, [-3.5, -3.5], [3.5, 3.5], points=x[:300]
)
