"""What distributions without a batch shape share."""

import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, distributions, flows

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
