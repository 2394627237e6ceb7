# %% [markdown]
# # Batch normalization in a RealNVP
#
# RealNVP's images train with a normalization after each coupling. In training its moments are those
# of the batch; a density uses running ones, and depends on its own row alone.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, bijectors, flows, preprocessing

images = load_digits().images.astype("uint8")[..., np.newaxis]
options = {
    "none": {"actnorm": False},
    "ActNorm": {"actnorm": True},
    "BatchNorm": {"batch_normalization": True},
}
histories = {}
for name, option in options.items():
    keras.utils.set_random_seed(0)  # The order of the rows in training.
    flow = flows.real_nvp([8, 8, 1], num_scales=1, num_blocks=1, filters=16, seed=0, **option)
    model = FlowModel(
        tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
        dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
    )
    model.compile(keras.optimizers.Adam(3e-3))
    validation = (images[1500:],)
    fitted = model.fit(
        images[:1500], batch_size=100, epochs=6, validation_data=validation, verbose=0
    )
    histories[name] = fitted.history["val_bits_per_dim"]
    print(f"{name:10} {histories[name][-1]:.3f} bits/dim on held-out digits")

# %%
figure, axis = plt.subplots(figsize=(6, 3.4))
for name, values in histories.items():
    axis.plot(np.arange(1, len(values) + 1), values, "o-", label=name)
axis.set(xlabel="epoch", ylabel="held-out bits/dim", title="after each coupling")
axis.legend()
plt.show()

# %% [markdown]
# The bijector alone: in training mode a batch comes out with mean 0 and deviation 1, and moves the
# running moments a tenth of the way. Outside of it those are used, and both directions are exact.

# %%
norm = bijectors.BatchNorm(1)
batch = tf.constant(np.random.default_rng(0).normal(5.0, 2.0, size=[256, 1]), tf.float32)
for step in range(40):
    with bijectors.training_mode():
        z = norm.inverse(tf.identity(batch))  # TFP remembers a tensor that it has met.
    if step in (0, 9, 39):
        print(
            f"{step + 1:2} steps: running mean {norm.mean[0]:.2f}, variance {norm.variance[0]:.2f}"
        )
print(f"in training mode: mean {tf.reduce_mean(z):.2f}, deviation {tf.math.reduce_std(z):.2f}")
z = tf.identity(norm.inverse(tf.identity(batch)))
error = tf.reduce_max(tf.abs(norm.forward(z) - batch))
print(f"there and back outside of it: {error:.0e}")
