# %% [markdown]
# # What a flow gives a VAE's posterior
#
# The usual posterior of a variational autoencoder is a Gaussian with independent entries. True
# posteriors bend; one more flow, conditioned on the image, bends with them.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows
from tfp_flows.distributions import VAE

bits = (load_digits().data > 8).astype("int32")
bits = bits[np.random.default_rng(0).permutation(len(bits))]
train, test = bits[:1500], bits[1500:]
dense = keras.layers.Dense


def vae(flow):
    """An autoencoder with two latents, whose posterior is a Gaussian or a flow upon one."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential([dense(64, activation="relu"), dense(12)])
    decoder = keras.Sequential([dense(64, activation="relu"), dense(64)])
    posterior = flows.gaussian([2], context_size=12, seed=0)
    if flow:
        posterior = flows.iaf(
            [2], num_layers=3, hidden_units=(16,), base=posterior, context_size=12, seed=0
        )
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros([2]))
    return VAE(prior, encoder, decoder, posterior)


models = {"Gaussian": FlowModel(vae(False)), "flow": FlowModel(vae(True))}
for name, model in models.items():
    model.compile(keras.optimizers.Adam(3e-3))
    model.fit(train, batch_size=100, epochs=80, verbose=0)
    bound = -model.evaluate(test, verbose=0)
    better = np.mean(model.estimate_log_prob(test, num_samples=64).log_prob)
    print(f"{name:9} bound {bound:.2f} nats, by 64 importance samples {better:.2f}")

# %% [markdown]
# Posteriors of five held-out digits, one colour each, among the prior's circle of two deviations.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4.4), sharex=True, sharey=True)
for axis, (name, model) in zip(axes, models.items(), strict=True):
    draws = model.distribution.encode(test[:5].astype("float32")).sample(300, seed=1)
    for k in range(5):
        axis.plot(*draws[:, k].numpy().T, ".", ms=2)
    axis.add_patch(plt.Circle((0, 0), 2, fill=False, color="C7"))
    axis.set(title=f"posterior: {name}", aspect="equal", xlabel="latent 1", ylabel="latent 2")
plt.show()
