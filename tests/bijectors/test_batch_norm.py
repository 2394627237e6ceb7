"""BatchNorm: train and test mode, running statistics. On replicas: tests/distribute."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows

tfb, tfd = tfp.bijectors, tfp.distributions
BatchNorm, training_mode = bijectors.BatchNorm, bijectors.training_mode

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 3)) * [0.1, 1.0, 30.0] + [5.0, 0.0, -100.0]


def norm(**kwargs):
    return BatchNorm(3, dtype=tf.float64, epsilon=1e-12, **kwargs)


def flow(bijector):
    zero, one = tf.zeros([], tf.float64), tf.ones([], tf.float64)
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(zero, one), [3]), bijector)


def test_training_mode_normalizes_by_the_batch_and_moves_the_statistics():
    bijector = norm(momentum=0.75)
    with training_mode():
        z, log_det = bijector.inverse_and_log_det(tf.constant(X))
    np.testing.assert_allclose(z.numpy().mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose(z.numpy().var(0), 1.0, rtol=1e-6)
    np.testing.assert_allclose(log_det, -np.log(X.std(0)).sum(), rtol=1e-6)
    np.testing.assert_allclose(bijector.mean, 0.25 * X.mean(0))
    np.testing.assert_allclose(bijector.variance, 0.75 + 0.25 * X.var(0))


def test_test_mode_uses_running_statistics_row_by_row_and_leaves_them():
    bijector = norm(mean=[1.0, 2.0, 3.0], variance=[4.0, 9.0, 16.0])
    bijector.log_scale.assign([0.1, 0.2, 0.3])
    bijector.shift.assign([0.5, 0.0, -0.5])
    z = bijector.inverse(tf.constant(X)).numpy()
    wanted = (X - [1, 2, 3]) / [2, 3, 4] * np.exp([0.1, 0.2, 0.3]) + [0.5, 0.0, -0.5]
    np.testing.assert_allclose(z, wanted)
    np.testing.assert_allclose(bijector.inverse(tf.constant(X[:1])).numpy(), z[:1])
    np.testing.assert_array_equal(bijector.mean, [1, 2, 3])
    np.testing.assert_allclose(bijector.forward(tf.constant(z)), X)


def test_images_share_moments_over_positions():
    images = X[:60].reshape(5, 2, 6, 3)
    bijector = norm(momentum=0.0)
    with training_mode():
        bijector.inverse(tf.constant(images))
    np.testing.assert_allclose(bijector.variance, images.reshape(-1, 3).var(0))


@pytest.mark.parametrize("initialized", [True, False])
def test_moments_in_float32_of_a_mean_large_against_the_spread(initialized):
    x = np.random.default_rng(1).normal(size=(100_000, 2)) + [1e4, -1e5]
    x = x.astype(np.float32)
    bijector = BatchNorm(2, mean=x[:100].mean(0) if initialized else None, momentum=0.0)
    with training_mode():
        z, log_det = bijector.inverse_and_log_det(tf.constant(x))
    x = x.astype(np.float64)
    np.testing.assert_allclose(log_det, -np.log(x.std(0)).sum(), atol=2e-3)
    np.testing.assert_allclose(z, (x - x.mean(0)) / x.std(0), atol=0.01)
    np.testing.assert_allclose(bijector.variance, x.var(0), rtol=2e-3)


def test_a_constant_feature_has_no_negative_variance():
    bijector = BatchNorm(2, momentum=0.0)
    with training_mode():
        z, log_det = bijector.inverse_and_log_det(tf.fill([65_536, 2], 1e6 / 3.0))
    assert np.isfinite(z).all() and np.isfinite(log_det)
    assert (bijector.variance.numpy() >= 0.0).all()


def test_gradient_goes_through_the_moments():
    """A shift or a scale of the whole batch changes nothing in training mode."""
    x = tf.constant(X)
    weights = rng.normal(size=X.shape)
    with training_mode(), tf.GradientTape() as tape:
        tape.watch(x)
        target = tf.reduce_sum(norm().inverse(x) * weights)
    gradient = tape.gradient(target, x).numpy()
    assert np.abs(gradient).max() > 1e-3
    np.testing.assert_allclose(gradient.sum(0), 0.0, atol=1e-9)
    np.testing.assert_allclose((gradient * (X - X.mean(0))).sum(0), 0.0, atol=1e-7)


def test_the_same_tensor_in_the_two_modes():
    distribution, x = flow(norm(momentum=0.5)), tf.constant(X)
    before = distribution.log_prob(x).numpy()
    with training_mode():
        train = distribution.log_prob(x).numpy()
    after = distribution.log_prob(x).numpy()
    assert (before != train).any() and (train != after).any() and (before != after).any()
    np.testing.assert_allclose(after, distribution.log_prob(tf.identity(x)))


def test_one_log_prob_moves_the_statistics_once():
    bijector = norm(momentum=0.5)
    with training_mode():
        flow(bijectors.Chain([bijector])).log_prob(tf.constant(X))
    np.testing.assert_allclose(bijector.mean, 0.5 * X.mean(0))


def test_a_bad_batch_leaves_the_statistics():
    bijector, bad = norm(), X.copy()
    bad[3, 1] = np.nan
    with training_mode():
        bijector.inverse(tf.constant(bad))
    np.testing.assert_array_equal(bijector.mean, np.zeros(3))


def test_data_dependent_initialization_happens_once():
    bijector = norm()
    with bijectors.data_dependent_initialization():
        bijector.inverse(tf.constant(X))
        bijector.inverse(tf.constant(3.0 * X))
    assert bijector.initialized.numpy()
    np.testing.assert_allclose(bijector.mean, X.mean(0))
    np.testing.assert_allclose(bijector.variance, X.var(0))


def test_fit_trains_in_training_mode_and_evaluates_in_test_mode():
    x = X.astype("float32")
    distribution = flows.maf(
        [3], num_layers=2, hidden_units=(8,), normalization="batch_norm", seed=0
    )
    model = FlowModel(distribution)
    model.compile(optimizer="adam")
    model.initialize(x[:16])
    model.fit(x, batch_size=16, epochs=1, shuffle=False, verbose=0)
    first = next(m for m in distribution.bijector.bijectors if isinstance(m, BatchNorm))
    wanted = x[:16].mean(0)
    for n in range(4):
        wanted = 0.9 * wanted + 0.1 * x[16 * n : 16 * n + 16].mean(0)
    np.testing.assert_allclose(first.mean, wanted, rtol=1e-4)
    frozen = first.mean.numpy()
    one = model.log_prob(x[:1]).numpy()
    np.testing.assert_allclose(model.predict(x, verbose=0)[:1], one, rtol=1e-5)
    model.evaluate(x, verbose=0)
    np.testing.assert_array_equal(first.mean, frozen)


@pytest.mark.parametrize(
    "kwargs", [{"size": 0}, {"momentum": 1.0}, {"momentum": -0.1}, {"epsilon": 0.0}]
)
def test_wrong_arguments(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        BatchNorm(**{"size": 3, **kwargs})


def test_a_single_event_cannot_be_normalized_in_training_mode():
    with training_mode(), pytest.raises(ValueError, match="needs a batch"):
        norm().inverse(tf.constant(X[0]))


def test_mode_is_restored_after_an_error():
    with pytest.raises(KeyError), training_mode():
        raise KeyError
    assert not bijectors.in_training_mode()
    with training_mode(), training_mode(False):
        assert not bijectors.in_training_mode()
