"""Logit against its formula, autodiff, and data out of its support."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import integrate, special

from tfp_flows import bijectors, conditioners, masks
from tfp_flows.bijectors import base
from tfp_flows.preprocessing import Logit

tfb, tfd = tfp.bijectors, tfp.distributions


def edge(scale, alpha):
    return scale * alpha / (1 - 2 * alpha)


def test_formula():
    y = np.array([0.0, 0.3, 17.0, 128.0, 255.9, 256.0])
    p = 0.05 + 0.9 * y / 256
    logit = Logit(256.0, dtype=tf.float64)
    np.testing.assert_allclose(logit.inverse(y), special.logit(p), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(logit.forward(special.logit(p)), y, rtol=1e-12, atol=1e-12)
    # It is TFP's sigmoid with other borders.
    low, high = -edge(256, 0.05), 256 + edge(256, 0.05)
    stock = tfb.Sigmoid(np.float64(low), np.float64(high))
    x = np.linspace(-8, 8, 33)
    np.testing.assert_allclose(logit.forward(x), stock.forward(x), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(
        logit.forward_log_det_jacobian(x), stock.forward_log_det_jacobian(x), rtol=1e-9
    )


@pytest.mark.parametrize("scale, alpha", [(256.0, 0.05), (1.0, 1e-6), (3.0, 0.0)])
def test_log_dets_are_those_of_autodiff(scale, alpha):
    logit = Logit(scale, alpha=alpha, dtype=tf.float64)
    rng = np.random.default_rng(0)
    x = tf.constant(rng.uniform(-12, 12, 200))
    y = tf.constant(rng.uniform(1e-3, 1 - 1e-3, 200) * scale)
    for f, log_det, value in [
        (logit.forward, logit.forward_log_det_jacobian, x),
        (logit.inverse, logit.inverse_log_det_jacobian, y),
    ]:
        with tf.GradientTape() as tape:
            tape.watch(value)
            out = f(tf.identity(value))
        slope = tape.gradient(out, value)
        np.testing.assert_allclose(log_det(tf.identity(value)), np.log(slope), rtol=1e-9)
    np.testing.assert_allclose(logit.inverse(tf.identity(logit.forward(x))), x, rtol=1e-9)
    np.testing.assert_allclose(logit.forward(tf.identity(logit.inverse(y))), y, rtol=1e-9)


def test_the_density_is_normalized_over_the_codomain():
    logit = Logit(2.0, alpha=0.05, dtype=tf.float64)
    density = tfd.TransformedDistribution(tfd.Normal(np.float64(0.5), np.float64(2.0)), logit)
    e = edge(2.0, 0.05)
    total, _ = integrate.quad(
        lambda y: float(density.prob(np.float64(y))), -e, 2.0 + e, limit=200, epsabs=1e-8
    )
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def images(dtype):
    base = tfd.Sample(tfd.Normal(dtype(0), dtype(1)), [4, 4, 3])
    return tfd.TransformedDistribution(base, Logit(256.0, dtype=dtype))


def test_events_out_of_the_support_have_log_prob_minus_infinity_and_spoil_no_gradient():
    density = images(np.float32)
    good = np.random.default_rng(0).uniform(0, 256, (8, 4, 4, 3)).astype(np.float32)
    good[0], good[1] = 0.0, 256.0
    y = good.copy()
    y[2, 0, 0, 0], y[3, 1, 1, 1], y[4, 0, 0, 0] = 300.0, -20.0, np.inf
    y[5, 0, 0, 0], y[6] = -np.inf, 1e30
    y = tf.constant(y)
    for f in (density.log_prob, tf.function(density.log_prob)):
        with tf.GradientTape() as tape:
            tape.watch(y)
            log_prob = f(y)
            loss = tf.reduce_sum(tf.where(tf.math.is_finite(log_prob), log_prob, 0.0))
        grad = tape.gradient(loss, y).numpy()
        assert np.all(np.isneginf(log_prob[2:7]))
        rows = [0, 1, 7]
        np.testing.assert_array_equal(
            tf.gather(log_prob, rows), density.log_prob(tf.constant(good[rows]))
        )
        assert np.all(np.isfinite(tf.gather(log_prob, rows)))
        assert np.all(np.isfinite(grad)) and np.any(grad[7] != 0)


def test_support_through_a_flow():
    coupling = bijectors.AffineCoupling(
        conditioners.MLP(8, hidden_units=(8,), zero_output=False, seed=0), masks.halves(8)
    )
    flow = bijectors.Chain([Logit(256.0), coupling, bijectors.Rescale([8])])
    density = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [8]), flow)
    y = np.random.default_rng(0).uniform(0, 256, (3, 8)).astype(np.float32)
    y[1, 2] = 1000.0
    with tf.GradientTape() as tape:
        log_prob = density.log_prob(y)
        loss = tf.reduce_sum(tf.where(tf.math.is_finite(log_prob), log_prob, 0.0))
    np.testing.assert_array_equal(np.isneginf(log_prob), [False, True, False])
    for grad in tape.gradient(loss, density.trainable_variables):
        assert np.all(np.isfinite(grad))


def test_borders():
    logit = Logit(256.0)
    e = edge(256, 0.05)
    inside, outside = [-e + 0.01, 256 + e - 0.01], [-e - 0.01, 256 + e + 0.01]
    assert np.all(np.isfinite(logit.inverse_log_det_jacobian(inside)))
    assert np.all(np.isneginf(logit.inverse_log_det_jacobian(outside)))
    np.testing.assert_array_equal(logit.inverse(outside), [0.0, 0.0])
    # Without alpha the borders themselves are at infinity.
    assert np.all(np.isneginf(Logit(1.0, alpha=0.0).inverse_log_det_jacobian([0.0, 1.0])))


def test_nan_stays_nan():
    assert np.isnan(Logit().inverse(np.nan)) and np.isnan(Logit().forward(np.nan))
    assert np.isnan(Logit().inverse_log_det_jacobian(np.nan))


def test_every_sample_has_a_finite_log_prob():
    density = images(np.float32)
    y = density.sample(2000, seed=(0, 1))
    log_prob = density.log_prob(tf.identity(y))
    assert np.all(np.isfinite(log_prob))
    _, joint = density.experimental_sample_and_log_prob(2000, seed=(0, 1))
    np.testing.assert_allclose(joint, log_prob, rtol=1e-3)


def test_float32_keeps_its_digits_up_to_the_borders():
    single, double = Logit(256.0), Logit(256.0, dtype=tf.float64)
    y = np.concatenate([np.linspace(0, 256, 1001), 256 - 2.0 ** -np.arange(16)])
    y = y.astype(np.float32)
    np.testing.assert_allclose(single.inverse(y), double.inverse(y.astype(float)), atol=2e-6)
    # MNIST's alpha: 1 - p is computed, not cancelled.
    single, double = Logit(1.0, alpha=1e-6), Logit(1.0, alpha=1e-6, dtype=tf.float64)
    y = np.float32([0.0, 1e-7, 1 - 2.0**-24, 1.0])
    np.testing.assert_allclose(single.inverse(y), double.inverse(y.astype(float)), rtol=1e-5)


def test_is_a_bijector_of_ours_and_copies():
    logit = Logit(2.0, alpha=0.1, name="pixels")
    assert isinstance(logit, base.FlowBijector)
    again = logit.copy(alpha=0.2)
    assert (again.scale, again.alpha, again.name) == (2.0, 0.2, "pixels")
    assert logit.forward_min_event_ndims == 0 and not logit.variables


def test_wrong_arguments():
    for scale in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="'logit': scale must be positive"):
            Logit(scale)
    for alpha in (-0.1, 0.5, np.nan):
        with pytest.raises(ValueError, match="alpha must be at least 0 and below 0.5"):
            Logit(alpha=alpha)
    with pytest.raises(TypeError, match="expected float32, got float64"):
        Logit().inverse(np.ones(3))
