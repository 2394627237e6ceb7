"""The maps with a numeric direction, and the solver under them."""

import math

import numpy as np
import pytest
import scipy.interpolate
import tensorflow as tf
import tensorflow_probability as tfp
from drawn import parameters_of

from tfp_flows._solve import increasing_root
from tfp_flows.elementwise import Bernstein, LogisticMixtureCDF, MonotoneNetwork, OneWayMap

MAPS = {
    "bernstein": Bernstein(degree=6, closed="forward"),
    "logistic_mixture": LogisticMixtureCDF(num_components=4, closed="forward"),
    "monotone_network": MonotoneNetwork(num_units=3, closed="forward"),
}
every_map = pytest.mark.parametrize("name", MAPS)


# --- The solver. ---


def cubic(x, parameters):
    (p,) = parameters
    return p * x + x**3, tf.math.log(p + 3.0 * x * x)


def solve_cubic(y, p, width=1e6, **kwargs):
    bracket = (
        tf.fill(y.shape, tf.cast(-width, y.dtype)),
        tf.fill(y.shape, tf.cast(width, y.dtype)),
    )
    return increasing_root(cubic, y, [p], bracket, name="cubic", **kwargs)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-13), (np.float32, 1e-5)])
@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
def test_root_gradient_and_second_derivative(mode, dtype, tolerance):
    # From a bracket of 2e6 the first steps can only be bisections.
    x = np.array([-1e2, -3.0, -1e-3, 0.0, 1.25, 1e3])
    p = np.array([1.0, 0.5, 2.0, 3.0, 0.125, 50.0])
    y = p * x + x**3

    def solve(y, p):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch([y, p])
            with tf.GradientTape() as tape:
                tape.watch([y, p])
                x = solve_cubic(y, p)
            by_y, by_p = tape.gradient(x, [y, p])
        return x, by_y, by_p, outer.gradient(by_y, y), outer.gradient(by_p, y)

    if mode != "eager":
        solve = tf.function(solve, jit_compile=mode == "xla")
    slope = p + 3 * x * x
    wanted = x, 1 / slope, -x / slope, -6 * x / slope**3, -1 / slope**2 + 6 * x * x / slope**3
    for got, value in zip(solve(tf.constant(y, dtype), tf.constant(p, dtype)), wanted, strict=True):
        np.testing.assert_allclose(got, value, rtol=tolerance, atol=0.1 * tolerance)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_an_entry_that_does_not_converge_is_an_error(mode):
    def solve(y, p):
        return solve_cubic(y, p, max_iterations=3)

    if mode == "graph":
        solve = tf.function(solve)
    y = tf.constant([[0.0, 5.0, 7.0], [0.0, 0.0, 0.0]])  # the middle of the bracket is a root
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        solve(y, tf.ones_like(y))
    text = str(caught.value)
    assert "cubic: the numeric inverse did not converge within 3 steps" in text
    assert "2" in text.split("first ones are")[1] and "6" in text.split("first ones are")[1]


def test_an_entry_that_does_not_converge_is_nan_under_xla():
    y = tf.constant([0.0, 5.0])
    solve = tf.function(
        lambda y: solve_cubic(y, tf.ones_like(y), max_iterations=3), jit_compile=True
    )
    np.testing.assert_array_equal(solve(y), [0.0, np.nan])


def test_what_is_no_number_has_no_root():
    y = tf.constant([np.nan, np.inf, -np.inf, 2.0, 2.0])
    p = tf.constant([1.0, 1.0, 1.0, np.nan, 1.0])
    np.testing.assert_allclose(solve_cubic(y, p), [np.nan] * 4 + [1.0], rtol=1e-6)


def test_no_rows():
    assert solve_cubic(tf.zeros([0, 3]), tf.zeros([0, 3])).shape == (0, 3)


# --- The numeric direction of the maps. ---


@every_map
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 20.0])
def test_meets_its_tolerance_far_out(name, dtype, scale):
    m, eps = MAPS[name], np.finfo(dtype).eps
    y = np.concatenate([np.linspace(-1e3, 1e3, 41), np.linspace(-8, 8, 40)]).astype(dtype)
    y = y[:, np.newaxis]
    parameters = parameters_of(m, y.shape, dtype, seed=1, scale=scale)
    x, log_det = m.inverse(y, parameters)
    assert np.isfinite(x).all() and np.isfinite(log_det).all()
    again, log_slope = m.forward(x, parameters)
    slope = np.exp(log_slope.numpy())
    # As promised of the argument or of the residual, and the rounding of a formula of x itself
    # and of parameters as large as `scale`.
    allowed = 8 * eps * np.maximum(1, np.abs(y))
    allowed += 64 * eps * slope * (np.maximum(1, np.abs(x)) + scale)
    assert (np.abs(again - y) <= allowed).all()


@every_map
def test_gradients_are_those_of_the_solution(name):
    # dx/dy = 1 / f', dx/dp = -(df/dp) / f', by autodiff of the formula at the solution.
    m = MAPS[name]
    y = tf.constant(np.random.default_rng(2).normal(size=(60, 1), scale=5.0))
    parameters = tf.constant(parameters_of(m, y.shape, seed=3, scale=2.0))
    with tf.GradientTape() as tape:
        tape.watch([y, parameters])
        x, _ = m.inverse(y, parameters)
    by_y, by_parameters = tape.gradient(x, [y, parameters])
    known = tf.stop_gradient(x)
    with tf.GradientTape() as tape:
        tape.watch([known, parameters])
        again, _ = m.forward(known, parameters)
    slope, sensitivity = tape.gradient(again, [known, parameters])
    np.testing.assert_allclose(by_y, 1 / slope, rtol=1e-6)
    np.testing.assert_allclose(by_parameters, -sensitivity / slope, rtol=1e-6, atol=1e-10)
    assert np.abs(by_parameters).max() > 0.1


@every_map
def test_slopes_are_bounded(name):
    # What the docstrings promise, from raw parameters of 50.
    m = MAPS[name]
    x = np.random.default_rng(4).normal(size=(400, 1), scale=20.0)
    parameters = parameters_of(m, x.shape, seed=5, scale=50.0)
    _, log_det = m.forward(x, parameters)
    least, most = {
        "bernstein": (-3.0, 3.0),
        "logistic_mixture": (math.log(1e-3) - 3.0, 6.0),
        "monotone_network": (math.log(1e-3), 6.0),
    }[name]
    assert least - 1e-9 <= np.min(log_det) < -1 and 1 < np.max(log_det) <= most + 1e-9


@every_map
def test_equal_units_part(name):
    # At zero parameters all units are one; the first step of Adam is equal for equal gradients
    # of any size, and must part them all the same.
    m = MAPS[name]
    x = tf.constant(np.random.default_rng(6).normal(size=(200, 1)))
    parameters = tf.Variable(tf.zeros([m.num_parameters], tf.float64))
    for _ in range(3):
        with tf.GradientTape() as tape:
            y, log_det = m.forward(x, parameters)
            loss = tf.reduce_mean(tf.math.log(tf.cosh(y - 1.0)) - log_det)
        gradient = tape.gradient(loss, parameters)
        parameters.assign_sub(0.1 * tf.sign(gradient))
    # Now every parameter has a gradient of its own.
    gradient = gradient.numpy()[1:]
    gradient = gradient[gradient != 0]
    assert len(gradient) >= m.num_parameters - 3
    assert len(np.unique(np.round(gradient, 14))) == len(gradient)


# --- Against others. ---


def test_bernstein_is_that_of_scipy():
    m = MAPS["bernstein"]
    parameters = parameters_of(m, (1,), seed=7)
    slopes = np.exp(3 * np.tanh(parameters[1:] / 3))
    c = np.concatenate([[0], np.cumsum(slopes)]) * 8 / 6
    c += parameters[0] - c[-1] / 2
    reference = scipy.interpolate.BPoly(c[:, np.newaxis], [-4.0, 4.0])
    x = np.linspace(-4, 4, 50)
    y, log_det = m.forward(x[:, np.newaxis], parameters)
    np.testing.assert_allclose(y[:, 0], reference(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_det)[:, 0], reference.derivative()(x), rtol=1e-12)
    # Tangents beyond.
    for end, beyond in ((-4.0, -9.0), (4.0, 1e3)):
        y, _ = m.forward(np.array([beyond]), parameters)
        tangent = reference(end) + (beyond - end) * reference.derivative()(end)
        np.testing.assert_allclose(y, [tangent], rtol=1e-12)


def test_logistic_mixture_is_that_of_tfp():
    m = LogisticMixtureCDF(num_components=4, min_slope=1e-9, closed="forward")
    p = parameters_of(m, (1,), seed=8)
    weights, means, rates = p[2:].reshape(3, 4)
    mixture = tfp.distributions.MixtureSameFamily(
        tfp.distributions.Categorical(logits=weights),
        tfp.distributions.Logistic(
            means * np.linspace(0.5, 1.5, 4), np.exp(-3 * np.tanh(rates / 3))
        ),
    )
    x = np.linspace(-6, 6, 60)
    odds = mixture.log_cdf(x) - mixture.log_survival_function(x)
    y, log_det = m.forward(x[:, np.newaxis], p)
    scale = 3 * np.tanh(p[1] / 3)
    np.testing.assert_allclose(y[:, 0], np.exp(scale) * odds + p[0], rtol=1e-6)
    # The density of the mixture over that of the odds, a standard logistic.
    log_slope = mixture.log_prob(x) - mixture.log_cdf(x) - mixture.log_survival_function(x)
    np.testing.assert_allclose(log_det[:, 0], scale + log_slope, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-12), (np.float32, 1e-5)])
def test_logistic_mixture_is_linear_in_its_tails(dtype, tolerance):
    # Far out the component with the least rate decides.
    m = LogisticMixtureCDF(num_components=3, closed="forward")
    p = np.array([0.5, 0.2, 0.3, -1.0, 0.7, 2.0, 0.1, -0.4, 0.8, -1.2, 0.3], dtype)
    x = np.array([-1e3, 1e3], dtype)[:, np.newaxis]
    y, log_det = m.forward(x, p)
    shift, scale = 0.5, 3 * np.tanh(0.2 / 3)
    log_weight = -1.0 - np.log(np.exp([0.3, -1.0, 0.7]).sum())
    log_rate = 3 * np.tanh(-1.2 / 3)
    odds = (x - 0.1) * np.exp(log_rate) + np.sign(x) * -log_weight
    wanted = (0.999 * odds + 0.001 * x) * np.exp(scale) + shift
    np.testing.assert_allclose(y, wanted, rtol=tolerance)
    slope = np.log(0.999 * np.exp(log_rate) + 0.001) + scale
    np.testing.assert_allclose(log_det, np.full([2, 1], slope), rtol=tolerance)


def test_monotone_network_is_its_formula():
    m = MAPS["monotone_network"]
    p = parameters_of(m, (1,), seed=9)
    x = np.linspace(-4, 4, 30)
    softmax = lambda v: np.exp(v) / np.exp(v).sum(-1, keepdims=True)  # noqa: E731
    factors = np.array([0.5, 1.0, 1.5])
    cosines = np.cos(np.pi * np.arange(1, 4)[:, np.newaxis] * (np.arange(3) + 0.5) / 3)
    b1, r1, w1, p = p[:3], p[3:6], p[6:15].reshape(3, 3), p[15:]
    b2, r2, w2, u2 = p[:3], p[3:6], p[6:9], p[9:].reshape(3, 3)
    a = np.exp(3 * np.tanh(r1 / 3)) * x[:, np.newaxis] + b1 * factors
    f = (1 / (1 + np.exp(-a))) @ softmax(w1 + cosines).T
    h = np.log(f / (1 - f))
    a = np.exp(3 * np.tanh(r2 / 3)) * (h @ softmax(u2).T) + b2 * factors
    f = (1 / (1 + np.exp(-a))) @ softmax(w2)
    wanted = 0.999 * np.log(f / (1 - f)) + 0.001 * x
    y, _ = m.forward(x[:, np.newaxis], parameters_of(m, (1,), seed=9))
    np.testing.assert_allclose(y[:, 0], wanted, rtol=1e-9, atol=1e-9)


# --- Errors. ---


@pytest.mark.parametrize(
    "call, error, message",
    [
        (
            lambda: Bernstein(degree=0),
            ValueError,
            "Bernstein: degree must be an integer >= 1, got 0",
        ),
        (lambda: Bernstein(degree=2.5), TypeError, r"degree must be an integer >= 1, got 2\.5"),
        (lambda: Bernstein(bound=-1), ValueError, "bound must be positive and finite, got -1"),
        (lambda: Bernstein(cap="3"), TypeError, "cap must be a number, got '3'"),
        (
            lambda: Bernstein(closed="both"),
            ValueError,
            r"one of \('forward', 'inverse'\), got 'both'",
        ),
        (
            lambda: LogisticMixtureCDF(1),
            ValueError,
            "num_components must be an integer >= 2, got 1",
        ),
        (lambda: LogisticMixtureCDF(cap=0.0), ValueError, "LogisticMixtureCDF: cap must be posi"),
        (lambda: LogisticMixtureCDF(min_slope=1), ValueError, r"lie in \(0, 1\), got 1"),
        (
            lambda: MonotoneNetwork(num_units=0),
            ValueError,
            "num_units must be an integer >= 1, got 0",
        ),
        (lambda: MonotoneNetwork(num_layers=None), TypeError, "MonotoneNetwork: num_layers must"),
        (lambda: OneWayMap(), TypeError, "abstract"),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
