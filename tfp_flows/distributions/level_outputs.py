"""Entries that are integers: bits, classes, and levels in an order."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import integer
from tfp_flows.distributions.output import MixtureOutput, Output, choice, halves


@keras.saving.register_keras_serializable(package="tfp_flows")
class BernoulliOutput(Output):
    """Zeros and ones, by the logit of a one.

        log p(x; a) = x log s(a) + (1 - x) log(1 - s(a)),     s the sigmoid

    One parameter an entry. Values between 0 and 1 count as their cross-entropy, others as
    impossible. The network sees them as they are.

    >>> float(BernoulliOutput().log_prob(tf.constant([1.0]), tf.constant([[100.0]]))[0])
    -0.0

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 2 and 4.
    """

    num_parameters = 1
    num_levels = 2

    def log_prob(self, x, parameters):
        """As `Output`."""
        # x log p + (1 - x) log(1 - p), without overflow.
        entries = -tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=parameters[..., 0, :])
        # Outside of [0, 1] the line goes on, up to +infinity.
        outside = (x < 0.0) | (x > 1.0)
        return tf.where(outside, tf.constant(-np.inf, x.dtype), entries)

    def draw(self, noise, parameters):
        """As `Output`."""
        return tf.cast(noise < tf.sigmoid(parameters), noise.dtype)[..., 0, :]

    def to_network(self, x):
        """The entries themselves."""
        return x


@keras.saving.register_keras_serializable(package="tfp_flows")
class CategoricalOutput(Output):
    """One of several levels or classes, each with a logit of its own.

        p(x = l; a) = exp(a_l) / sum_m exp(a_m),     l = 0, ..., num_levels - 1

    `num_levels` parameters an entry. Samples invert the distribution function of one uniform
    number, which resolves probabilities down to 1e-7 in float32. The network sees the levels as
    numbers from -1 to 1.

    Args:
      num_levels: `int >= 2`. Default: 256.

    Raises:
      TypeError, ValueError: if `num_levels` is no integer, or below 2.

    >>> x, logits = tf.constant([2.0]), tf.zeros([4, 1])  # all four alike
    >>> round(float(tf.exp(CategoricalOutput(4).log_prob(x, logits))[0]), 6)
    0.25

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, section 3.3 (a softmax over the values of a channel).
    """

    def __init__(self, num_levels=256):
        self.num_levels = integer(num_levels, "num_levels", type(self).__name__, least=2)

    @property
    def num_parameters(self):
        """`num_levels`."""
        return self.num_levels

    def get_config(self):
        """Returns the number of levels."""
        return {"num_levels": self.num_levels}

    def log_prob(self, x, parameters):
        """As `Output`."""
        labels = tf.cast(tf.clip_by_value(x, 0.0, self.num_levels - 1.0), tf.int32)
        logits = tf.linalg.matrix_transpose(parameters)
        entries = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return self._possible(x, entries)

    def draw(self, noise, parameters):
        """As `Output`."""
        return tf.cast(choice(noise[..., 0, :], parameters), noise.dtype)


@keras.saving.register_keras_serializable(package="tfp_flows")
class DiscretizedLogisticMixtureOutput(MixtureOutput):
    """Ordered levels from a mixture of logistic distributions, rounded to the nearest level.

    On the scale v = 2 x / (L - 1) - 1, from -1 to 1, with h = 1 / (L - 1) half a level wide,

        P(x) = sum_k w_k (F_k(v + h) - F_k(v - h)),     F_k(v) = sigmoid((v - m_k) exp(-s_k))

    where the lowest level has all that is below it, F_k(v + h), and the highest all that is
    above, 1 - F_k(v - h). The sum over the levels is 1.

        w = softmax(raw)     m_k = raw_k + c_k     s_k = clip(raw_k - log K, s_min, 7)

    with `c_k` equally spaced from -1 to 1: at zero parameters the mixture covers the levels. 3 K
    parameters an entry: K raw weights, K means, K log-scales. The network sees v.

    With `coupled=True` the red, green and blue of a pixel are not independent given the network,
    which then sees the pixels before this one alone. They share the component, and with
    coefficients `tanh(raw)`,

        m_G += a r     m_B += b r + c g     r, g the values v of red and green

    4 K parameters an entry; the raw weights of the three entries are added, and the coefficients
    a, b, c are the last K parameters of red, green and blue.

    Args:
      num_levels: `int >= 2`, the number L. Default: 256.
      num_components: `int >= 1`, the number K. Default: 10, as in the paper.
      coupled: whether it is of whole pixels of 3 channels. Default: `False`.

    Numerics: all in logs and exact in both tails, where the paper's program takes the density in
    the middle of a level for its share. s_min is the paper's -7 for 256 levels, and as many level
    widths for other numbers of them.

    Raises:
      TypeError, ValueError: if an argument is no integer, or out of range.

    >>> output = DiscretizedLogisticMixtureOutput(num_levels=16, num_components=3)
    >>> x = tf.range(16.0)
    >>> total = tf.reduce_sum(tf.exp(output.log_prob(x, tf.zeros([9, 16]))))
    >>> round(float(total), 5)
    1.0

    References: T. Salimans, A. Karpathy, X. Chen, D. P. Kingma, PixelCNN++, 2017,
    arXiv:1701.05517, section 2.1 (the mixture) and 2.2 (the channels of a pixel). Departures: the
    start, the exact logs, and weights that all three entries of a pixel add to.
    """

    def __init__(self, num_levels=256, num_components=10, coupled=False):
        super().__init__(num_components)
        self.num_levels = integer(num_levels, "num_levels", type(self).__name__, least=2)
        self.coupled = self.whole_pixels = bool(coupled)
        self._num_parts = 4 if self.coupled else 3
        self._least = -7.0 - math.log((self.num_levels - 1) / 255.0)

    def get_config(self):
        """Returns the numbers of levels and components, and `coupled`."""
        return {
            "num_levels": self.num_levels,
            "num_components": self.num_components,
            "coupled": self.coupled,
        }

    def log_prob(self, x, parameters):
        """As `Output`."""
        v = self.to_network(x)
        weights, means, log_scales = self._natural(parameters, v)
        rate, half = tf.exp(-log_scales), 1.0 / (self.num_levels - 1)
        distance = v[..., tf.newaxis, :] - means
        below = -tf.nn.softplus(-(distance + half) * rate)  # log F(v + h)
        above = -tf.nn.softplus((distance - half) * rate)  # log (1 - F(v - h))
        # sigmoid(b) - sigmoid(a) = sigmoid(b) (1 - sigmoid(a)) (1 - exp(a - b)): no difference of
        # numbers that are nearly equal, and the width b - a is known.
        between = below + above + tf.math.log(-tf.math.expm1(-2.0 * half * rate))
        level = x[..., tf.newaxis, :]
        each = tf.where(level < 0.5, below, tf.where(level > self.num_levels - 1.5, above, between))
        if self.coupled:
            each = tf.reduce_sum(self._possible(level, each), axis=-1, keepdims=True)
        entries = tf.reduce_logsumexp(tf.nn.log_softmax(weights, axis=-2) + each, axis=-2)
        return entries if self.coupled else self._possible(x, entries)

    def noise(self, shape, seed, dtype):
        """A uniform number for the component, and a logistic one."""
        chosen, u = halves(shape, seed, dtype, tf.random.stateless_uniform)
        return tf.concat([chosen, tf.math.log(u) - tf.math.log1p(-u)], axis=1)

    def draw(self, noise, parameters):
        """As `Output`."""
        if not self.coupled:
            return self._rounded(noise, *self._natural(parameters, None))
        v = tf.zeros_like(noise[..., 0, :])
        for channel in range(3):  # Each from those before it.
            x = self._rounded(noise, *self._natural(parameters, v))
            v = tf.where(tf.range(3) <= channel, self.to_network(x), tf.zeros_like(v))
        return x

    def _rounded(self, noise, weights, means, log_scales):
        u = noise[..., 0, :1] if self.coupled else noise[..., 0, :]
        mean, log_scale = self._chosen(u, weights, means, log_scales)
        v = mean + noise[..., 1, :] * tf.exp(log_scale)
        top = self.num_levels - 1.0
        return tf.round(tf.clip_by_value((v + 1.0) * (0.5 * top), 0.0, top))

    def _natural(self, parameters, v):
        """Raw weights, means and log-scales; of coupled channels, given the values `v` before."""
        weights, means, raw, *coefficients = self._parts(parameters)
        log_scales = tf.clip_by_value(raw - math.log(self.num_components), self._least, 7.0)
        if self.coupled:
            weights = tf.reduce_sum(weights, axis=-1, keepdims=True)
            a, b, c = tf.unstack(tf.tanh(coefficients[0]), axis=-1)
            red, green = v[..., tf.newaxis, 0], v[..., tf.newaxis, 1]
            means += tf.stack([tf.zeros_like(a), a * red, b * red + c * green], axis=-1)
        return weights, means, log_scales
