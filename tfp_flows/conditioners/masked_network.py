"""MADE's network as a function of its weights, their masks and the input."""

import numpy as np
import tensorflow as tf

from tfp_flows.conditioners.base import add_bias


def masks_between(degrees):
    """Boolean tensors `[inputs, outputs]`, true where a weight is kept, for all layers.

    Args:
      degrees: integer tensors or arrays: of the inputs, of each hidden layer, of the outputs.
    """
    pairs = list(zip(degrees[:-1], degrees[1:], strict=True))
    compare = [tf.less_equal] * (len(pairs) - 1) + [tf.less]  # equations 8 and 9
    return [
        c(tf.expand_dims(a, 1), tf.expand_dims(b, 0))
        for c, (a, b) in zip(compare, pairs, strict=True)
    ]


def evaluate(x, kernels, offsets, keep, activation, ends_block):
    """The network as a function of its weights.

    Args:
      x: `[n, D]`.
      kernels: of each layer, not masked.
      offsets: of each layer, `[width]` or `[n or 1, width]`.
      keep: masks of the kernels, Boolean.
      activation: function of tensors.
      ends_block: of each layer, whether its value is added to that of the block before.

    Returns:
      The output, and the list of the hidden values that the activation is applied to.
    """
    last = len(kernels) - 1
    value, skip, values = x, None, []
    layers = zip(kernels, offsets, keep, ends_block, strict=True)
    for i, (kernel, offset, mask, ends) in enumerate(layers):
        kernel = tf.convert_to_tensor(kernel)  # In bfloat16 under a mixed policy.
        value = _masked_product(value, kernel, mask)
        value = add_bias(value, offset)
        if ends:
            skip = value = value if skip is None else skip + value
        if i < last:
            values.append(value)
            value = activation(value)
    return value, values


def _masked_product(x, kernel, mask):
    """`x @ where(keep, kernel, 0)`, for a mask that is `keep` or `(keep, columns, rows)`."""
    if not isinstance(mask, tuple):
        return tf.matmul(x, tf.where(mask, kernel, tf.zeros([], kernel.dtype)))
    keep, columns, rows = mask
    keep = tf.identity(keep)  # The gradient of a loop finds no eager tensor in one of its steps.

    @tf.custom_gradient
    def product(x, kernel):
        # Two products that can run side by side, and leave out the block of zeros.
        weights = tf.where(keep, kernel, tf.zeros([], kernel.dtype))
        low = tf.matmul(x[:, :rows], weights[:rows, :columns])
        y = tf.concat([low, tf.matmul(x, weights[:, columns:])], 1)

        def gradient(y_bar):
            # Masked anew, which TensorFlow finds to be the same: for a second derivative the
            # weights have to be a function of the kernel here too.
            weights = tf.where(keep, kernel, tf.zeros([], kernel.dtype))
            low = tf.matmul(y_bar, weights[:rows], transpose_b=True)
            high = tf.matmul(y_bar[:, columns:], weights[rows:, columns:], transpose_b=True)
            kernel_bar = tf.matmul(x, y_bar, transpose_a=True)
            return tf.concat([low, high], 1), tf.where(keep, kernel_bar, tf.zeros_like(kernel_bar))

        return y, gradient

    return product(x, kernel)


# Entries of a kernel from which it is worth two products: smaller ones are mostly overhead.
_LARGE = 1 << 16


def halved(mask):
    """`(keep, columns, rows)` if the first half of the columns needs few rows, else the mask."""
    keep = tf.get_static_value(mask)
    if keep is None or keep.size < _LARGE:
        return mask
    columns = keep.shape[1] // 2
    used = np.flatnonzero(keep[:, :columns].any(axis=1))
    if not len(used) or used[-1] + 1 > 0.75 * len(keep):
        return mask
    return mask, columns, int(used[-1]) + 1


def evaluate_by_degrees(x, kernels, offsets, degrees, activation, ends_block):
    """As `evaluate`, with the degrees of inputs, hidden units and outputs for the masks."""
    return evaluate(x, kernels, offsets, masks_between(degrees), activation, ends_block)
