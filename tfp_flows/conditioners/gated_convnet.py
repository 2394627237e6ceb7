"""Flow++'s gated convolutions with attention, as a conditioner."""

import math
import numbers

import keras
import tensorflow as tf

from tfp_flows._checks import integer, positive_integer, positive_integers
from tfp_flows.conditioners.attention import attend, check_heads, heads, linear, norm
from tfp_flows.conditioners.base import Conditioner, broadcast
from tfp_flows.conditioners.convolution import add_context, convolve


@keras.saving.register_keras_serializable(package="tfp_flows")
class GatedConvNet(Conditioner):
    """Flow++'s network of gated convolutions and attention, as one Keras layer.

        h_0 = conv_kxk([x, c]) + b
        h'  = norm(h + gate(conv_1x1(a(conv_kxk(a(h))))))      num_blocks times,
        h   = norm(h' + gate(W attention(h' + positions)))     the second if `attention`
        out = conv_kxk(h) + b
        gate([u, v]) = u * sigmoid(v),    a(h) = [act(h), act(-h)]

    `norm` is layer normalization over the channels of a pixel, with gain (1 plus a weight) and
    bias; in the attention, of `num_heads` heads, every pixel sees every other, and the positions
    are learned. The last convolution starts at zero, so that a fresh flow is the identity.

    Shapes: `x` is `[batch, H, W, C]`, the output `[batch, H, W, output_filters]`. Any `H` and `W`
    without attention; with it they are known when it is built. The context `c` is a vector `[batch,
    context_size]`, the same at every pixel, or with a `context_size` of `[H, W, K]` one a pixel.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      filters: `int >= 1`, the number of hidden channels, with attention a multiple of `num_heads`.
        Default: 32. The paper: 96.
      num_blocks: `int >= 0`, the number of blocks. Default: 2. The paper: 10.
      attention: `bool`, whether a block attends (default); its cost grows with the square of the
        pixels.
      num_heads: `int >= 1`. Default: 4, as the paper has it.
      kernel_size: `int >= 1`, size k of the kernels. Default: 3.
      activation: name of a Keras activation, or an elementwise callable. Default: `"elu"`.
      context_size: `int >= 1`, a triple of them, or `None` (default) for no context.
      zero_output: `bool`, whether the last convolution starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, the filters no multiple of the heads, an input is no
        `[batch, H, W, C]`, or of an unknown height or width where it attends, or the context is
        missing, not expected, or of another shape.

    >>> layer = GatedConvNet(6, filters=8, num_blocks=1, num_heads=2, seed=0)
    >>> layer(tf.ones([2, 4, 4, 3])).shape
    TensorShape([2, 4, 4, 6])

    Reference: J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, Flow++: improving flow-based
    generative models with variational dequantization and architecture design, 2019,
    arXiv:1902.00275, section 3.3. Departures: no dropout, no weight normalization.
    """

    def __init__(
        self,
        output_filters,
        *,
        filters=32,
        num_blocks=2,
        attention=True,
        num_heads=4,
        kernel_size=3,
        activation="elu",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            input_rank=4,
            arguments=locals(),
            sizes=("output_filters", "filters", "num_heads", "kernel_size"),
        )
        self.num_blocks = integer(num_blocks, "num_blocks", self._title(), least=0)
        self.attention = bool(attention)
        if self.attention:
            check_heads(self.filters, self.num_heads, "filters", self._title())
        self._num_outputs = self.output_filters

    def build(self, input_shape):
        """Makes the weights for images of these channels and, where it attends, of this size."""
        self._check_input(input_shape)
        self._size = tf.TensorShape(input_shape)[1:3].as_list()
        if self.attention and None in self._size:
            raise ValueError(
                f"{self._title()}: the height and width must be known where it attends, got "
                f"{self._size}. Use attention=False for images of any size."
            )
        super().build(input_shape)

    def _add_weights(self, input_size):
        k, filters, size = self.kernel_size, self.filters, self.context_size
        of_pixel = size[-1] if self._is_by_pixel() else 0
        more = 0 if size is None or of_pixel else size
        shape = (k, k, input_size + of_pixel, filters)
        self._kernel_in = self._add_kernel("kernel_in", shape, more_inputs=more)
        self._bias_in = self._add_bias("bias_in", filters)
        self._context_kernel = None
        if more:
            self._context_kernel = self._add_context_kernel(filters, more_inputs=k * k * input_size)
        if self.attention:
            normal = keras.initializers.RandomNormal(stddev=0.01, seed=self._weight_seed())
            shape = (math.prod(self._size), filters)
            self._positions = self.add_weight(name="positions", shape=shape, initializer=normal)
        self._blocks = [self._add_block(f"block_{i}") for i in range(self.num_blocks)]
        shape = (k, k, filters, self.output_filters)
        self._kernel_out = self._add_kernel("kernel_out", shape, zero=self.zero_output)
        self._bias_out = self._add_bias("bias_out", self.output_filters)

    def _add_block(self, name):
        k, n = self.kernel_size, self.filters

        def layer(part, shape):
            kernel = self._add_kernel(f"{name}_{part}_kernel", shape)
            return kernel, self._add_bias(f"{name}_{part}_bias", shape[-1])

        def norm_of(part):
            return tuple(self._add_bias(f"{name}_{part}_{which}", n) for which in ("gain", "bias"))

        block = {
            "conv": layer("conv", (k, k, 2 * n, n)),
            "gate": layer("gate", (1, 1, 2 * n, 2 * n)),
            "norm": norm_of("norm"),
        }
        if self.attention:
            block["attention"] = layer("attention", (n, 3 * n))
            block["mixing"] = layer("mixing", (n, 2 * n))
            block["attention_norm"] = norm_of("attention_norm")
        return block

    def _compute(self, x, context):
        if context is not None and self._is_by_pixel():
            x = tf.concat([x, tf.broadcast_to(context, self._like(context, x))], axis=-1)
            context = None
        h = convolve(x, self._kernel_in, self._bias_in)
        if context is not None:
            h = add_context(h, context, self._context_kernel)
        for block in self._blocks:
            inner = convolve(self._both_signs(h), *block["conv"])
            inner = convolve(self._both_signs(inner), *block["gate"])
            h = norm(h + _gated(inner), *block["norm"])
            if self.attention:
                h = norm(h + self._attended(h, block), *block["attention_norm"])
        return convolve(h, self._kernel_out, self._bias_out)

    def _both_signs(self, h):
        return tf.concat([self.activation(h), self.activation(-h)], axis=-1)

    def _attended(self, h, block):
        height, width = self._size
        tokens = tf.reshape(h, [-1, height * width, self.filters])
        placed = broadcast(lambda a, b: a + b, tokens, tf.convert_to_tensor(self._positions))
        mixed = attend(*heads(linear(placed, *block["attention"]), self.num_heads, 3))
        out = _gated(linear(mixed, *block["mixing"]))
        return tf.reshape(out, [-1, height, width, self.filters])

    # --- Context. ---

    def _is_by_pixel(self):
        return isinstance(self.context_size, tuple)

    def _like(self, context, x):
        return tf.concat([tf.shape(x)[:1], tf.shape(context)[1:]], axis=0)

    def _checked_context_size(self, value):
        if isinstance(value, numbers.Integral):
            return positive_integer(value, "context_size", self._title())
        sizes = tuple(positive_integers(value, "context_size", self._title()))
        if len(sizes) == 1:
            return sizes[0]
        if len(sizes) != 3:
            raise ValueError(
                f"{self._title()}: context_size must be the size of a vector, or [H, W, K] for one "
                f"a pixel, got {value!r}."
            )
        return sizes

    def _check_context(self, x, context):
        if context is None or not self._is_by_pixel():
            super()._check_context(x, context)
            return
        if not context.shape.is_compatible_with([None, *self.context_size]):
            raise ValueError(
                f"{self._title()}: expected a context of shape [batch, "
                f"{', '.join(map(str, self.context_size))}], got {context.shape}."
            )
        if not x.shape[1:3].is_compatible_with(self.context_size[:2]):
            raise ValueError(
                f"{self._title()}: the context has a vector for each of "
                f"{list(self.context_size[:2])} pixels, the input has {x.shape[1:3].as_list()}."
            )
        self._check_rows(x, context.shape)


def _gated(h):
    value, gate = tf.split(h, 2, axis=-1)
    return value * tf.sigmoid(gate)
