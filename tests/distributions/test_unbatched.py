"""What distributions without a batch shape share."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, distributions, flows, preprocessing

tfd = tfp.distributions


def vae():
    prior = tfd.MultivariateNormalDiag(tf.zeros([2]))
    return distributions.VAE(prior, keras.layers.Dense(4), keras.layers.Dense(6))


def surjected():
    flow = flows.maf([2], num_layers=1, hidden_units=(4,), seed=0)
    return distributions.Surjected(flow, bijectors.AbsoluteValue())


@pytest.mark.parametrize(
    "make", [vae, surjected, lambda: flows.made([3], output="bernoulli", hidden_units=(4,))]
)
def test_tfp_has_no_reason_to_warn_of_a_subclass(make, caplog):
    with caplog.at_level(logging.WARNING):
        distribution = make()
        assert distribution.parameter_properties() == {}
        assert distribution.copy(name="other").batch_shape == []
        assert tfd.Sample(distribution, 3).event_shape[0] == 3
    assert "_parameter_properties" not in caplog.text
    assert distribution[...].event_shape == distribution.event_shape
    for index in (0, tf.newaxis, slice(2)):
        with pytest.raises(IndexError, match=r"too many indices, 1, for the batch shape \[\]"):
            distribution[index]


def test_a_bound_of_samples_is_drawn_by_the_seed():
    density = surjected()
    x, bound = density.experimental_sample_and_log_prob(5, seed=[1, 2])
    np.testing.assert_array_equal(x, density.sample(5, seed=[1, 2]))
    again = [density.experimental_sample_and_log_prob(5, seed=[1, s])[1] for s in (2, 3)]
    np.testing.assert_array_equal(again[0], bound)
    assert not np.array_equal(again[1], bound)


@pytest.mark.parametrize("make", [vae, surjected])
def test_what_a_bound_is_not_of_is_refused(make):
    density, context = make(), tf.zeros([5, 2])
    x = density.sample(5, seed=[0, 1])
    for act, argument in ((density.log_prob, x), (density.sample, 5)):
        with pytest.raises(ValueError, match="got a context, which it would ignore"):
            act(argument, context=context)
    with pytest.raises(ValueError, match=r"expected data of shape \[\.\.\., \d\], got \(5, 1\)"):
        density.log_prob(x[:, :1])
    if density.dtype.is_floating:
        for dtype, remedy in ((tf.int32, "integers have no density"), (tf.float64, "Cast the")):
            with pytest.raises(TypeError, match=f"expected float32, got {dtype.name}.*{remedy}"):
                density.log_prob(tf.cast(x, dtype))


def test_contexts_of_a_bound_are_arrays_that_broadcast():
    flow = flows.maf([2], num_layers=1, hidden_units=(4,), context_size=1, seed=0)
    density, x = distributions.Surjected(flow, bijectors.AbsoluteValue()), tf.ones([5, 2])
    noise, context = density.draw_noise([5], [0, 1]), np.arange(5.0)[:, None]
    found = density.log_prob(x, noise=noise, context=context)
    tensor = tf.constant(context, tf.float32)
    np.testing.assert_array_equal(found, density.log_prob(x, noise=noise, context=tensor))
    with pytest.raises(ValueError, match=r"broadcasts to the argument's, \[5\], got \[2\]"):
        density.log_prob(x, context=context[:2])
    with pytest.raises(ValueError, match="is required, got none"):
        density.sample(5)


def test_what_is_no_level_is_impossible_in_a_graph_too():
    uniform = tfd.Sample(tfd.Normal(0.0, 9.0), 2)
    density = distributions.Surjected(uniform, preprocessing.UniformDequantization(6))
    score = tf.function(lambda x: density.log_prob(x, seed=[0, 1]), autograph=False)
    found = score(tf.constant([[0, 5], [0, 6], [-1, 5]]))
    np.testing.assert_array_equal(np.isfinite(found), [True, False, False])
    np.testing.assert_array_equal(found[1:], [-np.inf, -np.inf])
