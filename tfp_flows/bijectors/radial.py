"""Radial flows."""

import math

import tensorflow as tf

from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.amortised import Amortised
from tfp_flows.bijectors.base import Weight


class Radial(Amortised):
    """A pull towards a point, or a push away from it, that fades with the distance.

    With r = |x - center|, a = softplus(alpha + log(e - 1)), k = a softplus(beta + log(e - 1)),

        forward:  y = center + (x - center) (k + r) / (a + r)
        inverse:  x = center + (y - center) (a + r) / (k + r), where of |y - center| = R
                  r = (p + sqrt(p^2 + 4 a R)) / 2,   p = R - k
        log|det dy/dx| = (D - 1) log((k + r) / (a + r)) + log((a k + 2 a r + r^2) / (a + r)^2)

    Both directions are closed. Near the point the map scales by k / a > 0, far from it not at all.
    In the paper's form, y = x + b (x - center) / (a + r), it is b = k - a > -a. At beta = 0 it is
    the identity, and so is a fresh one.

    Shapes: `x`, `y` `[..., D]`; `context` `[..., context_size]`; the conditioner maps `[batch,
    context_size]` to `[batch, D + 2]`: center, alpha, beta.

    Args:
      size: `int >= 1`, the size D of an event.
      conditioner, context_size: as `Planar`.
      center: array `[D]` to start from, or a variable. Default: normal, of standard deviation 1.
      alpha, beta: numbers to start from, or variables. Default: 0.
      seed: `int` that fixes the initial `center`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError, ValueError: as `Planar`.

    >>> radial = Radial(2, center=[0.0, 0.0], beta=3.0)
    >>> y = radial.forward(tf.constant([[0.1, 0.0], [9.0, 0.0]]))
    >>> (tf.round(100 * y) / 100).numpy()
    array([[ 0.33,  0.  ],
           [11.31,  0.  ]], dtype=float32)

    References:
      D. J. Rezende, S. Mohamed, Variational inference with normalizing flows, 2015,
      arXiv:1505.05770, equations 13 and 14 and appendix A.2.
    """

    center = Weight("Variable `[D]`, the point.")
    alpha = Weight("Variable `[]`: at which distance the map fades.")
    beta = Weight("Variable `[]`: how much it scales near the point.")
    _random = ("center",)

    def __init__(
        self,
        size,
        *,
        conditioner=None,
        context_size=None,
        center=None,
        alpha=None,
        beta=None,
        seed=None,
        name="radial",
        **kwargs,
    ):
        common = {"conditioner": conditioner, "context_size": context_size, "seed": seed}
        super().__init__(size, **common, name=name, **kwargs)
        self.add_parameters(conditioner, center=center, alpha=alpha, beta=beta)

    def _start(self, size, seed):
        center = _linear.generator(seed).normal(size=size)
        return {"center": center, "alpha": 0.0, "beta": 0.0}

    def _forward_and_log_det(self, x, context):
        center, a, k = self._positive(context)
        r = _distance(x, center)
        y = center + (x - center) * ((k + r) / (a + r))[..., tf.newaxis]
        return y, self._log_det(r, a, k)

    def _inverse_and_log_det(self, y, context):
        center, a, k = self._positive(context)
        distance = _distance(y, center)
        p = distance - k
        root = tf.sqrt(tf.square(p) + 4.0 * a * distance)
        # Of the two forms of the solution each cancels on one side.
        r = tf.where(p > 0.0, 0.5 * (p + root), 2.0 * a * distance / (root + tf.abs(p)))
        x = center + (y - center) * ((a + r) / (k + r))[..., tf.newaxis]
        return x, -self._log_det(r, a, k)

    def _positive(self, context):
        center, alpha, beta = self._parameters_at(context)
        a = tf.nn.softplus(alpha + math.log(math.e - 1.0))
        return center, a, a * tf.nn.softplus(beta + math.log(math.e - 1.0))

    def _log_det(self, r, a, k):
        across = tf.math.log((k + r) / (a + r))
        along = tf.math.log((a * k + 2.0 * a * r + tf.square(r)) / tf.square(a + r))
        return (self._domain[0] - 1.0) * across + along


def _distance(x, center):
    square = tf.reduce_sum(tf.square(x - center), axis=-1)
    # At the point itself the distance has no gradient, and the map needs none.
    away = square > 0.0
    return tf.where(away, tf.sqrt(tf.where(away, square, tf.ones_like(square))), 0.0)
