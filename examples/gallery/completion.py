# %% [markdown]
# # Half an image given, the other half drawn
#
# An autoregressive flow knows the distribution of the later entries given the earlier ones: draws
# of the lower half of a digit given its upper half are exact, and differ where the digit could.

# %%
import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().data.astype("uint8")
images = images[np.random.default_rng(0).permutation(len(images))]
flow = flows.maf([64], num_layers=4, hidden_units=(160,), order="same", seed=0)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
    bits_per_dim=True,
)
model.compile(keras.optimizers.AdamW(2e-3, weight_decay=0.05))
model.fit(images[:1500], batch_size=100, epochs=40, verbose=0)
print(f"{model.evaluate(images[1500:], verbose=0)[1]:.2f} bits/dim on held-out digits")

# %% [markdown]
# Left: six digits that the flow has not seen. Then their upper halves, and six draws of the rest.

# %%
shown = images[1500:1506]
given = np.arange(64) < 32
draws, effective = model.complete(shown, given, 6, seed=1)
print("independent draws, of 6:", effective.numpy())
original = shown.astype("float32")
rows = tf.concat([[original, np.where(given, original, 0)], draws], axis=0)
plots.images(tf.reshape(tf.transpose(rows, [1, 0, 2]), [-1, 8, 8]), low=0, high=17)
