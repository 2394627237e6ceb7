"""What one example of a model's data is."""

import dataclasses

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True)
class Example:
    """The description of an example, by which data are checked and exports are typed.

    Args:
      title: the model, for messages.
      dtype: `tf.DType` of the weights, and of log-densities; the distribution's own unless that is
        one of integers.
      event_dtype: `tf.DType` of the distribution's events.
      event_shape: `tf.TensorShape` of one example.
      context_shapes: shapes of its context (see `bijectors.context`), or `None`.
      dequantization: that of integer data, or `None`.
      raw: whether contexts are given raw, and a network makes of them what the shapes say.
      continuous: whether the distribution is a density of continuous values; `flows.made`, say,
        may be of 0 and 1.
      levels: of a distribution of integers 0 to levels - 1 their number, if it is known.
      missing: whether NaN means a missing entry, which the distribution leaves out.
    """

    title: str
    dtype: tf.DType
    event_dtype: tf.DType
    event_shape: tf.TensorShape
    context_shapes: tuple | dict | None
    dequantization: object
    continuous: bool
    levels: int | None = None
    raw: bool = False
    missing: bool = False

    @classmethod
    def of(cls, distribution, road, dequantization, title, *, raw=False):
        """That of a distribution and its `Road`.

        Raises:
          ValueError: if the distribution is one of integers, and a dequantization is given.
        """
        found = cls(
            title,
            road.dtype,
            tf.as_dtype(distribution.dtype),
            distribution.event_shape,
            road.context_shapes,
            dequantization,
            distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED,
            _levels_of(distribution),
            raw,
            getattr(distribution, "nan_is_missing", False),
        )
        if found.discrete and dequantization is not None:
            raise ValueError(
                f"{title}: the distribution '{distribution.name}' is one of integers, which need "
                "no dequantization. Leave it out."
            )
        return found

    @property
    def discrete(self):
        """Whether the distribution is one of integers."""
        return not self.event_dtype.is_floating or self.levels is not None

    @property
    def num_levels(self):
        """Of integer data 0 to num_levels - 1 their number, if it is known."""
        return self.levels if self.dequantization is None else self.dequantization.num_levels

    @property
    def context_size(self):
        """Size of the context's last axis, or what else `bijectors.FlowBijector` takes for it."""
        return contexts.declared(self.context_shapes)


def _levels_of(distribution):
    """Of a distribution of integers 0 to n - 1 the number n, else `None`."""
    while isinstance(distribution, (tfd.Independent, tfd.Sample)):
        distribution = distribution.distribution
    if isinstance(distribution, tfd.Bernoulli):
        return 2
    if isinstance(distribution, tfd.Categorical):
        given = distribution.probs if distribution.logits is None else distribution.logits
        return given.shape[-1]
    return getattr(distribution, "num_levels", None)
