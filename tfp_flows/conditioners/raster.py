"""What the networks share that go through the pixels of an image, row by row."""

import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.stepwise import StepwiseConditioner, in_dtype, product


class RasterConditioner(StepwiseConditioner):
    """Base class of the networks of images, from pixel to pixel, row by row, channel by channel.

    Its first layer sees, of the image with a channel of ones, the rows above a pixel and the
    columns to its left (mask A); its last two the channels before one of the same pixel. Between
    them the layers of a subclass make of the first one's share `above` and `left`,
    `[n, H, W, filters]`, features of every pixel. The subclass gives

        _add_features()                             their weights
        _features(above, left, shares)              features `[n, H, W, filters]`
        _kept_at_first(n, dtype)                    a dictionary: what they know before the image,
        _kept_at_row(kept, above, shares, row)      at the start of a row, `above` `[n, 1, W, ...]`;
        _features_of_pixel(kept, left, column)      of a pixel, `left` `[n, filters]`, features
                                                    `[n, filters]`, and what they know next

    `shares` are the context's shares of each layer, from the kernels that `_add_shares` has made:
    a list of tensors `[n, H or 1, W or 1, size]`, or of `None`.

    A step is a channel of a pixel. Rows and pixels are computed once, at their first step.

    Args:
      arguments: as `StepwiseConditioner`; `filters`, `num_layers`, `hidden_filters` (`None` for
        `filters`) and `first_kernel_size` are among them.
      sizes: names of more sizes.
      odd: name -> least value, of more sizes that must be odd.

    Raises:
      TypeError: if a size is no integer.
      ValueError: as `StepwiseConditioner`, or if a size that must be odd is not.
    """

    def __init__(self, *, arguments, sizes=(), odd=None):
        if arguments["hidden_filters"] is None:
            arguments = {**arguments, "hidden_filters": arguments["filters"]}
        sizes = ("num_parameters", "filters", "num_layers", "hidden_filters", *sizes)
        super().__init__(arguments=arguments, sizes=sizes, ranks=(3,))
        for name, least in {"first_kernel_size": 3, **(odd or {})}.items():
            size = positive_integer(getattr(self, name), name, self._title())
            if size % 2 == 0 or size < least:
                raise ValueError(
                    f"{self._title()}: {name} must be odd and at least {least}, got {size}."
                )
        # How far the kernel reaches up, to the left and to the right.
        self._first_reach = self.first_kernel_size // 2

    @property
    def step_entries(self):
        """Int array `[H * W * C, 1]`: entry of the flattened event, of each step."""
        entries = np.arange(np.prod(self.event_shape))[:, np.newaxis]
        return entries[::-1] if self._is_reversed else entries

    # --- Weights. ---

    def _add_weights(self, input_size):
        filters, hidden, first = self.filters, self.hidden_filters, self._first_reach
        inputs, before = input_size + 1, input_size - 1
        self._first_above = self._add_kernel(
            "first_above_kernel", (first, 2 * first + 1, inputs, filters)
        )
        self._first_left = self._add_kernel("first_left_kernel", (1, first, inputs, filters))
        self._add_features()
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

    def _add_shares(self, size, *, more_inputs):
        """Adds the kernels of the context's share, of this size in each layer."""
        self._kernel_context, self._kernel_step_context = self._add_context_kernels(
            (self.num_layers, size), more_inputs=more_inputs
        )

    def _add_features(self):
        raise NotImplementedError(f"{type(self).__name__} must define _add_features.")

    # --- All at once. ---

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
        above = convolved(
            padded(image[:, :-1], top=first, left=first, right=first), self._first_above
        )
        left = convolved(padded(image[:, :, :-1], left=first), self._first_left)
        h = self._features(above, left, self._shares(vector, a_pixel, dtype))
        h = product(h, *in_dtype(dtype, self._hidden))
        return tf.stack([self._out(h, x[..., :i], i) for i in range(channels)], -1)

    def _shares(self, vector, a_pixel, dtype):
        """The context's share of each layer, `[n, H or 1, W or 1, size]`, or `None`."""
        share = None
        if vector is not None:
            share = tf.matmul(vector, *in_dtype(dtype, self._kernel_context))
            share = share[:, tf.newaxis, tf.newaxis]
        if a_pixel is not None:
            more = product(a_pixel, *in_dtype(dtype, self._kernel_step_context))
            share = more if share is None else add_bias(more, share)
        number = self.num_layers
        return [None] * number if share is None else tf.split(share, number, axis=-1)

    def _out(self, h, earlier, channel):
        """Parameters of a channel, from the features' share and the channels before it."""
        weights = (self._hidden_bias, self._last, self._last_bias)
        bias, last, last_bias = (w[channel] for w in in_dtype(h.dtype, *weights))
        if channel:
            (own,) = in_dtype(h.dtype, self._own)
            h += product(earlier, own[channel - 1, :channel])
        return add_bias(product(self.activation(add_bias(h, bias)), last), last_bias)

    # --- Step by step. ---

    @property
    def cycle(self):
        """The channels of a pixel are made one after the other."""
        return self.event_shape[-1]

    def init_cache(self, n, context, dtype):
        """What is known before the first step: see `tfp_flows.bijectors.stepwise`.

        Of the image the rows within reach, the row and the pixel that are being made; what the
        layers keep; what the pixel's channels share.
        """
        _, width, channels = self.event_shape
        vector, a_pixel = self._contexts_in_order(context)
        cache = {
            "rows": tf.zeros([n, self._first_reach, width, channels + 1], dtype),
            "row": tf.zeros([n, width, channels + 1], dtype),
            "columns": tuple(tf.zeros([n, channels + 1], dtype) for _ in range(self._first_reach)),
            "pixel": tuple(tf.zeros([n, 1], dtype) for _ in range(channels)),
            "layers": self._kept_at_first(n, dtype),
            "shared": tf.zeros([n, self.hidden_filters], dtype),
        }
        if vector is not None:
            cache["vector"] = vector
        if a_pixel is not None:
            cache["contexts"] = tf.transpose(a_pixel, [1, 0, 2, 3])
        return cache

    def step(self, cache, s, previous, phase):
        """Parameters of step s, `[n, P, 1]`: see `tfp_flows.bijectors.stepwise`."""
        _, width, channels = self.event_shape
        # What was made last is the channel before this one, of this pixel or of the last.
        pixel = list(cache["pixel"])
        pixel[phase - 1] = previous
        cache = {**cache, "pixel": tuple(pixel)}
        if phase == 0:
            place = s // channels
            cache = self._next_pixel(cache, place % width, place // width)
        earlier = tf.concat(pixel[:phase], -1) if phase else None
        return self._out(cache["shared"], earlier, phase)[..., tf.newaxis], cache

    def _next_pixel(self, cache, column, row):
        """The cache at the first channel of a pixel."""
        _, width, _ = self.event_shape
        dtype = cache["row"].dtype
        done = _with_one(tf.concat(cache["pixel"], -1))
        # Before the first pixel there was none.
        there = (tf.range(width) == (column - 1) % width) & ((row > 0) | (column > 0))
        cache = {
            **cache,
            "row": tf.where(there[:, tf.newaxis], done[:, tf.newaxis], cache["row"]),
            "columns": (*cache["columns"][1:], done),
        }
        cache = tf.cond(column == 0, lambda: self._next_row(cache, row), lambda: cache)
        left = tf.matmul(tf.concat(cache["columns"], -1), as_matrix(self._first_left, dtype))
        h, kept = self._features_of_pixel(cache["layers"], left, column)
        (kernel,) = in_dtype(dtype, self._hidden)
        return {**cache, "layers": kept, "shared": tf.matmul(h, kernel)}

    def _next_row(self, cache, row):
        """The cache at the first pixel of a row."""
        first, dtype = self._first_reach, cache["row"].dtype
        rows = tf.concat([cache["rows"], cache["row"][:, tf.newaxis]], 1)[:, 1:]
        above = convolved(padded(rows, left=first, right=first), self._first_above)
        a_pixel = cache["contexts"][row][:, tf.newaxis] if "contexts" in cache else None
        shares = self._shares(cache.get("vector"), a_pixel, dtype)
        return {
            **cache,
            "rows": rows,
            "row": tf.zeros_like(cache["row"]),
            "columns": tf.nest.map_structure(tf.zeros_like, cache["columns"]),
            "layers": self._kept_at_row(cache["layers"], above, shares, row),
        }


def _with_one(x):
    return tf.concat([x, tf.ones_like(x[..., :1])], -1)


def padded(x, *, top=0, left=0, right=0):
    """Images `[n, H, W, C]` with rows and columns of zeros around them."""
    return tf.pad(x, [[0, 0], [top, 0], [left, right], [0, 0]])


def convolved(x, kernel):
    """Images convolved with a kernel where it fits."""
    return tf.nn.conv2d(x, *in_dtype(x.dtype, kernel), strides=1, padding="VALID")


def as_matrix(kernel, dtype):
    """A kernel of one row as a matrix."""
    (kernel,) = in_dtype(dtype, kernel)
    return tf.reshape(kernel, [-1, kernel.shape[-1]])
