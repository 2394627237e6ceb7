"""What one example of a model's data is."""

import dataclasses

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts


@dataclasses.dataclass(frozen=True)
class Example:
    """The description of an example, by which data are checked and exports are typed.

    Args:
      title: the model, for messages.
      dtype: `tf.DType` of the distribution.
      event_shape: `tf.TensorShape` of one example.
      context_shapes: shapes of its context (see `bijectors.context`), or `None`.
      dequantization: that of integer data, or `None`.
      raw: whether contexts are given raw, and a network makes of them what the shapes say.
      continuous: whether the distribution is a density of continuous values; `flows.made`, say,
        may be of 0 and 1.
      missing: whether NaN means a missing entry, which the distribution leaves out.
    """

    title: str
    dtype: tf.DType
    event_shape: tf.TensorShape
    context_shapes: tuple | dict | None
    dequantization: object
    continuous: bool
    raw: bool = False
    missing: bool = False

    @classmethod
    def of(cls, distribution, context_shapes, dequantization, title, *, raw=False):
        """That of a distribution."""
        return cls(
            title,
            tf.as_dtype(distribution.dtype),
            distribution.event_shape,
            context_shapes,
            dequantization,
            distribution.reparameterization_type == tfp.distributions.FULLY_REPARAMETERIZED,
            raw,
            getattr(distribution, "nan_is_missing", False),
        )

    @property
    def context_size(self):
        """Size of the context's last axis, or what else `bijectors.FlowBijector` takes for it."""
        return contexts.declared(self.context_shapes)
