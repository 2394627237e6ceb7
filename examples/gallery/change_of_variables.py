# %% [markdown]
# # The change of variables, by hand
#
# The worked numbers of a first lecture on flows: a stretched uniform, and a sheared square.
# A map that stretches space by a factor thins the density by the same factor.

# %% [markdown]
# Z is uniform on [0, 2], so its density is 1/2 there. X = 4 Z is uniform on [0, 8]:
# p_X(4) = p_Z(1) / 4 = 1/8. The log-det is log 4, whatever the point.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors

tfb, tfd = tfp.bijectors, tfp.distributions

four = bijectors.Rescale([1], log_scale=[np.log(4.0)])
z = tfd.Sample(tfd.Uniform(0.0, 2.0), 1)
x = tfd.TransformedDistribution(z, four)
print(f"p_Z(1) = {z.prob([1.0]):.4f},  p_X(4) = {x.prob([4.0]):.4f}")
print(f"log|det| = {four.forward_log_det_jacobian(tf.ones([1]), 1):.4f} = log 4")

# %%
line = np.linspace(-1.0, 9.0, 1000, dtype="float32")
figure, axis = plt.subplots(figsize=(6, 2.8))
for name, density in {"Z": z, "X = 4 Z": x}.items():
    values = density.prob(line[:, np.newaxis])
    (drawn,) = axis.plot(line, values, label=f"density of {name}")
    axis.fill_between(line, values, alpha=0.3, color=drawn.get_color())
axis.set(xlabel="value", ylabel="density", title="both areas are 1")
axis.legend()
plt.show()

# %% [markdown]
# In two dimensions: Z is uniform on the unit square, X = A Z on a parallelogram, whose area is
# |det A|. Points spread over 2.5 times the area, so the density is 1/2.5.

# %%
a = tf.linalg.LinearOperatorFullMatrix([[2.0, 1.0], [0.5, 1.5]])
square = tfd.Independent(tfd.Uniform([0.0, 0.0], [1.0, 1.0]), 1)
sheared = tfd.TransformedDistribution(square, tfb.ScaleMatvecLinearOperator(a))
points = square.sample(3000, seed=0)
inside = sheared.bijector.forward(points)
corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], "float32")
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharex=True, sharey=True)
for axis, shown, outline, title in (
    (axes[0], points, corners, "Z: area 1, density 1"),
    (axes[1], inside, corners @ a.to_dense().numpy().T, "X = A Z: area 2.5, density 0.4"),
):
    axis.plot(*shown.numpy().T, ".", ms=2)
    axis.plot(*outline.T, color="C1")
    axis.set(title=title, xlabel="first entry", ylabel="second entry", aspect="equal")
plt.show()
print(f"|det A| = {a.determinant():.2f},  p_X = {sheared.prob(inside[0]):.2f} inside")
