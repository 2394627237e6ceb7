"""MLP against its formulas."""

import numpy as np
import pytest

from tfp_flows.conditioners import MLP


def weights(layer):
    return {v.name: v.numpy() for v in layer.weights}


def randomized(**kwargs):
    layer = MLP(3, context_size=2, activation="tanh", dtype="float64", **kwargs)
    layer.build((None, 4))
    rng = np.random.default_rng(0)
    for v in layer.weights:
        v.assign(rng.normal(size=v.shape))
    return layer, rng.normal(size=(5, 4)), rng.normal(size=(5, 2))


def test_plain():
    layer, x, context = randomized(hidden_units=(7, 6))
    w = weights(layer)
    h = np.tanh(x @ w["kernel_0"] + context @ w["context_kernel"] + w["bias_0"])
    h = np.tanh(h @ w["kernel_1"] + w["bias_1"])
    out = h @ w["kernel_2"] + w["bias_2"]
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-10)


def test_residual():
    layer, x, context = randomized(hidden_units=(6, 6), residual=True)
    w = weights(layer)
    h = x @ w["kernel_0"] + context @ w["context_kernel"] + w["bias_0"]
    for i in (1, 3):
        inner = np.tanh(h) @ w[f"kernel_{i}"] + w[f"bias_{i}"]
        h = h + np.tanh(inner) @ w[f"kernel_{i + 1}"] + w[f"bias_{i + 1}"]
    out = np.tanh(h) @ w["kernel_5"] + w["bias_5"]
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-10)


def test_linear():
    layer, x, context = randomized(hidden_units=())
    w = weights(layer)
    out = x @ w["kernel_0"] + context @ w["context_kernel"] + w["bias_0"]
    np.testing.assert_allclose(layer(x, context=context), out, rtol=1e-10)


def test_depth_does_not_blow_up_residual_activations():
    layer = MLP(8, hidden_units=(64,) * 30, residual=True, zero_output=False, seed=0)
    x = np.random.default_rng(0).normal(size=(100, 16)).astype(np.float32)
    assert np.std(layer(x)) < 3.0


def test_hidden_units():
    with pytest.raises(ValueError, match=r"equal widths, got \(4, 5\)"):
        MLP(2, hidden_units=(4, 5), residual=True)
    with pytest.raises(ValueError, match="one or more equal widths"):
        MLP(2, hidden_units=(), residual=True)
    with pytest.raises(TypeError, match=r"write \(64,\)"):
        MLP(2, hidden_units=64)
    with pytest.raises(ValueError, match="hidden_units must be an integer >= 1"):
        MLP(2, hidden_units=(4, 0))
    with pytest.raises(TypeError, match="hidden_units must be an integer"):
        MLP(2, hidden_units=(4, 2.5))
