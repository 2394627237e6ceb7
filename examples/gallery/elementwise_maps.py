# %% [markdown]
# # The maps of an entry
#
# Couplings and autoregressive flows move each entry by a monotone map whose parameters a network
# gives. Every map of the package, drawn for three random draws of its parameters.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import elementwise

names = [
    "shift",
    "affine",
    "linear_spline",
    "quadratic_spline",
    "rational_quadratic_spline",
    "affine_rational_quadratic_spline",
    "circular_rational_quadratic_spline",
    "bernstein",
    "logistic_mixture_cdf",
    "monotone_network",
]
line = np.linspace(-3.1, 3.1, 200, dtype="float32")
maps = {name: elementwise.get(name) for name in names}
rng = np.random.default_rng(0)
parameters = {
    name: rng.normal(size=[3, 1, one.num_parameters]).astype("float32")
    for name, one in maps.items()
}

# %% [markdown]
# Lines are the maps, dashes their derivatives: all positive, so that each map has an inverse.
# Splines bend within a box and are the identity outside; a circular one is a map of angles.

# %%
figure, axes = plt.subplots(2, 5, figsize=(15, 6), sharex=True)
for axis, (name, one) in zip(axes.flat, maps.items(), strict=True):
    for k in range(3):
        y, log_slope = one.forward(line[:, np.newaxis], parameters[name][k])
        y = np.where(np.abs(np.gradient(y[:, 0])) < 1.5, y[:, 0], np.nan)  # Angles jump by a turn.
        axis.plot(line, y, color=f"C{k}")
        axis.plot(line, tf.exp(log_slope), "--", color=f"C{k}", lw=0.8)
    title = name.replace("_rational", "\nrational")
    axis.set(title=f"{title}\n{one.num_parameters} parameters", ylim=(-4, 4))
    axis.title.set_fontsize(9)
figure.supxlabel("x")
figure.supylabel("y (line) and dy/dx (dashes)")
figure.tight_layout()
plt.show()

# %%
for name, one in maps.items():
    y, _ = one.forward(line[:, np.newaxis], parameters[name][0])
    back, _ = one.inverse(tf.identity(y), parameters[name][0])
    print(f"{name:36} there and back to {np.abs(back[:, 0] - line).max():.0e}")
