# %% [markdown]
# # TarFlow: a causal transformer over patches
#
# An image is cut into patches, and a transformer that sees the patches before gives the map of
# each. Blocks go through the patches to and fro. Four small blocks on digits.

# %%
import keras
import numpy as np
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().images.astype("uint8")[..., np.newaxis]
flow = flows.tarflow(
    [8, 8, 1], patch_size=2, num_blocks=4, num_layers=1, width=32, num_heads=2, seed=0
)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
)
model.compile(keras.optimizers.Adam(3e-3))
model.fit(images[:1500], batch_size=100, epochs=28, verbose=0)
nats, bits = model.evaluate(images[1500:], verbose=0)
print(f"{bits:.2f} bits/dim on held-out digits; uniform pixels have {np.log2(17):.2f}")

# %%
samples = model.sample(48, seed=1, temperature=0.9)
plots.images({"held-out digits": images[1500:1548], "samples": samples}, low=0, high=17)
