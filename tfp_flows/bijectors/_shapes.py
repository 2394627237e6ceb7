"""Shapes of events, and log-dets of those of a batch."""

import tensorflow as tf

from tfp_flows.bijectors import context as contexts


def static_shape(shape, ndims):
    """The sizes of an event, `None` where they are free, of a shape or else of a rank."""
    if shape is None:
        return (None,) * ndims
    shape = tuple(None if n is None else int(n) for n in shape)
    if ndims not in (None, len(shape)):
        raise ValueError(f"expected an event shape of {ndims} entries, got {shape}.")
    return shape


def with_event_shape(value, event_shape, message):
    """`value`, whose last sizes are `event_shape`: checked at run time where they are not static.

    Returns the same tensor if there is nothing to check, as always in eager mode.
    """
    if value.shape.is_fully_defined() or value.shape.rank is None:
        return value
    start = value.shape.rank - len(event_shape)
    unknown = [
        n
        for n, size in enumerate(event_shape, start=start)
        if size is not None and value.shape[n] is None
    ]
    if not unknown:
        return value
    shape = tf.shape(value)
    fits = tf.reduce_all([shape[n] == event_shape[n - start] for n in unknown])
    # XLA drops assertions. `ensure_shape` it checks, with a message of its own.
    check = tf.debugging.Assert(fits, [f"{message} {contexts.text(event_shape)}, got", shape])
    sizes = value.shape.as_list()
    for n in unknown:
        sizes[n] = event_shape[n - start]
    with tf.control_dependencies([check]):
        return tf.ensure_shape(value, sizes)


def with_batch_shape(log_det, value, event_ndims):
    """Broadcasts a log-det that may be constant to the batch shape of `value`."""
    batch_rank = None if value.shape.rank is None else value.shape.rank - event_ndims
    if batch_rank is not None:
        batch = value.shape[:batch_rank]
        if batch_rank == log_det.shape.rank and 1 not in log_det.shape.as_list():
            return log_det
        if batch.is_fully_defined():
            # A sum, for a stock part with a batch of parameters may have the larger shape.
            return log_det + tf.zeros(batch, log_det.dtype)
    shape = tf.shape(value)
    return log_det + tf.zeros(shape[: tf.size(shape) - event_ndims], log_det.dtype)


def sum_of_map(elementwise, log_det, event_ndims):
    """The log-det of an elementwise map over the last `event_ndims` axes; a scalar 0 of a shift."""
    if elementwise.is_constant_log_det:
        return tf.zeros([], log_det.dtype)
    return sum_event(log_det, event_ndims)


def sum_event(log_det, event_ndims):
    """Sums an elementwise log-det over the last `event_ndims` axes."""
    return tf.reduce_sum(log_det, axis=list(range(-event_ndims, 0))) if event_ndims else log_det
