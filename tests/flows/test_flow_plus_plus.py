"""Flow++: its network against the formula, its recipe, and learned noise around it."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf
from conditioners.test_conditioners_convolutional import convolve
from conditioners.test_vision_transformer import attention, norm

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.conditioners import GatedConvNet

SMALL = {"filters": 8, "num_blocks": 1, "num_heads": 2, "seed": 0}
MIXTURE = {"num_components": 3, **SMALL}


def gated(h):
    value, gate = np.split(h, 2, axis=-1)
    return value * scipy.special.expit(gate)


def both(h):
    return np.concatenate([np.tanh(h), np.tanh(-h)], axis=-1)


@pytest.mark.parametrize(("by_pixel", "attends"), [(True, True), (False, False)])
def test_network_is_its_formula(by_pixel, attends):
    layer = GatedConvNet(
        3,
        filters=4,
        num_blocks=2,
        num_heads=2,
        attention=attends,
        activation="tanh",
        context_size=[4, 3, 2] if by_pixel else 2,
        dtype="float64",
    )
    layer.build((None, 4, 3, 2))
    rng = np.random.default_rng(0)
    for v in layer.weights:
        v.assign(0.5 * rng.normal(size=v.shape))
    w = {v.name: v.numpy() for v in layer.weights}
    x = rng.normal(size=(3, 4, 3, 2))
    context = rng.normal(size=(3, 4, 3, 2) if by_pixel else (3, 2))
    h = np.concatenate([x, context], axis=-1) if by_pixel else x
    h = convolve(h, w["kernel_in"], w["bias_in"])
    if not by_pixel:
        h = h + (context @ w["context_kernel"])[:, None, None]

    def of(name):
        return w[f"{name}_kernel"], w[f"{name}_bias"]

    for i in range(2):
        inner = convolve(both(convolve(both(h), *of(f"block_{i}_conv"))), *of(f"block_{i}_gate"))
        h = norm(h + gated(inner), w[f"block_{i}_norm_gain"], w[f"block_{i}_norm_bias"])
        if attends:
            tokens = h.reshape(3, 12, 4) + w["positions"]
            kernel, bias = of(f"block_{i}_mixing")
            mixed = gated(attention(tokens, *of(f"block_{i}_attention"), 2) @ kernel + bias)
            gain, bias = (w[f"block_{i}_attention_norm_{part}"] for part in ("gain", "bias"))
            h = norm(h + mixed.reshape(h.shape), gain, bias)
    out = convolve(h, w["kernel_out"], w["bias_out"])
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-9, atol=1e-12)


def test_parts_follow_the_counts_and_the_ablation_is_one_flag():
    flow = flows.flow_plus_plus([4, 4, 2], **MIXTURE)
    names = [part.name for part in flow.bijector.bijectors]
    assert sum("coupling" in name for name in names) == 9
    assert sum("conv1x1" in name for name in names) == 9
    counts = {"num_checkerboard": 1, "num_channel": 1, "num_last": 0}
    flow = flows.flow_plus_plus([4, 4, 2], **counts, **MIXTURE)
    without = flows.flow_plus_plus([4, 4, 2], attention=False, **counts, **MIXTURE)
    affine = flows.flow_plus_plus([4, 4, 2], elementwise="affine", **counts, **SMALL)
    sizes = [sum(np.prod(v.shape) for v in f.trainable_variables) for f in (flow, without, affine)]
    assert sizes[0] > sizes[1] and sizes[0] > sizes[2]
    # Fresh flows are rotations: every density is the base's.
    x = tf.constant(np.random.default_rng(0).normal(size=(5, 4, 4, 2)), tf.float32)
    wanted = flow.distribution.log_prob(x)
    for fresh in (flow, affine):
        np.testing.assert_allclose(fresh.log_prob(x), wanted, rtol=1e-4)


def test_trains_with_noise_that_sees_the_image():
    noise = flows.flow_plus_plus(
        [4, 4, 1],
        num_checkerboard=1,
        num_channel=0,
        num_last=0,
        base="logistic",
        context_size=[4, 4, 1],
        closed="forward",
        **MIXTURE,
    )
    dequantization = preprocessing.VariationalDequantization(noise, 17)
    flow = flows.flow_plus_plus(
        [4, 4, 1], num_checkerboard=1, num_channel=0, num_last=0, attention=False, **MIXTURE
    )
    model = FlowModel(flow, dequantization=dequantization)
    model.compile(keras.optimizers.Adam(3e-3))
    x = np.random.default_rng(0).integers(0, 17, (64, 4, 4, 1)).astype("uint8")
    losses = model.fit(x, epochs=3, batch_size=32, verbose=0).history["loss"]
    assert np.isfinite(losses).all() and losses[-1] < losses[0]


def test_refusals():
    make = flows.flow_plus_plus
    for shape, kwargs, message in [
        ([4], {}, r"event_shape must be \[H, W, C\]"),
        ([4, 4, 1], {"num_last": -1}, "num_last must be an integer >= 0, got -1"),
        ([4, 4, 1], dict.fromkeys(("num_checkerboard", "num_channel", "num_last"), 0), "0 coupl"),
        ([3, 4, 1], {}, "need an even height and width"),
        ([2, 2, 1], {}, "and checkerboards two pixels of it, got 2 x 2"),
        ([4, 4, 1], {"context_size": [4, 4, 1]}, "no place in couplings of the squeezed image"),
        ([4, 4, 1], {"seed": -1}, "seed must be an integer >= 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make(shape, **kwargs)
    with pytest.raises(TypeError, match="unexpected argument num_bins"):
        make([4, 4, 1], num_bins=3)
    with pytest.raises(ValueError, match="filters must be a multiple of num_heads, got filters=6"):
        GatedConvNet(2, filters=6)
    with pytest.raises(ValueError, match="must be known where it attends"):
        GatedConvNet(2, filters=4).build((None, None, 4, 1))
    with pytest.raises(ValueError, match=r"the size of a vector, or \[H, W, K\]"):
        GatedConvNet(2, filters=4, context_size=[4, 1])
    layer = GatedConvNet(2, filters=4, context_size=[4, 4, 1])
    with pytest.raises(ValueError, match=r"expected a context of shape \[batch, 4, 4, 1\], got"):
        layer(tf.zeros([1, 4, 4, 1]), context=tf.zeros([1, 4]))
    with pytest.raises(ValueError, match=r"each of \[4, 4\] pixels, the input has \[2, 4\]"):
        layer(tf.zeros([1, 2, 4, 1]), context=tf.zeros([1, 4, 4, 1]))
