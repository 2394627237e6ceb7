"""Mixtures of logistic distribution functions, in log space."""

import numpy as np
import tensorflow as tf


def mixture_log_odds(log_weights, arguments, log_slopes):
    """log(F / (1 - F)) of F = sum_k w_k sigmoid(a_k), and the log of its derivative.

    The derivative is at most the largest of the slopes, for sum_k w_k sigmoid'(a_k) <= F (1 - F)
    by the concavity of p (1 - p); and the value lies between the least and the largest a_k.

    Args:
      log_weights: `[..., K, *shape]`, logs of weights that sum to 1 over the axis of K.
      arguments: `[K, *shape]`, the a_k.
      log_slopes: `[K, *shape]`, the logs of their derivatives.

    Returns:
      Value and log-derivative, `[..., *shape]`.
    """
    axis = log_weights.shape.rank - arguments.shape.rank
    below, log_shares = _mixed(log_weights, -tf.nn.softplus(-arguments), axis)
    above, log_others = _mixed(log_weights, -tf.nn.softplus(arguments), axis)
    # sum_k w_k sigmoid(a_k) sigmoid(-a_k) a_k' / (F (1 - F)) by the shares of each k in F and in
    # 1 - F, which are as exact far out in a tail as in the middle. The logs of the four factors
    # themselves are large there, and their difference would be that of their roundings.
    log_slope = tf.reduce_logsumexp(log_shares + log_others - log_weights + log_slopes, axis=axis)
    return below - above, log_slope


def _mixed(log_weights, terms, axis):
    """log(sum_k w_k exp(terms_k)), and the log of the share of each k in it."""
    # The terms lose their size first, and then get their weights, which it would round away.
    largest = tf.stop_gradient(tf.reduce_max(terms, axis=0))
    relative = log_weights + (terms - largest)
    total = tf.reduce_logsumexp(relative, axis=axis, keepdims=True)
    return tf.squeeze(total, axis) + largest, relative - total


def with_identity(v, value, log_slope, share):
    """(1 - share) * value + share * v, and its log-slope."""
    return value + share * (v - value), tf.math.log((1.0 - share) * tf.exp(log_slope) + share)


def parting_factors(like):
    """Factors from 1/2 to 3/2 for the rows of a tensor.

    Units that are equal have equal gradients, and stay equal for ever: by their factors they
    part at the first step of any optimizer, though all of them are one at zero parameters.
    """
    num = like.shape[0]
    factors = np.linspace(0.5, 1.5, num) if num > 1 else np.ones([1])
    return tf.reshape(tf.constant(factors, like.dtype), [num] + [1] * (like.shape.rank - 1))
