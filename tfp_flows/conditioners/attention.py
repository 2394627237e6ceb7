"""What networks with attention share: products over tokens, layer normalization, attention."""

import operator

import tensorflow as tf

from tfp_flows.conditioners.base import add_bias, at_least_float32, broadcast

# Of what layer normalization divides by, as the square of it.
_EPSILON = 1e-6


def default_heads(width):
    """One head for every 64 channels where they divide the width, else one."""
    return width // 64 if isinstance(width, int) and width > 0 and width % 64 == 0 else 1


def check_heads(width, num_heads, name, title):
    """Raises a `ValueError` unless the heads divide the width, whose argument has that name."""
    if width % num_heads:
        raise ValueError(
            f"{title}: {name} must be a multiple of num_heads, got {name}={width} and "
            f"num_heads={num_heads}."
        )


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


def heads(h, num_heads, num_parts):
    """Splits queries, keys and values.

    Args:
      h: they, side by side, `[batch, tokens, num_parts * width]`, of static sizes but the first.
      num_heads: `int`, of which `width` is a multiple.
      num_parts: how many of the three there are.

    Returns:
      A list of `[batch, num_heads, tokens, width / num_heads]`.
    """
    tokens, width = h.shape[1], h.shape[2] // num_parts
    parts = tf.reshape(h, [-1, tokens, num_parts, num_heads, width // num_heads])
    return tf.unstack(tf.transpose(parts, [2, 0, 3, 1, 4]))


def attend(query, key, value):
    """Attention of the tokens of `query` to all of the others: `[batch, tokens, width]`.

    Args:
      query, key, value: as `heads` gives them.
    """
    num_heads, tokens, head = query.shape[1:]
    scores = tf.matmul(query * (head**-0.5), key, transpose_b=True)
    weights = tf.nn.softmax(at_least_float32(scores))
    mixed = tf.matmul(tf.cast(weights, value.dtype), value)  # [batch, heads, tokens, head]
    return tf.reshape(tf.transpose(mixed, [0, 2, 1, 3]), [-1, tokens, num_heads * head])
