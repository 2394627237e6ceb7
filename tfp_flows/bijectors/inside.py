"""Base distributions that hold flows: independent ones, and mixtures.

TFP hands them no context. Each answers here for its parts, whose roads it is given.
"""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts


class Parts:
    """The flows inside a distribution.

    Args:
      base: the distribution.
      roads: those of its parts.
    """

    def __init__(self, base, roads):
        self.base, self.roads = base, roads
        owner = f"{type(base).__name__.lstrip('_')} '{base.name}'"
        shapes = [(f"part {n}", road.context_shapes) for n, road in enumerate(roads)]
        self.context_shapes = contexts.common(shapes, owner)
        # Axes of an event that the parts see as batch.
        self.extra = base.event_shape.rank - roads[0].event_ndims

    def has_mean(self, context):
        """Whether every part can be sampled at any temperature."""
        return all(road.has_mean(context) for road in self.roads)

    def _spread(self, context, road, axes):
        return contexts.for_part(context, road.context_shapes, axes)


class Independent(Parts):
    """The part of a `tfd.Independent`: its rows are one event, of one context."""

    def log_prob(self, x, context):
        """Sums over the rows."""
        (road,) = self.roads
        log_prob = road.log_prob(x, self._spread(context, road, self.extra))
        return tf.reduce_sum(log_prob, axis=list(range(-self.extra, 0)))

    def sample(self, shape, seed, context, temperature):
        """Samples of all rows."""
        (road,) = self.roads
        return road.sample(shape, seed, self._spread(context, road, self.extra), temperature)


class Mixture(Parts):
    """The parts of a `tfd.Mixture`."""

    def log_prob(self, x, context):
        """log sum_k p(k) p_k(x)."""
        log_probs = [r.log_prob(x, self._spread(context, r, 0)) for r in self.roads]
        log_weights = tf.math.log_softmax(self.base.cat.logits_parameter())
        return tf.reduce_logsumexp(tf.stack(log_probs, axis=-1) + log_weights, axis=-1)

    def sample(self, shape, seed, context, temperature):
        """Draws of all parts, of which each row takes one."""
        seed, *seeds = tfp.random.split_seed(seed, n=1 + len(self.roads))
        which = self.base.cat.sample(shape, seed=seed)
        event = [1] * self.base.event_shape.rank
        which = tf.reshape(which, tf.concat([shape, event], axis=0))
        samples = None
        for n, (road, own) in enumerate(zip(self.roads, seeds, strict=True)):
            drawn = road.sample(shape, own, self._spread(context, road, 0), temperature)
            samples = drawn if samples is None else tf.where(which == n, drawn, samples)
        return samples


class MixtureSameFamily(Parts):
    """The parts of a `tfd.MixtureSameFamily`, which are the rows of a batch."""

    def log_prob(self, x, context):
        """log sum_k p(k) p_k(x)."""
        (road,) = self.roads
        x = tf.expand_dims(x, -1 - road.event_ndims)
        log_probs = road.log_prob(x, self._spread(context, road, 1))
        log_weights = tf.math.log_softmax(self.base.mixture_distribution.logits_parameter())
        return tf.reduce_logsumexp(log_probs + log_weights, axis=-1)

    def sample(self, shape, seed, context, temperature):
        """Draws of all parts, of which each row takes one."""
        (road,) = self.roads
        seed, own = tfp.random.split_seed(seed)
        which = self.base.mixture_distribution.sample(shape, seed=seed)
        samples = road.sample(shape, own, self._spread(context, road, 1), temperature)
        rank = which.shape.rank
        return tf.gather(samples, which, axis=rank, batch_dims=rank)
