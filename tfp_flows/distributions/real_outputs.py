"""Entries that are real numbers."""

import math

import keras
import tensorflow as tf

from tfp_flows import elementwise
from tfp_flows._checks import positive_number
from tfp_flows.distributions.output import MixtureOutput, Output, halves
from tfp_flows.elementwise.scales import capped


@keras.saving.register_keras_serializable(package="tfp_flows")
class NormalOutput(Output):
    """Real numbers from one normal distribution.

        x = u * exp(s) + t,  u standard normal

    by `elementwise.Affine`, with its bound of s. Two parameters an entry: t and the raw s.

    >>> p = NormalOutput().log_prob(tf.constant([0.0]), tf.zeros([2, 1]))
    >>> round(float(p[0]), 4)
    -0.9189
    """

    num_parameters = 2
    map = elementwise.Affine()

    def log_prob(self, x, parameters):
        """As `Output`."""
        u, log_det = self.map._inverse(x, tf.unstack(parameters, axis=-2))
        return -0.5 * (u * u + math.log(2.0 * math.pi)) + log_det

    def noise(self, shape, seed, dtype):
        """Standard normal."""
        return tf.random.stateless_normal(shape, seed, dtype=dtype)

    def draw(self, noise, parameters):
        """As `Output`."""
        return self.map._forward(noise[..., 0, :], tf.unstack(parameters, axis=-2))[0]


@keras.saving.register_keras_serializable(package="tfp_flows")
class GaussianMixtureOutput(MixtureOutput):
    """Real numbers from a mixture of normal distributions.

        p(x) = sum_k w_k N(x; m_k, exp(s_k)^2)
        w = softmax(raw)     m_k = raw_k + c_k     s_k = cap * tanh(raw_k / cap)

    with `c_k` equally spaced from -1 to 1, so that the components of a fresh network differ; data
    of about unit variance suit them. 3 K parameters an entry: K raw weights, K means, K
    log-scales.

    Args:
      num_components: `int >= 1`, the number K. Default: 10.
      cap: positive finite number, the bound of the log-scales. Default: 7.

    Raises:
      TypeError, ValueError: if an argument is no number, or out of range.

    >>> p = GaussianMixtureOutput(1).log_prob(tf.constant([0.0]), tf.zeros([3, 1]))
    >>> round(float(p[0]), 4)  # -log(2 pi) / 2
    -0.9189

    References: G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
    estimation, 2017, arXiv:1705.07057, section 4 (MADE MoG); B. Uria, I. Murray, H. Larochelle,
    RNADE, 2013, arXiv:1306.0186, section 3.
    """

    _num_parts = 3

    def __init__(self, num_components=10, cap=7.0):
        super().__init__(num_components)
        self.cap = positive_number(cap, "cap", type(self).__name__)

    def get_config(self):
        """Returns the number of components and the bound."""
        return {"num_components": self.num_components, "cap": self.cap}

    def log_prob(self, x, parameters):
        """As `Output`."""
        weights, means, log_scales = self._natural(parameters)
        u = (x[..., tf.newaxis, :] - means) * tf.exp(-log_scales)
        each = -0.5 * (u * u + math.log(2.0 * math.pi)) - log_scales
        return tf.reduce_logsumexp(tf.nn.log_softmax(weights, axis=-2) + each, axis=-2)

    def noise(self, shape, seed, dtype):
        """A uniform number for the component, and a normal one."""
        return tf.concat(halves(shape, seed, dtype, tf.random.stateless_normal), axis=1)

    def draw(self, noise, parameters):
        """As `Output`."""
        weights, means, log_scales = self._natural(parameters)
        mean, log_scale = self._chosen(noise[..., 0, :], weights, means, log_scales)
        return mean + noise[..., 1, :] * tf.exp(log_scale)

    def _natural(self, parameters):
        weights, means, raw = self._parts(parameters)
        return weights, means, capped(raw, self.cap)
