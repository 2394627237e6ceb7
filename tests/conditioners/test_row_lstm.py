"""The Row LSTM against the definition in plain loops, and how far it sees."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, bijectors, conditioners, flows


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def features_by_loops(layer, f, vector, a_pixel):
    """The f after all layers, `[H, W, filters]`, from the first, by the definition."""
    w = {v.name: v.numpy() for v in layer.weights}
    height, width, _ = f.shape
    units, reach = layer.units, layer.kernel_size // 2

    def inside(values, i, j):
        there = i >= 0 and 0 <= j < width
        return values[i, j] if there else np.zeros(values.shape[-1])

    for n in range(layer.num_layers):
        shares = vector @ w["context_kernel"] + a_pixel @ w["step_context_kernel"]
        shares = shares.reshape(height, width, layer.num_layers, 4 * units)[:, :, n]
        # Taps are from left to right.
        taps = w["input_kernel"][n].reshape(reach + 1, -1, 4 * units)
        above = w["above_kernel"][n].reshape(2 * reach + 1, units, 4 * units)
        states, memories = np.zeros([2, height, width, units])
        for i, j in np.ndindex(height, width):
            z = w["bias"][n] + shares[i, j]
            for d in range(reach + 1):
                z = z + inside(f, i, j - d) @ taps[reach - d]
            for d in range(-reach, reach + 1):
                z = z + inside(states, i - 1, j - d) @ above[reach - d]
            out, keep, enter, what = np.split(z, 4)
            memories[i, j] = sigmoid(keep) * inside(memories, i - 1, j)
            memories[i, j] += sigmoid(enter) * np.tanh(what)
            states[i, j] = sigmoid(out) * np.tanh(memories[i, j])
        f = f + states @ w["residual_kernel"][n] + w["residual_bias"][n]
    return f


def perturbed(shape, **kwargs):
    layer = conditioners.RowLSTM(
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
    return perturbed(
        shape, num_layers=2, units=3, kernel_size=3, context_size={"all": 2, "pixels": [3, 4, 1]}
    )


def test_agrees_with_the_definition_in_plain_loops(network):
    rng = np.random.default_rng(0)
    above, left = rng.normal(size=(2, 2, 3, 4, 4))
    vector, a_pixel = rng.normal(size=(2, 2)), rng.normal(size=(2, 3, 4, 1))
    shares = network._shares(*map(tf.constant, (vector, a_pixel)), tf.float64)
    got = network._features(tf.constant(above), tf.constant(left), shares)
    wanted = [
        features_by_loops(network, *each)
        for each in zip(above + left, vector, a_pixel, strict=True)
    ]
    np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_is_causal_and_steps_give_what_its_call_gives(network):
    bijectors.MaskedAutoregressive(network, dtype=tf.float64, validate_args=True)
    wide = perturbed((3, 4, 1), num_layers=1, kernel_size=5, order="right-to-left")
    bijectors.MaskedAutoregressive(wide, dtype=tf.float64, validate_args=True)


def test_one_layer_sees_a_triangle():
    layer = perturbed([5, 9, 1], num_layers=1, zero_output=False, activation="tanh")
    x = tf.constant(np.random.default_rng(0).normal(size=(1, 5, 9, 1)))
    with tf.GradientTape() as tape:
        tape.watch(x)
        shift = layer(x)[0, 4, 4, 0]
    depends = (tape.gradient(shift, x)[0, :, :, 0] != 0).numpy()
    wanted = np.zeros([5, 9], bool)
    for above in range(5):  # The f of that row, and what the first kernel sees from there.
        left, right = max(0, 4 - above - 1), min(8, 4 + above)
        wanted[4 - above, max(0, left - 1) : right] = True
        wanted[max(0, 3 - above), max(0, left - 1) : right + 2] |= above < 4
    np.testing.assert_array_equal(depends, wanted)


def test_is_the_network_of_a_density_of_levels():
    density = flows.pixel_rnn(
        [2, 2, 1],
        network="row_lstm",
        output="bernoulli",
        filters=4,
        num_layers=1,
        first_kernel_size=3,
        seed=0,
    )
    rng = np.random.default_rng(0)
    for v in density.trainable_variables:
        v.assign(v + 0.5 * rng.normal(size=v.shape))
    every = np.unpackbits(np.arange(16, dtype="uint8")[:, np.newaxis], axis=1)[:, 4:]
    model = FlowModel(density)
    log_prob = model.log_prob(every.reshape(-1, 2, 2, 1).astype("int32"))
    np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match="network must be one of .*'row_lstm'.*got 'rows'"):
        flows.pixel_rnn([2, 2, 1], network="rows")
