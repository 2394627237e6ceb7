"""The network of residual flows."""

import keras
import tensorflow as tf

from tfp_flows._checks import fraction, positive_integers
from tfp_flows.conditioners.base import Conditioner, add_bias

# How often a kernel is multiplied by itself: sixty-four is its singular values' power then.
_SQUARINGS = 6
# More than the largest slope of x sigmoid(x), which is 1.0998.
_STEEPEST = 1.1


@keras.saving.register_keras_serializable(package="tfp_flows")
class LipschitzMLP(Conditioner):
    """A fully connected network whose outputs move less than its inputs: a contraction.

        |f(x, c) - f(x', c)| <= lipschitz_bound |x - x'|    whatever its weights

    Each of its L kernels is divided by as much as it exceeds lipschitz_bound^(1/L) in the spectral
    norm, and between them stands x sigmoid(x) / 1.1, whose slope is at most 1. The norm is not
    estimated from below, as by power iteration, but bounded from above, by squaring:

        |W|_2 <= |(W^T W)^(2^(k-1))|_F^(1 / 2^k),  k = 6,

    which exceeds it by a factor of at most rank(W)^(1/128): 4% at rank 128. It has no state, and
    its gradient is exact. The context may move the outputs as far as it likes.

    Shapes: `x` is `[batch, n]`, the context `[batch, context_size]`, the output `[batch,
    output_size]`.

    Args:
      output_size: `int >= 1`, the number of outputs.
      hidden_units: `int`s `>= 1`, widths of the hidden layers. Default: `(64, 64)`.
      lipschitz_bound: number in (0, 1). Default 0.9.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None`.
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size or the bound is out of range.

    >>> layer = LipschitzMLP(2, hidden_units=(16,), zero_output=False, seed=0)
    >>> x = tf.random.stateless_normal([2, 2], [0, 1])
    >>> y = layer(x)
    >>> bool(tf.norm(y[0] - y[1]) <= 0.9 * tf.norm(x[0] - x[1]))
    True

    References:
      J. Behrmann et al., Invertible residual networks, 2019, arXiv:1811.00995, section 2.1; R. T.
        Q. Chen et al., Residual flows for invertible generative modeling, 2019, arXiv:1906.02735,
        section 3.3, for the activation, here without a trained slope.
      B. Delattre, Q. Barthelemy, A. Araujo, A. Allauzen, Efficient bound of Lipschitz constant for
        convolutional layers by Gram iteration, 2023, arXiv:2305.16173, theorem 1.
    """

    def __init__(
        self,
        output_size,
        *,
        hidden_units=(64, 64),
        lipschitz_bound=0.9,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(input_rank=2, arguments=locals(), sizes=("output_size",))
        title = self._title()
        self.hidden_units = positive_integers(hidden_units, "hidden_units", title)
        self.lipschitz_bound = fraction(lipschitz_bound, "lipschitz_bound", title)
        self._num_outputs = self.output_size

    def _add_weights(self, input_size):
        self._kernels, self._biases, size = [], [], input_size
        more = self.context_size or 0
        for n, width in enumerate([*self.hidden_units, self.output_size]):
            zero = self.zero_output and n == len(self.hidden_units)
            self._kernels.append(self._add_kernel(f"kernel_{n}", (size, width), zero=zero))
            fan_in = None if zero else size + (0 if n else more)
            self._biases.append(self._add_bias(f"bias_{n}", width, fan_in=fan_in))
            size = width
        width = [*self.hidden_units, self.output_size][0]
        self._context_kernel = self._add_context_kernel(width, more_inputs=input_size, small=True)

    def _compute(self, x, context):
        share = self.lipschitz_bound ** (1.0 / len(self._kernels))
        h = x
        for n, (kernel, bias) in enumerate(zip(self._kernels, self._biases, strict=True)):
            if n:
                h = h * tf.sigmoid(h) / _STEEPEST
            value = kernel.value
            norm = _spectral_norm_bound(value)
            value = tf.cast(value * (share / tf.maximum(norm, share)), h.dtype)
            h = add_bias(tf.matmul(h, value), bias)
            if n == 0 and context is not None:
                h = add_bias(h, tf.matmul(context, self._context_kernel))
        return h


def _spectral_norm_bound(kernel):
    """An upper bound of the largest singular value."""
    gram, log_scale = tf.convert_to_tensor(kernel), 0.0
    for _ in range(_SQUARINGS):
        # Of length 1, for a power of 64 would overflow.
        length = _length(gram)
        gram, log_scale = gram / length, 2.0 * (log_scale + tf.math.log(length))
        gram = tf.matmul(gram, gram, transpose_a=True)
    return tf.exp((log_scale + tf.math.log(_length(gram))) / 2.0**_SQUARINGS)


def _length(matrix):
    # At zero a norm has no gradient.
    return tf.sqrt(tf.maximum(tf.reduce_sum(tf.square(matrix)), 1e-30))
