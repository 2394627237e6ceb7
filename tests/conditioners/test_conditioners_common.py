"""What every convolutional or fully connected conditioner promises, by table."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import conditioners

# name: (builder, shape of one input event, shape of one output event, number of weights)
CASES = {
    "mlp": (
        lambda **k: conditioners.MLP(4, hidden_units=(8, 6), **k),
        (3,),
        (4,),
        6,
    ),
    "mlp_residual": (
        lambda **k: conditioners.MLP(4, hidden_units=(8, 8), residual=True, **k),
        (3,),
        (4,),
        12,
    ),
    "mlp_linear": (lambda **k: conditioners.MLP(4, hidden_units=(), **k), (3,), (4,), 2),
    "convnet": (lambda **k: conditioners.ConvNet(4, filters=8, **k), (5, 3, 2), (5, 3, 4), 7),
    "convnet_without_scale": (
        lambda **k: conditioners.ConvNet(4, filters=8, output_scale=False, **k),
        (5, 3, 2),
        (5, 3, 4),
        6,
    ),
    "resnet": (
        lambda **k: conditioners.ResNet(4, filters=8, **k),
        (5, 3, 2),
        (5, 3, 4),
        12,
    ),
    "convolution": (
        lambda activation=None, **k: conditioners.Convolution(4, **k),  # which has none
        (5, 3, 2),
        (5, 3, 4),
        2,
    ),
    "row_convnet": (
        lambda **k: conditioners.RowConvNet(4, filters=8, kernel_width=3, **k),
        (5, 3, 2),
        (4, 3, 4),
        6,
    ),
    "gated_convnet": (
        lambda **k: conditioners.GatedConvNet(4, filters=8, num_blocks=1, num_heads=2, **k),
        (4, 3, 2),
        (4, 3, 4),
        17,
    ),
    "vision_transformer": (
        lambda **k: conditioners.VisionTransformer(
            4, patch_size=2, width=8, num_layers=1, num_heads=2, **k
        ),
        (4, 6, 2),
        (4, 6, 4),
        19,
    ),
}
SOME = ["mlp", "convnet", "resnet"]


def data(name, batch=6, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(batch, *CASES[name][1])).astype(dtype)
    return x, rng.normal(size=(batch, 2)).astype(dtype)


def perturbed(name, seed=3, **kwargs):
    """A built layer with all weights away from their start."""
    make, event_in, _, _ = CASES[name]
    layer = make(seed=0, **kwargs)
    layer.build((None, *event_in))
    rng = np.random.default_rng(seed)
    for v in layer.weights:
        v.assign(v + 0.3 * rng.normal(size=v.shape))
    return layer


@pytest.mark.parametrize("name", CASES)
def test_starts_at_zero_and_only_with_zero_output(name):
    make, event_in, event_out, _ = CASES[name]
    x, context = data(name)
    out = make(context_size=2)(x, context=context)
    assert out.shape == (6, *event_out)
    np.testing.assert_array_equal(out, np.zeros((6, *event_out)))
    out = make(context_size=2, zero_output=False)(x, context=context)
    assert np.std(out) > 0.01


@pytest.mark.parametrize("name", CASES)
def test_build_makes_all_weights_without_a_context(name):
    make, event_in, event_out, num_weights = CASES[name]
    layer = make(context_size=2)
    layer.build((None, *event_in))
    assert len(layer.weights) == len(layer.trainable_weights) == num_weights + 1
    before = [v.path for v in layer.weights]
    x, context = data(name)
    layer(x, context=context)
    assert [v.path for v in layer.weights] == before
    assert len(set(before)) == len(before)
    assert layer.compute_output_shape((None, *event_in)) == (None, *event_out)
    plain = make()
    plain.build((None, *event_in))
    assert len(plain.weights) == num_weights


@pytest.mark.parametrize("name", CASES)
def test_one_seed_one_layer(name):
    make, event_in, _, _ = CASES[name]

    def kernels(seed):
        layer = make(seed=seed, zero_output=False, context_size=2)
        layer.build((None, *event_in))
        return [v.numpy() for v in layer.weights if np.any(v.numpy())]

    for a, b in zip(kernels(0), kernels(0), strict=True):
        np.testing.assert_array_equal(a, b)
    # No kernel of one seed comes back under another, in whatever place.
    drawn = [k.ravel()[:4] for seed in (0, 1, 2) for k in kernels(seed)]
    drawn += [k.ravel()[:4] for k in kernels(None)]
    assert len(np.unique(np.round(drawn, 7), axis=0)) == len(drawn)


# Of every weight in order: the sum of its absolute values in version 0.1.
DENSE = {"hidden_units": (8, 8), "residual": True}
STARTS_OF_0_1 = {
    "mlp": (
        lambda **k: conditioners.MLP(4, **DENSE, **k),
        [4.55255, 1.656, 10.05151, 1.47832, 0, 0, 10.99035, 1.02563, 0, 0, 6.03695, 0.67256]
        + [2.17791],
    ),
    "convnet": (
        lambda **k: conditioners.ConvNet(4, filters=8, **k),
        [36.50477, 0, 24.62107, 0, 38.58945, 0, 0, 4.02868],
    ),
    "resnet": (
        lambda **k: conditioners.ResNet(4, filters=8, num_blocks=1, **k),
        [36.50477, 0, 4.24418, 76.08148, 0, 0, 0, 13.28273, 0],
    ),
    "convolution": (lambda **k: conditioners.Convolution(4, **k), [11.57082, 0, 2.19699]),
    "made": (
        lambda **k: conditioners.MADE(3, order="random", degrees="random", **DENSE, **k),
        [4.55255, 1.656, 8.99034, 1.32225, 0, 0, 9.83007, 0.91735, 0, 0, 7.03203, 0.89363]
        + [9.45083, 56],
    ),
}


@pytest.mark.parametrize("name", STARTS_OF_0_1)
def test_a_seed_gives_the_weights_that_it_gave_in_version_0_1(name):
    make, sums = STARTS_OF_0_1[name]
    layer = make(context_size=2, zero_output=False, seed=3)
    layer.build((None, *CASES.get(name, CASES["mlp"])[1]))
    found = [np.abs(v.numpy().astype(np.float64)).sum() for v in layer.weights]
    np.testing.assert_allclose(found, sums, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_context_and_every_weight_matter(name):
    layer = perturbed(name, context_size=2)
    x, context = data(name)
    with tf.GradientTape() as tape:
        c = tf.constant(context)
        tape.watch(c)
        loss = tf.reduce_sum(layer(x, context=c) ** 2)
    *grads, grad_c = tape.gradient(loss, [v.value for v in layer.weights] + [c])
    for v, g in zip(layer.weights, grads, strict=True):
        assert g is not None and np.all(np.isfinite(g)) and np.any(g != 0), v.path
    # Each row depends on its own context: no row and no pixel is left out, none is mixed up.
    assert np.all(np.any(grad_c.numpy() != 0, axis=1))
    swapped = layer(x, context=context[::-1]).numpy()
    assert np.all(swapped != layer(x, context=context).numpy())
    np.testing.assert_allclose(layer(x[::-1], context=context)[::-1], swapped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_one_row_of_context_serves_all(name):
    layer = perturbed(name, context_size=2)
    x, context = data(name)
    np.testing.assert_allclose(
        layer(x, context=context[:1]),
        layer(x, context=np.repeat(context[:1], 6, 0)),
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.parametrize("name", CASES)
def test_rows_do_not_depend_on_each_other(name):
    layer = perturbed(name)
    x, _ = data(name)
    np.testing.assert_allclose(layer(x)[2:3], layer(x[2:3]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_float64_is_computed_in_float64(name):
    layer = perturbed(name, dtype="float64")
    x, _ = data(name, dtype=np.float64)
    out = layer(x)
    assert out.dtype == tf.float64
    single = perturbed(name, dtype="float32")
    for a, b in zip(single.weights, layer.weights, strict=True):
        a.assign(b.numpy())
    error = np.max(np.abs(out - tf.cast(single(x), tf.float64)))
    assert 1e-12 < error < 1e-3
    # A difference quotient that float32 could not resolve.
    step = np.zeros_like(x)
    step.flat[0] = 1e-9
    assert np.any(layer(x + step).numpy() != out.numpy())


@pytest.mark.parametrize("name", CASES)
def test_mixed_bfloat16_keeps_float32_weights(name):
    layer = perturbed(name, dtype="mixed_bfloat16", context_size=2)
    x, context = data(name)
    out = layer(x, context=context)
    assert out.dtype == tf.bfloat16
    assert all(v.dtype == "float32" for v in layer.weights)
    single = perturbed(name, dtype="float32", context_size=2)
    reference = single(x, context=context).numpy()
    np.testing.assert_allclose(
        tf.cast(out, tf.float32), reference, atol=0.05 * np.abs(reference).max()
    )


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_gradients_of_many_rows(name, policy):
    """Rows must not be summed in the short type itself: in bfloat16 256 + 1 = 256.

    On a CPU `tf.nn.bias_add` does so in bfloat16, and a plain sum in float16.
    """
    x, context = data(name, batch=2000)
    factors = np.random.default_rng(1).normal(1.0, 0.5, size=CASES[name][2]).astype(np.float32)
    factors /= 16.0  # float16 ends at 65504
    gradients = []
    for dtype in ("float32", policy):
        layer = perturbed(name, dtype=dtype, context_size=2)
        with tf.GradientTape() as tape:
            out = layer(x, context=context[:1])  # one row for all: a sum over rows as well
            loss = tf.reduce_sum(tf.cast(out, tf.float32) * factors)
        gradients.append(tape.gradient(loss, layer.trainable_weights))
    for v, g, low in zip(layer.trainable_weights, *gradients, strict=True):
        error = tf.norm(tf.cast(low, tf.float32) - g) / tf.norm(g)
        assert error < (0.02 if policy == "mixed_float16" else 0.05), (v.name, float(error))


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("jit", [False, True])
def test_graph_of_unknown_shape_agrees_with_eager(name, jit):
    layer = perturbed(name, context_size=2)
    x, context = data(name)
    shape = [None] * x.ndim if not jit else x.shape
    shape = [*shape[:-1], x.shape[-1]]
    compiled = tf.function(
        lambda x, c: layer(x, context=c),
        input_signature=[tf.TensorSpec(shape), tf.TensorSpec([None, 2])],
        jit_compile=jit,
    )
    np.testing.assert_allclose(
        compiled(x, context), layer(x, context=context), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("name", CASES)
def test_config_and_keras_file_round_trip(name, tmp_path):
    layer = perturbed(name, context_size=2, activation="tanh")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    # The config carries the seed: the copy starts where the original started.
    again.build((None, *CASES[name][1]))
    fresh = CASES[name][0](seed=0, context_size=2, activation="tanh")
    fresh.build((None, *CASES[name][1]))
    for a, b in zip(again.weights, fresh.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    inputs = [keras.Input(CASES[name][1]), keras.Input((2,))]
    model = keras.Model(inputs, layer(inputs[0], context=inputs[1]))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    x, context = data(name)
    np.testing.assert_array_equal(loaded([x, context]), layer(x, context=context))
    assert np.any(loaded([x, context]) != fresh(x, context=context))


@keras.saving.register_keras_serializable(package="test_conditioners")
def halved(x):
    return x / 2


@pytest.mark.parametrize("name", SOME)
def test_an_activation_of_ones_own(name):
    make, event_in, _, _ = CASES[name]
    layer = make(activation=halved)
    assert type(layer).from_config(layer.get_config()).activation is halved
    with pytest.raises(ValueError, match="no_such"):
        make(activation="no_such")


def test_initial_variance_counts_the_context_and_is_hes_for_images():
    layer = conditioners.MLP(1, hidden_units=(800,), context_size=100, seed=0)
    layer.build((None, 300))
    weights = {v.name: v.numpy() for v in layer.weights}
    for name in ("kernel_0", "context_kernel"):
        np.testing.assert_allclose(np.var(weights[name]), 1 / 1200, rtol=0.02)
    np.testing.assert_allclose(np.var(weights["bias_0"]), 1 / 1200, rtol=0.1)
    assert (weights["kernel_1"] == 0).all() and (weights["bias_1"] == 0).all()
    layer = conditioners.ConvNet(2, filters=256, seed=0)
    layer.build((None, 4, 4, 8))
    np.testing.assert_allclose(np.var(layer.weights[0].numpy()), 2 / 72, rtol=0.05)


# --- Wrong arguments. ---


@pytest.mark.parametrize("name", SOME)
def test_wrong_contexts(name):
    make = CASES[name][0]
    x, context = data(name)
    layer, plain = make(context_size=2, name="net"), make(name="net")
    with pytest.raises(ValueError, match=r"'net'.*\[batch, 2\] is required, got none.*context="):
        layer(x)
    with pytest.raises(ValueError, match=r"'net'.*without one.*context_size"):
        plain(x, context=context)
    with pytest.raises(ValueError, match=r"'net'.*\[batch, 2\], got \(6, 1\)"):
        layer(x, context=context[:, :1])
    with pytest.raises(ValueError, match=r"'net'.*\[batch, 2\], got \(2,\)"):
        layer(x, context=context[0])
    with pytest.raises(ValueError, match="each of the 6 inputs.*got 3 rows"):
        layer(x, context=context[:3])


@pytest.mark.parametrize("name", SOME)
def test_wrong_inputs(name):
    make = CASES[name][0]
    x, _ = data(name)
    layer = make(name="net")
    for bad in (x[None], x[0]):
        with pytest.raises(ValueError, match="'net'.*exactly one batch dimension"):
            layer(bad)
    with pytest.raises(ValueError, match="'net'.*last axis of the input must be known"):
        make(name="net").build((*x.shape[:-1], None))
    layer(x)
    with pytest.raises(ValueError, match="'net'.*was built for inputs with last axis"):
        layer(np.concatenate([x, x], -1))
    with pytest.raises(ValueError, match="exactly one batch dimension"):
        layer(x[None])


@pytest.mark.parametrize("name", SOME)
def test_wrong_options(name):
    make = CASES[name][0]
    with pytest.raises(ValueError, match="context_size must be an integer >= 1, got 0"):
        make(context_size=0)
    with pytest.raises(TypeError, match="context_size must be an integer"):
        make(context_size=2.0)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        make(seed=-1)
    with pytest.raises(TypeError, match="seed must be an integer"):
        make(seed="0")
    with pytest.raises(ValueError, match="hidden_size"):
        make(hidden_size=3)
    for cls in (conditioners.MLP, conditioners.ConvNet, conditioners.ResNet):
        with pytest.raises(ValueError, match="output.* must be an integer >= 1, got 0"):
            cls(0)
        with pytest.raises(TypeError, match="output.* must be an integer"):
            cls(True)


# --- A network of one's own. ---


@keras.saving.register_keras_serializable(package="test_conditioners")
class Bilinear(conditioners.Conditioner):
    """As the base class says to write one."""

    def __init__(self, output_size, *, rank=2, gain=1.0, context_size=None, seed=None, **kwargs):
        super().__init__(input_rank=2, arguments=locals(), sizes=("output_size", "rank"))
        self._num_outputs = self.output_size

    def _add_weights(self, input_size):
        self._left = self._add_kernel("left", (input_size, self.rank))
        self._right = self._add_kernel("right", (self.rank, self.output_size))

    def _compute(self, x, context):
        return self.gain * tf.matmul(tf.matmul(x, self._left), self._right)


@keras.saving.register_keras_serializable(package="test_conditioners")
class Linear(conditioners.Conditioner):
    """As version 0.1 had it: everything passed on, built and described by itself."""

    def __init__(self, width, **kwargs):
        common = {"activation": "relu", "context_size": None, "zero_output": False, "seed": 0}
        super().__init__(input_rank=2, **{**common, **kwargs})
        self._width = width

    def build(self, input_shape):
        self._input_size = self._check_input(input_shape)
        self._kernel = self._add_kernel("kernel", (self._input_size, self._width))

    def _compute(self, x, context):
        return tf.matmul(x, self._kernel)

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self._width)

    def get_config(self):
        return {**super().get_config(), "width": self._width}


@pytest.mark.parametrize(
    ("kind", "more"),
    [(Bilinear, {"output_size", "rank", "gain", "context_size", "seed"}), (Linear, {"width"})],
)
def test_a_network_of_ones_own(kind, more, tmp_path):
    layer = kind(np.int64(4), seed=1)
    x, _ = data("mlp")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded(x), layer(x))
    common = {"name", "trainable", "dtype"}
    if kind is Linear:
        common |= {"activation", "context_size", "zero_output", "seed"}
    assert set(layer.get_config()) == common | more
    with pytest.raises(ValueError, match="exactly one batch dimension"):
        layer(x[None])
    if kind is Bilinear:
        with pytest.raises(TypeError, match="Bilinear '.*': rank must be an integer >= 1, got 2.5"):
            Bilinear(4, rank=2.5)
