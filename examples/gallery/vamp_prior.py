# %% [markdown]
# # A prior that learns where the latents are
#
# Of all priors the best for a VAE's bound is the mean of its posteriors over the data. A VampPrior
# is the mean of those of a few pseudo-inputs, which are trained with the rest.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows
from tfp_flows.distributions import VAE, VampPrior

digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.data))
bits, labels = (digits.data[order] > 8).astype("int32"), digits.target[order]
train, test = bits[:1500], bits[1500:]
dense = keras.layers.Dense


def vae(vamp):
    """An autoencoder with two latents and a normal or a learned prior."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([dense(64, activation="relu"), dense(12)])
    decoder = keras.Sequential([dense(64, activation="relu"), dense(64)])
    posterior = flows.gaussian([2], context_size=12, seed=0)
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros([2]))
    if vamp:
        prior = VampPrior(posterior, encoder, train[:40])
    return VAE(prior, encoder, decoder, posterior)


# %% [markdown]
# Shaded: the prior's density, low values brought out. Dots: where the posteriors of held-out digits
# are, one colour a digit. A normal prior pulls them to the middle; the learned one goes where they
# are, and they spread.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 4.8))
for axis, name in zip(axes, ("normal prior", "VampPrior of 40"), strict=True):
    model = FlowModel(vae("Vamp" in name))
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(train, batch_size=100, epochs=80, verbose=0)
    better = np.mean(model.estimate_log_prob(test, num_samples=64).log_prob)
    bound = -model.evaluate(test, verbose=0)
    print(f"{name:16} bound {bound:.2f} nats, by 64 importance samples {better:.2f}")
    z = model.distribution.encode(test.astype("float32")).sample(seed=1).numpy()
    (left, low), (right, high) = z.min(axis=0) - 1.0, z.max(axis=0) + 1.0
    sides = np.linspace(left, right, 150), np.linspace(low, high, 150)
    grid = np.stack(np.meshgrid(*sides), axis=-1).astype("float32")
    log_density = model.distribution.prior.log_prob(grid).numpy()
    axis.pcolormesh(*sides, np.exp(0.4 * (log_density - log_density.max())), cmap="Greys")
    dots = axis.scatter(*z.T, c=labels[1500:], cmap="tab10", s=9, vmin=-0.5, vmax=9.5)
    axis.set(title=name, xlabel="latent 1", ylabel="latent 2")
figure.colorbar(dots, ax=axes, label="digit", ticks=range(10))
plt.show()
