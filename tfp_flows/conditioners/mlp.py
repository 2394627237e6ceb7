"""The fully connected conditioner."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.dense import Dense


@keras.saving.register_keras_serializable(package="tfp_flows")
class MLP(Dense):
    """A fully connected network, plain or residual, as one Keras layer.

    Plain, with hidden widths `w_1, ..., w_k`:

        h_1 = a(W_1 x + V c + b_1)
        h_i = a(W_i h_{i-1} + b_i)
        out = W h_k + b

    With `residual=True` every entry of `hidden_units` is one pre-activation block of two
    layers, after a first layer that maps to their common width:

        h_0 = W_0 x + V c + b_0
        h_i = h_{i-1} + W_i'' a(W_i' a(h_{i-1}) + b_i') + b_i''
        out = W a(h_k) + b

    `c` is the context, `a` the activation. The last layer starts at zero (`zero_output`), so
    that a fresh flow is the identity; the second layer of every residual block starts at
    zero as well, so that depth does not blow up the scale of the activations and no
    normalization is needed (compare Fixup, Zhang et al. 2019).

    Shapes: `x` is `[batch, n]`, the context `[batch, context_size]` (or `[1, context_size]`
    for all rows), the output `[batch, output_size]`.

    Args:
      output_size: `int >= 1`, the number of outputs.
      hidden_units: `int`s `>= 1`, widths of the hidden layers (of the blocks, if `residual`). May
        be empty for a linear map, unless `residual`. Default: `(256, 256)`.
      activation: name of a Keras activation, or a callable. Default: `"relu"`. A smooth one
        (`"silu"`, `"tanh"`) makes the density of an autoregressive flow smooth.
      residual: `bool`, whether to use residual blocks; they need equal `hidden_units`.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights: two layers of one seed are equal.
        Default: `None`, drawn from Keras's global state (`keras.utils.set_random_seed`).
      **kwargs: `dtype` (a dtype, or a policy such as `"mixed_bfloat16"`), `name` and
        `trainable` of `keras.layers.Layer`.

    Initial kernels are normal with variance `1 / (3 fan_in)` and biases uniform within
    `1 / sqrt(fan_in)`, where the fan-in of the first layer counts the context. These are the
    moments of PyTorch's default. With He's variance and zero biases the kinks of all units meet
    at the origin, and flows overfit small tables.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, `residual` widths differ, the input has more or
        fewer than one batch dimension or another size than at the build, or the context is
        missing, not expected, or of the wrong size.

    >>> layer = MLP(4, hidden_units=(16,), context_size=3, seed=0)
    >>> layer(tf.ones([5, 2]), context=tf.ones([5, 3])).shape
    TensorShape([5, 4])

    References: K. He et al., Identity Mappings in Deep Residual
    Networks, 2016, arXiv:1603.05027 (pre-activation blocks). H. Zhang, Y. Dauphin, T. Ma,
    Fixup Initialization, 2019, arXiv:1901.09321; of its rules only the zero start of each
    block is used here.
    """

    def __init__(
        self,
        output_size,
        *,
        hidden_units=(256, 256),
        activation="relu",
        residual=False,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(arguments=locals(), sizes=("output_size",))
        self._num_outputs = self.output_size

    def _add_weights(self, input_size):
        self._layers_in_order = self._add_layers(input_size, context_to_all=False)
        first = self._plan()[0]
        self._context_kernel = self._add_context_kernel(
            first.width, more_inputs=input_size, zero=first.zero, small=True
        )

    def _compute(self, x, context):
        (kernel, bias, _), *layers = self._layers_in_order
        h = add_bias(tf.matmul(x, kernel), bias)
        if context is not None:
            h = add_bias(h, tf.matmul(context, self._context_kernel))
        skip = h
        for kernel, bias, ends_block in layers:
            h = add_bias(tf.matmul(self.activation(h), kernel), bias)
            if ends_block:
                h = skip = skip + h
        return h
