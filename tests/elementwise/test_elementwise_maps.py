"""What every elementwise map promises, and the shift and affine maps."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import elementwise
from tfp_flows.elementwise import (
    Affine,
    Bernstein,
    CircularRationalQuadraticSpline,
    Composed,
    ElementwiseMap,
    LinearSpline,
    LogisticMixtureCDF,
    MonotoneNetwork,
    QuadraticSpline,
    RationalQuadraticSpline,
    Shift,
)

MAPS = {
    "shift": Shift(),
    "affine_tanh": Affine(),
    "affine_tanh_cap": Affine(cap=0.5),
    "affine_exp": Affine("exp"),
    "affine_sigmoid": Affine("sigmoid"),
    "affine_double_sigmoid": Affine("double_sigmoid"),
    "affine_shift_first": Affine(shift_first=True),
    "affine_rate": Affine(rate=0.25),
    "affine_floor": Affine("exp", min_scale=0.1),
    "spline": RationalQuadraticSpline(),
    "spline_odd": RationalQuadraticSpline(
        num_bins=5, bound=1.7, min_bin_width=1e-2, min_bin_height=2e-2, min_slope=0.1
    ),
    "spline_two_bins": RationalQuadraticSpline(num_bins=2),
    "moving_spline": elementwise.get("affine_rational_quadratic_spline", num_bins=3),
    "composed": Composed(["affine", "shift", Affine("exp", shift_first=True)]),
    "linear_spline": LinearSpline(num_bins=3),
    "quadratic_spline": QuadraticSpline(num_bins=4, min_slope=1e-2),
    "quadratic_spline_three_bins": QuadraticSpline(num_bins=3, bound=1.5),
    "circular_spline": CircularRationalQuadraticSpline(num_bins=3),
    "bernstein": Bernstein(degree=5),
    "bernstein_forward": Bernstein(degree=3, bound=1.5, cap=1.0, closed="forward"),
    "logistic_mixture": LogisticMixtureCDF(num_components=3),
    "logistic_mixture_forward": LogisticMixtureCDF(num_components=2, closed="forward"),
    "monotone_network": MonotoneNetwork(num_units=3),
    "monotone_network_one_layer": MonotoneNetwork(num_units=3, num_layers=1, closed="forward"),
}
ANGLES = ["circular_spline"]
# In a graph, their twins with fewer bins or terms stand for them.
SLOW_TO_TRACE = ["bernstein", "logistic_mixture", "quadratic_spline"]
every_map = pytest.mark.parametrize("name", MAPS)


def draw(elementwise_map, shape, dtype=np.float64, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape, scale=2.0).astype(dtype)
    if isinstance(elementwise_map, CircularRationalQuadraticSpline):
        x = np.clip(x, dtype(-3.1), dtype(3.1))
    size = elementwise_map.num_parameters * shape[-1]
    parameters = rng.normal(size=(*shape[:-1], size), scale=scale).astype(dtype)
    return tf.constant(x), tf.constant(parameters)


@every_map
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_log_det_is_that_of_autodiff(name, direction):
    m = MAPS[name]
    x, parameters = draw(m, (200, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y, log_det = getattr(m, direction)(x, parameters)
    derivative = tape.gradient(y, x)
    assert log_det.shape == x.shape and y.shape == x.shape
    np.testing.assert_allclose(np.exp(log_det), derivative, rtol=1e-10, atol=0)


@every_map
@pytest.mark.parametrize("dtype, tolerance", [(np.float64, 1e-10), (np.float32, 1e-4)])
def test_round_trips(name, dtype, tolerance):
    # From small parameters: what steep and flat places do to rounding has tests of its own.
    m = MAPS[name]
    scale = 1.0 if name.startswith(("shift", "affine_")) else 0.5
    x, parameters = draw(m, (500, 3), dtype, seed=1, scale=scale)
    y, log_det = m.forward(x, parameters)
    back, minus = m.inverse(y, parameters)
    assert y.dtype == log_det.dtype == back.dtype == minus.dtype == x.dtype
    np.testing.assert_allclose(back, x, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det, -minus, atol=tolerance)
    # The other way from points of its own, not from images.
    y, _ = draw(m, (500, 3), dtype, seed=2)
    x, minus = m.inverse(y, parameters)
    back, log_det = m.forward(x, parameters)
    np.testing.assert_allclose(back, y, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(log_det, -minus, atol=tolerance)


@every_map
def test_is_increasing(name):
    m = MAPS[name]
    _, parameters = draw(m, (20, 1), seed=3, scale=2.0)
    x = tf.tile(
        tf.reshape(tf.linspace(tf.constant(-4.0, tf.float64), 4.0, 4001), [-1, 1, 1]), [1, 20, 1]
    )
    if name in ANGLES:  # Once around, in steps that are positive on the circle.
        x = x[np.abs(x[:, 0, 0]) < np.pi]
        steps = np.diff(m.forward(x, parameters)[0], axis=0) % (2 * np.pi)
        assert steps.min() > 0 and steps.sum(axis=0).max() < 2 * np.pi
        return
    y, _ = m.forward(x, parameters)
    assert np.diff(y, axis=0).min() > 0


@every_map
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_parameters(name, dtype):
    m = MAPS[name]
    x, parameters = draw(m, (100, 3), dtype)
    tolerance = 20 * np.finfo(dtype).eps
    for direction in (m.forward, m.inverse):
        y, log_det = direction(x, tf.zeros_like(parameters))
        if name != "affine_sigmoid":
            np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(log_det, np.zeros(x.shape), atol=tolerance)
        else:  # The documented exception: Glow's scale at zero.
            scale = 1 / (1 + np.exp(-2.0))
            factor = scale if direction == m.inverse else 1 / scale
            np.testing.assert_allclose(y, factor * x, rtol=tolerance)


@every_map
@pytest.mark.parametrize("shape", [(3,), (4, 3), (2, 4, 3), (2, 4, 5, 3), (6, 1)])
def test_leading_axes_and_layout_of_the_parameters(name, shape):
    # One entry at a time, its parameters picked by hand, gives the same.
    m = MAPS[name]
    x, parameters = draw(m, shape, seed=4)
    y, log_det = m.forward(x, parameters)
    n = shape[-1]
    assert y.shape == x.shape and log_det.shape == x.shape
    for i in range(n):
        one, one_log_det = m.forward(x[..., i : i + 1], parameters[..., i::n])
        np.testing.assert_allclose(one[..., 0], y[..., i], rtol=1e-12)
        np.testing.assert_allclose(one_log_det[..., 0], log_det[..., i], rtol=1e-12, atol=1e-14)


@every_map
def test_parameters_broadcast_to_the_argument(name):
    m = MAPS[name]
    x, parameters = draw(m, (7, 4, 3), seed=5)
    for given in (parameters[0, 0], parameters[0], parameters[:, :1]):
        with tf.GradientTape() as tape:
            tape.watch(given)
            y, log_det = m.forward(x, given)
            loss = tf.reduce_sum(y * y + log_det)
        gradient = tape.gradient(loss, given)
        assert y.shape == x.shape and log_det.shape == x.shape and gradient.shape == given.shape
        full = tf.broadcast_to(given, parameters.shape)
        np.testing.assert_allclose(y, m.forward(x, full)[0], rtol=1e-14)


# XLA takes seconds to compile a spline: two bins here, and eight in test_elementwise_spline.py.
@pytest.mark.parametrize(
    "name, jit_compile",
    [(name, False) for name in MAPS if name not in SLOW_TO_TRACE]
    + [(name, True) for name in ("shift", "affine_tanh", "affine_sigmoid", "spline_two_bins")]
    + [(name, True) for name in ("quadratic_spline_three_bins", "bernstein_forward")],
)
def test_graph_xla_and_unknown_batch_agree_with_eager(name, jit_compile):
    m = MAPS[name]
    x, parameters = draw(m, (6, 2, 3), seed=6)

    def step(x, parameters):
        with tf.GradientTape() as tape:
            tape.watch([x, parameters])
            y, log_det = m.forward(x, parameters)
            z, minus = m.inverse(x, parameters)
            loss = tf.reduce_sum(tf.sin(y) + tf.cos(log_det) + tf.sin(z + 1) + minus)
        return y, log_det, z, minus, *tape.gradient(loss, [x, parameters])

    signature = [
        tf.TensorSpec([None, None, 3], tf.float64),
        tf.TensorSpec([None, None, parameters.shape[-1]], tf.float64),
    ]
    compiled = tf.function(step, input_signature=signature, jit_compile=jit_compile)
    for a, b in zip(step(x, parameters), compiled(x, parameters), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8)


@every_map
def test_gradient_of_the_parameters(name):
    # Against central differences along a random direction, value and log-det together.
    m = MAPS[name]
    x, parameters = draw(m, (50, 3), seed=7)
    _, direction = draw(m, (50, 3), seed=8)
    weights = tf.constant(np.random.default_rng(9).normal(size=(4, 50, 3)))

    def loss(parameters):
        y, log_det = m.forward(x, parameters)
        z, minus = m.inverse(x, parameters)
        return tf.reduce_sum(weights * tf.stack([y, log_det, z, minus]), axis=0)

    with tf.GradientTape() as tape:
        tape.watch(parameters)
        total = tf.reduce_sum(loss(parameters))
    exact = tf.reduce_sum(tape.gradient(total, parameters) * direction)
    step = 1e-6
    numeric = (loss(parameters + step * direction) - loss(parameters - step * direction)) / (
        2 * step
    )
    # An entry that passes from one bin to the next in a step has a kink in its log-det's
    # derivative, but its value and log-det are continuous: the error stays of order step.
    np.testing.assert_allclose(exact, tf.reduce_sum(numeric), rtol=1e-5)


@every_map
def test_config(name):
    m = MAPS[name]
    config = m.get_config()
    assert json.loads(json.dumps(config)) == config
    again = type(m).from_config(config)
    assert again == m and hash(again) == hash(m) and repr(again) == repr(m)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(m))
    assert loaded == m and type(loaded) is type(m)
    assert keras.saving.get_registered_name(type(m)) == f"tfp_flows>{type(m).__name__}"
    assert [k for k, other in MAPS.items() if other == m] == [name]
    assert m != name


def test_maps_are_abstract():
    with pytest.raises(TypeError, match="abstract"):
        ElementwiseMap()


def test_constant_log_det():
    assert [name for name, m in MAPS.items() if m.is_constant_log_det] == ["shift"]


# --- Shift and affine against their formulas. ---

X = np.array([-2.0, 0.5, 3.0])
T = np.array([1.0, -1.0, 0.25])
RAW = np.array([-4.0, 0.3, 5.0])


def test_shift_formula():
    y, log_det = Shift().forward(X, T)
    np.testing.assert_array_equal(y, X + T)
    np.testing.assert_array_equal(log_det, [0, 0, 0])
    np.testing.assert_array_equal(Shift().inverse(X, T)[0], X - T)


@pytest.mark.parametrize(
    "m, s",
    [
        (Affine(), 3 * np.tanh(RAW / 3)),
        (Affine("tanh", 0.5), 0.5 * np.tanh(RAW / 0.5)),
        (Affine("exp"), RAW),
        (Affine("exp", min_scale=0.1), np.log(0.1 + 0.9 * np.exp(RAW))),
        (Affine("sigmoid"), np.log1p(np.exp(-RAW - 2))),
        (Affine("double_sigmoid"), -np.log(2.0 / (1.0 + np.exp(-RAW)))),
    ],
)
def test_affine_formula(m, s):
    parameters = np.concatenate([T, RAW])
    y, log_det = m.forward(X, parameters)
    np.testing.assert_allclose(y, X * np.exp(s) + T, rtol=1e-14)
    np.testing.assert_allclose(log_det, s, rtol=1e-14, atol=1e-15)
    x, log_det = m.inverse(X, parameters)
    np.testing.assert_allclose(x, (X - T) * np.exp(-s), rtol=1e-14)
    np.testing.assert_allclose(log_det, -s, rtol=1e-14, atol=1e-15)


def test_affine_that_shifts_first():
    m, parameters = Affine(shift_first=True), np.concatenate([T, RAW])
    s = 3 * np.tanh(RAW / 3)
    y, log_det = m.forward(X, parameters)
    np.testing.assert_allclose(y, (X - T) * np.exp(s), rtol=1e-14)
    np.testing.assert_allclose(log_det, s, rtol=1e-14)
    x, log_det = m.inverse(X, parameters)
    np.testing.assert_allclose(x, X * np.exp(-s) + T, rtol=1e-14)
    np.testing.assert_allclose(log_det, -s, rtol=1e-14)
    assert m != Affine() and type(m).from_config(m.get_config()) == m


@pytest.mark.parametrize("log_scale", ["tanh", "exp", "sigmoid"])
@pytest.mark.parametrize("shift_first", [False, True])
def test_affine_rate_multiplies_both_parameters(log_scale, shift_first):
    slow, plain = (Affine(log_scale, shift_first=shift_first, rate=r) for r in (0.25, 1.0))
    parameters = np.concatenate([T, RAW])
    for direction in ("forward", "inverse"):
        got = getattr(slow, direction)(X, parameters)
        wanted = getattr(plain, direction)(X, 0.25 * parameters)
        np.testing.assert_allclose(got, wanted, rtol=1e-14)
    assert plain.get_config() == Affine(log_scale, shift_first=shift_first).get_config()


def test_affine_sigmoid_multiplies_by_a_sigmoid_towards_the_latents():
    x, _ = Affine("sigmoid").inverse(X, np.concatenate([T, RAW]))
    np.testing.assert_allclose(x, (X - T) / (1 + np.exp(-(RAW + 2))), rtol=1e-14)


def test_affine_keeps_above_its_floor():
    parameters = np.array([0.0, 0.0, -1e4, 10.0], np.float32)
    _, log_det = Affine("exp", min_scale=0.01).inverse(np.zeros(2, np.float32), parameters)
    wanted = -np.log([0.01, 0.01 + 0.99 * np.exp(10.0)])
    np.testing.assert_allclose(log_det, wanted, rtol=1e-6)


def test_affine_stays_bounded():
    parameters = np.array([0.0, 0.0, -1e30, 1e30], np.float32)
    for direction in (Affine().forward, Affine().inverse):
        y, log_det = direction(np.ones(2, np.float32), parameters)
        np.testing.assert_allclose(np.abs(log_det), 3.0)
        assert np.isfinite(y).all()


# --- Errors. ---


@pytest.mark.parametrize(
    "call, error, message",
    [
        (lambda: Affine("tan"), ValueError, r"one of \('tanh', .*'double_sigmoid'\), got 'tan'"),
        (lambda: Affine(cap=0.0), ValueError, r"cap must be positive and finite, got 0\.0"),
        (lambda: Affine(cap=float("inf")), ValueError, "positive and finite, got inf"),
        (lambda: Affine(cap=float("nan")), ValueError, "positive and finite, got nan"),
        (lambda: Affine(rate=0.0), ValueError, "rate must be positive and finite, got 0.0"),
        (lambda: Affine(rate="1"), TypeError, "rate must be a number, got '1'"),
        (lambda: Affine(cap="3"), TypeError, "cap must be a number, got '3'"),
        (
            lambda: Affine("exp", min_scale=1.0),
            ValueError,
            r"min_scale must lie in \(0, 1\), got 1",
        ),
        (lambda: Affine(min_scale=0.1), ValueError, "for log_scale='exp', got 'tanh', which has"),
        (
            lambda: elementwise.get("afine"),
            ValueError,
            "one of 'shift', 'affine', .*'monotone_network' or an ElementwiseMap, got 'afine'",
        ),
        (lambda: elementwise.get(3), TypeError, "'shift'.*got 3"),
        (lambda: elementwise.get(Affine), TypeError, r"got <class.*Call the class\."),
        (lambda: elementwise.get(Affine(), cap=1.0), ValueError, r"finished map.*got \['cap'\]"),
        (
            lambda: elementwise.get("affine", num_bins=8),
            TypeError,
            r"'affine' \(Affine\) takes log_scale, cap, shift_first, rate, min_scale, got "
            r"num_bins. "
            r"'rational_quadratic_spline' takes num_bins",
        ),
        (lambda: elementwise.get("shift", cap=1.0), TypeError, "Shift"),
    ],
)
def test_constructor_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize(
    "x, parameters, error, message",
    [
        (np.ones([2, 3], np.float16), np.ones([2, 6], np.float16), TypeError, "got float16. Cast"),
        (tf.ones([2, 3], tf.bfloat16), tf.ones([2, 6], tf.bfloat16), TypeError, "got bfloat16"),
        (
            np.ones([2, 3], np.int64),
            np.ones([2, 6], np.int64),
            TypeError,
            "float32 or float64, got",
        ),
        (
            tf.ones([2, 3]),
            tf.ones([2, 6], tf.bfloat16),
            TypeError,
            "dtype float32, got bfloat16. C",
        ),
        (tf.ones([2, 3]), tf.ones([2, 6], tf.float64), TypeError, "dtype float32, got float64"),
        (
            tf.ones([2, 3]),
            tf.ones([2, 7]),
            ValueError,
            r"2 \* 3 = 6 for .* got shape \(2, 7\)\. Set",
        ),
        (tf.ones([2, 3]), tf.ones([]), ValueError, r"got shape \(\)"),
        (tf.ones([]), tf.ones([2]), ValueError, r"last axis of known size, got shape \(\)"),
        (tf.ones([2, 3]), tf.ones([4, 6]), ValueError, r"expected \[2\], got \[4\]"),
        (tf.ones([3]), tf.ones([2, 6]), ValueError, r"expected \[\], got \[2\]"),
        (tf.ones([1, 3]), tf.ones([2, 6]), ValueError, r"expected \[1\], got \[2\]"),
    ],
)
def test_argument_errors(direction, x, parameters, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(Affine(), direction)(x, parameters)
    assert str(caught.value).startswith("Affine(log_scale='tanh', cap=3.0): ")


def test_unknown_last_axis():
    @tf.function(input_signature=[tf.TensorSpec([2, None]), tf.TensorSpec([2, 6])])
    def apply(x, parameters):
        return Affine().forward(x, parameters)

    with pytest.raises(ValueError, match="last axis of known size.*tf.ensure_shape"):
        apply(tf.ones([2, 3]), tf.ones([2, 6]))


def test_get():
    assert elementwise.get("shift") == Shift()
    assert elementwise.get("affine", log_scale="exp") == Affine("exp")
    spline = elementwise.get("rational_quadratic_spline", num_bins=4)
    assert spline == RationalQuadraticSpline(num_bins=4)
    assert elementwise.get(spline) is spline
