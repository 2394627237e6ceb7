"""The network of PixelRNN."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import add_bias, at_least_float32
from tfp_flows.conditioners.memory import lasting, products, remembered
from tfp_flows.conditioners.raster import RasterConditioner
from tfp_flows.conditioners.stepwise import in_dtype, product


@keras.saving.register_keras_serializable(package="tfp_flows")
class DiagonalBiLSTM(RasterConditioner):
    """PixelRNN's Diagonal BiLSTM: parameters of every pixel and channel from those before it.

    Long short-term memories go through the image from its upper corners, one from the left and one
    from the right, a diagonal at a time, and see what is before a pixel however far it is, where
    convolutions see what is within reach. With `x1` the image with a channel of ones,
    which tells the inside from the padding, `c` the context, and `i, j` a row and a column,

        f_0 = K * x1                  the rows above and the columns to the left      (mask A)
        in each layer, from the left
        z = W f(i, j) + R c + U h(i, j - 1) + V h(i - 1, j) + b                       (mask B)
        o, k, e, g = the quarters of z
        m(i, j) = sigmoid(k) * m(i, j - 1) + sigmoid(e) * tanh(g)
        h(i, j) = sigmoid(o) * tanh(m(i, j))
        from the right the same of j + 1 for j - 1, with weights of its own: h'
        f(i, j) = f(i, j) + S (h(i, j) + h'(i - 1, j)) + s
        out_q = W''_q a(W' f + U'_q x_{<q} + b'_q) + b''_q     for channel q of the pixel

    What comes from the right is taken from the row above: in its own row it has seen the pixels to
    come. So one layer sees every pixel before its own but one, the last of the row above, which
    only the first kernel sees, within its reach. Channel q of a pixel depends on the pixels before
    it, row by row, and on channels 0 .. q - 1 of its own (red, green, blue), and on nothing else,
    whatever values the weights have.
    `W''` starts at zero (`zero_output`), so that a fresh flow is the identity, and so do the S, so
    that depth does not blow up the activations; the biases of `k` start at one, so that the
    memory lasts.

    One call takes `num_layers (H + W - 1)` steps one after another, each of one diagonal of both
    directions: rows are shifted, each by one pixel more than that above, so that a diagonal becomes
    a column. Step by step (`init_cache`, `step`: see `tfp_flows.bijectors.stepwise`) a step is a
    channel of a pixel. From the left the layers go from pixel to pixel; from the right they go
    through a row when it is complete, all layers at once. XLA compiles the steps; their gradient it
    does not (TF 2.21), that of a call it does.

    Shapes: `x` is `[batch, H, W, C]`, the output `[batch, H, W, num_parameters * C]`,
    parameter-major in the last axis. The context is `[batch, context_size]`, one vector for all
    pixels; with `context_size=[H, W, F]`, one a pixel, `[batch, H, W, F]`; or a dictionary of
    either by name. A single row serves the whole batch.

    Args:
      event_shape: `[H, W, C]`.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      filters: `int >= 1`, size of the f. Default 32.
      num_layers: `int >= 1`, layers of memories. Default 7.
      units: `int >= 1`, size of the h, of each direction. Default: half of `filters`.
      hidden_filters: `int >= 1`, width of the layer before the last. Default: `filters`.
      first_kernel_size: odd `int >= 3`, of the first convolution. Default 7.
      activation: name of a Keras activation, or a callable: of the layer before the last. Default
        `"relu"`.
      order: `"left-to-right"` (default), row by row from the top, or `"right-to-left"`: from the
        last channel of the last pixel back.
      context_size: size or shape of the context, a dictionary of them by name, or `None`.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Numerics: memories and gates are computed in float32 at least, products in the layer's compute
    dtype.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, the kernel size even, the order unknown, or the input
        or the context of a call has another shape.

    >>> layer = DiagonalBiLSTM([4, 4, 3], filters=4, num_layers=1, context_size=2, seed=0)
    >>> layer(tf.ones([5, 4, 4, 3]), context=tf.ones([5, 2])).shape
    TensorShape([5, 4, 4, 6])
    >>> layer.num_steps
    48

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, sections 3.2 to 3.4 and equation 3; for MNIST they take 7 layers of 16
    units, the defaults here. There the features are split among the channels of a pixel; here the
    channels share them, and the layer before the last adds what is known of the pixel.
    """

    def __init__(
        self,
        event_shape,
        num_parameters=2,
        *,
        filters=32,
        num_layers=7,
        units=None,
        hidden_filters=None,
        first_kernel_size=7,
        activation="relu",
        order="left-to-right",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        if units is None:
            units = max(1, filters // 2) if isinstance(filters, int) else filters
        super().__init__(arguments=locals(), sizes=("units",))

    def _add_features(self):
        filters, units, layers = self.filters, self.units, self.num_layers
        self._add_shares(2 * 4 * units, more_inputs=filters + 2 * units)

        def direction(name):
            def kernel(what, inputs):
                return self._add_kernel(
                    f"{name}_{what}_kernel",
                    (inputs, 4 * units),
                    more_inputs=filters + 2 * units - inputs,
                    small=True,
                    copies=layers,
                )

            return {
                "input": kernel("input", filters),
                "beside": kernel("beside", units),
                "above": kernel("above", units),
                "bias": self.add_weight(
                    name=f"{name}_bias", shape=(layers, 4 * units), initializer=lasting
                ),
            }

        self._directions = [direction("left"), direction("right")]
        self._residual_kernel = self._add_kernel(
            "residual_kernel", (units, filters), zero=True, copies=layers
        )
        self._residual_bias = self.add_weight(
            name="residual_bias", shape=(layers, filters), initializer="zeros"
        )

    def _weights(self, names, dtype):
        """Weights of both directions, `[2, layers, ...]` each."""
        both = [in_dtype(dtype, *(d[name] for name in names)) for d in self._directions]
        return [tf.stack(pair) for pair in zip(*both, strict=True)]

    def _features(self, above, left, shares):
        f, dtype = above + left, above.dtype
        kernels, beside, bias, over = self._weights(("input", "beside", "bias", "above"), dtype)
        recurrent = tf.concat([beside, over], 2)
        residuals = in_dtype(dtype, self._residual_kernel, self._residual_bias)
        residuals = [tf.unstack(weights) for weights in residuals]
        for i, share in enumerate(shares):
            # Both directions side by side, as the context's share has them.
            kernel, shift = (tf.concat(tf.unstack(w[:, i]), -1) for w in (kernels, bias))
            drive = add_bias(product(f, kernel), shift)
            drive = drive if share is None else add_bias(drive, share)
            states = self._states(drive, recurrent[:, i])
            f += add_bias(product(states, residuals[0][i]), residuals[1][i])
        return f

    def _states(self, drive, kernel):
        """The h of both directions, summed, `[n, H, W, units]`, given what drives their z."""
        height, width, _ = self.event_shape
        left, right = tf.split(drive, 2, axis=-1)
        # Both from the left, one after the other in the batch.
        both = tf.concat([left, tf.reverse(right, [2])], 0)
        diagonals, steps = _skewed(both), height + width - 1
        # Reading an array has a sparse gradient, slicing a tensor one of the whole image's size.
        driven = tf.TensorArray(drive.dtype, size=steps).unstack(diagonals)
        rows, dtype = tf.shape(both)[0], drive.dtype
        begun = tf.range(steps)[:, tf.newaxis] >= tf.range(height)
        zeros = at_least_float32(tf.zeros([rows, height, self.units], dtype))
        zeros = tf.ensure_shape(zeros, [both.shape[0], height, self.units])

        def body(d, states, memories, results):
            above = tf.pad(states[:, :-1], [[0, 0], [1, 0], [0, 0]])
            near = tf.cast(tf.concat([states, above], -1), dtype)
            z = tf.matmul(tf.reshape(near, [2, -1, 2 * self.units]), kernel)
            z = tf.reshape(z, tf.shape(diagonals)[1:]) + driven.read(d)
            states, memories = remembered(tf.cast(z, memories.dtype), memories)
            # Left of the image there is nothing.
            there = begun[d][:, tf.newaxis]
            states, memories = (
                tf.ensure_shape(tf.where(there, t, tf.zeros([], t.dtype)), zeros.shape)
                for t in (states, memories)
            )
            return d + 1, states, memories, results.write(d, tf.cast(states, dtype))

        # The bound lets XLA differentiate the loop.
        *_, results = tf.while_loop(
            lambda d, *_: d < steps,
            body,
            (tf.constant(0), zeros, zeros, tf.TensorArray(dtype, size=steps)),
            maximum_iterations=steps,
            parallel_iterations=1,
        )
        left, right = tf.split(_straight(results.stack(), width), 2)
        right = tf.reverse(right, [2])
        return left + tf.pad(right[:, :-1], [[0, 0], [1, 0], [0, 0], [0, 0]])

    # --- Step by step. ---

    def _kept_at_first(self, n, dtype):
        # Of each layer, in this row: what drives both directions beside f, the h from the right in
        # the row above, f and the h from the left as they are made; h and m of the last pixel.
        width, layers = self.event_shape[1], self.num_layers
        each = [layers, width, n]
        gates = tf.zeros([*each, 4 * self.units], dtype)
        return {
            "first": tf.zeros([width, n, self.filters], dtype),
            "drives": (gates, gates),
            "shifted": tf.zeros([*each, self.units], dtype),
            "made": tf.zeros([*each, self.filters + self.units], dtype),
            "last": tf.zeros([2, layers, n, self.units], dtype),
        }

    def _kept_at_row(self, kept, above, shares, row):
        made, right = tf.split(kept["made"], [self.filters, self.units], axis=-1), None
        right = self._from_right(made[0], kept["drives"][1])
        # Above the first row there is nothing.
        right = tf.where(row > 0, right, tf.zeros([], right.dtype))
        kernels, bias = self._weights(("above", "bias"), right.dtype)
        drives = []
        for i, states in enumerate((made[1], right)):
            drive = products(states, kernels[i]) + bias[i][:, tf.newaxis, tf.newaxis]
            if shares[0] is not None:
                share = tf.stack([tf.split(s[:, 0], 2, axis=-1)[i] for s in shares])
                drive += tf.transpose(share, [0, 2, 1, 3])  # [layers, W or 1, n, 4 * units]
            drives.append(drive)
        return {
            **kept,
            "first": tf.transpose(above[:, 0], [1, 0, 2]),
            "drives": tuple(drives),
            "shifted": right,
            "last": tf.zeros_like(kept["last"]),
        }

    def _from_right(self, f, drive):
        """The h from the right in a whole row of all layers, `[layers, W, n, units]`."""
        width = self.event_shape[1]
        weights = self._directions[1]
        kernel, beside = in_dtype(f.dtype, weights["input"], weights["beside"])
        drive += products(f, kernel)
        zeros = tf.zeros_like(drive[:, 0, :, : self.units])

        def body(number, states, memories, results):
            column = width - 1 - number
            z = tf.matmul(states, beside) + tf.gather(drive, column, axis=1)
            states, memories = remembered(z, memories)
            return number + 1, states, memories, results.write(column, states)

        *_, results = tf.while_loop(
            lambda number, *_: number < width,
            body,
            (tf.constant(0), zeros, zeros, tf.TensorArray(f.dtype, size=width)),
            maximum_iterations=width,
            parallel_iterations=1,
        )
        return tf.transpose(results.stack(), [1, 0, 2, 3])

    def _features_of_pixel(self, kept, left, column):
        dtype, weights = left.dtype, self._directions[0]
        f = left + kept["first"][column]
        kernels, beside = in_dtype(dtype, weights["input"], weights["beside"])
        states, memories = tf.unstack(kept["last"])
        drive = tf.matmul(states, beside) + tf.gather(kept["drives"][0], column, axis=1)
        shifted = tf.gather(kept["shifted"], column, axis=1)
        drive, shifted, memories = (tf.unstack(t) for t in (drive, shifted, memories))
        residuals = in_dtype(dtype, self._residual_kernel, self._residual_bias)
        layers = [tf.unstack(weights) for weights in (kernels, *residuals)]
        made, last = [], []
        for i, (kernel, residual, shift) in enumerate(zip(*layers, strict=True)):
            state, memory = remembered(tf.matmul(f, kernel) + drive[i], memories[i])
            made.append(tf.concat([f, state], -1)[tf.newaxis])
            last.append(tf.stack([state, memory]))
            f += tf.matmul(state + shifted[i], residual) + shift
        here = tf.reshape(tf.range(self.event_shape[1]) == column, [-1, 1, 1])
        kept = {**kept, "made": tf.where(here, tf.stack(made), kept["made"])}
        return f, {**kept, "last": tf.stack(last, axis=1)}


def _skewed(x):
    """Diagonals of images `[n, H, W, k]`, `[H + W - 1, n, H, k]`: of row i the d-th has d - i."""
    height, width, size = x.shape[1:]
    x = tf.pad(x, [[0, 0], [0, 0], [0, height], [0, 0]])
    x = tf.reshape(x, [-1, height * (width + height), size])[:, :-height]
    x = tf.reshape(x, [-1, height, height + width - 1, size])
    return tf.transpose(x, [2, 0, 1, 3])


def _straight(diagonals, width):
    """Images of the diagonals that `_skewed` has made of them."""
    steps, _, height, size = diagonals.shape
    x = tf.reshape(tf.transpose(diagonals, [1, 2, 0, 3]), [-1, height * steps, size])
    x = tf.pad(x, [[0, 0], [0, height], [0, 0]])
    return tf.reshape(x, [-1, height, steps + 1, size])[:, :, :width]
