# %% [markdown]
# # A ladder of latents: the ResNet VAE
#
# Layers of latents from coarse to fine: each prior sees what the layers above have decided, each
# posterior the image besides, and an inverse autoregressive step bends it.

# %%
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, objectives, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

bits = (load_digits().images > 8).astype("int32")[..., np.newaxis]
bits = bits[np.random.default_rng(0).permutation(len(bits))]
train, test = bits[:1500], bits[1500:]
vae = flows.resnet_vae([8, 8, 1], num_scales=2, filters=16, latent_channels=3, seed=0)
print("latents, the layer next to the data first:", vae.latent_shapes)
model = FlowModel(vae, objective=objectives.ELBO())
model.compile(keras.optimizers.Adam(3e-3))
model.fit(train, batch_size=100, epochs=30, verbose=0)
bound = -model.evaluate(test, verbose=0)[0]
better = np.mean(model.estimate_log_prob(test[:100], num_samples=100).log_prob)
print(f"bound {bound:.2f} nats, by 100 importance samples {better:.2f}")

# %% [markdown]
# What the layers hold: the coarse latents of the digit at the left of a row, with the fine ones of
# the digit at the head of a column. Columns look like their heads: at this size the fine latents
# say nearly all, and the coarse ones little.

# %%
shown = test[:7].astype("float32")
fine, coarse = vae.encode(shown, seed=1)
both = [tf.repeat(fine[tf.newaxis], 7, axis=0), tf.repeat(coarse[:, tf.newaxis], 7, axis=1)]
mixed = tf.reduce_mean(tf.cast(vae.decode(both).sample(100, seed=3), tf.float32), axis=0)
head = tf.concat([tf.zeros([1, 8, 8, 1]), shown], axis=0)
grid = tf.concat([head[tf.newaxis], tf.concat([shown[:, tf.newaxis], mixed], axis=1)], axis=0)
panels = {
    "coarse by row, fine by column": tf.reshape(grid, [-1, 8, 8]),
    "samples": tf.cast(model.sample(64, seed=2), tf.float32)[..., 0],
}
plots.images(panels)
