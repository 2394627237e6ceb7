"""The harness's `.keras` check on a user's own bijector, sound and with planted faults."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.testing import CHECKS, assert_bijector

X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


class _Power(FlowBijector):
    """y = sinh(rate * x) * exp(log_scale)."""

    def __init__(self, rate=1.0, log_scale=None, *, name="power"):
        parameters = dict(locals())
        if log_scale is None:
            log_scale = tf.Variable(tf.zeros([3]), name="log_scale")
        parameters.update(log_scale=log_scale)
        super().__init__(event_ndims=1, event_shape=(3,), parameters=parameters, name=name)
        self._rate, self._log_scale = rate, log_scale

    def _forward_and_log_det(self, x, context):
        y = tf.sinh(self._rate * x) * tf.exp(self._log_scale)
        slope = tf.math.log(self._rate * tf.cosh(self._rate * x)) + self._log_scale
        return y, tf.reduce_sum(slope, -1)

    def _inverse_and_log_det(self, y, context):
        x = tf.asinh(y * tf.exp(-self._log_scale)) / self._rate
        return x, -self._forward_and_log_det(x, context)[1]


@keras.saving.register_keras_serializable(package="test_saving_harness")
class Sound(_Power):
    pass


@keras.saving.register_keras_serializable(package="test_saving_harness")
class Forgetful(_Power):
    """Its config leaves an argument out."""

    def get_config(self):
        return {"log_scale": self.parameters["log_scale"]}


@keras.saving.register_keras_serializable(package="test_saving_harness")
class Frozen(_Power):
    """What is built from its config does not train."""

    def get_config(self):
        return {"rate": self.parameters["rate"], "values": self._log_scale.numpy()}

    @classmethod
    def from_config(cls, config):
        log_scale = tf.Variable(config["values"], trainable=False, name="log_scale")
        return cls(config["rate"], log_scale)


class Unregistered(_Power):
    pass


def _check(kind):
    skip = tuple(set(CHECKS) - {"keras_file_round_trip"})
    assert_bijector(lambda: kind(0.5), X, event_ndims=1, skip=skip)


def test_a_sound_bijector_passes():
    _check(Sound)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Forgetful, "after loading"),
        (Frozen, "after the next step|nothing to train"),
        (Unregistered, "Unregistered, which is not known. Register it"),
    ],
)
def test_planted_faults_are_caught(kind, words):
    with pytest.raises(AssertionError, match=f"keras_file_round_trip.*({words})"):
        _check(kind)
