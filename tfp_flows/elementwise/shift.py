"""The additive map of NICE."""

import keras
import tensorflow as tf

from tfp_flows.elementwise.base import ElementwiseMap


@keras.saving.register_keras_serializable(package="tfp_flows")
class Shift(ElementwiseMap):
    """Adds a shift: the volume-preserving map of NICE.

        forward:  y = x + t
        inverse:  x = y - t
        log|dy/dx| = 0

    Parameters: `[..., n]`, the shift t. The identity at zero.

    References:
      Laurent Dinh, David Krueger, Yoshua Bengio. NICE: Non-linear Independent Components
        Estimation, 2014, arXiv:1410.8516, section 3.2.

    >>> y, log_det = Shift().forward(tf.constant([1.0, 2.0]), tf.constant([0.5, -1.0]))
    >>> y.numpy(), log_det.numpy()
    (array([1.5, 1. ], dtype=float32), array([0., 0.], dtype=float32))
    """

    num_parameters = 1

    @property
    def is_constant_log_det(self):
        """`True`: the log-det is identically zero."""
        return True

    def _forward(self, x, parameters):
        return x + parameters[0], tf.zeros_like(x)

    def _inverse(self, y, parameters):
        return y - parameters[0], tf.zeros_like(y)
