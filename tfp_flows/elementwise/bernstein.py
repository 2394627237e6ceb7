"""Bernstein polynomials with linear tails."""

import math

import keras
import tensorflow as tf

from tfp_flows._checks import positive_integer, positive_number
from tfp_flows.elementwise._box import sums_of
from tfp_flows.elementwise.one_way import OneWayMap
from tfp_flows.elementwise.scales import capped


@keras.saving.register_keras_serializable(package="tfp_flows")
class Bernstein(OneWayMap):
    """Increasing Bernstein polynomial on `[-B, B]`, with linear tails: a smooth map that can move.

    With M the degree, v the argument of the direction with the formula (from data to latents by
    default, see `OneWayMap`), t = (v + B) / (2 B) and the basis
    b_{j,M}(t) = binomial(M, j) t^j (1 - t)^(M - j),

        w     = sum_{j=0..M} c_j b_{j,M}(t)             within [-B, B]
        dw/dv = sum_{j=1..M} exp(s_j) b_{j-1,M-1}(t)

    and beyond -B and B the tangents there, of slopes exp(s_1) and exp(s_M).

    Parameters: `[..., (M + 1) n]`. First n times the shift t, then M times n raw log-slopes:

        s_j = cap * tanh(raw_j / cap)
        c_j - c_{j-1} = exp(s_j) * 2 B / M,     c_0 + c_M = 2 t

    so that the slope lies between exp(-cap) and exp(cap) everywhere. The identity at zero, to
    rounding: a Bernstein polynomial of equal increments is a line.

    Numerics: a sum of products of positive terms, finite with its gradients for every finite
    argument. The other direction is numeric, to the tolerance of `OneWayMap`.

    Args:
      degree: `int >= 1`, the degree M of the polynomial. Default: 16.
      bound: positive number, B. Most of the arguments should lie within: beyond, the map is linear.
        Default: 4.
      cap: positive finite number, the bound of the log-slopes. Default: 3.
      closed: "inverse" (default) or "forward", the direction of the formula.

    Raises:
      TypeError: if `degree` is not an integer, `bound` or `cap` not a number.
      ValueError: if an argument is out of range.

    References:
      Beate Sick, Torsten Hothorn, Oliver Duerr. Deep Transformation Models: Tackling Complex
        Regression Problems with Neural Network based Transformation Models, 2020,
        arXiv:2004.00295, section III.
      Sameera Ramasinghe, Kasun Fernando, Salman Khan, Nick Barnes. Robust normalizing flows
        using Bernstein-type polynomials, 2021, arXiv:2102.03509, section 3. Here the tails are
        linear, and the slopes bounded both ways.

    >>> m = Bernstein(degree=2, bound=1.0, closed="forward")
    >>> raw = tf.constant([0.5, 0.0, 0.0])  # a shift and nothing else
    >>> y, log_det = m.forward(tf.constant([3.0]), raw)
    >>> round(float(y[0]), 4), abs(round(float(log_det[0]), 4))
    (3.5, 0.0)
    """

    def __init__(self, degree=16, bound=4.0, cap=3.0, closed="inverse"):
        super().__init__(closed)
        name = type(self).__name__
        self.degree = positive_integer(degree, "degree", name)
        self.bound = positive_number(bound, "bound", name)
        self.cap = positive_number(cap, "cap", name)

    @property
    def num_parameters(self):
        """degree + 1: the shift and the log-slopes."""
        return self.degree + 1

    def get_config(self):
        """Returns the degree, the bound, the cap and the direction of the formula."""
        own = {"degree": self.degree, "bound": self.bound, "cap": self.cap}
        return {**own, **super().get_config()}

    def _natural(self, parameters):
        shift, *raw = parameters
        slopes = [tf.exp(capped(r, self.cap)) for r in raw]
        sums = sums_of(slopes)
        scale = 2.0 * self.bound / self.degree
        first = shift - (0.5 * scale) * sums[-1]
        return [first, *(first + scale * total for total in sums), *slopes]

    def _closed(self, v, natural):
        within = tf.clip_by_value(v, -self.bound, self.bound)
        # Both from differences with the ends, so that each is exact where it is small.
        t = (self.bound + within) * (0.5 / self.bound)
        rest = (self.bound - within) * (0.5 / self.bound)
        powers, others = [tf.ones_like(t)], [tf.ones_like(t)]
        for _ in range(self.degree):
            powers.append(powers[-1] * t)
            others.append(others[-1] * rest)

        def polynomial(coefficients):
            top = len(coefficients) - 1
            return tf.add_n(
                [
                    math.comb(top, j) * c * powers[j] * others[top - j]
                    for j, c in enumerate(coefficients)
                ]
            )

        slope = polynomial(natural[self.degree + 1 :])
        w = polynomial(natural[: self.degree + 1]) + slope * (v - within)
        return w, tf.math.log(slope)

    def _bracket(self, w, natural):
        first, last = natural[0], natural[self.degree]
        lower = (w - first) / natural[self.degree + 1] - self.bound
        upper = (w - last) / natural[-1] + self.bound
        return tf.minimum(lower, -self.bound), tf.maximum(upper, self.bound)
