"""The sequential direction against D passes, its gradients, and the checks of the bijectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from cases_autoregressive import OwnAutoregressive

from tfp_flows import bijectors, conditioners, elementwise
from tfp_flows.bijectors.blocks import Plan

MAF, IAF = bijectors.MaskedAutoregressive, bijectors.InverseAutoregressive


def build(kind, map_name, size, *, seed=0, context_size=None, block_size=None, **kwargs):
    """A float64 bijector with random weights."""
    elementwise_map = elementwise.get(map_name)
    made = conditioners.MADE(
        size,
        elementwise_map.num_parameters,
        context_size=context_size,
        activation=kwargs.pop("activation", "tanh"),
        dtype="float64",
        seed=seed,
        **kwargs,
    )
    bijector = kind(made, elementwise_map, block_size=block_size, dtype=tf.float64)
    rng = np.random.default_rng(seed)
    for variable in bijector.trainable_variables:
        variable.assign_add(rng.normal(size=variable.shape, scale=0.2))
    return bijector


def by_passes(bijector, u, context=None):
    """The plain reference: D evaluations of the network."""
    x = log_det = tf.zeros_like(u)
    act = bijector.elementwise.forward if type(bijector) is MAF else bijector.elementwise.inverse
    for _ in range(u.shape[-1]):
        parameters = bijector.conditioner(x, context=context)
        x, log_det = act(u, parameters)
    return x, tf.reduce_sum(log_det, axis=-1)


def sequentially(bijector, u, context=None):
    act = bijector.forward_and_log_det if type(bijector) is MAF else bijector.inverse_and_log_det
    x, log_det = act(u, context)
    return x, tf.broadcast_to(log_det, u.shape[:-1])


SETTINGS = {
    "blocks that do not divide": dict(size=7, hidden_units=(20, 20), block_size=3),
    "one entry a block": dict(size=5, hidden_units=(9,), block_size=1),
    "one block": dict(size=6, hidden_units=(13, 11), block_size=6),
    "random degrees, residual": dict(
        size=7,
        hidden_units=(40, 40),
        order="random",
        degrees="random",
        residual=True,
        context_size=2,
        block_size=2,
    ),
    "random degrees, layers of their own": dict(
        size=6, hidden_units=(40, 30, 50), degrees="random", block_size=4, activation="relu"
    ),
    "explicit order": dict(size=5, hidden_units=(16,), order=[3, 0, 1, 4, 2], block_size=2),
    "linear, context": dict(size=4, hidden_units=(), context_size=3, block_size=3),
    "many entries, few units": dict(size=9, hidden_units=(2, 4), context_size=2, block_size=4),
    "one entry": dict(size=1, hidden_units=(4,), context_size=2),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("kind", [MAF, IAF])
def test_agrees_with_one_pass_an_entry_and_so_do_its_gradients(name, kind):
    bijector = build(kind, "affine", **SETTINGS[name])
    agree(bijector)


@pytest.mark.parametrize("kind", [MAF, IAF])
@pytest.mark.parametrize("map_name", ["shift", "rational_quadratic_spline"])
def test_every_map(kind, map_name):
    agree(build(kind, map_name, 5, hidden_units=(12,), context_size=2, block_size=2))


def agree(bijector):
    rng = np.random.default_rng(5)
    size = bijector.conditioner.size
    u = tf.constant(rng.normal(size=(3, size)))
    arguments = [u]
    if bijector.context_size is not None:
        arguments.append(tf.constant(rng.normal(size=(3, bijector.context_size))))
    weights = rng.normal(size=(3, size))

    def value_and_gradients(run):
        with tf.GradientTape() as tape:
            tape.watch(arguments)
            x, log_det = run(bijector, *arguments)
            target = tf.reduce_sum(tf.sin(x) * weights) + tf.reduce_sum(log_det * weights[:, 0])
        sources = [*arguments, *bijector.trainable_variables]
        gradients = tape.gradient(
            target, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [x, log_det, *gradients]

    wanted = value_and_gradients(by_passes)
    got = value_and_gradients(sequentially)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)
    assert max(np.abs(g).max() for g in wanted[3:]) > 1e-3


def test_second_derivatives():
    bijector = build(MAF, "affine", 4, hidden_units=(8,), block_size=2)
    u = tf.constant(np.random.default_rng(0).normal(size=(2, 4)))

    def hessian_product(run):
        with tf.GradientTape() as outer:
            outer.watch(u)
            with tf.GradientTape() as inner:
                inner.watch(u)
                x, log_det = run(bijector, u)
                target = tf.reduce_sum(x**2) + tf.reduce_sum(log_det)
            first = inner.gradient(target, u)
            total = tf.reduce_sum(tf.cos(first))
        return outer.gradient(total, u).numpy()

    np.testing.assert_allclose(
        hessian_product(sequentially), hessian_product(by_passes), rtol=1e-8, atol=1e-9
    )


@pytest.mark.parametrize("units", [(12,), (1, 1)], ids=str)
def test_gradient_inside_a_compiled_function(units):
    bijector = build(MAF, "affine", 5, hidden_units=units, block_size=3)
    u = tf.constant(np.random.default_rng(0).normal(size=(3, 5)))
    variables = bijector.trainable_variables

    def gradients():
        with tf.GradientTape() as tape:
            x, log_det = sequentially(bijector, u)
            target = tf.reduce_sum(x**3) + tf.reduce_sum(log_det)
        return tape.gradient(target, variables)

    for a, b in zip(gradients(), tf.function(gradients, jit_compile=True)(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("batch", [(), (1,), (2, 3), (2, 1, 2)])
def test_any_batch_shape_and_a_context_that_broadcasts(batch):
    bijector = build(IAF, "affine", 4, hidden_units=(9,), context_size=2, block_size=3)
    rng = np.random.default_rng(0)
    y, context = tf.constant(rng.normal(size=(*batch, 4))), tf.constant(rng.normal(size=(2,)))
    x, log_det = bijector.inverse_and_log_det(y, context)
    assert x.shape == y.shape and log_det.shape == batch
    back, minus = bijector.forward_and_log_det(x, context)
    np.testing.assert_allclose(back, y, atol=1e-12)
    np.testing.assert_allclose(minus, -log_det, atol=1e-12)


def test_the_graph_does_not_grow_with_the_number_of_entries():
    def num_ops(size):
        bijector = build(MAF, "affine", size, hidden_units=(size,))
        traced = tf.function(bijector.forward).get_concrete_function(
            tf.TensorSpec([None, size], tf.float64)
        )
        nodes = traced.graph.as_graph_def().library.function
        return sum(len(f.node_def) for f in nodes)

    assert num_ops(192) <= num_ops(48)


def test_every_unit_has_one_place():
    degrees = [np.array([0, 0, 1, 1, 1, 3, 5]), np.array([2, 4, 4, 5])]
    plan = Plan(np.array([2, 1, 3, 6, 5, 4]), degrees, input_width=1, output_width=2, block_size=4)
    for rows, found, own in zip(plan.rows[1:3], plan.row_degrees[1:], degrees, strict=True):
        used = found <= 5
        assert sorted(rows[used]) == list(range(len(own)))
        block, place = np.nonzero(used)
        width = rows.shape[1] // 4
        np.testing.assert_array_equal(block * 4 + place // width, own[rows[used]])


def test_weights_that_are_masked_do_not_matter():
    bijector = build(MAF, "affine", 5, hidden_units=(10, 10), block_size=2)
    u = tf.constant(np.random.default_rng(0).normal(size=(3, 5)))
    before = bijector.forward(tf.identity(u)).numpy()
    made = bijector.conditioner
    degrees = [made.input_degrees, *made.hidden_degrees]
    for i, variable in enumerate(v for v in made.trainable_variables if "kernel" in v.name):
        if i < 2:
            cut = degrees[i][:, np.newaxis] > degrees[i + 1][np.newaxis]
            variable.assign(np.where(cut, 1e3, variable.numpy()))
    np.testing.assert_allclose(bijector.forward(tf.identity(u)), before, rtol=1e-12)


@keras.saving.register_keras_serializable(package="tests")
class Leaking(OwnAutoregressive):
    """As its parent, but entry 1 sees itself."""

    def call(self, x):
        return super().call(x) + tf.eye(3, 6)[1] * x[:, 1:2] * self.kernel[0, 0]


@keras.saving.register_keras_serializable(package="tests")
class Circular(OwnAutoregressive):
    """Everyone sees the others, not itself."""

    def call(self, x):
        kernel = tf.convert_to_tensor(self.kernel)
        return tf.matmul(x, kernel * (1.0 - tf.tile(tf.eye(3), [1, 2])))


@keras.saving.register_keras_serializable(package="tests")
class Rounding(OwnAutoregressive):
    """As its parent, but equal rows come out equal only to rounding, as of other sums."""

    def call(self, x):
        out = super().call(x)
        rows = tf.cast(tf.range(tf.shape(x)[0])[:, tf.newaxis], x.dtype)
        return out * (1.0 + 2e-7 * rows)


def test_rounding_is_no_dependence():
    MAF(Rounding(), size=3, validate_args=True)


def test_a_conditioner_of_ones_own_is_checked_once():
    own, unchecked = OwnAutoregressive(), OwnAutoregressive()
    bijector = MAF(own, size=3, validate_args=True)
    MAF(unchecked, size=3)
    np.testing.assert_array_equal(own.kernel, unchecked.kernel)  # put back after the check
    u = tf.constant(np.random.default_rng(0).normal(size=(4, 3)), tf.float32)
    np.testing.assert_allclose(
        bijector.inverse(tf.identity(bijector.forward(u))), u, rtol=1e-4, atol=1e-5
    )
    with pytest.raises(ValueError, match="not autoregressive.*entry 1 depend on entry 1"):
        MAF(Leaking(), size=3, validate_args=True)
    with pytest.raises(ValueError, match="not autoregressive.*in a circle"):
        IAF(Circular(), size=3, validate_args=True)
    MAF(Circular(), size=3)  # not asked for
    made = conditioners.MADE(4, hidden_units=(8,), order="random", context_size=2)
    IAF(made, validate_args=True)


def test_passes_survive_overflow_on_the_way():
    """Entries that are not known yet may overflow; the known ones must not turn into NaN."""

    @keras.saving.register_keras_serializable(package="tests")
    class Steep(keras.layers.Layer):
        def call(self, x):
            shift = tf.concat([tf.zeros_like(x[:, :1]) + 9.0, tf.exp(40.0 * (x[:, :1] - 7.0))], 1)
            return tf.concat([shift, tf.zeros_like(x)], axis=1)

    bijector = MAF(Steep(), size=2)
    y = bijector.forward(tf.constant([[-3.0, 1.0]])).numpy()
    np.testing.assert_allclose(y[0, 0], 6.0)
    assert np.isfinite(y).all()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: MAF(conditioners.MADE(3, 3, hidden_units=(4,))),
            ValueError,
            "takes 2 parameters an entry.*num_parameters",
        ),
        (
            lambda: MAF(conditioners.MADE(3, hidden_units=(4,)), size=4),
            ValueError,
            "made for 3 entries",
        ),
        (lambda: MAF(OwnAutoregressive()), ValueError, "Pass `size=`"),
        (lambda: MAF(OwnAutoregressive(), "shift", size=3), ValueError, "size of its output"),
        (lambda: IAF(lambda x: x, size=3), TypeError, "keras.layers.Layer"),
        (
            lambda: IAF(
                conditioners.MADE(3, hidden_units=(40,), order="random", num_masks=2), "affine"
            ),
            ValueError,
            "flows.made",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@keras.saving.register_keras_serializable(package="test_masked_autoregressive")
class AsCoupling(keras.layers.Layer):
    """The parameters of a coupling's network for the last entries, zeros for the first."""

    def __init__(self, network, passing):
        super().__init__(dtype="float64")
        self.network, self.passing = network, passing

    def call(self, x):
        shift, log_scale = tf.split(self.network(x[:, : self.passing]), 2, axis=-1)
        zeros = tf.zeros_like(x[:, : self.passing])
        return tf.concat([zeros, shift, zeros, log_scale], axis=-1)


@pytest.mark.filterwarnings("ignore:.*to go through them in order")
def test_a_coupling_is_the_masked_autoregressive_map_of_its_parameters():
    network = conditioners.MLP(
        4, hidden_units=(6,), activation="tanh", zero_output=False, seed=0, dtype="float64"
    )
    mask = np.array([True, True, True, False, False])
    coupling = bijectors.AffineCoupling(network, mask, dtype=tf.float64)
    autoregressive = MAF(AsCoupling(network, 3), "affine", size=5, dtype=tf.float64)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 5)))
    for direction in ("forward_and_log_det", "inverse_and_log_det"):
        wanted, log_det = getattr(coupling, direction)(x)
        got, other = getattr(autoregressive, direction)(x)
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
        np.testing.assert_allclose(other, log_det, rtol=1e-12)
        assert np.abs(log_det).min() > 1e-3


def test_wrong_context():
    bijector = MAF(conditioners.MADE(3, hidden_units=(4,), context_size=2))
    with pytest.raises(ValueError, match=r"context of shape \[..., 2\], got"):
        bijector.forward(tf.zeros([2, 3]), context=tf.zeros([2, 5]))
    with pytest.raises(ValueError, match="is required"):
        bijector.inverse(tf.zeros([2, 3]))


def test_autograph_leaves_the_library_alone():
    """To convert it takes a second at the first call from a user's own tf.function."""
    seen = []

    class Probe(MAF):
        def _all_at_once(self, *args):
            seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
            return super()._all_at_once(*args)

    bijector = Probe(conditioners.MADE(3, hidden_units=(4,)))
    tf.function(lambda y: bijector.inverse_and_log_det(y)).get_concrete_function(tf.zeros([2, 3]))
    assert seen == ["DISABLED"]
