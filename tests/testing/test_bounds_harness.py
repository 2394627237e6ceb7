"""The harness of bounds: this package's guests keep it, and each planted fault is caught."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import distributions, flows, preprocessing
from tfp_flows.bijectors import AbsoluteValue, Sort
from tfp_flows.distributions import StochasticDistribution
from tfp_flows.testing import assert_bound

tfd = tfp.distributions

EVERY = np.array(list(itertools.product(range(3), repeat=2)), "int32")
X = np.array([[0.3, 0.5], [0.1, 2.0], [1.0, 1.5]], "float32")
WIDE = tfd.MultivariateNormalDiag([0.0, 0.0], [2.0**0.5] * 2)


def affine(size, context_size, **kwargs):
    return flows.maf(
        [size], num_layers=1, hidden_units=(4,), context_size=context_size, seed=0, **kwargs
    )


def dequantized():
    noise = affine(2, 2, base="logistic")
    return distributions.Surjected(
        affine(2, None), preprocessing.VariationalDequantization(noise, 3)
    )


GUESTS = {
    "dequantized": (dequantized, EVERY, None),
    "augmented": (lambda: distributions.Augmented(affine(3, None), affine(1, 2)), X, None),
    "uniform": (
        lambda: distributions.Surjected(
            tfd.Sample(tfd.Triangular(0.0, 3.0, 1.5), 2), preprocessing.UniformDequantization(3)
        ),
        EVERY,
        lambda: np.log(np.array([2.0, 5.0, 2.0]) / 9.0)[EVERY].sum(axis=-1),
    ),
    "absolute": (
        lambda: distributions.Surjected(tfd.MultivariateNormalDiag([1.0, 0.0]), AbsoluteValue()),
        X,
        lambda: (
            np.logaddexp(*(tfd.MultivariateNormalDiag([m, 0.0]).log_prob(X) for m in (-1.0, 1.0)))
            + np.log(2.0)
        ),
    ),
    "sorted": (
        lambda: distributions.Surjected(tfd.MultivariateNormalDiag([1.0, 0.0]), Sort()),
        X,
        lambda: np.logaddexp(
            *(tfd.MultivariateNormalDiag(m).log_prob(X) for m in ([1.0, 0.0], [0.0, 1.0]))
        ),
    ),
}


@pytest.mark.parametrize("name", GUESTS)
def test_guests_keep_the_contract(name):
    make, x, exact = GUESTS[name]
    assert_bound(make(), x, exact=exact and exact(), num_draws=1000)


class Blurred(StochasticDistribution):
    """N(0, 2), bounded by one of two normal parts; what is wrong a subclass says."""

    def __init__(self, name="blurred"):
        self.loc = tf.Variable([0.0, 0.0])
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            parameters={},
            name=name,
        )

    def _event_shape(self):
        return tf.TensorShape([2])

    def _draw_noise(self, shape, seed):
        return tf.random.stateless_normal([*shape, 2], seed)

    def _log_weight(self, x, noise, context=None):
        return tfd.MultivariateNormalDiag(self.loc, [1.0, 1.0]).log_prob(x + noise)


class Exact(Blurred):
    likelihood = "exact"


class FreshNoise(Blurred):
    def _draw_noise(self, shape, seed):
        return tf.random.normal([*shape, 2])


class OneNoise(Blurred):
    def _draw_noise(self, shape, seed):
        return tf.random.stateless_normal([*shape, 2], [1, 2])


class IgnoresNoise(Blurred):
    def _log_weight(self, x, noise, context=None):
        return super()._log_weight(x, 0.0 * noise)


class MixesRows(Blurred):
    def _log_weight(self, x, noise, context=None):
        return super()._log_weight(x, noise - tf.reduce_mean(noise, axis=0))


class TrainedNoise(Blurred):
    def _draw_noise(self, shape, seed):
        return self.loc + super()._draw_noise(shape, seed)


class NoGradient(Blurred):
    def _log_weight(self, x, noise, context=None):
        return WIDE.log_prob(x + noise)


class TooLarge(Blurred):
    def _log_weight(self, x, noise, context=None):
        return super()._log_weight(x, noise) + 1.5


class Biased(Blurred):
    def _log_weight(self, x, noise, context=None):
        return super()._log_weight(x, noise) - 0.3


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (Exact, "there is nothing drawn"),
        (FreshNoise, "the same seed gives other noise"),
        (OneNoise, "another seed gives the same noise"),
        (IgnoresNoise, "the exact"),
        (MixesRows, "alone and .* among others"),
        (TrainedNoise, "the noise depends on a variable"),
        (NoGradient, "no gradient reaches the variable"),
        (TooLarge, "above the exact"),
        (Biased, "of the exact probability"),
    ],
)
def test_planted_faults(fault, message):
    with pytest.raises(AssertionError, match=message):
        assert_bound(fault(), X, exact=WIDE.log_prob(X))


def test_the_sound_one_passes():
    assert_bound(Blurred(), X, exact=WIDE.log_prob(X))
