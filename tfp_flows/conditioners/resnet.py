"""RealNVP's residual convolutional conditioner."""

import keras

from tfp_flows._checks import integer
from tfp_flows.conditioners.base import Conditioner
from tfp_flows.conditioners.convolution import add_context, convolve


@keras.saving.register_keras_serializable(package="tfp_flows")
class ResNet(Conditioner):
    """RealNVP's residual convolutional network, as one Keras layer.

        h_0 = conv_kxk(x) + V c + b_0
        h_i = h_{i-1} + conv_kxk(a(conv_kxk(a(h_{i-1})) + b_i')) + b_i''     i = 1..num_blocks
        out = conv_1x1(a(h_num_blocks)) + b

    `k` is `kernel_size`, `a` the activation, `c` the context (the same at every pixel). The
    last convolution starts at zero, so that a fresh flow is the identity.

    There is no batch normalization, unlike the paper's network: it makes the conditioner, and
    with it the bijector, depend on the other rows of the batch, so that the log-det of one
    image is not defined by that image, and training and evaluation compute two different
    densities. `ActNorm` in the flow takes its place. What it does for the scale inside the
    network, the start does: the second convolution of every block is zero at first, so that
    depth does not blow up the activations (compare Fixup, Zhang et al. 2019). A layer
    normalization per position learns a little more in a step and takes about twice as long:
    on 8x8 digits the two were equal, to 0.02 bits/dim, after equal time.

    Shapes: `x` is `[batch, H, W, C]`, the context `[batch, context_size]` (or
    `[1, context_size]` for all rows), the output `[batch, H, W, output_filters]`. Any `H` and
    `W`, odd, 1 or unknown; `C` must be known.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      filters: `int >= 1`, the number of hidden channels. Default: 32.
      num_blocks: `int >= 0`, the number of residual blocks. Default: 2. The paper uses 4 for
        32x32 images, 2 for 64x64.
      kernel_size: `int >= 1`, size of all kernels but the last. Default: 3.
      activation: name of a Keras activation, or a callable. Default: `"relu"`.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last convolution starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights: two layers of one seed are equal.
        Default: `None`, drawn from Keras's global state (`keras.utils.set_random_seed`).
      **kwargs: `dtype` (a dtype, or a policy such as `"mixed_bfloat16"`), `name` and
        `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, the input is no `[batch, H, W, C]` or has other
        channels than at the build, or the context is missing, not expected, or of the wrong
        size.

    >>> import tensorflow as tf
    >>> layer = ResNet(6, filters=8, num_blocks=1, seed=0)
    >>> layer(tf.ones([2, 7, 5, 3])).shape
    TensorShape([2, 7, 5, 6])

    References: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
    arXiv:1605.08803, sections 3.7 and 4.1; weight normalization and the skip sums of its code
    are left out as well. K. He et al., Identity Mappings in Deep Residual Networks, 2016,
    arXiv:1603.05027 (the order within a block). H. Zhang, Y. Dauphin, T. Ma, Fixup
    Initialization, 2019, arXiv:1901.09321.
    """

    def __init__(
        self,
        output_filters,
        *,
        filters=32,
        num_blocks=2,
        kernel_size=3,
        activation="relu",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            input_rank=4, arguments=locals(), sizes=("output_filters", "filters", "kernel_size")
        )
        self.num_blocks = integer(num_blocks, "num_blocks", self._title(), least=0)
        self._num_outputs = self.output_filters

    def _add_weights(self, input_size):
        k, filters = self.kernel_size, self.filters
        self._kernel_in = self._add_kernel(
            "kernel_in", (k, k, input_size, filters), more_inputs=self.context_size or 0
        )
        self._bias_in = self._add_bias("bias_in", filters)
        self._context_kernel = self._add_context_kernel(filters, more_inputs=k * k * input_size)
        self._blocks = []
        for i in range(self.num_blocks):
            self._blocks.append(
                (
                    self._add_kernel(f"block_{i}_kernel_1", (k, k, filters, filters)),
                    self._add_bias(f"block_{i}_bias_1", filters),
                    self._add_kernel(f"block_{i}_kernel_2", (k, k, filters, filters), zero=True),
                    self._add_bias(f"block_{i}_bias_2", filters),
                )
            )
        self._kernel_out = self._add_kernel(
            "kernel_out", (1, 1, filters, self.output_filters), zero=self.zero_output
        )
        self._bias_out = self._add_bias("bias_out", self.output_filters)

    def _compute(self, x, context):
        h = convolve(x, self._kernel_in, self._bias_in)
        if context is not None:
            h = add_context(h, context, self._context_kernel)
        for kernel_1, bias_1, kernel_2, bias_2 in self._blocks:
            inner = convolve(self.activation(h), kernel_1, bias_1)
            h += convolve(self.activation(inner), kernel_2, bias_2)
        return convolve(self.activation(h), self._kernel_out, self._bias_out)
