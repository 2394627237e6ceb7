"""Linear, quadratic and circular splines, and compositions, against others."""

import keras
import numpy as np
import pytest
import scipy.interpolate
import tensorflow as tf
from drawn import parameters_of

from tfp_flows import elementwise
from tfp_flows.elementwise import (
    Affine,
    CircularRationalQuadraticSpline,
    Composed,
    ElementwiseMap,
    LinearSpline,
    QuadraticSpline,
    RationalQuadraticSpline,
    Shift,
)


def softmax(raw):
    e = np.exp(raw - raw.max())
    return e / e.sum()


def test_linear_spline_interpolates_its_knots():
    m = LinearSpline(num_bins=5, bound=2.0, min_bin_height=1e-2)
    raw = parameters_of(m, (1,), seed=1)
    xs = np.linspace(-2, 2, 6)
    ys = np.concatenate([[-2], -2 + np.cumsum(4 * (1e-2 + (1 - 5e-2) * softmax(raw)))])
    x = np.linspace(-1.99, 1.99, 77)[:, np.newaxis]
    y, log_det = m.forward(x, raw)
    np.testing.assert_allclose(y, np.interp(x, xs, ys), rtol=1e-12, atol=1e-12)
    slopes = (np.diff(ys) / np.diff(xs))[np.searchsorted(xs, x) - 1]
    np.testing.assert_allclose(np.exp(log_det), slopes, rtol=1e-12)
    back, _ = m.inverse(x, raw)
    np.testing.assert_allclose(back, np.interp(x, ys, xs), rtol=1e-12, atol=1e-12)


def test_quadratic_spline_is_the_integral_of_its_slopes():
    m = QuadraticSpline(num_bins=5, bound=2.0, min_bin_width=1e-2, min_slope=0.1)
    raw = parameters_of(m, (1,), seed=2)
    widths = 1e-2 + (1 - 5e-2) * softmax(raw[:5])
    h = 0.1 / 4 + 0.9 * softmax(raw[5:])
    ends = (widths[0] + widths[-1]) / 2
    v = np.concatenate([[1], h * (1 - ends) / (h * (widths[:-1] + widths[1:]) / 2).sum(), [1]])
    xs = np.concatenate([[-2], -2 + np.cumsum(4 * widths)])
    lines = np.stack([np.diff(v) / np.diff(xs), v[:-1]])
    slope = scipy.interpolate.PPoly(lines, xs)
    curve = slope.antiderivative()
    assert abs(curve(2.0) - 4) < 1e-12
    x = np.linspace(-1.99, 1.99, 77)[:, np.newaxis]
    y, log_det = m.forward(x, raw)
    np.testing.assert_allclose(y, curve(x) - 2, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(np.exp(log_det), slope(x), rtol=1e-11)


@pytest.mark.parametrize("m", [LinearSpline(), QuadraticSpline()], ids=["linear", "quadratic"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [0.0, 2.0, 1e4])
def test_finite_everywhere(m, dtype, scale):
    largest = np.finfo(dtype).max
    special = [
        0,
        1e-30,
        3,
        -3,
        np.nextafter(dtype(3), dtype(0)),
        0.75,
        -1.5,
        1e6,
        -largest,
        largest,
    ]
    v = np.concatenate([special, np.random.default_rng(3).uniform(-3, 3, 200)]).astype(dtype)
    v = v[:, np.newaxis]
    parameters = parameters_of(m, v.shape, dtype, seed=4, scale=scale)
    v, parameters = tf.constant(v), tf.constant(parameters)
    for direction in (m.forward, m.inverse):
        with tf.GradientTape() as tape:
            tape.watch([v, parameters])
            out, log_det = direction(v, parameters)
            loss = tf.reduce_sum(tf.sin(out) + log_det)
        for t in (out, log_det, *tape.gradient(loss, [v, parameters])):
            assert np.isfinite(t).all()
        outside = np.abs(v) >= 3
        np.testing.assert_array_equal(out[outside], v[outside])
        assert np.abs(out[~outside]).max() <= 3


# --- On the circle. ---


def on_circle(angle):
    return np.exp(1j * np.asarray(angle, np.float64))


def test_circular_spline_closes_up():
    m = CircularRationalQuadraticSpline(num_bins=4)
    parameters = parameters_of(m, (60, 1), seed=5)
    ends = []
    for angle in (-np.pi, np.nextafter(np.pi, 0)):
        v = np.full((60, 1), angle)
        ends += [(*m.forward(v, parameters), *m.inverse(v + parameters[:, -1:], parameters))]
    for before, after in zip(*ends, strict=True):
        np.testing.assert_allclose(on_circle(before), on_circle(after), atol=1e-10)
    # The slope there is free, unlike that of a spline with tails.
    assert np.ptp(ends[0][1]) > 0.5


def test_circular_spline_is_the_spline_turned():
    m = CircularRationalQuadraticSpline(num_bins=4)
    spline = RationalQuadraticSpline(num_bins=4, bound=np.pi)
    parameters = parameters_of(m, (50, 1), seed=6)
    parameters[:, 8] = 0.0  # the slope of 1 at the ends
    x = np.random.default_rng(7).uniform(-3.1, 3.1, size=(50, 1))
    y, log_det = m.forward(x, parameters)
    unturned, wanted = spline.forward(x, np.delete(parameters, [8, 12], axis=1))
    turned = on_circle(unturned + parameters[:, -1:])
    np.testing.assert_allclose(on_circle(y), turned, rtol=1e-12)
    np.testing.assert_allclose(log_det, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 3e-4)])
def test_circular_spline_takes_any_angle(dtype, tolerance):
    m = CircularRationalQuadraticSpline(num_bins=3)
    x = np.linspace(-3.1, 3.1, 50).astype(dtype)[:, np.newaxis]
    parameters = parameters_of(m, x.shape, dtype, seed=8, scale=0.5)
    wanted = m.forward(x, parameters)
    for turns in (-50, 1):
        far = x + dtype(2 * np.pi * turns)
        for a, b in zip(m.forward(far, parameters), wanted, strict=True):
            np.testing.assert_allclose(on_circle(a), on_circle(b), atol=tolerance)
    edges = np.array([np.pi, -np.pi, 1e3, np.nextafter(-np.pi, -9), -0.0], dtype)[:, np.newaxis]
    for direction in (m.forward, m.inverse):
        for bend in (0.0, 1.0):
            out, log_det = direction(edges, bend * parameters[:5])
            assert (out >= -dtype(np.pi)).numpy().all() and (out < dtype(np.pi)).numpy().all()
            assert np.isfinite(log_det).all()


# --- Compositions. ---


def test_composed_is_one_map_after_the_other():
    first, second = Affine("exp"), RationalQuadraticSpline(num_bins=3, bound=1.0)
    m = Composed([first, second])
    x = np.random.default_rng(9).normal(size=(40, 2))
    parameters = parameters_of(m, x.shape, seed=10)
    own = parameters[:, :4], parameters[:, 4:]
    middle, inner = second.forward(x, own[1])
    y, outer = first.forward(middle, own[0])
    for got, wanted in zip(m.forward(x, parameters), (y, inner + outer), strict=True):
        np.testing.assert_array_equal(got, wanted)
    np.testing.assert_allclose(m.inverse(y, parameters)[0], x, atol=1e-9)
    assert m.num_parameters == 2 + 8 and not m.is_constant_log_det
    assert Composed([Shift(), "shift"]).is_constant_log_det


def test_composed_moves_what_a_spline_leaves():
    m = elementwise.get("affine_rational_quadratic_spline", num_bins=4, bound=2.0, log_scale="exp")
    assert m == Composed([Affine("exp"), RationalQuadraticSpline(4, 2.0)])
    far = tf.constant([[50.0]])
    parameters = tf.concat([[[50.0, -3.0]], tf.zeros([1, 11])], axis=1)
    x, log_det = m.inverse(far, parameters)
    np.testing.assert_allclose([x[0, 0], log_det[0, 0]], [0.0, 3.0], atol=1e-6)


@keras.saving.register_keras_serializable(package="tests")
class Doubling(ElementwiseMap):
    num_parameters = 1

    def _forward(self, x, parameters):
        return 2.0 * x + parameters[0], tf.math.log(2.0) * tf.ones_like(x)

    def _inverse(self, y, parameters):
        return 0.5 * (y - parameters[0]), -tf.math.log(2.0) * tf.ones_like(y)


def test_composed_of_a_users_own_map_comes_back():
    m = Composed([Doubling(), Composed(["affine", "bernstein"])])
    again = Composed.from_config(m.get_config())
    assert again == m and hash(again) == hash(m) and again != Composed([Doubling(), Affine()])


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Composed(Affine()), TypeError, "Composed: expected a list of maps, got Affine"),
        (lambda: Composed(["affine"]), ValueError, "at least two maps, got 1"),
        (lambda: Composed(["affine", "afine"]), ValueError, "got 'afine'"),
        (lambda: Composed([Affine(), Shift]), TypeError, r"Call the class\."),
        (
            lambda: Composed.from_config({"maps": [{"name": "os>system", "config": {}}]}),
            ValueError,
            "no elementwise map is registered as 'os>system'. If it is yours, import",
        ),
        (
            lambda: LinearSpline(num_bins=1),
            ValueError,
            "LinearSpline: num_bins must be an integer >= 2",
        ),
        (lambda: LinearSpline(min_bin_height=0.5), ValueError, "min_bin_height must be at least"),
        (
            lambda: QuadraticSpline(num_bins=2),
            ValueError,
            "num_bins must be an integer >= 3, got 2",
        ),
        (
            lambda: QuadraticSpline(min_slope=1.0),
            ValueError,
            r"QuadraticSpline: min_slope must lie",
        ),
        (lambda: CircularRationalQuadraticSpline(2.0), TypeError, "Circular.*must be an integer"),
        (
            lambda: elementwise.get("affine_rational_quadratic_spline", degree=3),
            TypeError,
            "takes num_bins, bound, .*shift_first, rate, got degree. 'bernstein' takes degree",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
