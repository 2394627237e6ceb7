"""Absolute values and sorting: exact for symmetric densities, bounds of enumerated sums else."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel
from tfp_flows.bijectors import AbsoluteValue, Sort
from tfp_flows.distributions import Surjected
from tfp_flows.saving import describe, rebuild

tfd = tfp.distributions

SKEW = tfd.MultivariateNormalTriL([0.3, -0.2], [[1.0, 0.0], [0.5, 0.8]])
ORDERED = np.sort(np.abs(np.random.default_rng(0).normal(size=(5, 2))), axis=-1).astype("float32")
SIGNS = np.array(list(itertools.product([-1.0, 1.0], repeat=2)), "float32")


def ways(transform):
    """All latents of the data, `[ways, 5, 2]`."""
    if isinstance(transform, AbsoluteValue):
        return SIGNS[:, None] * ORDERED
    return np.stack([ORDERED, ORDERED[:, ::-1]])


@pytest.mark.parametrize("transform", [AbsoluteValue(), Sort()], ids=["absolute", "sort"])
def test_bound_of_the_sum_over_all_ways(transform):
    density = Surjected(SKEW, transform)
    exact = tf.reduce_logsumexp(SKEW.log_prob(ways(transform)), axis=0)
    mean = tf.reduce_mean(SKEW.log_prob(ways(transform)), axis=0) + math.log(len(ways(transform)))
    draws = density.log_prob(tf.repeat(ORDERED[None], 3000, 0), seed=[0, 1])
    error = tf.math.reduce_std(draws, axis=0) / 3000**0.5
    np.testing.assert_array_less(np.abs(tf.reduce_mean(draws, axis=0) - mean), 4.0 * error + 1e-6)
    assert np.all(mean < exact)
    found = FlowModel(density).estimate_log_prob(ORDERED, num_samples=3000)
    np.testing.assert_array_less(np.abs(found.log_prob - exact), 4.0 * found.standard_error + 1e-6)
    samples = density.sample(7, seed=[0, 1])
    np.testing.assert_array_equal(transform.forward(samples), samples)
    again = rebuild(describe(it=density))["it"]
    np.testing.assert_array_equal(
        again.log_prob(ORDERED, seed=[0, 5]), density.log_prob(ORDERED, seed=[0, 5])
    )


def test_exact_where_all_ways_are_equal_and_nothing_outside():
    normal = tfd.MultivariateNormalDiag([0.0, 0.0])
    folded, ranked = Surjected(normal, AbsoluteValue()), Surjected(normal, Sort())
    half = tfd.Sample(tfd.HalfNormal(1.0), 2)
    np.testing.assert_allclose(folded.log_prob(ORDERED, seed=1), half.log_prob(ORDERED), rtol=1e-6)
    wanted = normal.log_prob(ORDERED) + math.log(2.0)
    np.testing.assert_allclose(ranked.log_prob(ORDERED, seed=1), wanted, rtol=1e-6)
    assert np.all(np.isneginf(folded.log_prob(-ORDERED, seed=1)))
    assert np.all(np.isneginf(ranked.log_prob(ORDERED[:, ::-1], seed=1)))
    image = Surjected(tfd.Sample(tfd.Normal(0.0, 1.0), [2, 2, 1]), AbsoluteValue(3))
    assert image.log_prob(tf.ones([5, 2, 2, 1]), seed=0).shape == [5]
    with pytest.raises(ValueError, match="event_ndims must be an integer >= 1, got 0"):
        AbsoluteValue(0)


@pytest.mark.parametrize(
    ("transform", "event_shape", "message"),
    [
        (AbsoluteValue(2), [3], r"AbsoluteValue: expected latents of rank 2.* events \[3\]"),
        (AbsoluteValue(), [3, 2], r"of rank 1, got events \[3, 2\]. Pass event_ndims=2"),
        (Sort(), [3, 2], r"Sort: expected latents of rank 1, got events \[3, 2\]. Reshape"),
    ],
)
def test_events_of_another_rank_are_refused(transform, event_shape, message):
    with pytest.raises(ValueError, match=message):
        Surjected(tfd.Sample(tfd.Normal(0.0, 1.0), event_shape), transform)


@pytest.mark.parametrize("transform", [AbsoluteValue(), Sort()], ids=["absolute", "sort"])
def test_integers_are_refused(transform):
    """Two equal ones are in one order, and 0 has one sign: their ways are no 2^D, or n!."""
    latent = tfd.Sample(tfd.Categorical(probs=[0.5, 0.5]), 2)
    with pytest.raises(TypeError, match="needs a latent with a density, got .* of int32"):
        Surjected(latent, transform)
