"""The vision transformer as a conditioner."""

import math
import operator

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.conditioners.attention import (
    attend,
    check_heads,
    default_heads,
    heads,
    linear,
    norm,
)
from tfp_flows.conditioners.base import Conditioner, add_bias, broadcast


@keras.saving.register_keras_serializable(package="tfp_flows")
class VisionTransformer(Conditioner):
    """A transformer over the patches of an image, as one Keras layer.

        h_0 = patches(x) W + V c + b + positions
        h'  = h + attention(norm(h))                       num_layers times,
        h   = h' + W_2 a(W_1 norm(h') + b_1) + b_2         pre-norm
        out = pixels(norm(h) W_out + b_out)

    Every patch sees every other. `a` is the activation, `c` the context (the same at every patch),
    `norm` layer normalization with gain (1 plus a weight) and bias, positions are learned, and the
    attention is that of `num_heads` heads. The last layer starts at zero, so that a fresh flow is
    the identity.

    Shapes: `x` is `[batch, H, W, C]` with `H` and `W` known when it is built, and multiples of
    `patch_size`; the context is `[batch, context_size]` (or `[1, context_size]` for all rows), the
    output `[batch, H, W, output_filters]`.

    Args:
      output_filters: `int >= 1`, the number of output channels.
      patch_size: `int >= 1`, height and width of a patch. Default: 1, a patch a pixel, for images
        that are patches already (as in `flows.jet`).
      width: `int >= 1`, size of a token, a multiple of `num_heads`. Default: 256.
      num_layers: `int >= 1`. Default: 2.
      num_heads: `int >= 1`. Default: heads of 64 units, one if `width` is no multiple of 64.
      mlp_ratio: `int >= 1`, width of the hidden layers, in widths. Default: 4.
      activation: name of a Keras activation, or an elementwise callable. Default: `"gelu"`.
      wanted: Boolean array `[H / patch_size, W / patch_size]`, of the patches whose output is
        wanted, at least one: the others get 0, and the last layer, of what they see, is computed
        for these alone. Default: `None`, all.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Numerics: norms and attention weights are computed in float32 at least, products in the layer's
    compute dtype.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, the width no multiple of the heads, the height or
        width of the images not known, no multiple of the patches, or another than at the build, or
        `wanted` of another shape or empty.

    >>> layer = VisionTransformer(6, patch_size=2, width=16, num_heads=2, seed=0)
    >>> layer(tf.ones([5, 4, 8, 3])).shape
    TensorShape([5, 4, 8, 6])

    References: A. Dosovitskiy et al., An image is worth 16x16 words: transformers for image
    recognition at scale, 2021, arXiv:2010.11929, section 3.1; as the network of couplings: A.
    Kolesnikov, A. S. Pinto, M. Tschannen, Jet: a modern transformer-based normalizing flow, 2024,
    arXiv:2412.15129.
    """

    def __init__(
        self,
        output_filters,
        *,
        patch_size=1,
        width=256,
        num_layers=2,
        num_heads=None,
        mlp_ratio=4,
        activation="gelu",
        wanted=None,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(
            input_rank=4,
            arguments=locals(),
            sizes=("output_filters", "patch_size", "width", "num_layers", "mlp_ratio"),
        )
        if num_heads is None:
            self.num_heads = default_heads(self.width)
        self.num_heads = positive_integer(self.num_heads, "num_heads", self._title())
        check_heads(self.width, self.num_heads, "width", self._title())
        self._num_outputs = self.output_filters
        if wanted is not None:
            self.wanted = np.asarray(wanted, bool).tolist()
            if not np.any(self.wanted):
                raise ValueError(
                    f"{self._title()}: wanted must be a Boolean array of patches with some that "
                    "are, got none. Leave it out for all."
                )

    def build(self, input_shape):
        """Makes the weights for images of this height, width and number of channels."""
        self._check_input(input_shape)
        size, p = tf.TensorShape(input_shape)[1:3].as_list(), self.patch_size
        if None in size or size[0] % p or size[1] % p:
            raise ValueError(
                f"{self._title()}: the height and width must be known, and multiples of the "
                f"patch_size {p}, got {size}. Pad the images, or use patch_size=1."
            )
        self._grid = size[0] // p, size[1] // p
        if self.wanted is not None and np.shape(self.wanted) != self._grid:
            raise ValueError(
                f"{self._title()}: wanted must be an array of the {list(self._grid)} patches, got "
                f"one of shape {list(np.shape(self.wanted))}."
            )
        super().build(input_shape)

    def _add_weights(self, input_size):
        width, hidden, p = self.width, self.width * self.mlp_ratio, self.patch_size
        patch = p * p * input_size
        self._embedding = self._add_kernel(
            "embedding_kernel", (patch, width), more_inputs=self.context_size or 0
        )
        self._embedding_bias = self._add_bias("embedding_bias", width)
        self._context_kernel = self._add_context_kernel(width, more_inputs=patch)
        normal = keras.initializers.RandomNormal(stddev=0.02, seed=self._weight_seed())
        self._positions = self.add_weight(
            name="positions", shape=(math.prod(self._grid), width), initializer=normal
        )
        self._blocks = []
        for i in range(self.num_layers):
            self._blocks.append(
                {
                    "norm_1": self._add_norm(f"block_{i}_norm_1"),
                    "attention": self._add_linear(f"block_{i}_attention", width, 3 * width),
                    "mixing": self._add_linear(f"block_{i}_mixing", width, width),
                    "norm_2": self._add_norm(f"block_{i}_norm_2"),
                    "hidden": self._add_linear(f"block_{i}_hidden", width, hidden),
                    "back": self._add_linear(f"block_{i}_back", hidden, width),
                }
            )
        self._last_norm = self._add_norm("last_norm")
        out = p * p * self.output_filters
        self._kernel_out = self._add_kernel("kernel_out", (width, out), zero=self.zero_output)
        self._bias_out = self._add_bias("bias_out", out)

    def _add_linear(self, name, inputs, outputs):
        kernel = self._add_kernel(f"{name}_kernel", (inputs, outputs), small=True)
        return kernel, self._add_bias(f"{name}_bias", outputs)

    def _add_norm(self, name):
        return self._add_bias(f"{name}_gain", self.width), self._add_bias(
            f"{name}_bias", self.width
        )

    def _compute(self, x, context):
        height, width = self._grid
        p = self.patch_size
        x = tf.ensure_shape(x, [None, height * p, width * p, None])
        if p > 1:
            x = tf.nn.space_to_depth(x, p)
        h = tf.reshape(x, [-1, height * width, x.shape[-1]])
        h = linear(h, self._embedding, self._embedding_bias)
        if context is not None:
            h = add_bias(h, tf.matmul(context, self._context_kernel)[:, tf.newaxis])
        h = broadcast(operator.add, h, tf.convert_to_tensor(self._positions))
        places = None if self.wanted is None else np.flatnonzero(self.wanted)
        for i, block in enumerate(self._blocks):
            seen = normed = norm(h, *block["norm_1"])
            if places is not None and i == self.num_layers - 1:
                h, normed = (tf.gather(t, places, axis=1) for t in (h, normed))
            h += linear(self._attended(normed, seen, *block["attention"]), *block["mixing"])
            inner = self.activation(linear(norm(h, *block["norm_2"]), *block["hidden"]))
            h += linear(inner, *block["back"])
        out = linear(norm(h, *self._last_norm), self._kernel_out, self._bias_out)
        if places is not None:
            # Places that are not wanted take a row of zeros behind the others.
            rows = np.full(height * width, len(places))
            rows[places] = np.arange(len(places))
            out = tf.gather(tf.pad(out, [[0, 0], [0, 1], [0, 0]]), rows, axis=1)
        out = tf.reshape(out, [-1, height, width, out.shape[-1]])
        return tf.nn.depth_to_space(out, p) if p > 1 else out

    def _attended(self, h, seen, kernel, bias):
        """What the tokens h take of the tokens that they see."""
        if h is seen:
            return attend(*heads(linear(h, kernel, bias), self.num_heads, 3))
        kernel, bias, width = tf.convert_to_tensor(kernel), tf.convert_to_tensor(bias), self.width
        (query,) = heads(linear(h, kernel[:, :width], bias[:width]), self.num_heads, 1)
        others = linear(seen, kernel[:, width:], bias[width:])
        return attend(query, *heads(others, self.num_heads, 2))
