"""The rational-quadratic spline: against TFP's, and where it is hard."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.elementwise import RationalQuadraticSpline

# By how many roundings of the bound a round trip may err, times what the map magnifies.
ROUNDINGS = 8


def draw_parameters(spline, shape, dtype=np.float64, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    size = spline.num_parameters * shape[-1]
    return rng.normal(size=(*shape[:-1], size), scale=scale).astype(dtype)


def bins(spline, parameters, n):
    """Widths, heights and inner slopes, `[..., n, K or K - 1]`, from their definitions."""
    k = spline.num_bins
    raw = np.moveaxis(parameters.reshape(*parameters.shape[:-1], 3 * k - 1, n), -1, -2)
    sizes = raw[..., : 2 * k].reshape(*raw.shape[:-1], 2, k)
    e = np.exp(sizes - sizes.max(-1, keepdims=True)).reshape(*raw.shape[:-1], 2 * k)
    size = 2 * spline.bound

    def share(e, least):
        return size * (least + (1 - k * least) * e / e.sum(-1, keepdims=True))

    offset = np.log(np.expm1(1 - spline.min_slope))
    return (
        share(e[..., :k], spline.min_bin_width),
        share(e[..., k:], spline.min_bin_height),
        spline.min_slope + np.log1p(np.exp(raw[..., 2 * k :] + offset)),
    )


def knots(spline, parameters, n):
    """All knots in x and in y, `[..., K + 1, n]`."""
    widths, heights, _ = bins(spline, parameters, n)
    out = []
    for sizes in (widths, heights):
        inner = np.cumsum(sizes, -1)[..., :-1] - spline.bound
        ends = np.full_like(inner[..., :1], spline.bound)
        out.append(np.moveaxis(np.concatenate([-ends, inner, ends], -1), -1, -2))
    return out


@pytest.mark.parametrize(
    "spline",
    [
        RationalQuadraticSpline(),
        RationalQuadraticSpline(2),
        RationalQuadraticSpline(5, 1.7, 1e-2, 2e-2, 0.1),
        RationalQuadraticSpline(16, 12.0),
    ],
)
def test_agrees_with_tfp(spline):
    rng = np.random.default_rng(1)
    x = rng.uniform(-1.2 * spline.bound, 1.2 * spline.bound, size=(300, 4))
    parameters = draw_parameters(spline, x.shape)
    widths, heights, slopes = bins(spline, parameters, 4)
    reference = tfp.bijectors.RationalQuadraticSpline(
        widths, heights, slopes, range_min=-spline.bound
    )
    y, log_det = spline.forward(x, parameters)
    np.testing.assert_allclose(y, reference.forward(x), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(
        log_det, reference.forward_log_det_jacobian(x, 0), rtol=1e-9, atol=1e-9
    )
    back, minus = spline.inverse(x, parameters)
    np.testing.assert_allclose(back, reference.inverse(x), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(
        minus, reference.inverse_log_det_jacobian(x, 0), rtol=1e-6, atol=1e-6
    )


def test_goes_through_its_knots_with_its_slopes():
    spline = RationalQuadraticSpline(num_bins=6)
    parameters = draw_parameters(spline, (40, 3), seed=2)
    _, _, slopes = bins(spline, parameters, 3)
    all_slopes = np.pad(slopes, [(0, 0), (0, 0), (1, 1)], constant_values=1.0)
    xs, ys = knots(spline, parameters, 3)
    for k in range(7):
        y, log_det = spline.forward(xs[:, k], parameters)
        np.testing.assert_allclose(y, ys[:, k], atol=1e-11)
        # On one side of the knot or the other, by rounding: the derivative is continuous, but
        # steep in a narrow bin.
        np.testing.assert_allclose(log_det, np.log(all_slopes[..., k]), atol=1e-7)
        x, log_det = spline.inverse(ys[:, k], parameters)
        np.testing.assert_allclose(x, xs[:, k], atol=1e-10)
        np.testing.assert_allclose(log_det, -np.log(all_slopes[..., k]), atol=1e-7)


@pytest.mark.parametrize("dtype, usual", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_round_trips_of_many_points(dtype, usual):
    # A bin can be flat to 1e-6 or steep to 1e3, and then the rounding of what lies between the
    # two directions is itself that much magnified: in float32, errors of 0.1 at worst, TFP's
    # spline the same. So the error is bounded by that magnification, and mostly by `usual`.
    spline = RationalQuadraticSpline()
    parameters = draw_parameters(spline, (2000, 8), dtype, seed=3)
    rng = np.random.default_rng(4)
    v = rng.uniform(-3.1, 3.1, size=(2000, 8)).astype(dtype)
    for there, back in ((spline.forward, spline.inverse), (spline.inverse, spline.forward)):
        middle, log_det = there(v, parameters)
        error = np.abs(back(middle, parameters)[0] - v)
        rounding = np.spacing(dtype(spline.bound)) * (1.0 + np.exp(-log_det.numpy()))
        assert (error <= ROUNDINGS * rounding).all(), (error / rounding).max()
        assert np.quantile(error, 0.8) < usual


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_identity_in_the_tails(dtype):
    spline = RationalQuadraticSpline(bound=2.5)
    tails = np.array([2.5, 3.0, 1e6, np.finfo(dtype).max], dtype)
    v = np.concatenate([-tails, tails])[:, np.newaxis]
    parameters = draw_parameters(spline, v.shape, dtype, seed=5)
    for direction in (spline.forward, spline.inverse):
        out, log_det = direction(v, parameters)
        np.testing.assert_array_equal(out, v)
        np.testing.assert_array_equal(log_det, np.zeros_like(v))


def test_continuous_at_the_bound():
    spline = RationalQuadraticSpline()
    v = np.nextafter(np.array([[-3.0, 3.0]]), 0).repeat(50, axis=0)
    parameters = draw_parameters(spline, v.shape, seed=6)
    for direction in (spline.forward, spline.inverse):
        out, log_det = direction(v, parameters)
        np.testing.assert_allclose(out, v, rtol=1e-13)
        np.testing.assert_allclose(log_det, np.zeros_like(v), atol=1e-9)


@pytest.mark.parametrize(
    "dtype, scale, jit_compile",
    [(dtype, scale, False) for dtype in (np.float32, np.float64) for scale in (0.0, 2.0, 30.0)]
    + [(np.float32, 2.0, True)],  # XLA takes seconds to compile it, and more with more bins.
)
def test_finite_everywhere(dtype, scale, jit_compile):
    # Knots, their neighbours, the bound, the tails; values and gradients of value and log-det.
    spline = RationalQuadraticSpline(num_bins=4 if jit_compile else 8)
    parameters = draw_parameters(spline, (30, 4), dtype, seed=7, scale=scale)
    points = np.concatenate(knots(spline, parameters, 4), axis=1).astype(dtype)
    points = np.concatenate(
        [points, np.nextafter(points, dtype(9)), np.nextafter(points, dtype(-9))], axis=1
    )
    largest = np.finfo(dtype).max
    far = np.array([0, 3, -3, 1e6, -1e6, largest, -largest, 1e-30], dtype)
    far = np.broadcast_to(far[None, :, None], (30, 8, 4))
    points = np.concatenate([points, far], axis=1)
    parameters = np.repeat(parameters[:, np.newaxis], points.shape[1], axis=1)

    @tf.function(jit_compile=jit_compile)
    def both(v, parameters):
        out = []
        for direction in (spline.forward, spline.inverse):
            with tf.GradientTape() as tape:
                tape.watch([v, parameters])
                value, log_det = direction(v, parameters)
                # Far out the square of a value is infinite; a sine is not.
                loss = tf.reduce_sum(tf.sin(value) + tf.sin(log_det))
            out += [value, log_det, *tape.gradient(loss, [v, parameters])]
        return out

    tensors = both(tf.constant(points), tf.constant(parameters))
    assert all(np.isfinite(t).all() for t in tensors)
    # XLA once paired the ends of two bins near a knot: off by a bin, or NaN.
    np.testing.assert_allclose(tensors[0], spline.forward(points, parameters)[0], atol=1e-3)
    np.testing.assert_allclose(tensors[4], spline.inverse(points, parameters)[0], atol=1e-3)


def test_gradient_at_the_middle_of_the_identity():
    # At zero parameters and the middle of a bin the quadratic is solved where |m| has its kink.
    spline = RationalQuadraticSpline(num_bins=2, bound=1.0)
    y = tf.constant([[0.5]], tf.float64)
    parameters = tf.zeros([1, 5], tf.float64)

    def inverse(parameters):
        return spline.inverse(y, parameters)[0]

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        x = inverse(parameters)
    gradient = tape.gradient(x, parameters)
    steps = 1e-6 * np.eye(5)
    numeric = [
        (inverse(parameters + step) - inverse(parameters - step)).numpy().item() / 2e-6
        for step in steps
    ]
    assert np.abs(numeric).min() > 1e-2
    np.testing.assert_allclose(gradient[0], numeric, rtol=1e-8)


def test_gradient_of_the_inverse_is_implicit():
    # dx/dparameters = -(dy/dparameters) / (dy/dx) at the same point.
    spline = RationalQuadraticSpline()
    y = tf.constant(np.random.default_rng(8).uniform(-2.9, 2.9, size=(100, 1)))
    parameters = tf.constant(draw_parameters(spline, y.shape, seed=9, scale=1.0))
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        x, _ = spline.inverse(y, parameters)
    inverse_gradient = tape.gradient(x, parameters)
    with tf.GradientTape() as tape:
        tape.watch(parameters)
        again, log_det = spline.forward(tf.stop_gradient(x), parameters)
    forward_gradient = tape.gradient(again, parameters)
    np.testing.assert_allclose(
        inverse_gradient, -forward_gradient * np.exp(-log_det), rtol=1e-7, atol=1e-9
    )


def test_second_derivatives():
    # The gradient of the selection is written by hand: its own gradient must be right too.
    spline = RationalQuadraticSpline(num_bins=3)
    x = tf.constant([[0.4]], tf.float64)
    parameters = tf.constant(draw_parameters(spline, x.shape, seed=10, scale=1.0))

    def gradient(parameters):
        with tf.GradientTape() as tape:
            tape.watch(parameters)
            y, log_det = spline.forward(x, parameters)
            value = tf.reduce_sum(y * y + log_det)
        return tape.gradient(value, parameters)

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        first = gradient(parameters)
    hessian = tape.jacobian(first, parameters)[0, :, 0]
    numeric = [
        (gradient(parameters + step) - gradient(parameters - step))[0] / 2e-5
        for step in 1e-5 * np.eye(8)
    ]
    np.testing.assert_allclose(hessian, numeric, rtol=1e-6, atol=1e-8)
    assert np.abs(hessian).max() > 0.1


def test_extreme_parameters():
    spline = RationalQuadraticSpline()
    x = np.random.default_rng(11).uniform(-3, 3, size=(500, 2)).astype(np.float32)
    parameters = draw_parameters(spline, x.shape, np.float32, seed=12, scale=1e4)
    y, log_det = spline.forward(x, parameters)
    assert np.isfinite(y).all() and np.isfinite(log_det).all() and np.abs(y).max() <= 3.00001
    y, log_det = spline.inverse(x, parameters)
    assert np.isfinite(y).all() and np.isfinite(log_det).all() and np.abs(y).max() <= 3.00001


@pytest.mark.parametrize(
    "kwargs, error, message",
    [
        ({"num_bins": 8.0}, TypeError, r"num_bins must be an integer >= 2, got 8\.0"),
        ({"num_bins": 1}, ValueError, "num_bins must be an integer >= 2, got 1"),
        ({"bound": 0}, ValueError, "bound must be positive and finite, got 0"),
        ({"bound": float("inf")}, ValueError, "bound must be positive and finite, got inf"),
        ({"bound": "3"}, TypeError, "bound must be a number, got '3'"),
        ({"min_bin_width": 0.125}, ValueError, r"num_bins \* min_bin_width below 1, got 0\.125 wi"),
        ({"min_bin_width": 0.0}, ValueError, "min_bin_width must be at least 1e-06"),
        ({"min_bin_height": 0.2}, ValueError, r"num_bins \* min_bin_height below 1, got 0\.2 with"),
        ({"min_bin_height": None}, TypeError, "min_bin_height must be a number, got None"),
        ({"min_slope": 0.0}, ValueError, r"min_slope must lie in \(0, 1\), got 0\.0"),
        ({"min_slope": 1.0}, ValueError, r"min_slope must lie in \(0, 1\), got 1\.0"),
    ],
)
def test_errors(kwargs, error, message):
    with pytest.raises(error, match=message) as caught:
        RationalQuadraticSpline(**kwargs)
    assert str(caught.value).startswith("RationalQuadraticSpline: ")
