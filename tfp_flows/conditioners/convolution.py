"""A single convolution, and what the convolutional conditioners share."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import Conditioner, add_bias


def convolve(x, kernel, bias):
    """Convolution of `[batch, H, W, C]` with stride 1, zero padding to the same size, bias."""
    return add_bias(tf.nn.conv2d(x, kernel, strides=1, padding="SAME"), bias)


def add_context(h, context, kernel):
    """Adds the context's share, the same at every pixel, to `h` `[batch, H, W, C]`."""
    return add_bias(h, tf.matmul(context, kernel)[:, tf.newaxis, tf.newaxis, :])


@keras.saving.register_keras_serializable(package="tfp_flows")
class Convolution(Conditioner):
    """A single convolution, as Glow learns the prior of what `FactorOut` takes out.

        out = conv_kxk(x) + V c + b

    `k` is `kernel_size`, `c` the context (the same at every pixel). Everything starts at zero.
    `keras.layers.Conv2D` would do, but that its bias has a wrong gradient in bfloat16 on a CPU
    (Keras 3.15, TF 2.21), unless it is compiled by XLA or fused by oneDNN.

    Shapes: `x` is `[batch, H, W, C]`, the context `[batch, context_size]` (or
    `[1, context_size]` for all rows), the output `[batch, H, W, output_filters]`.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      kernel_size: `int >= 1`, size of the kernel. Default: 3.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the kernels start at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights if they are not zero, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, or an input has not the shape above.

    >>> Convolution(12)(tf.ones([2, 7, 5, 6])).shape
    TensorShape([2, 7, 5, 12])
    """

    def __init__(
        self,
        output_filters,
        *,
        kernel_size=3,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(input_rank=4, arguments=locals(), sizes=("output_filters", "kernel_size"))
        self._num_outputs = self.output_filters

    def _add_weights(self, input_size):
        k, filters, context_size = self.kernel_size, self.output_filters, self.context_size or 0
        zero = self.zero_output
        self._kernel = self._add_kernel(
            "kernel", (k, k, input_size, filters), more_inputs=context_size, zero=zero
        )
        self._bias = self._add_bias("bias", filters)
        self._context_kernel = self._add_context_kernel(
            filters, more_inputs=k * k * input_size, zero=zero
        )

    def _compute(self, x, context):
        out = convolve(x, self._kernel, self._bias)
        return out if context is None else add_context(out, context, self._context_kernel)
