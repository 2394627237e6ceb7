"""VisionTransformer against its formula in NumPy. What all networks promise: the common tests."""

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from tfp_flows.conditioners import VisionTransformer


def norm(h, gain, bias):
    h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
    return h * (1.0 + gain) + bias


def attention(h, kernel, bias, heads):
    """One head at a time, one row at a time."""
    width = h.shape[-1]
    size = width // heads
    projected = h @ kernel + bias
    out = np.zeros_like(h)
    for row in range(len(h)):
        for n in range(heads):
            query, key, value = (
                projected[row, :, part * width + n * size : part * width + (n + 1) * size]
                for part in range(3)
            )
            weights = scipy.special.softmax(query @ key.T / np.sqrt(size), axis=-1)
            out[row, :, n * size : (n + 1) * size] = weights @ value
    return out


@pytest.mark.parametrize("p", [1, 2])
def test_is_its_formula(p):
    layer = VisionTransformer(
        3,
        patch_size=p,
        width=6,
        num_layers=2,
        num_heads=2,
        mlp_ratio=2,
        activation="tanh",
        context_size=2,
        dtype="float64",
    )
    layer.build((None, 2, 4, 5))
    rng = np.random.default_rng(0)
    for v in layer.weights:
        v.assign(0.5 * rng.normal(size=v.shape))
    w = {v.name: v.numpy() for v in layer.weights}
    x, context = rng.normal(size=(3, 2, 4, 5)), rng.normal(size=(3, 2))
    rows, columns = 2 // p, 4 // p
    patches = x.reshape(3, rows, p, columns, p, 5).transpose(0, 1, 3, 2, 4, 5)
    h = patches.reshape(3, rows * columns, -1) @ w["embedding_kernel"] + w["embedding_bias"]
    h = h + (context @ w["context_kernel"])[:, None] + w["positions"]

    def linear(h, name):
        return h @ w[f"{name}_kernel"] + w[f"{name}_bias"]

    for i in range(2):
        normed = norm(h, w[f"block_{i}_norm_1_gain"], w[f"block_{i}_norm_1_bias"])
        kernel, bias = (w[f"block_{i}_attention_{part}"] for part in ("kernel", "bias"))
        h = h + linear(attention(normed, kernel, bias, 2), f"block_{i}_mixing")
        normed = norm(h, w[f"block_{i}_norm_2_gain"], w[f"block_{i}_norm_2_bias"])
        h = h + linear(np.tanh(linear(normed, f"block_{i}_hidden")), f"block_{i}_back")
    out = norm(h, w["last_norm_gain"], w["last_norm_bias"]) @ w["kernel_out"] + w["bias_out"]
    out = out.reshape(3, rows, columns, p, p, 3).transpose(0, 1, 3, 2, 4, 5).reshape(3, 2, 4, 3)
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-9, atol=1e-12)


def test_heads_of_64():
    assert [VisionTransformer(1, width=n).num_heads for n in (256, 64, 48)] == [4, 1, 1]


def test_under_xla_with_an_unknown_batch_size():
    layer = VisionTransformer(2, width=8, num_layers=1, zero_output=False, seed=0)
    x = np.random.default_rng(0).normal(size=(3, 2, 2, 1)).astype("float32")
    wanted = layer(x)
    for jit, rows in ((True, 3), (False, None)):
        signature = [tf.TensorSpec([rows, 2, 2, 1])]
        compiled = tf.function(layer.__call__, input_signature=signature, jit_compile=jit)
        np.testing.assert_allclose(compiled(x), wanted, rtol=1e-4, atol=1e-5)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="width must be a multiple of num_heads, got width=8 and"):
        VisionTransformer(2, width=8, num_heads=3)
    for name in ("patch_size", "num_layers", "mlp_ratio", "num_heads"):
        with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0"):
            VisionTransformer(2, **{name: 0})
    for shape in ((None, None, 4, 1), (None, 3, 4, 1)):
        with pytest.raises(ValueError, match="must be known, and multiples of the patch_size 2, "):
            VisionTransformer(2, patch_size=2).build(shape)
    layer = VisionTransformer(2, width=8)
    layer(tf.zeros([1, 2, 2, 1]))
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        layer(tf.zeros([1, 2, 4, 1]))


@pytest.mark.parametrize(("p", "num_layers"), [(1, 2), (2, 1)])
def test_outputs_that_are_not_wanted_are_zero_and_the_others_as_ever(p, num_layers):
    wanted = np.array([[True, False, True], [False, False, True]])
    arguments = {
        "patch_size": p,
        "width": 8,
        "num_layers": num_layers,
        "num_heads": 2,
        "zero_output": False,
        "dtype": "float64",
        "seed": 0,
    }
    x = np.random.default_rng(0).normal(size=(2, 2 * p, 3 * p, 2))
    full, some = VisionTransformer(5, **arguments), VisionTransformer(5, wanted=wanted, **arguments)
    kept = np.kron(wanted, np.ones([p, p]))[..., np.newaxis]
    np.testing.assert_allclose(some(x), full(x) * kept, rtol=1e-12, atol=1e-14)
    again = VisionTransformer.from_config(some.get_config())
    np.testing.assert_array_equal(again(x), some(x))
    with pytest.raises(ValueError, match=r"an array of the \[1, 3\] patches, got one of shape"):
        VisionTransformer(5, wanted=wanted, **arguments)(x[:, :p])
    with pytest.raises(ValueError, match="some that are, got none"):
        VisionTransformer(5, wanted=[[False]])
