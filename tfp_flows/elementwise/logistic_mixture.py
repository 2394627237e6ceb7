"""The mixture-of-logistics map of Flow++."""

import keras
import tensorflow as tf

from tfp_flows._checks import fraction, integer, positive_number
from tfp_flows.elementwise._log_odds import mixture_log_odds, parting_factors, with_identity
from tfp_flows.elementwise.one_way import OneWayMap
from tfp_flows.elementwise.scales import capped


@keras.saving.register_keras_serializable(package="tfp_flows")
class LogisticMixtureCDF(OneWayMap):
    """Log-odds of the distribution function of a mixture of logistics, then an affine map.

    With v the argument of the direction with the formula (from data to latents by default, see
    `OneWayMap`), weights p_k, means m_k and scales exp(-r_k) of K components, and e = min_slope,

        F(v)  = sum_k p_k * sigmoid((v - m_k) * exp(r_k))
        g     = (1 - e) * log(F / (1 - F)) + e * v
        w     = g * exp(s) + t

    so that a mixture of K logistic bumps becomes one.

    Parameters: `[..., (3 K + 2) n]`. First n times the shift t, n times the raw log-scale, then K
    times n raw weights, means and log-rates:

        s = cap * tanh(raw / cap)           p = softmax(raw)
        m_k = raw_k * (1/2 + k / (K - 1))   r_k = cap * tanh(raw_k / cap)       k = 0, ..., K - 1

    The identity at zero, to rounding: all components are one then. The factors of the means,
    from 1/2 to 3/2, let them part: equal components have equal gradients.

    Numerics: all in logs, exact in both tails, where the map is linear. The slope of g lies
    between e and exp(cap). Far apart components leave a plateau between them whose log-odds say
    nothing of v: the share e of the identity keeps its inverse, and its gradient, finite. The
    other direction is numeric, to the tolerance of `OneWayMap`.

    Args:
      num_components: `int >= 2`, the number K of components. Default: 8.
      cap: positive finite number, the bound of s and of the log-rates. Default: 3.
      min_slope: the share e of the identity, in (0, 1). Default: 0.001.
      closed: "inverse" (default) or "forward", the direction of the formula.

    Raises:
      TypeError: if `num_components` is not an integer, `cap` or `min_slope` not a number.
      ValueError: if an argument is out of range.

    References:
      Jonathan Ho, Xi Chen, Aravind Srinivas, Yan Duan, Pieter Abbeel. Flow++: Improving
        Flow-Based Generative Models with Variational Dequantization and Architecture Design,
        2019, arXiv:1902.00275, section 3.2. Departures: the share of the identity, bounded
        scales, and the factors of the means.

    >>> m = LogisticMixtureCDF(num_components=2, closed="forward")
    >>> m.num_parameters
    8
    >>> raw = tf.constant([0.0, 0.0, 0.0, 0.0, -8.0, 4.0, 0.0, 0.0])  # means at -4 and 6
    >>> y, _ = m.forward(tf.constant([1.0]), raw)  # half way: even odds
    >>> abs(round(float(y[0]), 2))
    0.0
    """

    def __init__(self, num_components=8, cap=3.0, min_slope=1e-3, closed="inverse"):
        super().__init__(closed)
        name = type(self).__name__
        self.num_components = integer(num_components, "num_components", name, least=2)
        self.cap = positive_number(cap, "cap", name)
        self.min_slope = fraction(min_slope, "min_slope", name)

    @property
    def num_parameters(self):
        """3 * num_components + 2: shift, scale, weights, means and log-rates."""
        return 3 * self.num_components + 2

    def get_config(self):
        """Returns the number of components, the bounds and the direction of the formula."""
        own = {
            "num_components": self.num_components,
            "cap": self.cap,
            "min_slope": self.min_slope,
        }
        return {**own, **super().get_config()}

    def _natural(self, parameters):
        shift, scale, *components = parameters
        weights, means, rates = tf.split(tf.stack(components), 3)
        return [
            shift,
            capped(scale, self.cap),
            tf.nn.log_softmax(weights, axis=0),
            means * parting_factors(means),
            capped(rates, self.cap),
        ]

    def _closed(self, v, natural):
        shift, log_scale, log_weights, means, log_rates = natural
        value, log_slope = mixture_log_odds(log_weights, (v - means) * tf.exp(log_rates), log_rates)
        value, log_slope = with_identity(v, value, log_slope, self.min_slope)
        return value * tf.exp(log_scale) + shift, log_slope + log_scale

    def _bracket(self, w, natural):
        shift, log_scale, _, means, log_rates = natural
        wanted = (w - shift) * tf.exp(-log_scale)
        # Log-odds and identity are both below `wanted` where all of its lines are.
        ends = means + wanted * tf.exp(-log_rates)
        return (
            tf.minimum(tf.reduce_min(ends, axis=0), wanted),
            tf.maximum(tf.reduce_max(ends, axis=0), wanted),
        )
