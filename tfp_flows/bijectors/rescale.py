"""NICE's rescaling layer."""

import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector, Weight


class Rescale(FlowBijector):
    """A trained positive scale for every entry of an event.

        forward:  y = x * exp(log_scale)
        inverse:  x = y * exp(-log_scale)
        log|det dy/dx| = sum(log_scale)

    NICE puts it at the end of volume-preserving couplings, where it weighs the dimensions.

    Args:
      event_shape: shape of one event, e.g. `[D]` or `[H, W, C]`.
      log_scale: array of `event_shape` to start from, or a `tf.Variable` or
        `tfp.util.TransformedVariable` of that shape, which is used as it is. Default: 0.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `log_scale` is a variable of another dtype, or of Keras.
      ValueError: if `event_shape` is empty or not fully known, or `log_scale` of another shape.

    >>> rescale = Rescale([2], log_scale=[0.0, 1.0])
    >>> float(rescale.forward_log_det_jacobian(tf.zeros([2])))
    1.0

    References:
      L. Dinh, D. Krueger, Y. Bengio, NICE: Non-linear independent components estimation,
      2014, arXiv:1410.8516, section 3.3. The paper's S_ii multiplies from data to latent, so
      it is exp(-log_scale) here.
    """

    log_scale = Weight("Variable of the event shape, or what was given for it.")

    def __init__(self, event_shape, *, log_scale=None, name="rescale", **kwargs):
        shape = tuple(event_shape)
        if not shape or any(n is None or n < 1 for n in shape):
            raise ValueError(
                f"{self._title()}: event_shape must be known and not empty, got {list(shape)}."
            )
        super().__init__(event_shape=shape, is_constant_jacobian=True, name=name, **kwargs)
        self.add_weight("log_scale", log_scale, shape)

    def _forward_and_log_det(self, x, context):
        return x * tf.exp(self.log_scale), tf.reduce_sum(self.log_scale)

    def _inverse_and_log_det(self, y, context):
        return y * tf.exp(-self.log_scale), -tf.reduce_sum(self.log_scale)
