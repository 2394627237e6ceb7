"""MaCow's convolutional conditioner: a row from the rows before it."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import Conditioner, add_bias
from tfp_flows.conditioners.convolution import add_context


@keras.saving.register_keras_serializable(package="tfp_flows")
class RowConvNet(Conditioner):
    """Three convolutions of which the first takes several rows to one, as one Keras layer.

        h_1 = a(conv_kxw(x) + V c + b_1)
        h_2 = a(conv_1x1(h_1) + b_2)
        out = conv_1x1(h_2) + b_3

    with k = `num_rows` and w = `kernel_width`. Along the rows nothing is padded, so that row i of
    the output sees the rows i, ..., i + k - 1 of the input and no other; along the columns there
    are zeros around. `a` is the activation, `c` the context (the same at every pixel). The last
    convolution starts at zero, so that a fresh flow is the identity.

    Shapes: `x` is `[batch, n + num_rows - 1, W, C]`, the context `[batch, context_size]` (or
    `[1, context_size]` for all rows), the output `[batch, n, W, output_filters]`, for any n and W.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      num_rows: `int >= 1`, the height of the first kernel. Default: 2, as in the paper.
      kernel_width: `int >= 1`, its width. Default: 5, as in the paper.
      filters: `int >= 1`, the number of hidden channels. Default: 64.
      activation: name of a Keras activation, or an elementwise callable. Default: `"elu"`.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last convolution starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, or an input has not the shape above.

    >>> layer = RowConvNet(4, num_rows=2, filters=8, seed=0)
    >>> layer(tf.ones([3, 6, 5, 2])).shape
    TensorShape([3, 5, 5, 4])

    References: X. Ma, X. Kong, S. Zhang, E. Hovy, MaCow: Masked convolutional generative flow,
    2019, arXiv:1902.04208, section 3.1. Departures: no weight normalization.
    """

    def __init__(
        self,
        output_filters,
        *,
        num_rows=2,
        kernel_width=5,
        filters=64,
        activation="elu",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            input_rank=4,
            arguments=locals(),
            sizes=("output_filters", "num_rows", "kernel_width", "filters"),
        )
        self._num_outputs = self.output_filters

    def _add_weights(self, input_size):
        rows, width, filters = self.num_rows, self.kernel_width, self.filters
        self._kernel_1 = self._add_kernel(
            "kernel_1", (rows, width, input_size, filters), more_inputs=self.context_size or 0
        )
        self._bias_1 = self._add_bias("bias_1", filters)
        self._context_kernel = self._add_context_kernel(
            filters, more_inputs=rows * width * input_size
        )
        self._kernel_2 = self._add_kernel("kernel_2", (1, 1, filters, filters))
        self._bias_2 = self._add_bias("bias_2", filters)
        self._kernel_3 = self._add_kernel(
            "kernel_3", (1, 1, filters, self.output_filters), zero=self.zero_output
        )
        self._bias_3 = self._add_bias("bias_3", self.output_filters)

    def _compute(self, x, context):
        before = (self.kernel_width - 1) // 2
        columns = (before, self.kernel_width - 1 - before)
        padding = ((0, 0), (0, 0), columns, (0, 0))
        h = tf.nn.conv2d(x, self._kernel_1, strides=1, padding=padding)
        h = add_bias(h, self._bias_1)
        if context is not None:
            h = add_context(h, context, self._context_kernel)
        h = self.activation(h)
        h = self.activation(add_bias(tf.nn.conv2d(h, self._kernel_2, 1, "VALID"), self._bias_2))
        return add_bias(tf.nn.conv2d(h, self._kernel_3, 1, "VALID"), self._bias_3)

    def compute_output_shape(self, input_shape):
        """The input's shape without the first `num_rows - 1` rows, with the output's channels."""
        batch, rows, width, _ = super().compute_output_shape(input_shape)
        rows = None if rows is None else rows - self.num_rows + 1
        return batch, rows, width, self._num_outputs
