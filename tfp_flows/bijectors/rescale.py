"""NICE's rescaling layer."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.base import FlowBijector, new_variable


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
      dtype: float32 (default) or float64.
      validate_args: passed to the base class.
      name: name of the bijector.

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
        if isinstance(log_scale, keras.Variable):
            raise TypeError(
                f"Rescale '{name}': log_scale must be an array, a tf.Variable or a "
                "tfp.util.TransformedVariable, got a keras.Variable. Give its `value`."
            )
        if not isinstance(log_scale, tfp.util.DeferredTensor):
            log_scale = new_variable(
                np.zeros(shape) if log_scale is None else log_scale,
                name=f"{name}/log_scale",
                dtype=dtype,
            )
        if log_scale.dtype != dtype:
            raise TypeError(
                f"Rescale '{name}': log_scale must be {tf.as_dtype(dtype).name}, got "
                f"{tf.as_dtype(log_scale.dtype).name}. Make the variable with dtype, or give "
                "`dtype=`."
            )
        if tuple(log_scale.shape) != shape:
            # It would broadcast, and its sum miss what it scales.
            raise ValueError(
                f"Rescale '{name}': log_scale must have the event shape {list(shape)}, got "
                f"{list(log_scale.shape)}. Use tf.broadcast_to."
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
        """Variable of the event shape, or what was given for it."""
        return self._log_scale

    def _forward_and_log_det(self, x, context):
        return x * tf.exp(self._log_scale), tf.reduce_sum(self._log_scale)

    def _inverse_and_log_det(self, y, context):
        return y * tf.exp(-self._log_scale), -tf.reduce_sum(self._log_scale)
