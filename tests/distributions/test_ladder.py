"""Several layers of latents: all 16 images of 2 x 2 bits, the terms, gradients, files."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

import tfp_flows
from tfp_flows import FlowModel, flows, objectives
from tfp_flows.distributions import LadderVAE

EVERYTHING = np.array(list(itertools.product([0, 1], repeat=4))).reshape(-1, 2, 2, 1)


@pytest.fixture(scope="module")
def vae():
    """Two cells, far from their start, with posteriors near their priors: weights vary little."""
    found = flows.resnet_vae(
        [2, 2, 1], num_scales=1, num_cells=2, filters=3, latent_channels=2, seed=0
    )
    pairs = zip(found.parameters["priors"], found.parameters["posteriors"], strict=True)
    near = {id(v) for q in found.parameters["posteriors"] for v in q.trainable_variables}
    for n, v in enumerate(found.trainable_variables):
        scale = 0.05 if id(v) in near else 0.5
        v.assign_add(scale * tf.random.stateless_normal(v.shape, [n, 3]))
    for prior, posterior in pairs:
        kernel, bias = prior.trainable_variables
        both, both_bias = posterior.trainable_variables[-2:]  # Of h, then of u.
        both[:, :, :3].assign(kernel + both[:, :, :3])
        both_bias.assign(bias)
    return found


def test_weights_are_probabilities_and_samples_follow_them(vae):
    """E w = p(x) for each x: they sum to one, and are how often x is drawn."""
    n = 2000
    draws = tf.function(vae.log_prob)(np.tile(EVERYTHING, [n, 1, 1, 1, 1]), seed=[0, 1]).numpy()
    weights = np.exp(draws)
    p, error = weights.mean(axis=0), weights.std(axis=0) / n**0.5
    assert abs(p.sum() - 1) < 4 * np.linalg.norm(error) < 0.1
    samples = vae.sample(20000, seed=[1, 2]).numpy().reshape(-1, 4)
    counts = np.bincount(samples @ [8, 4, 2, 1], minlength=16) / 20000
    assert (np.abs(counts - p) < 4 * error + 5 * np.sqrt(p / 20000)).all()
    assert p.max() > 10 * p.min() and (draws.mean(axis=0) < np.log(p)).all()
    assert vae.likelihood == "bound" and vae.latent_shapes == [(1, 1, 2)] * 2


def test_terms_latents_and_free_bits_of_each_layer(vae):
    noise = vae.draw_noise([16], seed=[0, 1])
    output, prior, posterior = vae.terms(EVERYTHING, noise=noise)
    assert prior.shape == posterior.shape == (16, 2)
    bound = output + tf.reduce_sum(prior - posterior, axis=1)
    np.testing.assert_allclose(vae.log_prob(EVERYTHING, noise=noise), bound, rtol=1e-5)
    # The decoder goes the same way: of the same latents the same parameters.
    latents = vae.encode(EVERYTHING, seed=[3, 4])
    assert [z.shape for z in latents] == [(16, 1, 1, 2)] * 2
    found = vae.decode(latents).log_prob(EVERYTHING)
    np.testing.assert_allclose(found, vae.terms(EVERYTHING, seed=[3, 4])[0], rtol=1e-5)
    divergences = np.mean(posterior - prior, axis=0)
    free = float(divergences.mean())
    assert divergences.min() < free < divergences.max()
    loss = objectives.ELBO(beta=0.5, free_bits=free).loss(vae, (EVERYTHING, None), noise)
    wanted = 0.5 * np.maximum(divergences, free).sum() - np.mean(output)
    np.testing.assert_allclose(np.mean(loss), wanted, rtol=1e-5)


def test_gradients_and_files(vae, tmp_path):
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(vae.log_prob(EVERYTHING, seed=[0, 1]))
    gradients = tape.gradient(loss, vae.trainable_variables)
    assert all(g is not None for g in gradients)
    model = FlowModel(vae)
    path = str(tmp_path / "ladder.keras")
    model.save(path)
    again = tfp_flows.load(path)
    assert isinstance(again.distribution, LadderVAE)
    np.testing.assert_array_equal(again.log_prob(EVERYTHING), model.log_prob(EVERYTHING))


def ladder(**kwargs):
    good = flows.resnet_vae([2, 2, 1], num_scales=1, filters=3, latent_channels=2, seed=0)
    return LadderVAE(**{**good.parameters, **kwargs})


WRONG = flows.gaussian([2], context_size=3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: flows.resnet_vae([4, 6, 1]),
            ValueError,
            "2 scales need a height and width that are mult",
        ),
        (lambda: flows.resnet_vae([4], num_scales=1), ValueError, "event_shape must be"),
        (lambda: flows.resnet_vae([4, 4, 1], num_iaf=-1), ValueError, "num_iaf"),
        (lambda: ladder(ups=[]), ValueError, "lists of equal length.*'ups': 0"),
        (lambda: ladder(priors=[2.0]), TypeError, "must be a tfd.Distribution, got float"),
        (lambda: ladder(posteriors=[WRONG]), ValueError, "must be over the prior's latents"),
        (lambda: ladder(priors=[WRONG]), ValueError, "must be over the prior's latents"),
        (lambda: ladder(encoder=len), TypeError, "must be a keras.layers.Layer"),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message) as found:
        make()
    assert "\n" not in str(found.value)
