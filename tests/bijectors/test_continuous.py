"""Continuous flows against closed forms and SciPy."""

import keras
import numpy as np
import pytest
import scipy.integrate
import scipy.linalg
import tensorflow as tf

from tfp_flows import bijectors, conditioners
from tfp_flows.bijectors import training_mode
from tfp_flows.bijectors.modes import values_alone

F64 = tf.float64
A = np.array([[0.3, -1.0], [0.8, -0.5]])


@keras.saving.register_keras_serializable(package="test_continuous")
class Linear(keras.layers.Layer):
    """v = 2 t A x + c, with the context's own part c."""

    def __init__(self, **kwargs):
        super().__init__(dtype="float64", **kwargs)
        self.matrix = self.add_weight(shape=[2, 2], initializer="zeros", name="matrix")
        self.matrix.assign(A)

    def call(self, x, context):
        shift = context[:, 1:] if context.shape[-1] > 1 else 0.0
        return 2.0 * context[:, :1] * tf.matmul(x, self.matrix, transpose_b=True) + shift


def network(size, dtype="float64", context_size=1):
    return conditioners.MLP(
        size,
        hidden_units=(7,),
        activation="tanh",
        context_size=context_size,
        zero_output=False,
        seed=3,
        dtype=dtype,
    )


SOLVERS = [{"solver": "rk4", "num_steps": 200}, {"rtol": 1e-10, "atol": 1e-10}]


@pytest.mark.parametrize("kwargs", SOLVERS)
def test_of_a_linear_equation_it_is_the_matrix_exponential(kwargs):
    flow = bijectors.Continuous(Linear(), [2], dtype=F64, **kwargs)
    x = np.random.default_rng(0).normal(size=(4, 2))
    wanted = x @ scipy.linalg.expm(A).T
    y, log_det = flow.forward_and_log_det(x)
    np.testing.assert_allclose(y, wanted, rtol=1e-8)
    np.testing.assert_allclose(log_det, np.full(4, np.trace(A)), rtol=1e-8)
    back, minus_log_det = flow.inverse_and_log_det(wanted)
    np.testing.assert_allclose(back, x, rtol=1e-8)
    np.testing.assert_allclose(minus_log_det, -log_det, rtol=1e-8)


def test_of_a_network_it_is_what_scipy_finds():
    layer = network(3, context_size=3)
    flow = bijectors.Continuous(layer, [3], rtol=1e-9, atol=1e-9, dtype=F64)
    assert flow.context_size == 2
    rng = np.random.default_rng(0)
    x, c = rng.normal(size=(2, 3)), rng.normal(size=(2, 2))
    y = flow.forward(x, context=c).numpy()

    def velocity(t, z, row):
        context = tf.constant([[t, *c[row]]], F64)
        return layer(tf.constant(z[np.newaxis], F64), context=context).numpy()[0]

    for row in range(2):
        found = scipy.integrate.solve_ivp(
            velocity, (0, 1), x[row], args=(row,), rtol=1e-10, atol=1e-10
        )
        np.testing.assert_allclose(y[row], found.y[:, -1], rtol=1e-7)
    # Back through the times in their order: the network is another at each.
    np.testing.assert_allclose(flow.inverse(y + 0.0, context=c), x, rtol=1e-6)


def test_gradients_are_those_of_the_steps():
    """By weights, context and argument against differences; of equal steps."""
    layer = network(2, context_size=2)
    flow = bijectors.Continuous(layer, [2], solver="rk4", num_steps=3, dtype=F64)
    rng = np.random.default_rng(1)
    x, c = (tf.constant(rng.normal(size=(3, n)), F64) for n in (2, 1))
    weights = tf.constant(rng.normal(size=(3, 2)), F64)

    def value(x, c):
        y, log_det = flow.inverse_and_log_det(x, c)
        return tf.reduce_sum(y * weights) + tf.reduce_sum(log_det * weights[:, 0])

    variables = flow.trainable_variables
    with tf.GradientTape() as tape:
        tape.watch([x, c])
        target = value(x, c)
    by_x, by_c, *gradients = tape.gradient(target, [x, c, *variables])
    step = 1e-5
    for which, gradient in (("x", by_x), ("c", by_c)):
        direction = rng.normal(size=gradient.shape)
        ends = [
            value(x + s * direction, c) if which == "x" else value(x, c + s * direction)
            for s in (step, -step)
        ]
        wanted = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), wanted, rtol=1e-7)
    for variable, gradient in zip(variables, gradients, strict=True):
        direction, ends = rng.normal(size=variable.shape), []
        for s in (step, -2 * step):
            variable.assign_add(s * direction)
            ends.append(value(x, c))
        variable.assign_add(step * direction)
        wanted = (ends[0] - ends[1]) / (2 * step)
        np.testing.assert_allclose(np.sum(gradient * direction), wanted, rtol=1e-7, atol=1e-9)


def test_gradients_of_adapted_steps():
    """Close to those of the equation, by a finer solution."""
    layer, x = network(2), tf.constant(np.random.default_rng(1).normal(size=(3, 2)), F64)
    found = []
    for kwargs in ({}, SOLVERS[0]):
        flow = bijectors.Continuous(layer, [2], dtype=F64, **kwargs)
        with tf.GradientTape() as tape:
            y, log_det = flow.forward_and_log_det(x)
            target = tf.reduce_sum(tf.square(y)) + tf.reduce_sum(log_det)
        found.append(tape.gradient(target, flow.trainable_variables))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


def test_no_row_depends_on_another():
    flow = bijectors.Continuous(network(2), [2], rtol=1e-9, atol=1e-9, dtype=F64)
    x = np.random.default_rng(1).normal(size=(3, 2))
    alone = flow.forward(x[:1]), flow.num_evaluations(x[:1])
    x[1:] *= 100.0
    among = flow.forward(x), flow.num_evaluations(x)
    np.testing.assert_allclose(among[0][:1], alone[0], rtol=1e-13)
    assert among[1][0] == alone[1][0] and len(set(among[1].numpy())) > 1


def test_steps_follow_the_tolerances():
    x = np.random.default_rng(1).normal(size=(3, 2))
    errors, counts = [], []
    exact = bijectors.Continuous(network(2), [2], dtype=F64, **SOLVERS[1]).forward(x)
    for tolerance in (1e-3, 1e-5, 1e-7):
        flow = bijectors.Continuous(network(2), [2], rtol=tolerance, atol=tolerance, dtype=F64)
        errors.append(abs(flow.forward(x) - exact).numpy().max())
        counts.append(flow.num_evaluations(x, inverse=True).numpy().max())
        assert errors[-1] < 5 * tolerance
    assert errors[2] < errors[0] and counts[0] < counts[2]


def test_the_estimated_trace_is_unbiased():
    """Within 5 standard errors of the exact one; fresh in training, and else always the same."""
    layer, x = network(4, "float32"), tf.random.stateless_normal([1, 4], [0, 1])
    exact = bijectors.Continuous(layer, [4], solver="rk4", num_steps=4)
    flow = exact.copy(trace="hutchinson", seed=5)
    assert flow.estimates_log_det and not exact.estimates_log_det
    rows = tf.repeat(x, 2000, axis=0)
    wanted = exact.inverse_log_det_jacobian(x).numpy()[0]
    with training_mode():
        draws = flow.inverse_log_det_jacobian(rows).numpy()
        again = flow.inverse_log_det_jacobian(rows + 0.0).numpy()
    assert abs(draws.mean() - wanted) < 5 * draws.std() / len(draws) ** 0.5
    assert draws.std() > 0.0 and (draws != again).any() and int(flow.passes) == 2
    fixed = flow.inverse_log_det_jacobian(rows[:3]).numpy()
    np.testing.assert_array_equal(fixed, flow.inverse_log_det_jacobian(rows[:3] + 0.0))
    assert (fixed == fixed[0]).all() and int(flow.passes) == 2


def test_values_alone_need_no_trace():
    calls = []

    class Counting(Linear):
        def call(self, x, context):
            calls.append(x.shape[0])
            return super().call(x, context)

    flow = bijectors.Continuous(Counting(), [2], dtype=F64)
    calls.clear()
    with values_alone():
        y = flow.forward_and_log_det(np.ones([3, 2]))[0]
    assert set(calls) == {3}
    np.testing.assert_allclose(y, flow.forward_and_log_det(np.ones([3, 2]))[0], rtol=1e-4)
    assert 6 in calls


def test_rows_that_do_not_arrive_are_counted():
    flow = bijectors.Continuous(Linear(), [2], rtol=1e-12, num_steps=5, atol=1e-12, dtype=F64)
    x = np.array([[0.0, 0.0], [1.0, 1.0], [np.nan, 0.0]])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not reach the end within 5 st.*1.*3"):
        flow.forward(x)
    y = flow.forward(x[::2])
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()


def test_a_second_derivative_is_refused():
    flow = bijectors.Continuous(network(2), [2], solver="rk4", num_steps=2, dtype=F64)
    x = tf.ones([1, 2], F64)
    with pytest.raises(LookupError, match="second derivatives"), tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = flow.forward(x)
        outer.gradient(tape.gradient(y, x), x)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"solver": "euler"}, "solver must be one of"),
        ({"rtol": 1e-8}, "rtol must be at least 1.2e-06, ten times the resolution of float32"),
        ({"atol": 0.0}, "atol must be positive"),
        ({"num_steps": 0}, "num_steps must be an integer >= 1"),
        ({"trace": "some"}, "trace must be one of"),
        ({"event_shape": [None]}, "event_shape must be known"),
        ({"event_shape": [3]}, r"must map \[batch, 3\] to \[batch, 3\]"),
        ({"context_size": [2, 2]}, "a context that is a vector"),
    ],
)
def test_bad_input(kwargs, message):
    kwargs = {"event_shape": [2], **kwargs}
    with pytest.raises(ValueError, match=message):
        bijectors.Continuous(network(2, "float32"), **kwargs)
