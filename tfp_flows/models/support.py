"""Scores of data outside the support."""

import math

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.bijectors import stock
from tfp_flows.bijectors.chain import apply


def outside_scores_minus_infinity(distribution, x, log_prob):
    """`log_prob` with -inf for the rows of `x` where the density is zero.

    Those are rows with an infinite entry, and rows that TFP's own bijectors between the data and
    the first part with variables have no finite image of: `tfb.Sigmoid` from 0 down and from 1
    up, `tfb.Exp` from 0 down. TFP (0.25) gives NaN there. A row that holds NaN keeps its score.

    Args:
      distribution: the distribution.
      x: data, of its dtype.
      log_prob: what it scores them, of the batch shape.
    """
    ndims = distribution.event_shape.rank
    unknown = _any_entry(tf.math.is_nan(x), ndims)
    outside = _any_entry(tf.equal(tf.abs(x), math.inf), ndims)
    parts = list(_fixed_parts(distribution))
    while parts and isinstance(parts[-1][0], bijectors.FlowBijector):
        parts.pop()  # They see to their own support.
    value = x
    for bijector, inverse in parts:
        value, log_det, ndims = apply(bijector, value, None, ndims, inverse=inverse)
        outside |= _any_entry(~tf.math.is_finite(value), ndims) | tf.math.is_nan(log_det)
    return tf.where(outside & ~unknown, tf.constant(-math.inf, log_prob.dtype), log_prob)


def _fixed_parts(distribution):
    """The parts from the data on, each with its direction, up to the first that has variables."""
    todo = []
    while isinstance(distribution, stock.TransformedDistribution):
        todo.append((distribution.bijector, True))
        distribution = distribution.distribution
    todo.reverse()
    while todo:
        bijector, inverse = todo.pop()
        if isinstance(bijector, stock.Invert):
            todo.append((bijector.bijector, not inverse))
        elif isinstance(bijector, (stock.Chain, bijectors.Chain)):
            members = list(bijector.bijectors)  # The first acts last, and so first in the inverse.
            todo += [(member, inverse) for member in (reversed(members) if inverse else members)]
        elif bijector.variables or not isinstance(bijector.forward_min_event_ndims, int):
            return  # It is trained, or one of several tensors.
        else:
            yield bijector, inverse


def _any_entry(condition, ndims):
    return tf.reduce_any(condition, axis=list(range(-ndims, 0))) if ndims else condition
