"""Logit-transformed images."""

import math

import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector


class Logit(FlowBijector):
    """Maps unbounded values to bounded data (images) by a sigmoid, elementwise.

        forward:  y = scale * (sigmoid(x) - alpha) / (1 - 2 alpha)
        inverse:  x = log(p) - log(1 - p),  p = alpha + (1 - 2 alpha) * y / scale
        log|dy/dx| = log(scale) - log(1 - 2 alpha) + log(p) + log(1 - p)

    Forward is from the latent side to data, so the logit is taken by `inverse`, and the
    flow's density is over data in their original units. `alpha` keeps data at the borders, 0
    and `scale`, away from infinity.

    The codomain is the open interval `(-e, scale + e)`, `e = scale * alpha / (1 - 2 alpha)`, a
    little more than `[0, scale]` (by 14.2 of 256 with `alpha = 0.05`): the density is
    normalized there, and every sample has a finite log-probability. Data outside of it have
    the log-det, and so the log-probability, `-inf`, never NaN; `inverse` gives 0 for them, and
    the gradients of other events stay finite. With `alpha = 0` the codomain is `(0, scale)`.
    NaN stays NaN.

    Shapes: any; an event may have any rank, the log-det sums over it. Log-dets are in nats.

    Args:
      scale: `float > 0`, the width of the data's range: 256 (default) for dequantized 8-bit
        images, 1 for data in `[0, 1]`.
      alpha: `float` in `[0, 0.5)`. Default: 0.05, as in RealNVP, and in MAF for CIFAR-10 (for
        MNIST it has 1e-6).
      name, **kwargs: as `bijectors.FlowBijector`.

    Raises:
      ValueError: if `scale` or `alpha` is out of range.

    >>> logit = Logit(256.0)
    >>> float(logit.forward(0.0))
    128.0
    >>> float(logit.inverse_log_det_jacobian(300.0))
    -inf

    Numerics: near `y = scale`, `1 - p` is computed from `scale - y`, not by cancellation. In
    float32 `forward` reaches the border of the codomain for `|x| > 16`, where `inverse` fails.

    References: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
    arXiv:1605.08803, section 4.1, whose formula has `1 - alpha`; its code and MAF have the
    symmetric `1 - 2 alpha` used here. G. Papamakarios, T. Pavlakou, I. Murray, Masked
    Autoregressive Flow for Density Estimation, 2017, arXiv:1705.07057.
    """

    has_bounded_values = True

    def __init__(self, scale=256.0, *, alpha=0.05, name="logit", **kwargs):
        if not 0.0 < scale < math.inf:
            raise ValueError(
                f"{self._title()}: scale must be positive and finite, got {scale}. It is the width "
                "of the data's range: 256 for 8-bit images."
            )
        if not 0.0 <= alpha < 0.5:
            raise ValueError(
                f"{self._title()}: alpha must be at least 0 and below 0.5, got {alpha}. Try 0.05."
            )
        super().__init__(event_ndims=0, name=name, **kwargs)
        self._scale = float(scale)
        self._alpha = float(alpha)

    @property
    def scale(self):
        """The width of the data's range."""
        return self._scale

    @property
    def alpha(self):
        """How far the borders of the data's range are kept from 0 and 1."""
        return self._alpha

    def _forward_and_log_det(self, x, context):
        slope = self._scale / (1.0 - 2.0 * self._alpha)
        y = slope * (tf.sigmoid(x) - self._alpha)
        return y, math.log(slope) - tf.math.softplus(x) - tf.math.softplus(-x)

    def _inverse_and_log_det(self, y, context):
        slope = (1.0 - 2.0 * self._alpha) / self._scale
        p = self._alpha + slope * y
        q = self._alpha + slope * (self._scale - y)
        outside = (p <= 0.0) | (q <= 0.0)
        # Masked before the logarithm: a NaN there would reach the gradients through `where`.
        log_p = tf.math.log(tf.where(outside, tf.cast(0.5, y.dtype), p))
        log_q = tf.math.log(tf.where(outside, tf.cast(0.5, y.dtype), q))
        log_det = tf.where(outside, tf.cast(-math.inf, y.dtype), math.log(slope) - log_p - log_q)
        return log_p - log_q, log_det

    def _is_increasing(self):
        return True
