# %% [markdown]
# # Glow on digits
#
# ActNorm, a trained 1x1 convolution and an affine coupling, step after step, on two levels. The
# density is that of the images themselves, so bits/dim need no correction.

# %%
import keras
import numpy as np
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots, preprocessing

keras.utils.set_random_seed(0)  # The order of the rows in training.

images = load_digits().images.astype("uint8")[..., np.newaxis]
flow = flows.glow([8, 8, 1], num_levels=2, num_steps=4, hidden_filters=48, seed=0)
model = FlowModel(
    tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
    dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
)
model.compile(keras.optimizers.Adam(4e-3, global_clipnorm=100.0))
model.fit(images[:1500], batch_size=100, epochs=25, verbose=0)
nats, bits = model.evaluate(images[1500:], verbose=0)

# %% [markdown]
# Beside it two densities that need no training: every pixel by its own histogram, and every level
# as likely as any other.

# %%
counts = np.stack([(images[:1500] == level).sum(axis=0) + 1 for level in range(17)])
chances = counts / counts.sum(axis=0)
test = images[1500:]
independent = np.mean(-np.log2(np.take_along_axis(chances, test.astype(int), axis=0)))
print(f"Glow {bits:.2f} bits/dim; independent pixels {independent:.2f}; uniform {np.log2(17):.2f}")

# %%
plots.images(
    {"held-out digits": test[:48], "samples": model.sample(48, seed=1, temperature=0.8)},
    low=0,
    high=17,
)
