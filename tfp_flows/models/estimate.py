"""Importance-weighted estimates of log-densities that are drawn with noise."""

import math
import typing

import tensorflow as tf

# Draws that are scored at once, and so the noise that is held.
BLOCK = 32


class Estimate(typing.NamedTuple):
    """An estimate of log-probabilities, and its standard error."""

    log_prob: tf.Tensor
    """Nats, of the batch shape: `log (w_1 + ... + w_K) / K`."""

    standard_error: tf.Tensor
    """Of the first, by the delta method: the deviation of the weights over their mean, of K."""


def estimate(log_weights, x, num_samples, seed, rows, bar):
    """The estimate for rows, some of them and of the draws at a time.

    Args:
      log_weights: function of rows `[n, ...]`, a number of draws, a seed and the first row's place;
        gives `[draws, n]`.
      x: `[n, ...]`.
      num_samples: `int >= 2`.
      seed: pair of int32.
      rows: `int >= 1`, of `x` at a time.
      bar: a `progress.Bar`, told of every row that is done.

    Returns:
      An `Estimate`, `[n]`.
    """
    found = []
    for first in range(0, len(x), rows):
        part, sums = x[first : first + rows], None
        for block, start in enumerate(range(0, num_samples, BLOCK)):
            number = min(BLOCK, num_samples - start)
            own = tf.random.experimental.stateless_fold_in(seed, block)
            log_w = log_weights(part, number, own, first)
            new = tf.stack([tf.reduce_logsumexp(k * log_w, axis=0) for k in (1.0, 2.0)])
            sums = new if sums is None else tf.reduce_logsumexp(tf.stack([sums, new]), axis=0)
        found.append(sums)
        bar.add(len(part))
    total, squares = tf.unstack(tf.concat(found, axis=1))
    log_prob = total - math.log(num_samples)
    # The mean of w^2 over the square of that of w, of which 1 is the least.
    ratio = tf.exp(squares - 2.0 * total) * num_samples
    variance = tf.maximum(ratio - 1.0, 0.0) / (num_samples - 1)
    # Where all weights are 0 the estimate is -inf, and nothing is known of its error.
    return Estimate(log_prob, tf.where(tf.math.is_finite(log_prob), tf.sqrt(variance), math.inf))
