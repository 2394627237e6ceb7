# %% [markdown]
# # Jet and MaCow on digits
#
# Two more ways to build a flow of images. Jet's couplings split patches and ask a transformer;
# MaCow's masked convolutions go over the image from four sides, row by row.

# %%
import keras
import numpy as np
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().images.astype("uint8")[..., np.newaxis]
recipes = {
    "Jet": flows.jet(
        [8, 8, 1], patch_size=2, num_couplings=6, num_layers=1, width=32, num_heads=2, seed=0
    ),
    "MaCow": flows.macow([8, 8, 1], num_levels=2, num_steps=1, hidden_filters=32, seed=0),
}
samples = {}
for name, flow in recipes.items():
    model = FlowModel(
        tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
        dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
    )
    model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=100.0))
    model.fit(images[:1500], batch_size=100, epochs=10, verbose=0)
    print(f"{name:6} {model.evaluate(images[1500:], verbose=0)[1]:.2f} bits/dim on held-out digits")
    samples[f"samples of {name}"] = model.sample(48, seed=1, temperature=0.8)

# %%
plots.images(samples, low=0, high=17)
