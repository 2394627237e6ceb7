"""The monotone network of neural autoregressive flows."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import fraction, positive_integer, positive_number
from tfp_flows.elementwise._log_odds import mixture_log_odds, parting_factors, with_identity
from tfp_flows.elementwise.one_way import OneWayMap
from tfp_flows.elementwise.scales import capped


@keras.saving.register_keras_serializable(package="tfp_flows")
class MonotoneNetwork(OneWayMap):
    """A monotone network whose weights are the parameters: the dense deep sigmoidal flow.

    With v the argument of the direction with the formula (from data to latents by default, see
    `OneWayMap`), h_0 = v, D units, e = min_slope, and for each of L layers

        a_k = exp(r_k) * sum_i u_ki h_i + b_k           k = 1, ..., D
        F_o = sum_k w_ok * sigmoid(a_k)                 o = 1, ..., D; in the last layer 1 alone
        h_o = log(F_o / (1 - F_o))

        w   = (1 - e) * h_L + e * v

    where the rows of u and w are positive and sum to 1. Dense weights u from the second layer on.

    Parameters: `[..., P n]` with P = L (2 D) + (L - 1) (2 D^2) + D. Layer by layer D biases, D
    rates, the raw w row by row, and from the second layer on the raw u row by row:

        b_k = raw_k * (1/2 + (k - 1) / (D - 1))     r_k = cap * tanh(raw_k / cap)
        u_k = softmax(raw)                          w_o = softmax(raw + cos(pi o (k - 1/2) / D))

    with the cosine in all layers but the last. The identity at zero, to rounding: there all
    units are one. The factors and the cosines let them part: equal units have equal gradients.

    Numerics: all in logs, exact in both tails, where the map is linear. The slope lies between e
    and exp(cap L). The share e of the identity keeps inverse and gradients finite where the
    sigmoids leave a plateau. The other direction is numeric, to the tolerance of `OneWayMap`.

    Args:
      num_units: `int >= 1`, the number D of units of a layer. Default: 4.
      num_layers: `int >= 1`, the number L of layers. With one layer, the sigmoidal flow. Default:
        2.
      cap: positive finite number, the bound of the rates. Default: 3.
      min_slope: the share e of the identity, in (0, 1). Default: 0.001.
      closed: "inverse" (default) or "forward", the direction of the formula.

    Raises:
      TypeError: if a number of units or layers is not an integer, `cap` or `min_slope` not a
        number.
      ValueError: if an argument is out of range.

    References:
      Chin-Wei Huang, David Krueger, Alexandre Lacoste, Aaron Courville. Neural Autoregressive
        Flows, 2018, arXiv:1804.00779, section 3.2, the deep dense sigmoidal flow. Departures: the
        rates are bounded exponentials, and a share of the identity is added.

    >>> m = MonotoneNetwork(num_units=2, num_layers=1, closed="forward")
    >>> m.num_parameters
    6
    >>> y, log_det = m.forward(tf.constant([3.0]), tf.zeros([6]))
    >>> round(float(y[0]), 4), abs(round(float(log_det[0]), 4))
    (3.0, 0.0)
    """

    def __init__(self, num_units=4, num_layers=2, cap=3.0, min_slope=1e-3, closed="inverse"):
        super().__init__(closed)
        name = type(self).__name__
        self.num_units = positive_integer(num_units, "num_units", name)
        self.num_layers = positive_integer(num_layers, "num_layers", name)
        self.cap = positive_number(cap, "cap", name)
        self.min_slope = fraction(min_slope, "min_slope", name)

    @property
    def num_parameters(self):
        """Those of all layers: biases, rates and dense weights."""
        return sum(sum(sizes) for sizes in self._sizes)

    def get_config(self):
        """Returns the numbers of units and layers, the bounds, the direction of the formula."""
        own = {
            "num_units": self.num_units,
            "num_layers": self.num_layers,
            "cap": self.cap,
            "min_slope": self.min_slope,
        }
        return {**own, **super().get_config()}

    @property
    def _sizes(self):
        """Numbers of biases, rates, w and u of each layer."""
        units, last = self.num_units, self.num_layers - 1
        return [
            (units, units, units if n == last else units**2, units**2 if n else 0)
            for n in range(self.num_layers)
        ]

    def _natural(self, parameters):
        raw, shape = tf.stack(parameters), tf.shape(parameters[0])
        rank = parameters[0].shape.rank
        natural = []
        for n, own in enumerate(tf.split(raw, [sum(sizes) for sizes in self._sizes])):
            biases, rates, outer, inner = tf.split(own, self._sizes[n])
            outer = tf.reshape(outer, tf.concat([[-1, self.num_units], shape], 0))
            if n < self.num_layers - 1:
                outer += _cosines(self.num_units, outer.dtype, rank)
            natural += [
                biases * parting_factors(biases),
                capped(rates, self.cap),
                tf.nn.log_softmax(outer, axis=1),
            ]
            if n:
                inner = tf.reshape(inner, tf.concat([[self.num_units, self.num_units], shape], 0))
                natural.append(tf.nn.log_softmax(inner, axis=1))
        return natural

    def _closed(self, v, natural):
        natural = list(natural)
        values, log_slopes = v[tf.newaxis], tf.zeros_like(v)[tf.newaxis]
        for n in range(self.num_layers):
            biases, log_rates, log_outer = natural[:3]
            del natural[:3]
            if n:
                log_inner = natural.pop(0)
                values = tf.reduce_sum(tf.exp(log_inner) * values, axis=1)
                log_slopes = tf.reduce_logsumexp(log_inner + log_slopes, axis=1)
            arguments = tf.exp(log_rates) * values + biases
            values, log_slopes = mixture_log_odds(log_outer, arguments, log_rates + log_slopes)
        return with_identity(v, values[0], log_slopes[0], self.min_slope)

    def _bracket(self, w, natural):
        # Every unit lies between the least and the largest of the lines of its layer, at the
        # least and the largest of the units before. So do inverses, from the last layer on.
        lower = upper = w
        layers, start = [], 0
        for n in range(self.num_layers):
            layers.append(natural[start : start + 2])
            start += 4 if n else 3
        for biases, log_rates in reversed(layers):
            scales = tf.exp(-log_rates)
            lower = tf.reduce_min((lower - biases) * scales, axis=0)
            upper = tf.reduce_max((upper - biases) * scales, axis=0)
        return tf.minimum(lower, w), tf.maximum(upper, w)


def _cosines(units, dtype, rank):
    """One pattern of weights for each output, `[units, units, 1, ...]`."""
    o, k = np.arange(1, units + 1)[:, np.newaxis], np.arange(units)
    pattern = np.cos(np.pi * o * (k + 0.5) / units)
    return tf.reshape(tf.constant(pattern, dtype), [units, units] + [1] * rank)
