"""The network of Gated PixelCNN."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.stepwise import StepwiseConditioner, in_dtype, product


@keras.saving.register_keras_serializable(package="tfp_flows")
class PixelCNN(StepwiseConditioner):
    """Gated PixelCNN: parameters of every pixel and channel from those before it, row by row.

    Two stacks of convolutions see what is before a pixel: the vertical one all rows above, the
    horizontal one what is to the left in its row, and what the vertical one knows. Together they
    see every earlier pixel within reach: there is no blind spot. With `*` a convolution whose
    kernel covers the entries that are named, `x1` the image with a channel of ones, which tells
    the inside from the padding, and `c` the context,

        v_0 = K * x1     the first kernel's rows above             (mask A)
        h_0 = k * x1     the first kernel's columns to the left    (mask A)
        in each layer
        z_v = V * v + R_v c + b_v          own row and those above (mask B; v knows rows above)
        z_h = U * h + W z_v + R_h c + b_h  own column and those to the left (mask B)
        v = gate(z_v),  h = h + S gate(z_h) + s
        gate(z) = tanh(first half of z) * sigmoid(second half of z)
        out_i = W''_i a(W' h + U_i x_{<i} + b'_i) + b''_i         for channel i of the pixel

    so that channel i of a pixel depends on the pixels before it, row by row, and on channels
    0 .. i - 1 of its own (red, green, blue), and on nothing else, whatever values the weights have.
    `W''` starts at zero (`zero_output`), so that a fresh flow is the identity, and so do the S, so
    that depth does not blow up the activations.

    Step by step (`init_cache`, `step`: see `tfp_flows.bijectors.stepwise`) a step is a channel of a
    pixel. The vertical stack runs once a row, the horizontal one once a pixel.

    Shapes: `x` is `[batch, H, W, C]`, the output `[batch, H, W, num_parameters * C]`,
    parameter-major in the last axis. The context is `[batch, context_size]`, one vector for all
    pixels; with `context_size=[H, W, F]`, one a pixel, `[batch, H, W, F]`; or a dictionary of
    either by name. A single row serves the whole batch.

    Args:
      event_shape: `[H, W, C]`.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      filters: `int >= 1`, width of both stacks. Default 32.
      num_layers: `int >= 1`, gated layers. Default 6.
      hidden_filters: `int >= 1`, width of the layer before the last. Default: `filters`.
      first_kernel_size: odd `int >= 3`, of the first convolutions. Default 7.
      kernel_size: odd `int >= 1`, of the others. Default 3.
      activation: name of a Keras activation, or a callable: of the layer before the last. Default
        `"relu"`.
      order: `"left-to-right"` (default), row by row from the top, or `"right-to-left"`: from the
        last channel of the last pixel back.
      context_size: size or shape of the context, a dictionary of them by name, or `None`.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, a kernel size even, the order unknown, or the input or
        the context of a call has another shape.

    >>> layer = PixelCNN([4, 4, 3], filters=4, num_layers=1, context_size=2, seed=0)
    >>> layer(tf.ones([5, 4, 4, 3]), context=tf.ones([5, 2])).shape
    TensorShape([5, 4, 4, 6])
    >>> layer.num_steps
    48

    References: A. van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016,
    arXiv:1606.05328, sections 2.2 to 2.4 and figure 2; A. van den Oord, N. Kalchbrenner, K.
    Kavukcuoglu, Pixel Recurrent Neural Networks, 2016, arXiv:1601.06759 (masks A and B). There
    the features are split among the channels of a pixel; here the channels share them, and the
    layer before the last adds what is known of the pixel.
    """

    def __init__(
        self,
        event_shape,
        num_parameters=2,
        *,
        filters=32,
        num_layers=6,
        hidden_filters=None,
        first_kernel_size=7,
        kernel_size=3,
        activation="relu",
        order="left-to-right",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        if hidden_filters is None:
            hidden_filters = filters
        super().__init__(
            arguments=locals(),
            sizes=("num_parameters", "filters", "num_layers", "hidden_filters"),
            ranks=(3,),
        )
        for name, least in (("first_kernel_size", 3), ("kernel_size", 1)):
            size = positive_integer(getattr(self, name), name, self._title())
            if size % 2 == 0 or size < least:
                raise ValueError(
                    f"{self._title()}: {name} must be odd and at least {least}, got {size}."
                )
        # How far the kernels reach up, to the left and to the right.
        self._first_reach, self._reach = self.first_kernel_size // 2, self.kernel_size // 2

    @property
    def step_entries(self):
        """Int array `[H * W * C, 1]`: entry of the flattened event, of each step."""
        entries = np.arange(np.prod(self.event_shape))[:, np.newaxis]
        return entries[::-1] if self._is_reversed else entries

    def _add_weights(self, input_size):
        filters, hidden = self.filters, self.hidden_filters
        reach, first = self._reach, self._first_reach
        inputs = input_size + 1
        self._first_above = self._add_kernel(
            "first_above_kernel", (first, 2 * first + 1, inputs, filters)
        )
        self._first_left = self._add_kernel("first_left_kernel", (1, first, inputs, filters))
        self._kernel_context, self._kernel_step_context = self._add_context_kernels(
            (self.num_layers, 4 * filters), more_inputs=2 * filters
        )

        def layer(name):
            across = (reach + 1, 2 * reach + 1, filters, 2 * filters)
            return {
                "above": self._add_kernel(f"{name}_above_kernel", across),
                "above_bias": self._add_bias(f"{name}_above_bias", 2 * filters),
                "down": self._add_kernel(
                    f"{name}_down_kernel", (2 * filters, 2 * filters), more_inputs=filters
                ),
                "left": self._add_kernel(
                    f"{name}_left_kernel",
                    (1, reach + 1, filters, 2 * filters),
                    more_inputs=2 * filters,
                ),
                "left_bias": self._add_bias(f"{name}_left_bias", 2 * filters),
                "residual": self._add_kernel(
                    f"{name}_residual_kernel", (filters, filters), zero=True
                ),
                "residual_bias": self._add_bias(f"{name}_residual_bias", filters),
            }

        self._layers_in_order = [layer(f"layer_{i}") for i in range(self.num_layers)]
        before = input_size - 1
        self._hidden = self._add_kernel("hidden_kernel", (filters, hidden), more_inputs=before)
        # For each channel but the first, what the channels before it are to it.
        self._own = None
        if before:
            self._own = self._add_kernel(
                "own_kernel", (before, hidden), more_inputs=filters, copies=before
            )
        self._hidden_bias = self.add_weight(
            name="hidden_bias", shape=(input_size, hidden), initializer="zeros"
        )
        self._last = self._add_kernel(
            "out_kernel", (hidden, self.num_parameters), zero=self.zero_output, copies=input_size
        )
        self._last_bias = self.add_weight(
            name="out_bias", shape=(input_size, self.num_parameters), initializer="zeros"
        )

    def _compute(self, x, context):
        if self._is_reversed:
            x = tf.reverse(x, [1, 2, 3])
        out = self._raster(x, *self._contexts_in_order(context))
        if self._is_reversed:
            out = tf.reverse(out, [1, 2, 4])
        return tf.reshape(out, [-1, *self.event_shape[:-1], self._num_outputs])

    def _contexts_in_order(self, context):
        vector, a_pixel = self._contexts(context)
        if a_pixel is not None and self._is_reversed:
            a_pixel = tf.reverse(a_pixel, [1, 2])
        return vector, a_pixel

    def _raster(self, x, vector, a_pixel):
        """Parameters `[n, H, W, P, C]`."""
        channels, dtype = self.event_shape[-1], x.dtype
        first = self._first_reach
        image = _with_one(x)
        above = _padded(image[:, :-1], top=first, left=first, right=first)
        v = _convolved(above, self._first_above)
        h = _convolved(_padded(image[:, :, :-1], left=first), self._first_left)
        shares = self._shares(vector, a_pixel, dtype)
        for layer, share in zip(self._layers_in_order, shares, strict=True):
            reach = self._reach
            z, down = self._from_above(_padded(v, top=reach, left=reach, right=reach), layer, share)
            z_left = down + _convolved(_padded(h, left=reach), layer["left"])
            v = _gate(z)
            h += self._residual(_gate(z_left), layer)
        h = product(h, *in_dtype(dtype, self._hidden))
        own, bias, last, last_bias = self._head(dtype)
        out = []
        for i in range(channels):
            hidden = h + product(x[..., : channels - 1], own[i]) if i else h
            hidden = self.activation(add_bias(hidden, bias[i]))
            out.append(add_bias(product(hidden, last[i]), last_bias[i]))
        return tf.stack(out, -1)

    def _from_above(self, rows, layer, share):
        """The vertical stack's z, and what it and the context are to the horizontal one."""
        above = in_dtype(rows.dtype, layer["above_bias"], layer["left_bias"], layer["down"])
        z = add_bias(_convolved(rows, layer["above"]), above[0])
        shares = [None, None] if share is None else tf.split(share, 2, axis=-1)
        if share is not None:
            z = add_bias(z, shares[0])
        down = add_bias(product(z, above[2]), above[1])
        return z, down if share is None else add_bias(down, shares[1])

    def _residual(self, gated, layer):
        kernel, bias = in_dtype(gated.dtype, layer["residual"], layer["residual_bias"])
        return add_bias(product(gated, kernel), bias)

    def _shares(self, vector, a_pixel, dtype):
        """The context's share of each layer, `[n, H or 1, W or 1, 4 * filters]`, or `None`."""
        share = None
        if vector is not None:
            share = tf.matmul(vector, *in_dtype(dtype, self._kernel_context))
            share = share[:, tf.newaxis, tf.newaxis]
        if a_pixel is not None:
            more = product(a_pixel, *in_dtype(dtype, self._kernel_step_context))
            share = more if share is None else add_bias(more, share)
        number = self.num_layers
        return [None] * number if share is None else tf.split(share, number, axis=-1)

    def _head(self, dtype):
        rest = in_dtype(dtype, self._hidden_bias, self._last, self._last_bias)
        if self._own is None:
            return None, *rest
        before = self.event_shape[-1] - 1
        earlier = np.tril(np.ones([before, before], bool))[..., np.newaxis]
        (own,) = in_dtype(dtype, self._own)
        # The first channel has none before it.
        own = tf.pad(tf.where(earlier, own, tf.zeros([], dtype)), [[1, 0], [0, 0], [0, 0]])
        return own, *rest

    # --- Step by step. ---

    def init_cache(self, n, context, dtype):
        """What is known before the first step: see `tfp_flows.bijectors.stepwise`.

        Of the image the rows within reach, the row and the pixel that are being made; of each
        layer the last rows of the vertical stack, what it is to the horizontal one in this row,
        and the last columns of that one; what the pixel's channels share.
        """
        _, width, channels = self.event_shape
        vector, a_pixel = self._contexts_in_order(context)
        filters, reach, first = self.filters, self._reach, self._first_reach
        layers = range(self.num_layers)
        cache = {
            "rows": tf.zeros([n, first, width, channels + 1], dtype),
            "row": tf.zeros([n, width, channels + 1], dtype),
            "pixel": tf.zeros([n, channels], dtype),
            "above": tuple(tf.zeros([n, reach, width, filters], dtype) for _ in layers),
            "down": tf.zeros([width, self.num_layers, n, 2 * filters], dtype),
            "left": tuple(tf.zeros([n, reach * filters], dtype) for _ in layers),
            "shared": tf.zeros([n, self.hidden_filters], dtype),
        }
        if vector is not None:
            cache["vector"] = vector
        if a_pixel is not None:
            cache["contexts"] = tf.transpose(a_pixel, [1, 0, 2, 3])
        return cache

    def step(self, cache, s, previous):
        """Parameters of step s, `[n, P, 1]`: see `tfp_flows.bijectors.stepwise`."""
        _, width, channels = self.event_shape
        channel, place = s % channels, s // channels
        # What was made last is the channel before this one, of this pixel or of the last.
        known = tf.range(channels) == (channel - 1) % channels
        cache = {**cache, "pixel": tf.where(known, previous, cache["pixel"])}
        if channels == 1:
            cache = self._next_pixel(cache, place % width, place // width)
        else:
            cache = tf.cond(
                channel == 0,
                lambda: self._next_pixel(cache, place % width, place // width),
                lambda: cache,
            )
        own, bias, last, last_bias = self._head(previous.dtype)
        hidden = cache["shared"] + tf.gather(bias, channel)
        if own is not None:
            hidden += tf.matmul(cache["pixel"][:, : channels - 1], tf.gather(own, channel))
        out = tf.matmul(self.activation(hidden), tf.gather(last, channel))
        out += tf.gather(last_bias, channel)
        return out[..., tf.newaxis], cache

    def _next_pixel(self, cache, column, row):
        """The cache at the first channel of a pixel."""
        _, width, _ = self.event_shape
        first, dtype = self._first_reach, cache["row"].dtype
        done = _with_one(cache["pixel"])[:, tf.newaxis]
        # Before the first pixel there was none.
        there = (tf.range(width) == (column - 1) % width) & ((row > 0) | (column > 0))
        cache = {**cache, "row": tf.where(there[:, tf.newaxis], done, cache["row"])}
        cache["pixel"] = tf.zeros_like(cache["pixel"])
        cache = tf.cond(column == 0, lambda: self._next_row(cache, row), lambda: cache)
        padded = tf.pad(cache["row"], [[0, 0], [first, 0], [0, 0]])
        # Not a slice: XLA compiles one of moving ends not at all.
        near = tf.gather(padded, column + tf.range(first), axis=1)
        near = tf.reshape(near, [-1, first * padded.shape[-1]])
        h = tf.matmul(near, self._flat(self._first_left, dtype))
        down, left = tf.unstack(cache["down"][column], num=self.num_layers), []
        for i, layer in enumerate(self._layers_in_order):
            near = tf.concat([cache["left"][i], h], -1)
            left.append(near[:, self.filters :])
            z = tf.matmul(near, self._flat(layer["left"], dtype)) + down[i]
            h += self._residual(_gate(z), layer)
        (kernel,) = in_dtype(dtype, self._hidden)
        return {**cache, "left": tuple(left), "shared": tf.matmul(h, kernel)}

    def _next_row(self, cache, row):
        """The cache at the first pixel of a row: the vertical stack of the whole row."""
        reach, first, dtype = self._reach, self._first_reach, cache["row"].dtype
        rows = tf.concat([cache["rows"], cache["row"][:, tf.newaxis]], 1)[:, 1:]
        v = _convolved(_padded(rows, left=first, right=first), self._first_above)  # [n, 1, W, ...]
        a_pixel = cache["contexts"][row][:, tf.newaxis] if "contexts" in cache else None
        shares = self._shares(cache.get("vector"), a_pixel, dtype)
        above, downs = [], []
        layers = zip(self._layers_in_order, cache["above"], shares, strict=True)
        for layer, earlier, share in layers:
            whole = tf.concat([earlier, v], 1)
            above.append(whole[:, 1:])
            z, down = self._from_above(_padded(whole, left=reach, right=reach), layer, share)
            downs.append(down[:, 0])
            v = _gate(z)
        return {
            **cache,
            "rows": rows,
            "row": tf.zeros_like(cache["row"]),
            "above": tuple(above),
            "down": tf.transpose(tf.stack(downs), [2, 0, 1, 3]),
            "left": tuple(tf.zeros_like(left) for left in cache["left"]),
        }

    def _flat(self, kernel, dtype):
        """A kernel of one row as a matrix."""
        (kernel,) = in_dtype(dtype, kernel)
        return tf.reshape(kernel, [-1, kernel.shape[-1]])


def _with_one(x):
    return tf.concat([x, tf.ones_like(x[..., :1])], -1)


def _padded(x, *, top=0, left=0, right=0):
    return tf.pad(x, [[0, 0], [top, 0], [left, right], [0, 0]])


def _convolved(x, kernel):
    return tf.nn.conv2d(x, *in_dtype(x.dtype, kernel), strides=1, padding="VALID")


def _gate(z):
    signal, gate = tf.split(z, 2, axis=-1)
    return tf.tanh(signal) * tf.sigmoid(gate)
