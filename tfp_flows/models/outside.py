"""Where a density is zero."""

import math

import tensorflow as tf

from tfp_flows.bijectors import FlowBijector


def outside_scores_minus_infinity(road, x, log_prob):
    """`log_prob` with -inf for the rows of `x` where the density is zero.

    Those are rows with an infinite entry, and rows that TFP's own bijectors between the data and
    the first part with variables have no finite image of: `tfb.Sigmoid` from 0 down and from 1
    up, `tfb.Exp` from 0 down. TFP (0.25) gives NaN there. A row that holds NaN keeps its score.

    Args:
      road: that of the distribution.
      x: data, of its dtype.
      log_prob: what it scores them, of the batch shape.
    """
    if not x.dtype.is_floating:
        return log_prob  # What is impossible the distribution itself knows.
    unknown = _any_entry(tf.math.is_nan(x), road.event_ndims)
    outside = _any_entry(tf.equal(tf.abs(x), math.inf), road.event_ndims)
    outside |= _outside(road.steps, x, road.event_ndims)
    return tf.where(outside & ~unknown, tf.constant(-math.inf, log_prob.dtype), log_prob)


def _outside(steps, value, ndims):
    """Which rows have no finite image up to the first step that has variables."""
    outside = tf.zeros([], tf.bool)
    for step in steps[: _last_of_stock(steps)]:
        for part, inside in step.branches:
            outside |= _outside(inside, value[..., part], ndims)
        ranks = step.bijector.forward_min_event_ndims, step.bijector.inverse_min_event_ndims
        if step.bijector.variables or any(map(tf.nest.is_nested, ranks)):
            break  # It is trained, or one of several tensors.
        value, log_det, ndims = step(value, None, ndims)
        outside |= _any_entry(~tf.math.is_finite(value), ndims) | tf.math.is_nan(log_det)
    return outside


def _last_of_stock(steps):
    """How many steps there are up to the last of TFP's own: ours see to their support."""
    return max((n for n, step in enumerate(steps, 1) if _holds_stock(step)), default=0)


def _holds_stock(step):
    inside = [_last_of_stock(steps) for _, steps in step.branches]
    return any(inside) or not isinstance(step.bijector, FlowBijector)


def _any_entry(condition, ndims):
    return tf.reduce_any(condition, axis=list(range(-ndims, 0))) if ndims else condition
