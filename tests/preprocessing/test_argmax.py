"""Categories as the largest of numbers: against quadrature, and the Jacobian of what draws them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import integrate, stats

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.distributions import Surjected
from tfp_flows.testing import assert_bound

tfb, tfd = tfp.bijectors, tfp.distributions

# All events of two entries of three categories.
EVERY = np.array(list(itertools.product(range(3), repeat=2)), "int32")
MEANS = np.array([[0.5, -0.3, 0.0], [-1.0, 0.4, 0.6]])
SCALES = np.array([[1.0, 0.7, 1.2], [0.8, 1.0, 0.6]])


def numbers(**kwargs):
    """A flow of three numbers for each of two entries."""
    flow = flows.maf([6], num_layers=1, hidden_units=(8,), seed=0, **kwargs)
    return tfd.TransformedDistribution(flow, tfb.Reshape([2, 3]))


def largest(entry, k):
    """The probability that the number k of an entry is its largest."""
    others = [j for j in range(3) if j != k]

    def density(t):
        below = [stats.norm.cdf(t, MEANS[entry, j], SCALES[entry, j]) for j in others]
        return stats.norm.pdf(t, MEANS[entry, k], SCALES[entry, k]) * np.prod(below)

    return integrate.quad(density, -12.0, 12.0, epsabs=1e-10)[0]


@pytest.fixture(scope="module")
def pairs():
    latent = tfd.Independent(tfd.Normal(MEANS.astype("f"), SCALES.astype("f")), 2)
    noise = numbers(context_size=6, base="logistic")
    random = np.random.default_rng(0)
    for v in noise.trainable_variables:  # Fresh networks end in zeros.
        v.assign_add(0.2 * random.normal(size=v.shape).astype("float32"))
    return Surjected(latent, preprocessing.Argmax(noise))


def test_bound_below_and_weights_at_the_integral(pairs):
    table = np.array([[largest(entry, k) for k in range(3)] for entry in range(2)])
    np.testing.assert_allclose(table.sum(axis=1), 1.0, rtol=1e-8)
    exact = np.log(table[[0, 1], EVERY]).sum(axis=1)
    assert_bound(pairs, EVERY, exact=exact, num_draws=20_000)


def test_the_others_lie_below_and_their_density_is_the_jacobians(pairs):
    transform = pairs.transform
    noise = transform.draw_noise([9], [0, 1], [2])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(noise)
        z, v = transform.inverse(tf.constant(EVERY), noise)
        entries = tf.unstack(tf.reshape(z, [9, 6]), axis=1)
    np.testing.assert_array_equal(transform.forward(z), EVERY)
    jacobian = tf.stack([tf.reshape(tape.gradient(e, noise), [9, 6]) for e in entries], axis=1)
    base = tf.reduce_sum(tfd.Logistic(0.0, 1.0).log_prob(noise), axis=-1)
    log_det = tf.math.log(tf.abs(tf.linalg.det(jacobian)))
    np.testing.assert_allclose(v, log_det - base, rtol=1e-4, atol=1e-4)


def test_trained_in_a_model_whose_files_keep_it(tmp_path):
    x = np.tile(np.array([[0, 2], [1, 1]], "uint8"), [32, 1])
    network = keras.layers.Dense(4, activation="tanh", kernel_initializer="ones")
    flatten = keras.Sequential([keras.layers.Flatten(), network])
    argmax = preprocessing.Argmax(numbers(context_size=4), network=flatten)
    model = FlowModel(numbers(), dequantization=argmax)
    model.compile(keras.optimizers.Adam(0.03))
    start = model.estimate_log_prob(x[:2], num_samples=32).log_prob
    model.fit(np.tile(x, [20, 1]), epochs=2, batch_size=64, verbose=0)
    assert np.all(model.estimate_log_prob(x[:2], num_samples=32).log_prob > start + 1.0)
    samples = model.sample(50, seed=0)
    assert samples.dtype == tf.int32
    assert set(samples.numpy().ravel()) <= {0, 1, 2}
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    assert len(loaded.trainable_variables) == len(model.trainable_variables)
    with pytest.raises(ValueError, match="expected integers from 0 to 2.*values from 0 to 3"):
        model.log_prob(x + x // 2)


def test_refusals(pairs):
    make = preprocessing.Argmax
    with pytest.raises(TypeError, match=r"flow must be a tfd.Distribution, got str"):
        make("flow")
    with pytest.raises(ValueError, match=r"of events \[\*event_shape, K\].*got \(6,\)"):
        make(flows.maf([6], num_layers=1, hidden_units=(8,)))
    with pytest.raises(ValueError, match=r"contexts of shape \[\.\.\., 3\], which data of shape"):
        make(numbers(context_size=3))
    with pytest.raises(ValueError, match=r"expected a distribution of the flow's events, \[2, 3\]"):
        Surjected(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), pairs.transform)
    with pytest.raises(TypeError, match="Argmax: expected integers from 0 to 2, got float32"):
        pairs.transform.inverse(tf.zeros([1, 2]), pairs.transform.draw_noise([1], [0, 1], [2]))
    with pytest.raises(ValueError, match="expected integers from 0 to 2, got values from 0 to 3"):
        pairs.log_prob([[0, 3]], seed=[0, 1])
