"""Learned noise: a bound that its importance weights close, with gradients of its mean."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.distributions import Surjected

tfd = tfp.distributions

# All events of two entries of three levels.
EVERY = np.array(list(itertools.product(range(3), repeat=2)), "int32")


def noise(**kwargs):
    kwargs = {"hidden_units": (8,), "context_size": 2, "base": "logistic", "seed": 0, **kwargs}
    return flows.real_nvp([2], num_couplings=2, **kwargs)


def at_random(model, scale=0.2):
    """Networks that do something: fresh ones end in zeros."""
    random = np.random.default_rng(0)
    for v in model.trainable_variables:
        v.assign(v.value + scale * random.normal(size=v.shape).astype("float32"))
    return model


@pytest.fixture(scope="module")
def model():
    correlated = tfd.MultivariateNormalTriL([1.5, 1.2], [[0.9, 0.0], [0.6, 0.5]])
    dequantization = preprocessing.VariationalDequantization(noise(), 3)
    return at_random(FlowModel(correlated, dequantization=dequantization))


@pytest.fixture(scope="module")
def exact(model):
    """By the rule of midpoints over every cell, of 60 x 60 points."""
    points = (np.arange(60) + 0.5) / 60.0
    grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2)
    density = model.distribution.distribution.log_prob(
        tf.constant(EVERY[:, None] + grid, tf.float32)
    )
    return tf.reduce_logsumexp(density, axis=1) - math.log(3600.0)


def test_bound_below_and_estimate_at_the_enumerated_value(model, exact):
    draws = model.distribution.log_prob(tf.repeat(EVERY[None], 1000, 0), seed=[0, 1])
    mean = tf.reduce_mean(draws, axis=0)
    error = tf.math.reduce_std(draws, axis=0) / 1000**0.5
    assert np.all(mean < exact - 5.0 * error)
    found = model.estimate_log_prob(EVERY, num_samples=2000)
    assert np.all(found.standard_error < 0.1)
    np.testing.assert_array_less(np.abs(found.log_prob - exact), 4.0 * found.standard_error)


def test_noise_lies_in_the_cell_and_its_density_is_the_jacobians(model):
    transform = model.distribution.transform
    z = transform.draw_noise([9], [0, 1], [2])
    with tf.GradientTape() as tape:
        tape.watch(z)
        y, v = transform.inverse(tf.constant(EVERY), z)
    np.testing.assert_array_equal(tf.floor(y), EVERY)
    jacobian = tape.batch_jacobian(y, z)
    base = tf.reduce_sum(tfd.Logistic(0.0, 1.0).log_prob(z), axis=-1)
    log_det = tf.math.log(tf.abs(tf.linalg.det(jacobian)))
    np.testing.assert_allclose(v, log_det - base, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(transform.forward(y), EVERY)


def test_gradients_are_those_of_the_mean(model):
    """Pathwise, against finite differences of the mean over the same draws."""
    distribution = model.distribution
    x = tf.repeat(EVERY[None], 200, 0)
    draw = distribution.draw_noise([200, 9], [0, 1])

    @tf.function
    def mean():
        return tf.reduce_mean(distribution.log_prob(x, noise=draw))

    variables = [v.value for v in model.trainable_variables]
    with tf.GradientTape() as tape:
        value = mean()
    gradients = tape.gradient(value, variables)
    starts, slope = [v.numpy() for v in variables], sum(map(tf.nn.l2_loss, gradients)) * 2.0
    values = []
    for step in (0.02, -0.02):
        for v, start, gradient in zip(variables, starts, gradients, strict=True):
            v.assign(start + step * gradient)
        values.append(mean())
    for v, start in zip(variables, starts, strict=True):
        v.assign(start)
    np.testing.assert_allclose((values[0] - values[1]) / 0.04, slope, rtol=0.01)


def test_trained_noise_beats_uniform_noise_and_files_keep_it(tmp_path):
    """Of a density that is known and narrow, with a network that makes the context."""
    narrow = tfd.MultivariateNormalDiag([1.1, 1.9], [0.2, 0.2])
    x = np.tile(np.array([[0, 1], [1, 1]], "int32"), [32, 1])
    network = keras.layers.Dense(3, activation="tanh")
    around = noise(context_size=3, actnorm=True, hidden_units=(4,))
    learned = FlowModel(
        narrow,
        dequantization=preprocessing.VariationalDequantization(around, 3, network=network),
    )
    learned.compile(keras.optimizers.Adam(0.03))
    kernel = network.kernel.numpy()
    learned.fit(x, epochs=60, batch_size=64, verbose=0)
    assert np.abs(network.kernel - kernel).max() > 0.01
    uniform = Surjected(narrow, preprocessing.UniformDequantization(3))
    bounds = [
        np.mean(d.log_prob(tf.repeat(x[:2][None], 300, 0), seed=[1, 1]), axis=0)
        for d in (uniform, learned.distribution)
    ]
    assert np.all(bounds[1] > bounds[0] + 0.5)
    exact = learned.estimate_log_prob(x[:2], num_samples=512)
    assert np.all(bounds[1] < exact.log_prob + 3.0 * exact.standard_error)
    learned.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.log_prob(x), learned.log_prob(x))
    assert len(loaded.trainable_variables) == len(learned.trainable_variables)


def test_refusals():
    make = preprocessing.VariationalDequantization
    with pytest.raises(TypeError, match="flow must be a tfd.Distribution, got str"):
        make("flow")
    with pytest.raises(ValueError, match="must take one tensor as its context.*got none"):
        make(noise(context_size=None))
    with pytest.raises(ValueError, match=r"contexts of shape \[\.\.\., 3\], which data of shape"):
        make(noise(context_size=3))
    with pytest.raises(ValueError, match="Independent 'base', which has variables"):
        make(noise(base="normal", trainable_base=True))
    with pytest.raises(ValueError, match="num_levels must be an integer from 2"):
        make(noise(), 1)
