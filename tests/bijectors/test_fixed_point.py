"""The fixed point of an autoregressive network against the entries in order."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from causal_networks import Passes

from tfp_flows import FlowModel, bijectors, conditioners, elementwise

tfd = tfp.distributions

MAF, IAF = bijectors.MaskedAutoregressive, bijectors.InverseAutoregressive
ORDER = [3, 0, 5, 1, 4, 2]


class Counting(Passes):
    """Counts the passes that it is called for, in eager mode."""

    count = 0

    def call(self, x, context=None):
        self.count += 1
        return super().call(x, context)


def network(scale):
    layer = Counting(2, ORDER, context_size=2, dtype="float64")
    layer.build([None, 6])
    layer.slope.assign(scale * layer.slope)
    return layer


def bijector(kind=MAF, tolerance=None, max_passes=None, scale=0.4, log_scale="tanh"):
    return kind(
        network(scale),
        elementwise.Affine(log_scale),
        size=6,
        dtype=tf.float64,
        tolerance=tolerance,
        max_passes=max_passes,
    )


def in_order(kind, u, context, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of D passes
        return solve(bijector(kind, **kwargs), u, context)


def solve(flow, u, context):
    run = flow.forward_and_log_det if type(flow) is MAF else flow.inverse_and_log_det
    sources = [u, context, *flow.trainable_variables]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        x, log_det = run(u, context)
        target = tf.reduce_sum(tf.sin(x)) + tf.reduce_sum(log_det**2)
    return x, log_det, *map(tf.convert_to_tensor, tape.gradient(target, sources))


@pytest.fixture(scope="module")
def points():
    rng = np.random.default_rng(0)
    return tf.constant(rng.normal(size=(2, 3, 6))), tf.constant(rng.normal(size=(3, 2)))


@pytest.mark.parametrize(("kind", "graph"), [(MAF, True), (IAF, False)])
def test_values_log_dets_and_gradients_are_those_in_order(kind, graph, points):
    wanted = in_order(kind, *points)
    # A tolerance that nothing meets: all D passes.
    flow = bijector(kind, tolerance=1e-300)
    run = tf.function(solve, autograph=False) if graph else solve
    for a, b in zip(run(flow, *points), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert all(np.abs(g).max() > 1e-3 for g in wanted[2:])


def test_passes_stop_when_nothing_changes(points):
    u, context = points
    flow = bijector(scale=0.02, tolerance=1e-6)
    flow.conditioner.count = 0
    x, log_det = flow.forward_and_log_det(tf.identity(u), context)
    # Two to find what changes nothing, and two: less than the six entries alone.
    assert flow.conditioner.count <= 4 + 2 < 6 + 2
    wanted = in_order(MAF, u, context, scale=0.02)
    np.testing.assert_allclose(x, wanted[0], atol=1e-6)
    np.testing.assert_allclose(log_det, wanted[1], atol=1e-6)
    for a, b in zip(solve(flow, u, context), wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_what_a_row_becomes_does_not_depend_on_how_long_others_take():
    rng = np.random.default_rng(1)
    u, context = rng.normal(size=(50, 6)), rng.normal(size=(50, 2))
    flow = bijector(tolerance=0.1)
    together = flow.forward(u, context=context)
    alone = [flow.forward(u[n : n + 1], context=context[n : n + 1])[0] for n in range(5)]
    np.testing.assert_allclose(together[:5], tf.stack(alone), rtol=1e-12)


def test_rows_that_do_not_converge_are_refused(points):
    flow = bijector(scale=3.0, tolerance=1e-9, max_passes=3)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="did not converge within 3 passes to a tolerance"
    ):
        flow.forward(points[0], context=points[1])
    compiled = tf.function(flow.forward, jit_compile=True)(points[0], context=points[1])
    wanted = in_order(MAF, *points, scale=3.0)[0]
    assert np.isnan(compiled).any()
    right = np.isclose(compiled, wanted, atol=1e-6) | np.isnan(compiled)
    assert right.all()


def test_infinite_values_on_the_way_do_no_harm(points):
    """An entry that is not right yet overflows; after all passes everything is."""
    u, context = points
    flow = bijector(scale=400.0, tolerance=1e-300, log_scale="exp")
    other = bijector(scale=400.0, log_scale="exp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = other.forward(u, context=context)
    np.testing.assert_array_equal(flow.forward(u, context=context), wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_passes": 3}, "max_passes is of the fixed point, which `tolerance` asks for"),
        ({"tolerance": 0.0}, "tolerance must be positive"),
        ({"tolerance": 1e-3, "max_passes": 0}, "max_passes must be an integer >= 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        bijector(**arguments)


def test_files_keep_the_tolerance(tmp_path):
    made = conditioners.MADE(3, 2, hidden_units=(4,), seed=0, zero_output=False)
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [3])
    flow = tfd.TransformedDistribution(base, MAF(made, tolerance=1e-30, max_passes=3))
    model = FlowModel(flow)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.distribution.bijector.parameters["tolerance"] == 1e-30
    z = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    in_order = MAF(made).forward(z)  # by MADE's own solver
    np.testing.assert_allclose(again.forward(z), in_order, rtol=1e-5, atol=1e-6)
