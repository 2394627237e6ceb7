"""What every network that runs step by step promises, by table."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import conditioners

CASES = {
    "wavenet": (
        lambda **k: conditioners.WaveNet([6, 2], 3, filters=4, dilations=(1, 2), **k),
        (6, 2),
    ),
    "transformer": (
        lambda **k: conditioners.CausalTransformer(
            [4, 6, 2], 3, patch_size=2, num_layers=2, width=8, num_heads=2, **k
        ),
        (4, 6, 2),
    ),
    "transformer_of_pixels": (
        lambda **k: conditioners.CausalTransformer(
            [2, 3, 2], 3, patch_size=1, num_layers=1, width=4, **k
        ),
        (2, 3, 2),
    ),
    "pixel_cnn": (
        lambda **k: conditioners.PixelCNN([4, 5, 2], 3, filters=4, num_layers=2, **k),
        (4, 5, 2),
    ),
    "diagonal_bilstm": (
        lambda **k: conditioners.DiagonalBiLSTM([3, 4, 2], 3, filters=4, num_layers=2, **k),
        (3, 4, 2),
    ),
    "row_lstm": (
        lambda **k: conditioners.RowLSTM([3, 4, 2], 3, filters=4, num_layers=2, **k),
        (3, 4, 2),
    ),
}
ONE_A_STEP = {"wavenet": [6, 3], "pixel_cnn": [4, 5, 3], "transformer": [4, 6, 3]}
ONE_A_STEP |= {
    "transformer_of_pixels": [2, 3, 3],
    "diagonal_bilstm": [3, 4, 3],
    "row_lstm": [3, 4, 3],
}


def perturbed(name, **kwargs):
    layer = CASES[name][0](seed=0, **kwargs)
    layer.build((None, *CASES[name][1]))
    rng = np.random.default_rng(3)
    for v in layer.weights:
        v.assign(v + 0.3 * rng.normal(size=v.shape))
    return layer


def data(name, batch=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(batch, *CASES[name][1])).astype("float32")


@pytest.mark.parametrize("name", CASES)
def test_starts_at_zero_and_seeds_fix_the_rest(name):
    make, shape = CASES[name]
    x = data(name)
    out = make(seed=0)(x)
    assert out.shape == (3, *shape[:-1], 3 * shape[-1])
    np.testing.assert_array_equal(out, np.zeros(out.shape))
    first, again, other = (make(seed=s, zero_output=False)(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.std(first) > 0.01 and np.abs(first - other).max() > 0.01


@pytest.mark.parametrize("name", CASES)
def test_config_round_trip(name):
    both = {"a": 2, "b": ONE_A_STEP[name]}
    layer = perturbed(name, context_size=both)
    config = keras.saving.serialize_keras_object(layer)
    again = keras.saving.deserialize_keras_object(config)
    again.set_weights(layer.get_weights())
    x = data(name)
    context = {"a": np.ones([3, 2], "float32"), "b": np.ones([3, *both["b"]], "float32")}
    np.testing.assert_array_equal(again(x, context=context), layer(x, context=context))
    assert again.get_config() == layer.get_config()


@pytest.mark.parametrize("name", CASES)
def test_contexts_of_either_kind_and_one_row_for_all(name):
    both = {"a": 2, "b": ONE_A_STEP[name]}
    layer = perturbed(name, context_size=both)
    rng = np.random.default_rng(1)
    x = data(name)
    one = {"a": rng.normal(size=(1, 2)), "b": rng.normal(size=(1, *both["b"]))}
    each = {k: np.repeat(v, 3, axis=0) for k, v in one.items()}
    out = layer(x, context=each)
    np.testing.assert_allclose(layer(x, context=one), out, rtol=1e-4, atol=1e-5)
    for k in both:
        other = layer(x, context={**each, k: each[k] + 1.0})
        assert np.abs(other - out).max() > 1e-3


@pytest.mark.parametrize("order", ["left-to-right", "right-to-left"])
@pytest.mark.parametrize("name", ["wavenet", "transformer", "transformer_of_pixels"])
def test_the_context_of_a_step_is_that_of_its_place(name, order):
    """That of the last step in order reaches no other."""
    shape = ONE_A_STEP[name]
    layer = perturbed(name, context_size=shape, order=order)
    context = np.random.default_rng(0).normal(size=(1, *shape)).astype("float32")
    other = context.copy()
    last = (np.array(shape[:-1]) - 1) * (order == "left-to-right")
    other[(0, *last)] += 1.0
    x = data(name, 1)
    differs = (layer(x, context=context).numpy() != layer(x, context=other).numpy())[0]
    places = layer.step_entries[-1] // layer.event_shape[-1]
    wanted = np.isin(np.arange(np.prod(shape[:-1])), places)
    np.testing.assert_array_equal(differs.any(axis=-1).reshape(-1), wanted)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", CASES)
def test_half_precision(name, policy):
    both = {"a": 2, "b": ONE_A_STEP[name]}
    half, full = (
        perturbed(name, context_size=both, dtype=policy),
        perturbed(name, context_size=both),
    )
    x = data(name)
    context = {"a": np.ones([3, 2], "float32"), "b": np.ones([3, *both["b"]], "float32")}
    out, wanted = half(x, context=context), full(x, context=context)
    assert out.dtype == policy.removeprefix("mixed_")
    out = tf.cast(out, tf.float32)
    assert np.abs(out - wanted).max() < 0.1 * np.abs(wanted).max()


def test_receptive_field_of_a_wavenet():
    layer = perturbed("wavenet", dtype="float64", activation="tanh")
    assert layer.receptive_field == 4
    x = data("wavenet", 1).astype("float64")
    for step, wanted in ((0, [1, 2, 3, 4]), (1, [2, 3, 4, 5])):
        other = x.copy()
        other[0, step] += 1.0
        differs = (layer(x).numpy() != layer(other).numpy()).any(axis=(0, 2))
        np.testing.assert_array_equal(np.flatnonzero(differs), wanted)


def test_patches_follow_each_other_row_by_row():
    entries = conditioners.CausalTransformer([4, 4, 1], patch_size=2).step_entries
    np.testing.assert_array_equal(entries[:2], [[0, 1, 4, 5], [2, 3, 6, 7]])
    backward = conditioners.CausalTransformer([4, 4, 1], patch_size=2, order="right-to-left")
    np.testing.assert_array_equal(backward.step_entries, entries[::-1])


def test_attention_is_that_of_keras():
    """One layer without its second half, against Keras's own attention."""
    layer = conditioners.CausalTransformer(
        [3, 2], 2, patch_size=1, num_layers=1, width=4, num_heads=2, zero_output=False, seed=0
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 2)).astype("float32")
    layer.build([None, 3, 2])
    w = {v.name: v for v in layer.weights}
    w["layer_0_attention_kernel"].assign(np.random.default_rng(1).normal(size=(4, 4)))
    before = np.concatenate([x, np.ones([2, 3, 1])], -1)[:, :-1]
    before = np.concatenate([np.zeros([2, 1, 3]), before], 1).astype("float32")
    h = before @ w["in_kernel"] + w["positions"]
    normalized = keras.layers.LayerNormalization(epsilon=1e-5)(h)
    attention = keras.layers.MultiHeadAttention(2, 2)
    attention.build(normalized.shape, normalized.shape)
    q, k, v = np.split(w["layer_0_attended_kernel"].numpy(), 3, axis=1)
    zero, kernel = np.zeros([2, 2]), w["layer_0_attention_kernel"].numpy()
    own = [t for part in (q, k, v) for t in (part.reshape(4, 2, 2), zero)]
    attention.set_weights([*own, kernel.reshape(2, 2, 4), np.zeros(4)])
    h += attention(normalized, normalized, use_causal_mask=True)
    np.testing.assert_allclose(layer(x), h @ w["out_kernel"], rtol=1e-4, atol=1e-5)


def test_a_pixel_cnn_has_no_blind_spot():
    """Of 3x3 kernels alone, stacked, the masks of the first paper miss pixels up to the right."""
    layer = conditioners.PixelCNN(
        [4, 5, 1],
        num_layers=3,
        filters=4,
        first_kernel_size=3,
        activation="tanh",
        dtype="float64",
        zero_output=False,
        seed=0,
    )
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 5, 1)))
    layer.build(x.shape)
    rng = np.random.default_rng(1)
    for v in layer.weights:
        v.assign(v + 0.3 * rng.normal(size=v.shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        shift = layer(x)[0, 3, 2, 0]
    depends = (tape.gradient(shift, x)[0, :, :, 0] != 0).numpy().reshape(-1)
    np.testing.assert_array_equal(depends, np.arange(20) < 3 * 5 + 2)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: conditioners.WaveNet([6]), ValueError, r"must be \[T, C\], got \[6\]"),
        (lambda: conditioners.WaveNet([6, 0]), ValueError, "event_shape"),
        (lambda: conditioners.WaveNet([6, 1], dilations=(1, 8)), ValueError, "below the 6 steps"),
        (lambda: conditioners.WaveNet([6, 1], order="random"), ValueError, "order must be one of"),
        (
            lambda: conditioners.WaveNet([6, 1], context_size=[5, 2]),
            ValueError,
            r"context_size must be the size of a vector, or \[6, n\], one a step, got \[5, 2\]",
        ),
        (
            lambda: conditioners.WaveNet([6, 1], context_size={"a": [5, 2]}),
            ValueError,
            "context_size of 'a' must",
        ),
        (lambda: conditioners.WaveNet([6, 1], context_size=0), ValueError, "context_size"),
        (
            lambda: conditioners.CausalTransformer([6, 4, 1]),
            ValueError,
            r"patch_size must divide the sizes \[6, 4\] of the event, got 4",
        ),
        (
            lambda: conditioners.CausalTransformer([4, 4, 1], width=6, num_heads=4),
            ValueError,
            "width must be a multiple of num_heads, got width=6 and num_heads=4",
        ),
        (
            lambda: conditioners.CausalTransformer([4]),
            ValueError,
            r"must be \[T, C\] or \[H, W, C\]",
        ),
        (
            lambda: conditioners.PixelCNN([4, 4, 1], kernel_size=4),
            ValueError,
            "kernel_size must be odd and at least 1, got 4",
        ),
        (
            lambda: conditioners.PixelCNN([4, 4, 1], context_size=[4, 3, 2]),
            ValueError,
            r"or \[4, 4, n\], one a step",
        ),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    ("context_size", "x", "context", "message"),
    [
        (None, (7, 1), None, r"\[batch, 6, 1\], got \(2, 7, 1\).* made for events of one size"),
        (None, (6, 2), None, r"\[batch, 6, 1\], got"),
        (None, (6, 1), (2, 3), "none is expected"),
        (3, (6, 1), None, r"\[batch, 3\] is required, got none"),
        ([6, 3], (6, 1), (2, 3), r"\[batch, 6, 3\], got \(2, 3\). That is one vector an event"),
        ([6, 3], (6, 1), (2, 5, 3), r"\[batch, 6, 3\], got \(2, 5, 3\)"),
        ({"a": 3}, (6, 1), (2, 3), "got one tensor"),
        ([6, 3], (6, 1), (3, 6, 3), "one row for each of the 2 inputs"),
    ],
)
def test_wrong_calls(context_size, x, context, message):
    layer = conditioners.WaveNet([6, 1], filters=2, context_size=context_size)
    context = None if context is None else tf.zeros(context)
    with pytest.raises(ValueError, match=message):
        layer(tf.zeros([2, *x]), context=context)
