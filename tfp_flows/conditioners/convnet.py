"""Glow's convolutional conditioner."""

import operator

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import Conditioner, add_bias, broadcast
from tfp_flows.conditioners.convolution import add_context, convolve


@keras.saving.register_keras_serializable(package="tfp_flows")
class ConvNet(Conditioner):
    """Glow's network of three convolutions, as one Keras layer.

        h_1 = a(conv_kxk(x) + V c + b_1)
        h_2 = a(conv_1x1(h_1) + b_2)
        out = (conv_kxk(h_2) + b_3) * exp(3 s)

    `k` is `kernel_size`, `a` the activation, `c` the context (the same at every pixel), `s`
    a learned log-scale per output channel. The last convolution and `s` start at zero, so
    that a fresh flow is the identity; the factor 3 lets the scale move faster than a plain
    parameter would.

    Shapes: `x` is `[batch, H, W, C]`, the context `[batch, context_size]` (or
    `[1, context_size]` for all rows), the output `[batch, H, W, output_filters]`. Any `H` and
    `W`, odd, 1 or unknown; `C` must be known.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      filters: `int >= 1`, the number of hidden channels. Default: 512, as in the paper.
      kernel_size: `int >= 1`, size of the first and the last kernel. Default: 3.
      activation: name of a Keras activation, or an elementwise callable. Default: `"relu"`.
      output_scale: `bool`, whether to learn the factor `exp(3 s)`. Default: `True`.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last convolution starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights: two layers of one seed are equal.
        Default: `None`, drawn from Keras's global state (`keras.utils.set_random_seed`).
      **kwargs: `dtype` (a dtype, or a policy such as `"mixed_bfloat16"`), `name` and
        `trainable` of `keras.layers.Layer`.

    Departures from OpenAI's code: the hidden convolutions have a bias and He's (or Glorot's)
    initial variance in place of an actnorm each, so that nothing in the network depends on
    data; the border is padded with zeros without a further channel that marks it.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, the input is no `[batch, H, W, C]` or has other
        channels than at the build, or the context is missing, not expected, or of the wrong
        size.

    >>> layer = ConvNet(12, filters=16, seed=0)
    >>> layer(tf.ones([2, 7, 5, 6])).shape
    TensorShape([2, 7, 5, 12])

    References: D. P. Kingma, P. Dhariwal, Glow: Generative Flow with Invertible 1x1
    Convolutions, 2018, arXiv:1807.03039, section 3.3 and appendix B; the scale is in its
    code (`conv2d_zeros`).
    """

    def __init__(
        self,
        output_filters,
        *,
        filters=512,
        kernel_size=3,
        activation="relu",
        output_scale=True,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            input_rank=4, arguments=locals(), sizes=("output_filters", "filters", "kernel_size")
        )
        self.output_scale = bool(output_scale)
        self._num_outputs = self.output_filters

    def _add_weights(self, input_size):
        k, filters, out = self.kernel_size, self.filters, self.output_filters
        self._kernel_1 = self._add_kernel(
            "kernel_1", (k, k, input_size, filters), more_inputs=self.context_size or 0
        )
        self._bias_1 = self._add_bias("bias_1", filters)
        self._kernel_2 = self._add_kernel("kernel_2", (1, 1, filters, filters))
        self._bias_2 = self._add_bias("bias_2", filters)
        self._kernel_3 = self._add_kernel("kernel_3", (k, k, filters, out), zero=self.zero_output)
        self._bias_3 = self._add_bias("bias_3", out)
        if self.output_scale:
            self._log_scale = self._add_bias("log_scale", out)
        self._context_kernel = self._add_context_kernel(filters, more_inputs=k * k * input_size)

    def _compute(self, x, context):
        h = convolve(x, self._kernel_1, self._bias_1)
        if context is not None:
            h = add_context(h, context, self._context_kernel)
        h = self.activation(h)
        # A 1x1 convolution as the matrix product that it is: its filter gradient takes half the
        # time of oneDNN's. The activation follows at once, so that TensorFlow fuses it.
        flat = tf.matmul(
            tf.reshape(h, [-1, self.filters]), tf.reshape(self._kernel_2, [self.filters] * 2)
        )
        flat = self.activation(add_bias(flat, self._bias_2))
        out = convolve(tf.reshape(flat, tf.shape(h)), self._kernel_3, self._bias_3)
        if not self.output_scale:
            return out
        scale = tf.exp(3.0 * tf.convert_to_tensor(self._log_scale))
        return broadcast(operator.mul, out, scale)
