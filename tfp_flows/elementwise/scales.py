"""Bounds of the scales that a network gives."""

import math

import tensorflow as tf


def capped(raw, cap):
    """A log-scale between -cap and cap, near 0 what the network gives: cap tanh(raw / cap)."""
    return cap * tf.tanh(raw * (1.0 / cap))


def floored(log_scale, least):
    """The log of a scale that stays above a floor: log(least + (1 - least) exp(log_scale)).

    0 stays 0, large values hardly change, and no gradient vanishes where it would be needed: the
    scale is at the floor only in the limit.

    Args:
      log_scale: tensor.
      least: the floor, a number in (0, 1), or `None` for none.
    """
    if least is None:
        return log_scale
    # log(a + b) = log a + softplus(log b - log a) overflows for no argument.
    return math.log(least) + tf.nn.softplus(log_scale + math.log1p(-least) - math.log(least))
