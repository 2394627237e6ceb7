# %% [markdown]
# # NICE on digits
#
# Additive couplings keep volumes; one trained scale per latent at the end says how much each
# latent matters. The smallest of them tell how many directions the data really use.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, bijectors, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().data.astype("uint8")
flow = flows.nice([64], num_couplings=4, hidden_units=(100, 100), min_scale=0.01, seed=0)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
    bits_per_dim=True,
)
model.compile(keras.optimizers.Adam(4e-3, global_clipnorm=50.0))
model.fit(images[:1500], batch_size=100, epochs=60, verbose=0)
nats, bits = model.evaluate(images[1500:], verbose=0)
print(f"{-nats:.1f} nats an image, {bits:.2f} bits/dim on held-out digits")

# %%
samples = model.sample(48, seed=1, temperature=0.8)
plots.images(
    {
        "digits": images[:48].reshape(-1, 8, 8).astype("float32"),
        "samples, temperature 0.8": np.reshape(samples, [-1, 8, 8]),
    },
    low=0,
    high=17,
)

# %% [markdown]
# The scales, sorted: how far the data move when a latent moves by one. A sharp fall would mean that
# the images lie near a surface of fewer dimensions.

# %%
rescale = next(p for p in flow.bijector.bijectors if isinstance(p, bijectors.Rescale))
scales = np.sort(np.exp(rescale.log_scale.numpy()))[::-1]
figure, axis = plt.subplots(figsize=(6, 3))
axis.semilogy(np.arange(1, 65), scales, ".-")
axis.set(xlabel="latent, by rank", ylabel="scale", title="the scales that NICE learned")
plt.show()
