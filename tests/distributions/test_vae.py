"""Variational autoencoders against closed forms: linear Gaussian ones, and bits of one latent."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

from tfp_flows import conditioners, distributions, flows
from tfp_flows.distributions import VAE, AutoregressiveDistribution, VampPrior, get_output

tfd = tfp.distributions
RNG = np.random.default_rng(0)

# Probabilistic principal components: x = W z + b + s e. The columns of W are orthogonal, so that
# the posterior of z is diagonal.
W = np.linalg.qr(RNG.normal(size=(3, 2)))[0] * [1.5, 0.7]
B, S = np.array([0.3, -1.0, 0.5]), 0.6
PRECISION = np.eye(2) + W.T @ W / S**2
X = (RNG.normal(size=(4, 2)) @ W.T + B + S * RNG.normal(size=(4, 3))) * 1.5
LOG_P = stats.multivariate_normal(B, W @ W.T + S**2 * np.eye(3)).logpdf(X)
MEAN, VARIANCE = (X - B) @ W / S**2 @ np.linalg.inv(PRECISION), 1 / np.diag(PRECISION)


def dense(kernel, bias, dtype="float64"):
    """A linear layer with these weights."""
    layer = keras.layers.Dense(len(bias), dtype=dtype)
    layer.build([None, len(kernel)])
    layer.set_weights([np.asarray(kernel), np.asarray(bias)])
    return layer


def normal(size, dtype=tf.float64):
    return tfd.Independent(tfd.Normal(tf.zeros(size, dtype), tf.ones([], dtype)), 1)


def decoder():
    """Means W z + b; raw log-scales of which `NormalOutput` makes log S."""
    raw = 3 * np.arctanh(np.log(S) / 3)
    return dense(np.hstack([W.T, np.zeros([2, 3])]), [*B, raw, raw, raw])


def encoder(shift=0.0, log_scale=0.0):
    """The exact posterior's means and raw log-scales, or others."""
    gain = W / S**2 @ np.linalg.inv(PRECISION)
    raw = 7 * np.arctanh((0.5 * np.log(VARIANCE) + log_scale) / 7)
    return dense(np.hstack([gain, np.zeros([3, 2])]), [*(shift - B @ gain), *raw])


def linear(*args, **kwargs):
    return VAE(normal(2), encoder(*args), decoder(), output="normal", **kwargs)


def divergence(shift, log_scale):
    """KL(q || p(z | x)) of normal distributions."""
    scale = np.exp(2 * log_scale)
    return 0.5 * np.sum(scale - 1 - 2 * log_scale + shift**2 / VARIANCE)


def test_the_bound_is_tight_for_the_exact_posterior():
    vae = linear()
    for seed in ([0, 1], [2, 3]):
        np.testing.assert_allclose(vae.log_prob(X, seed=seed), LOG_P, rtol=1e-10)
    assert vae.likelihood == "bound"
    encoded = vae.encode(X)
    np.testing.assert_allclose(
        encoded.log_prob(MEAN), -0.5 * np.log(VARIANCE).sum() - np.log(2 * np.pi)
    )


def test_the_bound_lies_below_by_the_divergence_and_estimates_rise_to_it():
    shift, log_scale, n = np.array([0.2, -0.1]), 0.3, 4000
    vae = linear(shift, log_scale)
    draws = vae.log_prob(np.tile(X, [n, 1, 1]), seed=[0, 1]).numpy()
    error = draws.std(axis=0) / n**0.5
    gap = LOG_P - draws.mean(axis=0)
    assert (np.abs(gap - divergence(shift, log_scale)) < 4 * error).all() and (error < 0.02).all()
    weights = np.exp(draws - LOG_P)
    assert (np.abs(weights.mean(axis=0) - 1) < 4 * weights.std(axis=0) / n**0.5).all()
    # The logs of means of K weights: to first order they lie var / 2 K below, ever less.
    for k in (20, 200):
        estimate = vae.copy(num_samples=k)
        assert estimate.likelihood == "estimate" and estimate.num_samples == k
        gaps = (LOG_P - estimate.log_prob(np.tile(X, [100, 1, 1]), seed=[0, 2])).numpy()
        wanted = weights.var() / (2 * k)
        assert abs(gaps.mean() - wanted) < 4 * gaps.std() / gaps.size**0.5 + 0.2 * wanted
    assert wanted < 0.003 < 0.03 < divergence(shift, log_scale)


@pytest.mark.parametrize("kind", ["iaf", "planar", "sylvester", "spline"])
def test_weights_of_every_posterior_have_the_mean_one(kind):
    """E over z from q of p(x, z) / q(z | x) = p(x), if q is the density of its draws."""
    base = flows.gaussian([2], context_size=4, seed=0, dtype=tf.float64)
    common = {"context_size": 4, "seed": 1, "dtype": tf.float64, "num_layers": 2, "base": base}
    posterior = {
        "iaf": lambda: flows.iaf([2], hidden_units=(8,), **common),
        "planar": lambda: flows.planar([2], **common),
        "sylvester": lambda: flows.sylvester([2], **common),
        "spline": lambda: flows.iaf(
            [2], hidden_units=(8,), elementwise="rational_quadratic_spline", num_bins=3, **common
        ),
    }[kind]()
    for v in posterior.trainable_variables:
        v.assign_add(tf.random.stateless_normal(v.shape, [5, 6], dtype=v.dtype) * 0.05)
    # The exact posterior, up to what the layers after the base do to it.
    network = base.bijector.submodules[0].layer
    network.set_weights([np.eye(4)] + [np.zeros(4)])
    wide = encoder(log_scale=0.3)  # Weights of narrow ones have no variance.
    vae = VAE(normal(2), wide, decoder(), posterior, output="normal")
    draws = vae.log_prob(np.tile(X[:2], [3000, 1, 1]), seed=[0, 1]).numpy()
    weights = np.exp(draws - LOG_P[:2])
    error = weights.std(axis=0) / 3000**0.5
    assert (np.abs(weights.mean(axis=0) - 1) < 4 * error).all() and (error < 0.05).all()
    assert (draws.mean(axis=0) < LOG_P[:2]).all() and weights.std() > 0.01
    assert len(vae.trainable_variables) == len(posterior.trainable_variables) + 4


def test_gradients_are_those_of_the_mean():
    """Of the closed form log p - KL, by differences."""
    shift, log_scale, step, n = np.array([0.2, -0.1]), 0.3, 1e-5, 20000
    vae = linear(shift, log_scale)
    bias = vae.encoder.variables[1].value
    x = np.tile(X[:1], [n, 1])
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(vae.log_prob(x, seed=[0, 1]))
    found = tape.gradient(mean, bias).numpy()
    wanted = [
        -(divergence(shift + step * unit, log_scale) - divergence(shift - step * unit, log_scale))
        / (2 * step)
        for unit in np.eye(2)
    ]
    # d/dshift of the weight, given u, is -(shift + noise) / VARIANCE: its deviation is known.
    error = np.exp(log_scale) / np.sqrt(VARIANCE) / n**0.5
    assert (np.abs(found[:2] - wanted) < 4 * error).all() and (np.abs(wanted) > 20 * error).any()


def test_bits_of_one_latent_by_quadrature():
    """All 8 states of 3 bits: their probabilities, by Gauss and Hermite, and what bounds them."""
    slopes, biases = np.array([[1.5, -1.0, 0.5]]), np.array([0.2, 0.0, -0.3])
    everything = np.array(list(itertools.product([0, 1], repeat=3)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    logits = nodes[:, None, None] * slopes + biases
    p = np.exp(-np.logaddexp(0, -(2 * everything - 1) * logits).sum(axis=-1))
    exact = weights @ p / weights.sum()
    np.testing.assert_allclose(exact.sum(), 1.0)
    rough = dense(np.hstack([0.8 * slopes.T, np.zeros([3, 1])]), [-0.4, -0.2])
    vae = VAE(normal(1), rough, dense(slopes, biases))
    assert vae.dtype == tf.int32 and vae.event_shape == [3] and vae.num_levels == 2
    draws = vae.log_prob(np.tile(everything, [4000, 1, 1]), seed=[0, 1]).numpy()
    weights = np.exp(draws)
    error = weights.std(axis=0) / 4000**0.5
    assert (np.abs(weights.mean(axis=0) - exact) < 4 * error).all()
    assert (draws.mean(axis=0) < np.log(exact)).all()
    counts = np.bincount(vae.sample(20000, seed=[1, 2]).numpy() @ [4, 2, 1], minlength=8) / 20000
    assert (np.abs(counts - exact) < 5 * np.sqrt(exact / 20000)).all()


def test_decoders_that_give_a_context():
    """An autoregressive network and a flow have the latent as their context: PixelVAE, f-VAE."""
    output = get_output("categorical", num_levels=3)
    made = conditioners.MADE(
        4, output.num_parameters, hidden_units=(8,), context_size=2, zero_output=False, seed=0
    )
    pixel = AutoregressiveDistribution(made, [4], output=output)
    f = flows.real_nvp([3], num_couplings=2, hidden_units=(8,), context_size=5, seed=0)
    prior = normal(2, tf.float32)
    for vae in (
        VAE(prior, keras.layers.Dense(4), keras.layers.Identity(), output=pixel),
        VAE(prior, keras.layers.Dense(4), keras.layers.Dense(5), output=f),
    ):
        x = vae.sample(3, seed=[0, 1])
        noise = vae.draw_noise([3], [1, 2])
        output, prior_term, posterior = vae.terms(x, noise=noise)
        z, log_q = vae.encode(x).experimental_sample_and_log_prob(seed=[0, 0])
        assert z.shape == (3, 2) and log_q.shape == (3,)
        # The terms by hand: z from the noise.
        mean, raw = tf.split(vae.encode(x).context, 2, axis=-1)
        z = mean + noise[0] * tf.exp(7 * tf.tanh(raw / 7))
        np.testing.assert_allclose(output, vae.decode(z).log_prob(x), rtol=1e-4)
        np.testing.assert_allclose(prior_term, prior.log_prob(z), rtol=1e-4)
        np.testing.assert_allclose(posterior, vae.encode(x).log_prob(z), rtol=1e-4)
        np.testing.assert_allclose(
            vae.log_prob(x, noise=noise), output + prior_term - posterior, rtol=1e-4
        )
        assert x.dtype == vae.dtype and vae.log_prob(x[None], seed=3).shape == (1, 3)


def test_a_prior_and_an_output_that_are_bounds_themselves():
    """A VAE over the latents of another: two layers of latents, and still E w = p."""
    top = linear(0.1, 0.2)  # Its events are three real numbers: they are the latents of the next.
    raw = 3 * np.arctanh(np.log(0.5) / 3)
    below = dense(np.hstack([np.eye(3), np.zeros([3, 3])]), [0.0] * 3 + [raw] * 3)
    spread = W @ W.T + (S**2 + 0.25) * np.eye(3)
    x = X[:2]
    log_p = stats.multivariate_normal(B, spread).logpdf(x)
    gain, rest = np.eye(3) - 0.25 * np.linalg.inv(spread), 0.25 * np.eye(3)
    raw = 7 * np.arctanh(0.5 * np.log(1.2 * np.diag(rest @ gain)) / 7)
    up = dense(np.hstack([gain, np.zeros([3, 3])]), [*(B - gain @ B), *raw])
    vae = VAE(top, up, below, output="normal")
    draws = vae.log_prob(np.tile(x, [4000, 1, 1]), seed=[0, 1]).numpy()
    weights = np.exp(draws - log_p)
    error = weights.std(axis=0) / 4000**0.5
    assert (np.abs(weights.mean(axis=0) - 1) < 4 * error).all() and (error < 0.05).all()
    assert (draws.mean(axis=0) < log_p).all()


def test_vamp_prior_is_the_mean_of_posteriors():
    posterior = flows.gaussian([2], context_size=4, seed=0, dtype=tf.float64)
    posterior.bijector.submodules[0].layer.set_weights([np.eye(4), np.zeros(4)])
    prior = VampPrior(posterior, encoder(), X)
    components = tfd.MultivariateNormalDiag(MEAN, np.sqrt(VARIANCE)[None] * np.ones([4, 1]))
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=tf.zeros([4], tf.float64)), components)
    z = RNG.normal(size=(5, 2))
    np.testing.assert_allclose(prior.log_prob(z), mixture.log_prob(z), rtol=1e-10)
    draws = prior.sample(4000, seed=[0, 1]).numpy()
    assert (np.abs(draws.mean(axis=0) - mixture.mean()) < 0.1).all()
    np.testing.assert_allclose(np.cov(draws.T), mixture.covariance(), atol=0.15)
    vae = VAE(prior, prior._encoder.layer, decoder(), posterior, output="normal")
    # Encoder, posterior, decoder, pseudo-inputs: each once.
    assert len(vae.trainable_variables) == 2 + 2 + 2 + 1
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(vae.log_prob(X, seed=[0, 1]))
    assert all(g is not None for g in tape.gradient(loss, vae.trainable_variables))


def small(**kwargs):
    kwargs = {"prior": normal(2, tf.float32), "encoder": keras.layers.Dense(4), **kwargs}
    return VAE(decoder=kwargs.pop("decoder", keras.layers.Dense(3)), **kwargs)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: small(prior=2.0), TypeError, "the prior must be a tfd.Distribution, got float"),
        (lambda: small(prior=tfd.Normal([0.0], 1.0)), ValueError, "one distribution of a known"),
        (lambda: small(prior=tfd.Normal(0.0, 1.0)), ValueError, "latents must be vectors"),
        (
            lambda: small(prior=flows.gaussian([2], context_size=3)),
            ValueError,
            "the prior takes a context",
        ),
        (lambda: small(posterior=1), TypeError, "the posterior must be a tfd.Distribution"),
        (
            lambda: small(posterior=flows.gaussian([3], context_size=4)),
            ValueError,
            r"over the prior's latents \[2\], got .* over \[3\]",
        ),
        (
            lambda: small(posterior=flows.real_nvp([2], num_couplings=1)),
            ValueError,
            "the flow takes no context, and `network` would make it one",
        ),
        (
            lambda: small(
                posterior=flows.planar(
                    [2],
                    num_layers=1,
                    context_size=4,
                    base=flows.made([2], output="normal", hidden_units=(2,)),
                )
            ),
            ValueError,
            "noise that depends on nothing, got the base MADE.* is not one of|has variables",
        ),
        (lambda: small(encoder=keras.layers.Dense(5)), ValueError, r"must map \[batch, 3\] to"),
        (lambda: small(decoder=lambda z: z), TypeError, "network must be a keras.layers.Layer"),
        (lambda: small(output="normal"), ValueError, "must give 2 parameters of each entry"),
        (lambda: small(output=normal(3)), ValueError, "must take one context"),
        (lambda: small(num_samples=0), ValueError, "num_samples"),
        (
            lambda: small().log_prob(tf.zeros([5, 4])),
            ValueError,
            r"expected data of shape \[..., 3\]",
        ),
        (
            lambda: VampPrior(flows.gaussian([2], context_size=3), keras.layers.Dense(3), [1.0]),
            ValueError,
            r"pseudo_inputs must be data, \[K, \*event_shape\]",
        ),
        (
            lambda: VampPrior(
                flows.gaussian([2], context_size=3), keras.layers.Dense(2), tf.eye(4)
            ),
            ValueError,
            "must map",
        ),
        (
            lambda: distributions.VampPrior(normal(2), keras.layers.Dense(2), tf.eye(4)),
            ValueError,
            "must take one context",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message) as found:
        make()
    assert "\n" not in str(found.value)
