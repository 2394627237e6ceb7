"""Latents, and what goes through them."""

import functools

import drawn
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from models.fitting import C, X, gaussian, real_nvp

from tfp_flows import FlowModel, flows, preprocessing

perturbed = functools.partial(drawn.perturbed, scale=0.2)

tfb, tfd = tfp.bijectors, tfp.distributions


def images():
    glow = flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0)
    model = FlowModel(
        tfd.TransformedDistribution(glow, preprocessing.Logit(scale=17.0)),
        dequantization=preprocessing.UniformDequantization(num_levels=17, seed=0),
    )
    data = np.random.default_rng(0).integers(0, 17, size=(40, 4, 4, 1))
    model.initialize(data)
    return model, data


def test_there_and_back():
    model = FlowModel(perturbed(real_nvp(context_size=3)))
    z = model.inverse(X, C)
    np.testing.assert_allclose(model.forward(z, C), X, rtol=1e-4, atol=1e-5)
    by_tfp = model.distribution.bijector.inverse(tf.constant(X), context=tf.constant(C))
    np.testing.assert_allclose(z, by_tfp, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"forward: expected latents of shape \[\.\.\., 2\], got"):
        model.forward(tf.zeros([5, 3]), C)


def test_of_data_that_are_dequantized():
    model, data = images()
    back = model.forward(model.inverse(data[:5]))
    np.testing.assert_array_equal(np.floor(back), data[:5])  # all scales: the inverse is exact
    samples = model.sample(6, seed=0, quantized=True)
    assert samples.dtype == tf.uint8 and samples.numpy().min() >= 0 and samples.numpy().max() < 17
    np.testing.assert_array_equal(samples, np.clip(np.floor(model.sample(6, seed=0)), 0, 16))
    way = model.interpolate(data[:2], data[2:4], 5)
    np.testing.assert_array_equal(np.floor(way[0]), data[:2])
    np.testing.assert_array_equal(np.floor(way[-1]), data[2:4])
    with pytest.raises(ValueError, match="quantized=True is for a model with a dequantization"):
        FlowModel(gaussian()).sample(2, quantized=True)


def test_ways_through_the_latent_space():
    model = FlowModel(gaussian())  # x = scale * z + loc
    loc, scale = np.array([0.3, -0.2]), np.array([1.5, 0.7])
    a, b = (np.array([z], "float32") * scale + loc for z in ([1.0, 0.0], [0.0, 2.0]))
    a, b = a.astype("float32"), b.astype("float32")
    straight = (model.interpolate(a, b, 3, spherical=False)[:, 0] - loc) / scale
    np.testing.assert_allclose(straight, [[1, 0], [0.5, 1], [0, 2]], atol=1e-6)
    half = np.sqrt(0.5)  # sin(45 degrees) of each end
    curved = (model.interpolate(a, b, 3)[:, 0] - loc) / scale
    np.testing.assert_allclose(curved, [[1, 0], [half, 2 * half], [0, 2]], atol=1e-6)
    np.testing.assert_allclose(model.interpolate(a, a, 3)[1], a, rtol=1e-6)
    with pytest.raises(ValueError, match="n must be an integer >= 2, got 1"):
        model.interpolate(a, b, 1)
    with pytest.raises(ValueError, match="two ends of equal shape"):
        model.interpolate(X[:2], X[:3], 3)


def test_rareness_is_a_tail_rank():
    model = FlowModel(gaussian())
    rows = model.sample(2000, seed=3)
    ranks = model.rareness(rows, num_samples=2000, seed=4).numpy()
    np.testing.assert_allclose(np.quantile(ranks, [0.1, 0.5, 0.9]), [0.1, 0.5, 0.9], atol=0.04)
    far = np.array([[100.0, 0.0], [0.3, -0.2]], "float32")
    least, most = model.rareness(far, reference=rows).numpy()
    assert least == np.float32(1 / 2001) and most > 0.99
    conditional = FlowModel(perturbed(real_nvp(context_size=3)))
    assert conditional.rareness(X, C, reference=(X, C)).shape == len(X)
    assert conditional.rareness(X, C[:1], num_samples=50).shape == len(X)
