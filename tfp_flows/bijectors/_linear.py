"""Linear algebra that several bijectors share."""

import numpy as np
import tensorflow as tf


def matvec(matrix, value):
    """Multiplies the last axis of `value` by a matrix, all positions in one product."""
    if value.shape.rank == 2:
        return tf.matmul(value, matrix, transpose_b=True)
    flat = tf.matmul(tf.reshape(value, [-1, value.shape[-1]]), matrix, transpose_b=True)
    return tf.ensure_shape(tf.reshape(flat, tf.shape(value)), value.shape)


def log_abs_det(matrices):
    """log|det| of square matrices `[..., n, n]`, by an operation that XLA (TF 2.21) has too."""
    upper = tf.linalg.qr(matrices)[1]
    return tf.reduce_sum(tf.math.log(tf.abs(tf.linalg.diag_part(upper))), axis=-1)


def unit_vectors(vectors):
    """Vectors `[..., n]` divided by their length; one of length 0 is left as it is."""
    square = tf.reduce_sum(tf.square(vectors), axis=-1, keepdims=True)
    return vectors * tf.math.rsqrt(tf.where(square > 0.0, square, tf.ones_like(square)))


def reflected(x, unit):
    """`x` `[..., n]` reflected by the unit vectors of a list, one after another."""
    for v in unit:
        x -= 2.0 * tf.reduce_sum(v * x, axis=-1, keepdims=True) * v
    return x


def generator(seed):
    """NumPy's generator of a seed; of none by NumPy's global state, which Keras seeds."""
    return np.random.default_rng(np.random.randint(2**31) if seed is None else seed)


def random_rotation(size, seed):
    """A rotation or reflection that is drawn uniformly: an array `[size, size]`.

    Args:
      size: `int >= 1`.
      seed: `int`, or `None` to draw it from NumPy's global state.
    """
    gaussian = generator(seed).normal(size=(size, size))
    rotation, triangle = np.linalg.qr(gaussian)
    # QR is unique, and the rotation uniform, once the triangle's diagonal is positive.
    return rotation * np.sign(np.diag(triangle))
