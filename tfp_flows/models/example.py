"""What one example of a model's data is."""

import dataclasses

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.composition import entries_of

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
      data_dtype: `tf.DType` of the data.
      lift: the transform in place that makes values of the distribution of integers (see
        `StochasticTransform.in_place`), or `None`.
      raw: whether contexts are given raw, and a network makes of them what the shapes say.
      continuous: whether the distribution is a density of continuous values; `flows.made`, say,
        may be of 0 and 1.
      num_levels: of integer data 0 to num_levels - 1 their number, if it is known.
      missing: whether NaN means a missing entry, which the distribution leaves out.
    """

    title: str
    dtype: tf.DType
    event_dtype: tf.DType
    event_shape: tf.TensorShape
    context_shapes: tuple | dict | None
    data_dtype: tf.DType
    continuous: bool
    num_levels: int | None = None
    lift: object = None
    raw: bool = False
    missing: bool = False

    @classmethod
    def of(cls, whole, road, title, *, raw=False):
        """That of the distribution of the data, and the `Road` of what is scored and sampled.

        The latter's is `whole` itself, or what is inside of it behind a transform in place.

        Raises:
          ValueError: if what is behind the transform is a distribution of integers already.
        """
        distribution = road.distribution
        found = cls(
            title,
            road.dtype,
            tf.as_dtype(distribution.dtype),
            distribution.event_shape,
            road.context_shapes,
            tf.as_dtype(whole.dtype),
            distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED,
            _levels_of(distribution),
            None,
            raw,
            getattr(distribution, "nan_is_missing", False),
        )
        if whole is distribution:
            return found
        if found.discrete:
            raise ValueError(
                f"{title}: the distribution '{distribution.name}' is one of integers, which need "
                "no dequantization. Leave it out."
            )
        return dataclasses.replace(found, num_levels=whole.num_levels, lift=whole.transform)

    @property
    def discrete(self):
        """Whether the distribution is one of integers."""
        if self.lift is not None:
            return False
        return not self.event_dtype.is_floating or self.num_levels is not None

    @property
    def context_size(self):
        """Size of the context's last axis, or what else `bijectors.FlowBijector` takes for it."""
        return contexts.declared(self.context_shapes)

    # --- Between data and what the distribution scores. ---

    def needs_lift(self, x):
        """Whether data have to be lifted: integers, where the distribution is of real values."""
        return self.lift is not None and not x.dtype.is_floating

    def draw_noise(self, shape, seed):
        """Noise for the lift of a batch of that shape."""
        return self.lift.draw_noise(shape, seed, self.event_shape)

    def lifted(self, x, noise=None):
        """Lifted data; without noise with that of scores, the same for every row."""
        if noise is None:
            x = self.lift.shared_noise(x, event_shape=self.event_shape)
        else:
            x = self.lift.inverse(x, noise)[0]
        return tf.cast(x, self.dtype)

    def quantized(self, samples):
        """Samples as integers.

        Raises:
          ValueError: if the data are none.
        """
        if self.discrete:
            return tf.cast(samples, tf.int32)
        if self.lift is None:
            raise ValueError(
                f"{self.title}.sample: quantized=True is for a model with a dequantization; the "
                "data of this one are continuous."
            )
        return self.lift.quantize(samples)


def _levels_of(distribution):
    """Of a distribution of integers 0 to n - 1 the number n, else `None`."""
    distribution = entries_of(distribution)
    if isinstance(distribution, tfd.Bernoulli):
        return 2
    if isinstance(distribution, tfd.Categorical):
        given = distribution.probs if distribution.logits is None else distribution.logits
        return given.shape[-1]
    return getattr(distribution, "num_levels", None)
