"""Residual flows against closed forms: the bound, the series' mean and spread, the fixed point."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, bijectors, conditioners, flows
from tfp_flows.bijectors import training_mode
from tfp_flows.conditioners.lipschitz import _spectral_norm_bound

F64 = tf.float64


class Linear(keras.layers.Layer):
    """x A^T, of a given spectral norm."""

    def __init__(self, matrix, bound):
        super().__init__(dtype="float64")
        self.lipschitz_bound = bound
        self.matrix = self.add_weight(shape=np.shape(matrix), initializer="zeros", name="matrix")
        self.matrix.assign(matrix)

    def call(self, x):
        return tf.matmul(x, self.matrix, transpose_b=True)


def matrix(size=4, norm=0.6):
    found = np.random.default_rng(0).normal(size=(size, size))
    return norm * found / np.linalg.norm(found, 2)


@pytest.mark.parametrize("shape", [(5, 5), (30, 4), (1, 1), (64, 64)])
def test_the_bound_of_the_norm_is_one(shape):
    for scale in (1e-8, 1.0, 1e6):
        kernel = scale * np.random.default_rng(1).normal(size=shape)
        ratio = _spectral_norm_bound(tf.constant(kernel)).numpy() / np.linalg.norm(kernel, 2)
        assert 1.0 - 1e-12 < ratio < min(shape) ** (1 / 128) + 1e-12
    # Where all singular values are equal it is loosest.
    ratio = _spectral_norm_bound(tf.eye(*shape, dtype=F64)).numpy()
    np.testing.assert_allclose(ratio, min(shape) ** (1 / 128), rtol=1e-12)


def test_the_network_keeps_its_bound_whatever_its_weights():
    layer = conditioners.LipschitzMLP(3, hidden_units=(6, 6), lipschitz_bound=0.8, dtype="float64")
    layer.build([None, 3])
    rng, largest = np.random.default_rng(0), 0.0
    for scale in (0.1, 1.0, 10.0, 100.0):
        for v in layer.trainable_variables:
            v.assign(scale * rng.normal(size=v.shape))
        x = tf.constant(rng.normal(size=(200, 3)))
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
        norms = np.linalg.norm(tape.batch_jacobian(y, x), ord=2, axis=(1, 2))
        assert norms.max() <= 0.8
        largest = max(largest, norms.max())
    assert largest > 0.1


def test_linear_maps_have_closed_forms():
    a, x = matrix(), np.random.default_rng(1).normal(size=(3, 4))
    flow = bijectors.Residual(Linear(a, 0.6), [4], dtype=F64)
    y, log_det = flow.forward_and_log_det(x)
    np.testing.assert_allclose(y, x @ (np.eye(4) + a).T, rtol=1e-12)
    wanted = np.linalg.slogdet(np.eye(4) + a)[1]
    np.testing.assert_allclose(log_det, np.full(3, wanted), rtol=1e-12)
    np.testing.assert_allclose(flow.inverse(tf.identity(y)), x, rtol=1e-11)
    far = 1e3 * x
    np.testing.assert_allclose(flow.inverse(flow.forward(far) + 0.0), far, rtol=1e-10)


class Mixed(keras.layers.Layer):
    """Mixes the entries by a matrix that each event's context gives."""

    lipschitz_bound = 0.9

    def __init__(self, context_size):
        super().__init__(dtype="float64")
        self.context_size = context_size

    def call(self, x, context):
        if isinstance(context, dict):
            context = context["a"][..., tf.newaxis] * context["b"][..., tf.newaxis, :]
        return 0.2 * tf.tanh(tf.linalg.matvec(context, x))


@pytest.mark.parametrize("size", [(3, 3), {"a": 3, "b": 3}])
def test_the_exact_log_det_takes_contexts_of_any_shape(size):
    rng = np.random.default_rng(0)
    flow = bijectors.Residual(Mixed(size), [3], dtype=F64)
    shapes = size if isinstance(size, dict) else {None: size}
    context = {k: rng.normal(size=(4, *np.atleast_1d(s))) for k, s in shapes.items()}
    context = context.get(None, context)
    x = tf.constant(rng.normal(size=(4, 3)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = flow.forward(x, context=context)
    wanted = np.linalg.slogdet(tape.batch_jacobian(y, x))[1]
    found = flow.forward_log_det_jacobian(tf.identity(x), context=context)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)


def test_gradients_of_the_inverse_are_those_of_the_solution():
    a, y = matrix(), tf.constant(np.random.default_rng(1).normal(size=(3, 4)))
    flow = bijectors.Residual(Linear(a, 0.6), [4], dtype=F64)
    weights = np.random.default_rng(2).normal(size=(3, 4))
    with tf.GradientTape() as tape:
        tape.watch(y)
        x = flow.inverse(y)
        target = tf.reduce_sum(weights * x)
    by_y, by_a = tape.gradient(target, [y, flow.trainable_variables[0]])
    solved = np.linalg.solve((np.eye(4) + a).T, weights.T).T
    np.testing.assert_allclose(by_y, solved, rtol=1e-9)
    np.testing.assert_allclose(by_a, -solved.T @ x.numpy(), rtol=1e-9)


def test_the_series_is_unbiased_and_of_finite_spread():
    """Value and gradient, within 5 standard errors, where the fixed terms alone are far off."""
    a = matrix(norm=0.9)
    exact = bijectors.Residual(Linear(a, 0.9), [4], dtype=F64)
    series = exact.copy(log_det="series", num_terms=1)
    assert series.estimates_log_det and not exact.estimates_log_det
    x = tf.constant(np.random.default_rng(1).normal(size=(200, 4)))
    wanted = np.linalg.slogdet(np.eye(4) + a)[1]
    slope = np.linalg.inv(np.eye(4) + a).T
    variable, values, slopes = series.trainable_variables[0], [], []

    @tf.function(autograph=False)
    def draw():
        with tf.GradientTape() as tape, training_mode():
            log_det = tf.reduce_mean(series.forward_log_det_jacobian(x + 0.0))
        return log_det, tape.gradient(log_det, variable)

    for _ in range(300):
        value, gradient = draw()
        values.append(value.numpy())
        slopes.append(gradient.numpy())
    for got, want in ((np.array(values), wanted), (np.array(slopes), slope)):
        error = got.std(0) / len(got) ** 0.5
        assert (abs(got.mean(0) - want) < 5 * error).all()
    assert abs(np.trace(a) - wanted) > 5 * np.std(values) / 300**0.5
    assert int(series.passes) == 300
    again = [series.forward_log_det_jacobian(x[:3] + 0.0).numpy() for _ in range(2)]
    np.testing.assert_array_equal(*again)
    np.testing.assert_allclose(again[0], again[0][0])


def test_rows_that_do_not_converge_are_counted():
    flow = bijectors.Residual(Linear(-2.0 * np.eye(2), 0.5), [2], dtype=F64)
    with pytest.raises(tf.errors.InvalidArgumentError, match="does not keep its lipschitz_bound"):
        flow.inverse(np.array([[1.0, 2.0], [0.0, 0.0]]))
    y = bijectors.Residual(Linear(matrix(2), 0.6), [2], dtype=F64).inverse([[np.nan, 1.0], [0, 0]])
    assert np.isnan(y[0]).all() and np.isfinite(y[1]).all()


def test_the_recipe_trains():
    x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    model = FlowModel(
        flows.residual([2], num_layers=1, hidden_units=(8,), log_det="series", seed=0)
    )
    model.compile(optimizer="adam")
    history = model.fit(x, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    back = model.forward(model.inverse(x))
    np.testing.assert_allclose(back, x, atol=1e-4)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: bijectors.Residual(Linear(matrix(), 1.0), [4], dtype=F64),
            r"in \(0, 1\), got 1.0",
        ),
        (lambda: bijectors.Residual(conditioners.MLP(2), [2]), "got None: without one"),
        (
            lambda: bijectors.Residual(conditioners.LipschitzMLP(2), [2], tolerance=1e-7),
            "tolerance must be at least 4.8e-06, which a contraction by 0.9 reaches in float32",
        ),
        (lambda: conditioners.LipschitzMLP(2, lipschitz_bound=1.5), r"must lie in \(0, 1\)"),
        (lambda: bijectors.Residual(conditioners.LipschitzMLP(2), [2], log_det="no"), "one of"),
        (lambda: flows.residual([2], closed="no"), "closed must be one of"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message):
        build()
