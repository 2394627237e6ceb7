"""Nats to bits per dimension."""

import math

import numpy as np
import tensorflow as tf


def bits_per_dim(log_prob, event_shape, *, scale=1.0):
    """Log-probabilities in nats as bits per dimension of the original data.

        bits/dim = -log_prob / (D ln 2) + log2(scale)

    with `D` the number of entries of an event. Papers report the discrete data's units: for
    8-bit images, whose dequantized values lie in `[0, 256)`, a uniform density has 8 bits/dim.

    A flow that ends in this package's `Logit`, `center` or `Standardize` has a density over
    data in their original units, because the bijector's log-det counts: leave `scale` alone.
    Set it where data were divided outside of the flow, and its density is over
    `data = original / scale` (a shift does not matter): 256 for dequantized 8-bit images
    divided by 256, `[0, 1)` or `[-0.5, 0.5)`. By the change of variables each dimension then
    adds `log2(scale)`.

    Args:
      log_prob: tensor, array or number in nats, floating, any shape.
      event_shape: the static shape of one event, e.g. `[32, 32, 3]` or `distribution.event_shape`.
      scale: `float > 0`, the original data divided by the data that the density is over.
        Default: 1.

    Returns:
      bits/dim, of the shape and dtype of `log_prob`: a `tf.Tensor` for a tensor, a NumPy array
      or number otherwise. An impossible event (`log_prob = -inf`) has `inf`.

    Raises:
      TypeError: if `log_prob` is not floating.
      ValueError: if `event_shape` is not fully known or empty, or `scale` is not positive.

    >>> log_prob = -3072 * np.log(256.0)      # uniform over [0, 256)^3072
    >>> float(bits_per_dim(log_prob, [32, 32, 3]))
    8.0
    >>> float(bits_per_dim(0.0, [32, 32, 3], scale=256))     # uniform over [0, 1)^3072
    8.0

    Reference: L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative
    models, 2016, arXiv:1511.01844, section 3.1: this bounds the discrete data's log-likelihood.
    """
    shape = tf.TensorShape(event_shape)
    if not shape.is_fully_defined() or shape.num_elements() == 0:
        raise ValueError(
            f"bits_per_dim: event_shape must be fully known and not empty, got {event_shape}. Give "
            "the static shape of one event, without batch dimensions."
        )
    if not (isinstance(scale, (int, float, np.number)) and 0 < scale < math.inf):
        raise ValueError(
            f"bits_per_dim: scale must be a positive number, got {scale!r}. It is the original "
            "data divided by the data that the density is over: 256 for x / 256."
        )
    if not tf.is_tensor(log_prob):
        log_prob = np.asarray(log_prob)[()]
    if not tf.as_dtype(log_prob.dtype).is_floating:
        raise TypeError(
            f"bits_per_dim: log_prob must be floating, got {log_prob.dtype}. Are these labels or "
            "data rather than log-probabilities?"
        )
    # One multiplication by a Python number: it keeps the dtype of tensors and arrays.
    bits = log_prob * (-1.0 / (shape.num_elements() * math.log(2.0)))
    return bits + math.log2(scale)
