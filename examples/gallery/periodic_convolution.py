# %% [markdown]
# # Textures by a periodic convolution
#
# An invertible convolution with a kernel of 3 x 3, not 1 x 1: the Fourier transform inverts it, and
# gives its log-det. Here one draws a texture, and another learns it from samples.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

shape = [16, 16, 1]
kernel = np.zeros([3, 3, 1, 1], "float32")  # A pixel less what its neighbours foretell.
kernel[:, :, 0, 0] = [[-0.28, -0.08, 0.08], [-0.08, 1.0, -0.08], [0.08, -0.08, -0.28]]
noise = tfp.distributions.Sample(tfp.distributions.Normal(0.0, 1.0), shape)


def textures(convolution):
    """White noise through a convolution."""
    return tfp.distributions.TransformedDistribution(noise, convolution)


truth = textures(bijectors.PeriodicConvolution(shape, kernel=kernel))
x = truth.sample(2000, seed=1)

# %% [markdown]
# A 1x1 convolution of one channel only scales: all it can learn is how strong the noise is. The
# 3x3 one gets to the kernel that made the texture, and so to its density.

# %%
samples = {"the texture": x[:16]}
for name, size in {"kernel 1 x 1": 1, "kernel 3 x 3": 3}.items():
    learned = bijectors.PeriodicConvolution(shape, kernel_size=size, seed=0)
    model = FlowModel(textures(learned))
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-2, 400)))
    model.fit(x, batch_size=100, epochs=20, verbose=0)
    print(f"{name}: {np.mean(model.log_prob(x)):8.2f} nats an image")
    samples[f"learned, {name}"] = model.sample(16, seed=2)
print(f"the truth:    {np.mean(truth.log_prob(x)):8.2f}")
print(f"kernel off by {np.abs(np.abs(learned.kernel) - np.abs(kernel)).max():.3f} at most")

# %%
matrix = np.stack(
    [
        tf.reshape(learned.inverse(row), [-1])
        for row in np.eye(256, dtype="float32").reshape(-1, *shape)
    ]
)
by_fourier = float(learned.inverse_log_det_jacobian(x[:1], event_ndims=3))
by_numpy = np.linalg.slogdet(matrix)[1]
print(f"log-det by Fourier {by_fourier:.4f}, of the 256 x 256 matrix by NumPy {by_numpy:.4f}")
plots.images(samples, columns=4, low=-4, high=4)
