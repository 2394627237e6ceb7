# %% [markdown]
# # Walks in latent space
#
# Images have latents, and latents images: on the way from one digit to another lie digits. And a
# direction in that space has a meaning: the way from the mean of one class to the mean of another.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

digits = load_digits()
images, labels = digits.images.astype("uint8")[..., np.newaxis], digits.target
flow = flows.glow([8, 8, 1], num_levels=2, num_steps=3, hidden_filters=48, seed=0)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
)
model.compile(keras.optimizers.Adam(2e-3))
history = model.fit(images, batch_size=100, epochs=15, verbose=0)

# %% [markdown]
# Each row goes from a digit to another one, on a sphere of latents.

# %%
start, end = images[[0, 1, 2, 3, 4]], images[[8, 7, 12, 5, 9]]
ways = model.interpolate(start, end, 8)
plots.images(tf.reshape(tf.transpose(ways, [1, 0, 2, 3, 4]), [-1, 8, 8]), low=0, high=17)

# %% [markdown]
# An attribute: mean latent of the ones less mean latent of the sevens, added to sevens in rising
# doses. From left to right the bar at the top goes away.

# %%
z = model.inverse(images)
direction = tf.reduce_mean(z[labels == 1], axis=0) - tf.reduce_mean(z[labels == 7], axis=0)
sevens = z[labels == 7][:5]
doses = [model.forward(sevens + dose * direction) for dose in np.linspace(0, 1.4, 8, dtype="f4")]
plots.images(tf.reshape(tf.stack(doses, axis=1), [-1, 8, 8]), low=0, high=17)

# %%
unseen = model.inverse(model.forward(z[:100]))
print(f"latents to images and back: {tf.reduce_max(tf.abs(unseen - z[:100])):.0e}")
