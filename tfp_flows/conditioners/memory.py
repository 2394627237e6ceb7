"""What networks of long short-term memories share."""

import tensorflow as tf


def lasting(shape, dtype=None):
    """Initial biases of the four gates: one where a memory is kept, else zero."""
    quarter = shape[-1] // 4
    one = tf.range(shape[-1]) // quarter == 1
    return tf.broadcast_to(tf.cast(one, dtype or tf.float32), shape)


def remembered(z, memories):
    """The next h and m, given z, its gates side by side, and m."""
    out, keep, enter, what = tf.split(z, 4, axis=-1)
    memories = tf.sigmoid(keep) * memories + tf.sigmoid(enter) * tf.tanh(what)
    return tf.sigmoid(out) * tf.tanh(memories), memories


def products(x, kernels):
    """`[layers, a, b, k]` times `[layers, k, l]`; at most one of the sizes is free."""
    layers, *sizes, size = (-1 if size is None else size for size in x.shape)
    # Where batch axes of 1 broadcast, `tf.matmul` may end the process (TF 2.21 with oneDNN).
    out = tf.matmul(tf.reshape(x, [layers, -1, size]), kernels)
    return tf.reshape(out, [layers, *sizes, kernels.shape[-1]])
