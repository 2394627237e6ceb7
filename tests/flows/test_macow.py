"""The recipe macow, and what its masked convolutions do. The harness: tests/cases.py."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, bijectors, conditioners, flows

SMALL = {"num_levels": 1, "num_steps": 1, "hidden_filters": 4, "seed": 0}


def test_a_row_comes_from_the_rows_before_it():
    """Against the formula, with the first convolution written out."""
    layer = conditioners.RowConvNet(
        4, num_rows=2, kernel_width=3, filters=5, activation="tanh", dtype="float64"
    )
    part = bijectors.MaskedConvolution(layer, (4, 3, 2), "affine", dtype=tf.float64)
    rng = np.random.default_rng(0)
    for v in layer.weights:
        v.assign(0.5 * rng.normal(size=v.shape))
    w = {v.name: v.numpy() for v in layer.weights}
    y = rng.normal(size=(4, 3, 2))
    padded = np.pad(y, [(2, 0), (1, 1), (0, 0)])
    wanted, total = np.zeros_like(y), 0.0
    for i in range(4):
        for j in range(3):
            seen = padded[i : i + 2, j : j + 3]  # two rows above, three columns
            h = np.tanh(np.einsum("abc,abcf->f", seen, w["kernel_1"]) + w["bias_1"])
            h = np.tanh(h @ w["kernel_2"][0, 0] + w["bias_2"])
            shift, raw = np.split(h @ w["kernel_3"][0, 0] + w["bias_3"], 2)
            log_scale = 3.0 * np.tanh(raw / 3.0)
            wanted[i, j] = (y[i, j] - shift) * np.exp(-log_scale)
            total -= log_scale.sum()
    np.testing.assert_allclose(part.inverse(y), wanted, rtol=1e-10)
    np.testing.assert_allclose(part.inverse_log_det_jacobian(y, 3), total, rtol=1e-10)


def test_directions_are_turned_images():
    layer = conditioners.RowConvNet(4, filters=4, zero_output=False, seed=0)
    y = tf.constant(np.random.default_rng(0).normal(size=(2, 3, 3, 2)), tf.float32)

    def along(direction, y):
        return bijectors.MaskedConvolution(layer, (3, 3, 2), direction=direction).inverse(y)

    down = along("down", y)
    transposed = tf.transpose(y, [0, 2, 1, 3])
    np.testing.assert_allclose(along("up", y[:, ::-1])[:, ::-1], down, rtol=1e-6)
    right = along("right", transposed)
    np.testing.assert_allclose(tf.transpose(right, [0, 2, 1, 3]), down, rtol=1e-6)
    left = along("left", transposed[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_allclose(tf.transpose(left, [0, 2, 1, 3]), down, rtol=1e-6)


def test_any_batch_shape_and_a_context_that_broadcasts():
    layer = conditioners.RowConvNet(2, filters=4, context_size=2, zero_output=False, seed=0)
    part = bijectors.MaskedConvolution(layer, (3, 2, 1))
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(5, 2, 3, 2, 1)), tf.float32)
    context = tf.constant(rng.normal(size=(2, 2)), tf.float32)
    y = part.forward(x, context=context)
    for n in range(2):
        one = part.forward(x[:, n], context=context[n])
        np.testing.assert_allclose(one, y[:, n], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(part.inverse(tf.identity(y), context=context), x, atol=1e-5)
    assert part.forward_log_det_jacobian(x[0, 0], 3, context=context[0]).shape == []


def flow_parts(flow):
    return [p for p in flow.bijector.bijectors if isinstance(p, bijectors.MaskedConvolution)]


def test_sees_all_around():
    """Of the four directions together every pixel depends on every other that is near."""
    flow = flows.macow([4, 4, 1], dtype=tf.float64, **SMALL)
    parts = flow_parts(flow)
    assert [p.direction for p in parts] == ["down", "up", "right", "left"]
    flat = flows.macow([2, 4, 1], **SMALL)  # one row of two pixels
    kinds = [p.direction for p in flow_parts(flat)]
    assert kinds == ["right", "left"]
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=(1, 2, 2, 4)))
    for part in parts:
        for v in part.trainable_variables:
            v.assign_add(0.3 * rng.normal(size=v.shape))
    chain = bijectors.Chain(parts)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = chain.inverse(x)
    jacobian = tape.jacobian(y, x).numpy().reshape(4, 4, 4, 4)
    assert (np.abs(jacobian).max(axis=(1, 3)) > 1e-9).all()


def test_trains():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 4, 1, 1)) + 0.1 * rng.normal(size=(64, 4, 4, 1))
    model = FlowModel(flows.macow([4, 4, 1], **SMALL))
    model.compile("adam", run_eagerly=True)
    model.initialize(images.astype("float32"))
    before = -np.mean(model.log_prob(images.astype("float32")))
    history = model.fit(images.astype("float32"), epochs=4, verbose=0).history["loss"]
    assert history[-1] < before - 0.3


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        ([4, 6, 1], {"num_levels": 2}, "2 levels need a height and width that are multiples of 4"),
        ([4, 4, 1], {"num_steps": 0}, "num_steps must be an integer >= 1"),
        ([4, 4, 1], {"kernel_size": (0, 5)}, "kernel_size must be an integer >= 1"),
        ([4, 4, 1], {"log_scale": "tan"}, "log_scale must be one of"),
        ([4], {}, r"event_shape must be \[H, W, C\]"),
    ],
)
def test_wrong_arguments(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        flows.macow(shape, **{**SMALL, **arguments})


def test_wrong_parts():
    layer = conditioners.RowConvNet(2)
    for arguments, message in [
        ((layer, (2, 2, 1), "affine", "sideways"), "direction must be one of .*got 'sideways'"),
        ((layer, (None, 2, 1), "affine", "up"), r"event_shape must be \[H, W, C\], known"),
        (
            (conditioners.ConvNet(2), (2, 2, 1), "affine", "up"),
            "ConvNet has no attribute `num_rows",
        ),
        ((conditioners.RowConvNet(3), (2, 2, 1), "affine", "up"), "Set the size of its output"),
    ]:
        *positional, direction = arguments
        with pytest.raises(ValueError, match=message):
            bijectors.MaskedConvolution(*positional, direction=direction)
