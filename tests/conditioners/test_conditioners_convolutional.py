"""ConvNet and ResNet against their formulas, with a convolution written out in NumPy."""

import numpy as np
import pytest

from tfp_flows.conditioners import ConvNet, ResNet


def convolve(x, kernel, bias):
    """Cross-correlation with zero padding, one shifted product for each entry of the kernel."""
    k = kernel.shape[0]
    before = (k - 1) // 2
    height, width = x.shape[1:3]
    padded = np.pad(x, [(0, 0), (before, k - 1 - before), (before, k - 1 - before), (0, 0)])
    out = bias
    for i in range(k):
        for j in range(k):
            out = out + padded[:, i : i + height, j : j + width] @ kernel[i, j]
    return out


def randomized(layer, shape):
    layer.build((None, None, None, shape[-1]))
    rng = np.random.default_rng(0)
    for v in layer.weights:
        v.assign(0.5 * rng.normal(size=v.shape))
    w = {v.name: v.numpy() for v in layer.weights}
    return w, rng.normal(size=shape), rng.normal(size=(shape[0], 2))


@pytest.mark.parametrize("kernel_size", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (2, 5, 4, 3)])
def test_convnet(shape, kernel_size):
    layer = ConvNet(
        4, filters=5, activation="tanh", kernel_size=kernel_size, context_size=2, dtype="float64"
    )
    w, x, context = randomized(layer, shape)
    assert w["kernel_1"].shape == (kernel_size, kernel_size, 3, 5)
    assert w["kernel_2"].shape == (1, 1, 5, 5)
    h = convolve(x, w["kernel_1"], w["bias_1"])
    h = np.tanh(h + (context @ w["context_kernel"])[:, None, None])
    h = np.tanh(convolve(h, w["kernel_2"], w["bias_2"]))
    out = convolve(h, w["kernel_3"], w["bias_3"]) * np.exp(3 * w["log_scale"])
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("num_blocks", [0, 2])
@pytest.mark.parametrize("shape", [(2, 1, 1, 3), (2, 5, 4, 3)])
def test_resnet(shape, num_blocks):
    layer = ResNet(
        4, filters=5, num_blocks=num_blocks, activation="tanh", context_size=2, dtype="float64"
    )
    w, x, context = randomized(layer, shape)
    h = convolve(x, w["kernel_in"], w["bias_in"])
    h = h + (context @ w["context_kernel"])[:, None, None]
    for i in range(num_blocks):
        inner = convolve(np.tanh(h), w[f"block_{i}_kernel_1"], w[f"block_{i}_bias_1"])
        h = h + convolve(np.tanh(inner), w[f"block_{i}_kernel_2"], w[f"block_{i}_bias_2"])
    out = np.tanh(h) @ w["kernel_out"][0, 0] + w["bias_out"]
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-9, atol=1e-12)


def test_depth_does_not_blow_up_resnet_activations():
    layer = ResNet(8, filters=16, num_blocks=15, zero_output=False, seed=0)
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 3)).astype(np.float32)
    assert np.std(layer(x)) < 3.0


def test_one_layer_serves_images_of_all_sizes():
    layer = ResNet(2, filters=4, num_blocks=1)
    layer.build((None, None, None, 3))
    for size in [(1, 1), (4, 7)]:
        assert layer(np.ones((2, *size, 3), np.float32)).shape == (2, *size, 2)
    assert layer.compute_output_shape((None, None, None, 3)) == (None, None, None, 2)


def test_options():
    for cls in (ConvNet, ResNet):
        with pytest.raises(ValueError, match="filters must be an integer >= 1"):
            cls(2, filters=0)
        with pytest.raises(TypeError, match="kernel_size must be an integer"):
            cls(2, kernel_size=(3, 3))
    with pytest.raises(ValueError, match="num_blocks must be an integer >= 0"):
        ResNet(2, num_blocks=-1)
