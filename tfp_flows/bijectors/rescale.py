"""NICE's rescaling layer."""

import tensorflow as tf

from tfp_flows._checks import fraction, known_shape
from tfp_flows.bijectors.base import FlowBijector, Weight
from tfp_flows.elementwise.scales import floored


class Rescale(FlowBijector):
    """A trained positive scale for every entry of an event.

        forward:  y = x * exp(s)
        inverse:  x = y * exp(-s)
        log|det dy/dx| = sum(s)

    with s = log_scale, or with a floor m for the scale s = log(m + (1 - m) exp(log_scale)).

    NICE puts it at the end of volume-preserving couplings, where it weighs the dimensions.

    Args:
      event_shape: shape of one event, e.g. `[D]` or `[H, W, C]`.
      log_scale: array of `event_shape` to start from, or a `tf.Variable` or
        `tfp.util.TransformedVariable` of that shape, which is used as it is. Default: 0.
      min_scale: number in (0, 1), the floor m that no scale falls below. Default: none. Where an
        entry of the data is constant, as a pixel that is black in every image, the likelihood rises
        without bound as its scale falls: with a floor by no more than -log(min_scale).
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `log_scale` is a variable of another dtype, or of Keras, or `min_scale` no
        number.
      ValueError: if `event_shape` is empty or not fully known, `log_scale` of another shape, or
        `min_scale` not in (0, 1).

    >>> rescale = Rescale([2], log_scale=[0.0, 1.0])
    >>> float(rescale.forward_log_det_jacobian(tf.zeros([2])))
    1.0

    References:
      L. Dinh, D. Krueger, Y. Bengio, NICE: Non-linear independent components estimation,
      2014, arXiv:1410.8516, section 3.3. The paper's S_ii multiplies from data to latent, so
      it is exp(-s) here.
    """

    log_scale = Weight("Variable of the event shape, or what was given for it.")

    def __init__(self, event_shape, *, log_scale=None, min_scale=None, name="rescale", **kwargs):
        shape = known_shape(event_shape, "event_shape", self._title())
        if min_scale is not None:
            min_scale = fraction(min_scale, "min_scale", self._title())
        self._min_scale = min_scale
        super().__init__(event_shape=shape, is_constant_jacobian=True, name=name, **kwargs)
        self.add_weight("log_scale", log_scale, shape)

    def _forward_and_log_det(self, x, context):
        s = floored(self.log_scale, self._min_scale)
        return x * tf.exp(s), tf.reduce_sum(s)

    def _inverse_and_log_det(self, y, context):
        s = floored(self.log_scale, self._min_scale)
        return y * tf.exp(-s), -tf.reduce_sum(s)
