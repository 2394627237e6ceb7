"""What networks with attention share: products over tokens, layer normalization, attention."""

import operator

import tensorflow as tf

from tfp_flows.conditioners.base import add_bias, broadcast

# Of what layer normalization divides by, as the square of it.
_EPSILON = 1e-6


def linear(h, kernel, bias):
    """`h kernel + bias` over the last axis of `[batch, tokens, size]`, as one product."""
    kernel = tf.convert_to_tensor(kernel)
    flat = add_bias(tf.matmul(tf.reshape(h, [-1, kernel.shape[0]]), kernel), bias)
    return tf.reshape(flat, [-1, h.shape[1], kernel.shape[1]])


def norm(h, gain, bias):
    """Layer normalization over the last axis, with the gain 1 plus a weight."""
    full = at_least_float32(h)
    mean, variance = tf.nn.moments(full, axes=[-1], keepdims=True)
    normed = tf.cast((full - mean) * tf.math.rsqrt(variance + _EPSILON), h.dtype)
    return add_bias(broadcast(operator.mul, normed, 1.0 + tf.convert_to_tensor(gain)), bias)


def attend(h, num_heads):
    """Attention of every token to every other.

    Args:
      h: queries, keys and values side by side, `[batch, tokens, 3 * width]`, of static sizes but
        the first.
      num_heads: `int`, of which `width` is a multiple.

    Returns:
      `[batch, tokens, width]`.
    """
    tokens, width = h.shape[1], h.shape[2] // 3
    head = width // num_heads
    parts = tf.reshape(h, [-1, tokens, 3, num_heads, head])
    query, key, value = tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))
    scores = tf.matmul(query * (head**-0.5), key, transpose_b=True)
    weights = tf.nn.softmax(at_least_float32(scores))
    mixed = tf.matmul(tf.cast(weights, value.dtype), value)  # [batch, heads, tokens, head]
    return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, tokens, width])


def at_least_float32(x):
    """`x`, of half precision in float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)
