"""NICE's rescaling layer."""

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector, new_variable


class Rescale(FlowBijector):
    """A trained positive scale for every entry of an event.

        forward:  y = x * exp(log_scale)
        inverse:  x = y * exp(-log_scale)
        log|det dy/dx| = sum(log_scale)

    NICE puts it at the end of volume-preserving couplings, where it weighs the dimensions.

    Args:
      event_shape: shape of one event, e.g. `[D]` or `[H, W, C]`.
      log_scale: variable as `copy()` hands it over, or array of `event_shape` to start from.
        Default: 0.
      dtype: float32 (default) or float64.
      validate_args: passed to the base class.
      name: name of the bijector.

    Raises:
      ValueError: if `event_shape` is empty or not fully known.

    >>> rescale = Rescale([2], log_scale=[0.0, 1.0])
    >>> float(rescale.forward_log_det_jacobian(tf.zeros([2])))
    1.0

    References:
      L. Dinh, D. Krueger, Y. Bengio, NICE: Non-linear independent components estimation,
      2014, arXiv:1410.8516, section 3.3. The paper's S_ii multiplies from data to latent, so
      it is exp(-log_scale) here.
    """

    def __init__(
        self,
        event_shape,
        *,
        log_scale=None,
        dtype=tf.float32,
        validate_args=False,
        name="rescale",
    ):
        parameters = dict(locals())
        shape = tuple(event_shape)
        if not shape or any(n is None or n < 1 for n in shape):
            raise ValueError(
                f"Rescale '{name}': event_shape must be known and not empty, got {list(shape)}."
            )
        log_scale = new_variable(
            np.zeros(shape) if log_scale is None else log_scale,
            name=f"{name}/log_scale",
            dtype=dtype,
        )
        parameters.update(log_scale=log_scale)
        super().__init__(
            event_ndims=len(shape),
            event_shape=shape,
            dtype=dtype,
            is_constant_jacobian=True,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
        self._log_scale = log_scale

    @property
    def log_scale(self):
        """Variable of the event shape."""
        return self._log_scale

    def _forward_and_log_det(self, x, context):
        return x * tf.exp(self._log_scale), tf.reduce_sum(self._log_scale)

    def _inverse_and_log_det(self, y, context):
        return y * tf.exp(-self._log_scale), -tf.reduce_sum(self._log_scale)
