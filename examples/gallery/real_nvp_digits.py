# %% [markdown]
# # RealNVP on images, scale by scale
#
# Checkerboard couplings, a squeeze, channel couplings; then half of the latents is set aside, and
# the rest goes on at the coarser scale.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().images.astype("uint8")[..., np.newaxis]
flow = flows.real_nvp([8, 8, 1], num_scales=2, num_blocks=1, filters=24, seed=0)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
)
model.compile(keras.optimizers.Adam(3e-3))
model.fit(images[:1500], batch_size=100, epochs=12, verbose=0)
nats, bits = model.evaluate(images[1500:], verbose=0)
print(f"{bits:.2f} bits/dim on held-out digits; uniform pixels have {np.log2(17):.2f}")

# %% [markdown]
# Held-out digits whose latents are multiplied by less and less: the way to the most typical image
# that each of them is near to.

# %%
z = model.inverse(images[1500:1508])
rows = [model.forward(strength * z) for strength in (1.0, 0.8, 0.6, 0.4, 0.2, 0.0)]
plots.images(tf.concat(rows, axis=0), low=0, high=17)

# %%
plots.images(model.sample(40, seed=1, temperature=0.8), low=0, high=17)
