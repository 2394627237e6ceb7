"""Moments of the data that a part is initialised from."""

import warnings

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import modes


def global_moments(value, axes):
    """Mean and variance of `value` over `axes` and over all workers, in float64, and their count.

    The count is that of the positions: rows, and for images their pixels.
    """
    if not tf.executing_eagerly():
        raise RuntimeError(
            "data_dependent_initialization() runs in eager mode only, not inside tf.function: "
            "the pass assigns variables once, which a traced function would repeat."
        )
    modes.tell_of_part()
    reduce_sum = modes.reduce_sum()
    value = tf.cast(value, tf.float64)
    count = reduce_sum(tf.cast(tf.size(value) / tf.size(tf.reduce_sum(value, axes)), tf.float64))
    mean = reduce_sum(tf.reduce_sum(value, axes)) / count
    # Around the global mean: the difference of two large sums would lose digits.
    variance = reduce_sum(tf.reduce_sum(tf.math.squared_difference(value, mean), axes)) / count
    return mean, variance, count


def check_moments(moments, value, title):
    """Raises unless a scale can be made of `global_moments(value, ...)`."""
    mean, variance, count = moments
    arrives = f"the batch, of shape {value.shape.as_list()} where it arrives here"
    if not np.isfinite([mean, variance]).all():
        raise ValueError(
            f"{title}: cannot be initialised: {arrives}, is empty or holds values that are not "
            "finite. Check the data, and the parts on the data side of this one."
        )
    if count < 2:
        raise ValueError(
            f"{title}: cannot be initialised: {arrives}, is a single position, which has no "
            "variance. Initialise from more rows: some hundred give steady moments."
        )


def warn_of_constant(mean, variance, dtype, title):
    """Returns which channels are constant but for rounding, and warns if there are some."""
    # A few units in the last place of the values: what is left of a constant that was computed.
    rounding = 4.0 * np.finfo(dtype.as_numpy_dtype).eps * np.abs(mean)
    constant = np.sqrt(variance) <= rounding
    if constant.any():
        channels = np.flatnonzero(constant)
        some = f"{channels[:5].tolist()}{' and more' if len(channels) > 5 else ''}"
        warnings.warn(
            f"{title}: {len(channels)} of its {len(constant)} channels are constant in the batch "
            f"that initialises it (channel {some}): they start with the scale 1. A density of "
            "values that never vary has no bound; leave them out, or add noise "
            "(preprocessing.UniformDequantization). If they do vary, initialise from more rows.",
            stacklevel=2,
        )
    return constant
