"""The Diagonal BiLSTM against the definition in plain loops, and how far it sees."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import bijectors, conditioners


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def by_loops(layer, image, vector, a_pixel):
    """Parameters `[H, W, P, C]` of one image `[H, W, C]`, from the definition, pixel by pixel."""
    w = {v.name: v.numpy() for v in layer.weights}
    height, width, channels = image.shape
    units, reach = layer.units, layer.first_kernel_size // 2
    above, left = w["first_above_kernel"], w["first_left_kernel"]
    f = np.zeros([height, width, layer.filters])
    for i, j in np.ndindex(height, width):
        for a, b in np.ndindex(height, width):
            seen = np.append(image[a, b], 1.0)
            if i - reach <= a < i and abs(b - j) <= reach:
                f[i, j] += seen @ above[a - i + reach, b - j + reach]
            elif a == i and j - reach <= b < j:
                f[i, j] += seen @ left[0, b - j + reach]
    for n in range(layer.num_layers):
        shares = vector @ w["context_kernel"] + a_pixel @ w["step_context_kernel"]
        shares = shares.reshape(height, width, layer.num_layers, 2, 4 * units)[:, :, n]
        sums = np.zeros([height, width, units])
        for d, side in enumerate(("left", "right")):
            states, memories = {}, {}
            columns = range(width) if side == "left" else range(width)[::-1]
            nothing = np.zeros(units)
            for i in range(height):
                for j in columns:
                    beside = (i, j - 1 if side == "left" else j + 1)
                    z = f[i, j] @ w[f"{side}_input_kernel"][n] + w[f"{side}_bias"][n]
                    z += shares[i, j, d]
                    z += states.get(beside, nothing) @ w[f"{side}_beside_kernel"][n]
                    z += states.get((i - 1, j), nothing) @ w[f"{side}_above_kernel"][n]
                    out, keep, enter, what = np.split(z, 4)
                    memory = sigmoid(keep) * memories.get(beside, nothing)
                    memories[i, j] = memory + sigmoid(enter) * np.tanh(what)
                    states[i, j] = sigmoid(out) * np.tanh(memories[i, j])
            for i, j in np.ndindex(height, width):
                sums[i, j] += states[i, j] if d == 0 else states.get((i - 1, j), nothing)
        f = f + sums @ w["residual_kernel"][n] + w["residual_bias"][n]
    out = np.zeros([height, width, layer.num_parameters, channels])
    for i, j, q in np.ndindex(height, width, channels):
        hidden = f[i, j] @ w["hidden_kernel"] + w["hidden_bias"][q]
        for earlier in range(q):
            hidden += image[i, j, earlier] * w["own_kernel"][q - 1, earlier]
        out[i, j, :, q] = np.maximum(hidden, 0.0) @ w["out_kernel"][q] + w["out_bias"][q]
    return out


def perturbed(shape, **kwargs):
    layer = conditioners.DiagonalBiLSTM(
        shape, filters=4, first_kernel_size=3, dtype="float64", seed=0, **kwargs
    )
    layer.build([None, *shape])
    rng = np.random.default_rng(1)
    for v in layer.weights:
        v.assign(v + 0.4 * rng.normal(size=v.shape))
    return layer


@pytest.fixture(scope="module")
def network():
    shape = (3, 4, 2)
    return perturbed(shape, num_layers=2, units=3, context_size={"all": 2, "pixels": [3, 4, 1]})


def test_agrees_with_the_definition_in_plain_loops(network):
    rng = np.random.default_rng(0)
    x, vector = rng.normal(size=(2, 3, 4, 2)), rng.normal(size=(2, 2))
    a_pixel = rng.normal(size=(2, 3, 4, 1))
    got = network(x, context={"all": vector, "pixels": a_pixel}).numpy()
    wanted = np.stack([by_loops(network, *each) for each in zip(x, vector, a_pixel, strict=True)])
    np.testing.assert_allclose(got.reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-12)
    # Every part of it counts.
    assert all(np.abs(v).max() > 0 for v in network.weights)


def test_is_causal_and_steps_give_what_its_call_gives(network):
    bijectors.MaskedAutoregressive(network, dtype=tf.float64, validate_args=True)


def test_one_layer_sees_all_but_one_that_is_before_a_pixel():
    """Of a memory there is no reach; the kernel reaches one pixel."""
    layer = perturbed([4, 5, 1], num_layers=1, zero_output=False, activation="tanh")
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 4, 5, 1)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        shift = layer(x)[0, 3, 2, 0]
    depends = (tape.gradient(shift, x)[0, :, :, 0] != 0).numpy()
    wanted = np.arange(20).reshape(4, 5) < 3 * 5 + 2
    wanted[2, 4] = False  # the last of the row above
    np.testing.assert_array_equal(depends, wanted)


def test_a_memory_lasts_at_first():
    bias = conditioners.DiagonalBiLSTM([2, 2, 1], filters=4, num_layers=1)
    bias.build([None, 2, 2, 1])
    wanted = [[0, 0, 1, 1, 0, 0, 0, 0]]
    for side in ("left", "right"):
        (found,) = (v for v in bias.weights if v.name == f"{side}_bias")
        np.testing.assert_array_equal(found, wanted)
