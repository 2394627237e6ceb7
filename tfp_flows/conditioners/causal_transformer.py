"""A transformer over the patches of an image or the steps of a sequence, one after another."""

import operator

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.conditioners.attention import check_heads, default_heads
from tfp_flows.conditioners.base import add_bias, at_least_float32, broadcast
from tfp_flows.conditioners.stepwise import SequenceConditioner, in_dtype, product


@keras.saving.register_keras_serializable(package="tfp_flows")
class CausalTransformer(SequenceConditioner):
    """A causal transformer: parameters of every patch from the patches before it.

    With `x_s` the entries of patch s, `c_s` its context, `a` the activation, `norm` a layer
    normalization with learned scale and shift, and each W with a bias that is left out here,

        h_s = W (x_{s-1}, 1) + R c_s + p_s                                   (0, 0) at s = 1
        h_s = h_s + W_o attention(norm(h_s); norm(h_1), ..., norm(h_s))      in each layer,
        h_s = h_s + W_2 a(W_1 norm(h_s))                                     one after the other
        out_s = W' h_s

    where `attention` is that of several heads, softmax(q k / sqrt(head size)) v, over all patches
    up to s, and `p_s` are learned positions. So the parameters of a patch depend on all the patches
    before it and on nothing else, whatever values the weights have. All entries of a patch are
    given at once: given earlier patches, they are independent. W', W_o and W_2 start at zero, so
    that a fresh flow is the identity (`zero_output`) and depth does not blow up the activations.

    Step by step (`init_cache`, `step`: see `tfp_flows.bijectors.stepwise`) it keeps the keys and
    values of all earlier patches.

    Shapes: `x` is `[batch, H, W, C]` or `[batch, T, C]`, the output of the same shape with
    `num_parameters * C` for C, parameter-major. The context is `[batch, context_size]`, one vector
    for all patches; with `context_size=[H, W, F]` (or `[T, F]`), one a pixel (a step); or a
    dictionary of either by name. A single row serves the whole batch.

    Args:
      event_shape: `[H, W, C]` or `[T, C]`.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      patch_size: `int >= 1`, a divisor of H and W, or of T. Default 4. Patches follow each other
        row by row.
      num_layers: `int >= 1`, default 4.
      width: `int >= 1`, a multiple of the number of heads. Default 128.
      num_heads: `int >= 1`. Default: heads of 64, or one of the whole width if that is smaller or
        no multiple of 64.
      expansion: `int >= 1`, by how much the layers W_1 are wider. Default 4.
      activation: name of a Keras activation, or a callable. Default `"gelu"`.
      order: `"left-to-right"` (default) or `"right-to-left"`, of the patches.
      context_size: size or shape of the context, a dictionary of them by name, or `None`.
      zero_output: `bool`, whether W' starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, patches do not divide the event or heads the width,
        the order is unknown, or the input or the context of a call has another shape.

    >>> layer = CausalTransformer([4, 4, 1], patch_size=2, num_layers=1, width=8, seed=0)
    >>> layer(tf.ones([5, 4, 4, 1])).shape, layer.num_steps
    (TensorShape([5, 4, 4, 2]), 4)

    References: S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024,
    arXiv:2412.06329, section 2.2, whose first patch passes unchanged; here it has parameters of
    its position and the context. A. Vaswani et al., Attention Is All You Need, 2017,
    arXiv:1706.03762. R. Xiong et al., On Layer Normalization in the Transformer Architecture,
    2020, arXiv:2002.04745 (the normalization before each part).
    """

    def __init__(
        self,
        event_shape,
        num_parameters=2,
        *,
        patch_size=4,
        num_layers=4,
        width=128,
        num_heads=None,
        expansion=4,
        activation="gelu",
        order="left-to-right",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        if num_heads is None:
            num_heads = default_heads(width)
        super().__init__(
            arguments=locals(),
            sizes=(
                "num_parameters",
                "patch_size",
                "num_layers",
                "width",
                "num_heads",
                "expansion",
            ),
            ranks=(2, 3),
        )
        if any(n % self.patch_size for n in self.event_shape[:-1]):
            raise ValueError(
                f"{self._title()}: patch_size must divide the sizes {list(self.event_shape[:-1])} "
                f"of the event, got {self.patch_size}. Pad the events, or use a divisor."
            )
        check_heads(self.width, self.num_heads, "width", self._title())

    @property
    def _tokens(self):
        *sizes, channels = self.event_shape
        p = self.patch_size
        entries = np.arange(np.prod(self.event_shape))
        if len(sizes) == 1:
            return entries.reshape(-1, p * channels)
        entries = entries.reshape(sizes[0] // p, p, sizes[1] // p, p, channels)
        return entries.transpose(0, 2, 1, 3, 4).reshape(-1, p * p * channels)

    def _add_weights(self, input_size):
        steps, entries = self._tokens.shape
        width, wide = self.width, self.expansion * self.width

        def linear(name, inputs, outputs, **kwargs):
            kernel = self._add_kernel(f"{name}_kernel", (inputs, outputs), **kwargs)
            return kernel, self._add_bias(f"{name}_bias", outputs)

        def norm(name):
            scale = self.add_weight(name=f"{name}_scale", shape=(width,), initializer="ones")
            return scale, self._add_bias(f"{name}_shift", width)

        self._in = linear("in", entries + 1, width, small=True)
        self._kernel_context, self._kernel_step_context = self._add_context_kernels(
            (width,), more_inputs=entries
        )
        self._positions = self.add_weight(
            name="positions",
            shape=(steps, width),
            initializer=keras.initializers.RandomNormal(stddev=1e-2, seed=self._weight_seed()),
        )
        self._layers_in_order = [
            {
                "norm_1": norm(f"layer_{i}_norm_1"),
                "attended": linear(f"layer_{i}_attended", width, 3 * width, small=True),
                "attention": linear(f"layer_{i}_attention", width, width, zero=True),
                "norm_2": norm(f"layer_{i}_norm_2"),
                "wide": linear(f"layer_{i}_wide", width, wide),
                "narrow": linear(f"layer_{i}_narrow", wide, width, zero=True),
            }
            for i in range(self.num_layers)
        ]
        self._last = linear(
            "out", width, self.num_parameters * entries, zero=self.zero_output, small=True
        )

    def _all_steps(self, before, vector, steps):
        number = self.num_steps
        h = _linear(before, self._in) + in_dtype(before.dtype, self._positions)[0]
        if vector is not None:
            (kernel,) = in_dtype(h.dtype, self._kernel_context)
            h = add_bias(h, tf.matmul(vector, kernel)[:, tf.newaxis])
        if steps is not None:
            (kernel,) = in_dtype(h.dtype, self._kernel_step_context)
            h = add_bias(h, product(steps, kernel))
        earlier = np.tril(np.ones([number, number], bool))
        for layer in self._layers_in_order:
            h = self._layer(h, layer, lambda q, k, v: _attend(q, k, v, earlier))
        return _linear(h, self._last)

    def _layer(self, h, layer, attend):
        steps, heads, size = h.shape[1], self.num_heads, self.width // self.num_heads
        parts = _linear(_normalized(h, layer["norm_1"]), layer["attended"])
        parts = tf.unstack(tf.reshape(parts, [-1, steps, 3, heads, size]), axis=2)
        attended = _swapped(attend(*map(_swapped, parts)))
        attended = tf.reshape(attended, [-1, steps, self.width])
        h += _linear(attended, layer["attention"])
        wide = _linear(_normalized(h, layer["norm_2"]), layer["wide"])
        return h + _linear(self.activation(wide), layer["narrow"])

    # --- Step by step. ---

    def init_cache(self, n, context, dtype):
        """What is known before the first step: see `tfp_flows.bijectors.stepwise`.

        Positions and the vector's share; of each layer keys and values, zeros as yet; the vectors
        of all steps.
        """
        vector, a_step = self._contexts(context)
        offset = in_dtype(dtype, self._positions)[0][:, tf.newaxis]  # [S, n, width]
        if vector is not None:
            offset += tf.matmul(vector, *in_dtype(dtype, self._kernel_context))
        if a_step is not None:
            share = product(self._by_step(a_step), *in_dtype(dtype, self._kernel_step_context))
            offset += tf.transpose(share, [1, 0, 2])
        # One row a step of a head of an example.
        size = [n * self.num_heads * self.num_steps, self.width // self.num_heads]
        empty = tf.zeros(size, dtype)
        return offset, tuple((empty, empty) for _ in range(self.num_layers))

    def step(self, cache, s, previous):
        """Parameters of step s, `[n, P, k]`: see `tfp_flows.bijectors.stepwise`."""
        offset, kept = cache
        before = tf.where(s > 0, self._with_one(previous), tf.zeros([], previous.dtype))
        h = (_linear(before, self._in) + offset[s])[:, tf.newaxis]
        number, size = self.num_steps, self.width // self.num_heads
        rows = s + number * tf.range(tf.shape(previous)[0] * self.num_heads)[:, tf.newaxis]
        now = []

        def attend(q, *new):
            # In place, where the rest would be copied by a selection.
            both = [
                tf.tensor_scatter_nd_update(old, rows, tf.reshape(t, [-1, size]))
                for old, t in zip(kept[len(now)], new, strict=True)
            ]
            now.append(tuple(both))
            both = [tf.reshape(t, [-1, self.num_heads, number, size]) for t in both]
            return _attend(q, *both, tf.range(number) <= s)

        for layer in self._layers_in_order:
            h = self._layer(h, layer, attend)
        out = _linear(h[:, 0], self._last)
        out = tf.reshape(out, [-1, self.num_parameters, previous.shape[-1]])
        return out, (offset, tuple(now))


def _linear(x, weights):
    kernel, bias = in_dtype(x.dtype, *weights)
    return add_bias(product(x, kernel), bias)


def _swapped(x):
    """`[n, steps, heads, size]` to `[n, heads, steps, size]`, or back."""
    _, first, second, size = x.shape
    if 1 in (first, second):  # Nothing moves in memory.
        return tf.reshape(x, [-1, second, first, size])
    return tf.transpose(x, [0, 2, 1, 3])


def _attend(q, k, v, seen):
    scores = tf.matmul(q, k, transpose_b=True) * float(q.shape[-1]) ** -0.5
    # In half precision neither sums nor exponentials are exact enough.
    wide = at_least_float32(scores)
    wide = tf.where(seen, wide, tf.constant(wide.dtype.min, wide.dtype))
    return tf.matmul(tf.cast(tf.nn.softmax(wide), v.dtype), v)


def _normalized(x, weights):
    scale, shift = in_dtype(x.dtype, *weights)
    wide = at_least_float32(x)
    wide -= tf.reduce_mean(wide, -1, keepdims=True)
    wide *= tf.math.rsqrt(tf.reduce_mean(tf.square(wide), -1, keepdims=True) + 1e-5)
    return add_bias(broadcast(operator.mul, tf.cast(wide, x.dtype), scale), shift)
