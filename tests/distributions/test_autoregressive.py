"""Densities from causal networks of one's own, by passes and by steps."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from causal_networks import Passes, Steps

from tfp_flows import conditioners, distributions
from tfp_flows.distributions import AutoregressiveDistribution, get_output

CONTEXT = np.random.default_rng(2).normal(size=(5, 2)).astype("float32")


ORDER = [2, 0, 3, 1]


def density(kind=Steps, event_shape=(2, 2), output="bernoulli", order=ORDER, **kwargs):
    found = get_output(output, **kwargs.pop("of_output", {}))
    layer = kind(found.num_parameters, order, **kwargs.pop("layer", {}))
    return AutoregressiveDistribution(layer, event_shape, output=found, **kwargs)


@pytest.mark.parametrize("output, levels", [("bernoulli", 2), ("categorical", 3)])
def test_sums_to_one_and_is_the_product_of_its_conditionals(output, levels):
    of_output = {"num_levels": levels} if output == "categorical" else {}
    p = density(output=output, of_output=of_output, dtype=tf.float64)
    everything = np.array(list(itertools.product(range(levels), repeat=4))).reshape(-1, 2, 2)
    scores = p.log_prob(everything)
    np.testing.assert_allclose(np.exp(scores).sum(), 1.0, rtol=1e-10)
    # Each conditional by sums over the joint: of an entry given those before it in the order.
    joint = np.exp(scores).reshape([levels] * 4).transpose(ORDER)
    x = np.array([1, 0, levels - 1, 1])  # by entry
    total = 0.0
    for place in range(4):
        before = tuple(x[ORDER[:place]])
        given = joint[before].reshape(levels, -1).sum(axis=1)
        total += np.log(given[x[ORDER[place]]] / given.sum())
    np.testing.assert_allclose(p.log_prob(x.reshape(2, 2)), total, rtol=1e-10)


@pytest.mark.parametrize("kind", [Steps, Passes])
def test_samples_follow_the_probabilities(kind):
    p, n = density(kind), 20000
    everything = np.array(list(itertools.product(range(2), repeat=4))).reshape(-1, 2, 2)
    wanted = np.exp(p.log_prob(everything))
    if kind is Passes:
        with pytest.warns(UserWarning, match="Passes has no `step`.*take 4 passes. Give the layer"):
            samples = p.sample(n, seed=[1, 2])
    else:
        samples = p.sample(n, seed=[1, 2])
    assert samples.dtype == p.dtype == tf.int32
    counts = np.bincount(samples.numpy().reshape(n, 4) @ [8, 4, 2, 1], minlength=16)
    error = 5 * np.sqrt(wanted * (1 - wanted) / n) + 1e-4
    assert (np.abs(counts / n - wanted) < error).all()


RGB = [9, 10, 11, 0, 1, 2, 6, 7, 8, 3, 4, 5]
PIXELS = {"num_levels": 5, "num_components": 2, "coupled": True}


@pytest.mark.filterwarnings("ignore:Autoregressive:UserWarning")
@pytest.mark.parametrize(
    "arguments",
    [
        {
            "output": "categorical",
            "of_output": {"num_levels": 5},
            "layer": {"context_size": 2},
        },
        {"output": "gaussian_mixture"},
        {"event_shape": (4,), "layer": {"width": 2}, "output": "normal"},
        {
            "event_shape": (2, 2, 3),
            "order": RGB,
            "layer": {"width": 3},
            "output": "discretized_logistic_mixture",
            "of_output": PIXELS,
        },
        {
            "event_shape": (2, 2, 3),
            "order": RGB,
            "layer": {"width": 6, "context_size": 2},
            "output": "discretized_logistic_mixture",
            "of_output": PIXELS,
        },
    ],
    ids=["categorical", "mixture", "two_a_step", "pixels", "two_pixels"],
)
def test_steps_and_passes_draw_the_same(arguments):
    context_size = arguments.get("layer", {}).get("context_size")
    layer = arguments.get("layer", {})
    drawn = []
    context = {} if context_size is None else {"context": CONTEXT}
    for kind in (Steps, Passes):
        p = density(kind, dtype=tf.float64, **{**arguments, "layer": {**layer, "dtype": "float64"}})
        sample = tf.function(lambda c, p=p: p.sample(5, seed=[3, 4], **c), autograph=False)
        drawn.append(sample(context).numpy())
    np.testing.assert_allclose(drawn[0], drawn[1], rtol=1e-9)
    assert drawn[0].shape == (5, *arguments.get("event_shape", (2, 2)))
    assert len(np.unique(drawn[0])) > 2
    other = p.sample(5, seed=[3, 5], **context)
    assert not np.allclose(drawn[0], other)
    if context_size is not None:
        scores = p.log_prob(drawn[0], **context)
        assert not np.allclose(scores, p.log_prob(drawn[0], context=CONTEXT[::-1]))


def test_under_xla():
    p = density(output="gaussian_mixture", dtype=tf.float64, layer={"dtype": "float64"})
    x = np.random.default_rng(0).normal(size=(3, 2, 2))
    compiled = tf.function(p.log_prob, jit_compile=True)(x)
    np.testing.assert_allclose(compiled, p.log_prob(x), rtol=1e-12)
    draw = tf.function(lambda: p.sample(3, seed=[1, 2]), jit_compile=True)
    assert np.isfinite(draw()).all()


def test_a_masked_network_draws_by_its_pieces():
    output = get_output("discretized_logistic_mixture", num_levels=5, num_components=2)
    layer = conditioners.MADE(
        4, output.num_parameters, hidden_units=(8,), order="random", zero_output=False, seed=0
    )
    p = AutoregressiveDistribution(layer, [4], output=output)
    drawn = p.sample(50, seed=[1, 2])
    assert drawn.dtype == tf.int32 and len(np.unique(drawn)) == 5
    with pytest.warns(UserWarning, match="has no `step`"):
        p._sequential = None
        np.testing.assert_array_equal(p.sample(50, seed=[1, 2]), drawn)


def test_integers_of_any_type_and_whole_numbers():
    p = density(output="categorical", of_output={"num_levels": 5})
    x = np.array([[0, 1], [4, 2]])
    wanted = p.log_prob(x)
    for kind in ("uint8", "int16", "int64", "float32"):
        np.testing.assert_array_equal(p.log_prob(tf.constant(x, kind)), wanted)
    for wrong in (x + 1, x - 1, x + 0.5):
        assert np.isneginf(p.log_prob(tf.constant(wrong, tf.float32)))
    strict = density(output="categorical", of_output={"num_levels": 5}, validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be integers from 0 to 4"):
        strict.log_prob(x + 1)
    with pytest.raises(TypeError, match="int32. Discrete values have no density.*discrete output"):
        density(output="normal").log_prob(tf.constant(x, tf.int32))


def test_batch_shapes_and_contexts():
    p = density(layer={"context_size": 2})
    assert p.context_size == 2
    x = p.sample([3, 5], seed=[1, 2], context=CONTEXT)
    assert x.shape == [3, 5, 2, 2]
    assert p.log_prob(x, context=CONTEXT).shape == [3, 5]
    one = distributions.condition(p, CONTEXT)
    np.testing.assert_allclose(one.log_prob(x), p.log_prob(x, context=CONTEXT), rtol=1e-6)
    assert one.sample(3, seed=[1, 2]).dtype == tf.int32
    with pytest.raises(ValueError, match=r"context of shape \[..., 2\] is required"):
        p.log_prob(x)
    with pytest.raises(ValueError, match=r"data of shape \[..., 2, 2\], got \[3, 4\]"):
        p.log_prob(tf.zeros([3, 4]), context=CONTEXT)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"event_shape": [None, 2]}, ValueError, "event_shape must be known"),
        ({"event_shape": []}, ValueError, "event_shape must be known"),
        ({"event_shape": (2, 3)}, ValueError, "each of the 6 entries once"),
        ({"order": [0, 1, 1, 2]}, ValueError, "each of the 4 entries once"),
        ({"dtype": tf.float16}, TypeError, "float32 or float64, got float16"),
        ({"dtype": tf.int32}, TypeError, "float32 or float64, got int32"),
        (
            {"output": "discretized_logistic_mixture", "of_output": PIXELS},
            ValueError,
            "whole pixels of 3 channels.*Leave",
        ),
        (
            {
                "event_shape": (2, 1, 3),
                "order": range(6),
                "output": "discretized_logistic_mixture",
                "of_output": PIXELS,
            },
            ValueError,
            "steps of whole pixels, got steps of 1 entries",
        ),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        density(**arguments)


def test_wrong_networks():
    with pytest.raises(TypeError, match="must be a keras.layers.Layer"):
        AutoregressiveDistribution(lambda x: x, [4])
    with pytest.raises(ValueError, match=r"to \[batch, 8\], but gives \[batch, 4\]"):
        AutoregressiveDistribution(keras.layers.Dense(4), [4], output="normal")
    layer = conditioners.MADE(4, 1, hidden_units=(8,), num_masks=2, order="random")
    with pytest.raises(ValueError, match="2 sets of masks.*MADEDistribution"):
        AutoregressiveDistribution(layer, [4])
