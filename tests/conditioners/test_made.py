"""MADE: masks, orders, degrees, warnings, saving."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows.conditioners import MADE


def dependence(layer, mask_index=None, seed=0):
    """Boolean `[input, entry]`: which parameters change with which input, random weights."""
    rng = np.random.default_rng(seed)
    context = None if layer.context_size is None else tf.zeros([1, layer.context_size])
    layer(tf.zeros([1, layer.size]), context=context)
    for variable in layer.trainable_variables:
        variable.assign(rng.normal(size=variable.shape))
    x = rng.normal(size=(20, layer.size)).astype(np.float32)

    def call(x):
        return layer(tf.constant(x), context=context, mask_index=mask_index).numpy()

    start = call(x)
    changed = []
    for i in range(layer.size):
        moved = x.copy()
        moved[:, i] += 1.5
        difference = (call(moved) != start).any(axis=0)
        changed.append(difference.reshape(-1, layer.size).any(axis=0))
    return np.array(changed)


def expected(places):
    places = np.asarray(places)
    return places[:, np.newaxis] < places[np.newaxis]


@pytest.mark.parametrize(
    ("order", "places"),
    [
        ("left-to-right", [0, 1, 2, 3, 4]),
        ("right-to-left", [4, 3, 2, 1, 0]),
        ([3, 0, 4, 1, 2], [3, 0, 4, 1, 2]),
    ],
)
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("context_size", [None, 2])
def test_depends_on_earlier_entries_and_on_all_of_them(order, places, residual, context_size):
    layer = MADE(
        5,
        3,
        hidden_units=(12, 12),
        order=order,
        residual=residual,
        activation="tanh",
        context_size=context_size,
    )
    np.testing.assert_array_equal(dependence(layer), expected(places))


def test_random_order_and_degrees():
    layer = MADE(6, hidden_units=(80,), order="random", degrees="random", seed=3)
    np.testing.assert_array_equal(dependence(layer), expected(layer.input_degrees - 1))
    assert sorted(layer.input_degrees) == [1, 2, 3, 4, 5, 6]
    assert not np.array_equal(layer.input_degrees, np.arange(1, 7))


def test_masks_hold_after_raw_assignments_of_masked_weights():
    layer = MADE(3, 1, hidden_units=(6,), activation="linear")
    layer.build((None, 3))
    for variable in layer.trainable_variables:
        variable.assign(np.full(variable.shape, 1e6))  # masked entries too
    out = layer(tf.constant([[1.0, 2.0, 3.0], [1.0, 2.0, -7.0], [9.0, 2.0, 3.0]])).numpy()
    np.testing.assert_array_equal(out[0], out[1])  # nothing depends on the last entry
    assert out[0, 0] == out[2, 0]
    assert (out[0, 1:] != out[2, 1:]).all()


def test_masked_weights_get_no_gradient():
    layer = MADE(4, 2, hidden_units=(9, 9), activation="tanh", zero_output=False, seed=0)
    x = tf.random.stateless_normal([8, 4], seed=[1, 2])
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    kernels = [v for v in layer.trainable_variables if "kernel" in v.name]
    gradients = tape.gradient(loss, [k.value for k in kernels])
    degrees = [layer.input_degrees, *layer.hidden_degrees, np.tile(layer.input_degrees, 2)]
    for i, gradient in enumerate(gradients):
        below, above = degrees[i][:, np.newaxis], degrees[i + 1][np.newaxis]
        keep = below <= above if i < 2 else below < above
        assert (gradient.numpy()[~keep] == 0).all()
        assert (gradient.numpy()[keep] != 0).any()


def wide(order="left-to-right", **kwargs):
    """A layer whose hidden kernel is large enough for the product in two halves, and weights."""
    layer = MADE(5, 2, hidden_units=(256, 260), order=order, activation="tanh", seed=0, **kwargs)
    layer(tf.zeros([1, 5], layer.compute_dtype))
    rng = np.random.default_rng(1)
    for variable in layer.trainable_variables:
        scale = 1.0 / np.sqrt(variable.shape[0])
        variable.assign(rng.normal(size=variable.shape, scale=scale))
    return layer


def by_dense_masks(layer, x):
    """The network as its docstring has it, every weight and mask in full."""
    degrees = [layer.input_degrees, *layer.hidden_degrees, np.tile(layer.input_degrees, 2)]
    kernels, biases = layer.trainable_variables[0::2], layer.trainable_variables[1::2]
    for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        least = degrees[i][:, np.newaxis] + (i == len(kernels) - 1)
        mask = (degrees[i + 1] >= least).astype(kernel.dtype)
        x = tf.matmul(x, kernel.value * mask) + bias.value
        x = tf.tanh(x) if i < len(kernels) - 1 else x
    return x


def derivatives(network, layer, x):
    """Value, gradients and gradients of the gradients."""
    sources = [x, *(v.value for v in layer.trainable_variables)]
    with tf.GradientTape() as outer:
        outer.watch(x)
        with tf.GradientTape() as inner:
            inner.watch(x)
            out = network(x)
            loss = tf.reduce_sum(tf.sin(out))
        first = inner.gradient(loss, sources)
        size = tf.add_n([tf.reduce_sum(tf.sin(g)) for g in first])
    return [out, *first, *outer.gradient(size, sources)]


@pytest.mark.parametrize("mode", ["eager", "graph", "xla"])
@pytest.mark.parametrize("order", ["left-to-right", "right-to-left"])
def test_product_in_halves_is_the_masked_product(order, mode):
    layer = wide(order, dtype="float64")
    halved = [isinstance(mask, tuple) for mask in layer._masks_of(0)]
    assert halved == [False, True, False]
    x = tf.constant(np.random.default_rng(2).normal(size=(7, 5)))

    def run(x):
        return derivatives(layer, layer, x)

    if mode != "eager":
        signature = [tf.TensorSpec([None, 5], tf.float64)]
        run = tf.function(run, signature if mode == "graph" else None, jit_compile=mode == "xla")
    found = run(x)
    wanted = derivatives(lambda x: by_dense_masks(layer, x), layer, x)
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rows", [1, 2000])
def test_float16_gradients_of_many_rows_and_of_one_context_for_all(rows):
    rng = np.random.default_rng(2)
    x, context = tf.constant(rng.normal(size=(2000, 3))), tf.constant(rng.normal(size=(rows, 2)))
    gradients = []
    for dtype in ("float32", "mixed_float16"):
        layer = MADE(3, hidden_units=(8,), context_size=2, zero_output=False, seed=1, dtype=dtype)
        with tf.GradientTape() as tape:
            loss = 0.11 * tf.reduce_sum(tf.cast(layer(x, context=context), tf.float32))
        gradients.append(tape.gradient(loss, layer.trainable_weights))
    for v, g, low in zip(layer.trainable_weights, *gradients, strict=True):
        assert tf.norm(tf.cast(low, tf.float32) - g) < 0.02 * tf.norm(g), v.name


def test_product_in_halves_in_bfloat16_and_with_infinite_masked_weights():
    layer = wide(dtype="mixed_bfloat16")
    x = tf.constant(np.random.default_rng(2).normal(size=(7, 5)), tf.float32)
    out = layer(x)
    assert out.dtype == tf.bfloat16
    wanted = by_dense_masks(layer, x)
    np.testing.assert_allclose(tf.cast(out, tf.float32), wanted, atol=0.1)
    kernel = layer.trainable_variables[2]
    masked = layer.hidden_degrees[1] < layer.hidden_degrees[0][:, np.newaxis]
    kernel.assign(np.where(masked, np.inf, kernel.numpy()))
    np.testing.assert_array_equal(layer(x), out)


def test_unsorted_degrees_take_one_product():
    layer = MADE(5, 2, hidden_units=(256, 256), degrees="random", num_masks=2, seed=0)
    layer(tf.zeros([1, 5]))
    assert not any(isinstance(mask, tuple) for mask in layer._masks_of(1))


def test_context_reaches_every_entry_and_every_layer():
    layer = MADE(3, 2, hidden_units=(8, 8), context_size=2, activation="tanh", seed=0)
    dependence(layer)  # random weights
    x = tf.zeros([1, 3])
    one, other = (layer(x, context=tf.constant([[c, 0.5]])).numpy() for c in (0.0, 1.0))
    assert (one != other).all(), "the first entry must see the context as well"
    kernel = next(v for v in layer.trainable_variables if v.name == "context_kernel")
    assert kernel.shape == (2, 8 + 8 + 6)
    values = kernel.numpy()
    for columns in (slice(0, 8), slice(8, 16), slice(16, 22)):  # layer by layer
        cut = values.copy()
        cut[:, :] = 0.0
        cut[:, columns] = values[:, columns]
        kernel.assign(cut)
        one, other = (layer(x, context=tf.constant([[c, 0.5]])).numpy() for c in (0.0, 1.0))
        assert (one[0] != other[0]).any()


def test_starts_at_zero_and_is_fixed_by_its_seed():
    x, context = tf.ones([2, 5]), tf.ones([2, 3])
    kwargs = {"hidden_units": (8, 8), "context_size": 3, "order": "random"}
    assert (MADE(5, seed=1, **kwargs)(x, context=context).numpy() == 0).all()
    kwargs["zero_output"] = False
    one, same, other = (MADE(5, seed=s, **kwargs)(x, context=context).numpy() for s in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()


@pytest.mark.parametrize(
    ("size", "hidden_units", "degrees", "lost"),
    [(8, (3,), "equal", 5), (5, (4, 4), "equal", 0), (9, (9,), "random", None)],
)
def test_warns_of_lost_dependencies(size, hidden_units, degrees, lost):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layer = MADE(size, hidden_units=hidden_units, degrees=degrees, activation="tanh", seed=0)
    found = int(expected(layer.input_degrees).sum() - dependence(layer).sum())
    messages = [str(w.message) for w in caught if "dependency" in str(w.message)]
    assert bool(messages) == (found > 0)
    if messages:
        assert f"{found} of {size * (size - 1) // 2} are lost" in messages[0]
        assert "hidden_units" in messages[0] or "wider" in messages[0]
    if lost is not None:
        assert found == lost


def test_sets_of_masks_share_weights_and_differ_in_order():
    layer = MADE(5, 1, hidden_units=(60,), order="random", degrees="random", num_masks=3, seed=0)
    orders = [layer.degrees_of(k)[0] for k in range(3)]
    assert len({tuple(o) for o in orders}) == 3
    for k in range(3):
        np.testing.assert_array_equal(dependence(layer, k), expected(orders[k]))
        np.testing.assert_array_equal(dependence(layer, tf.constant(k)), expected(orders[k]))
    # Connectivity-agnostic: a unit's degree changes from set to set.
    hidden = np.stack([layer.degrees_of(k)[1][0] for k in range(3)])
    assert (hidden != hidden[0]).any(axis=0).mean() > 0.5


def test_keras_round_trip_keeps_orders_drawn_without_a_seed(tmp_path):
    inputs = keras.Input([6])
    layer = MADE(6, hidden_units=(30,), order="random", degrees="random", zero_output=False)
    model = keras.Model(inputs, layer(inputs))
    x = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)
    wanted = model(x).numpy()
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x).numpy(), wanted)
    np.testing.assert_array_equal(loaded.layers[-1].input_degrees, layer.input_degrees)


def test_checkpoint_brings_the_degrees_along(tmp_path):
    kwargs = {"hidden_units": (30,), "order": "random", "degrees": "random", "zero_output": False}
    layer, other = MADE(6, seed=0, **kwargs), MADE(6, seed=1, **kwargs)
    x = tf.constant(np.random.default_rng(0).normal(size=(4, 6)), tf.float32)
    wanted = layer(x).numpy()
    assert (other(x).numpy() != wanted).any()

    def checkpoint(layer):
        return tf.train.Checkpoint(weights=[v.value for v in layer.variables])

    path = checkpoint(layer).write(str(tmp_path / "weights"))
    checkpoint(other).read(path)
    np.testing.assert_array_equal(other(x).numpy(), wanted)
    np.testing.assert_array_equal(other.input_degrees, layer.input_degrees)


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"order": [0, 0, 1]}, ValueError, r"MADE '.*permutation of 0..2.*\[0, 0, 1\].*argsort"),
        ({"order": [1, 2, 3]}, ValueError, "permutation"),
        ({"order": [0, 1]}, ValueError, "permutation"),
        ({"order": None}, ValueError, "permutation"),
        ({"order": "sideways"}, ValueError, "left-to-right"),
        ({"degrees": "few"}, ValueError, "degrees must be one of"),
        ({"hidden_units": 8}, TypeError, r"write \(8,\)"),
        ({"hidden_units": (8, 9), "residual": True}, ValueError, "equal"),
        ({"num_masks": 4}, ValueError, 'order="random"'),
        ({"num_parameters": 0}, ValueError, "num_parameters"),
        ({"size": 2.5}, TypeError, "size must be an integer"),
        ({"seed": -1}, ValueError, "seed"),
    ],
)
def test_wrong_arguments(kwargs, error, message):
    with pytest.raises(error, match=message):
        MADE(**{"size": 3, **kwargs})


def test_wrong_inputs():
    layer = MADE(3, hidden_units=(4,), context_size=2)
    with pytest.raises(ValueError, match=r"expected an input of shape \[batch, 3\]"):
        layer(tf.ones([2, 4]), context=tf.ones([2, 2]))
    with pytest.raises(ValueError, match="context of shape"):
        layer(tf.ones([2, 3]), context=tf.ones([2, 5]))
    with pytest.raises(ValueError, match="required"):
        layer(tf.ones([2, 3]))
    with pytest.raises(ValueError, match="without one"):
        MADE(3, hidden_units=(4,))(tf.ones([2, 3]), context=tf.ones([2, 1]))
