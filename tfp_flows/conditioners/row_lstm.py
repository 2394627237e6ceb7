"""The faster network of the PixelRNN paper."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import add_bias, at_least_float32
from tfp_flows.conditioners.memory import lasting, products, remembered
from tfp_flows.conditioners.raster import RasterConditioner
from tfp_flows.conditioners.stepwise import in_dtype, product


@keras.saving.register_keras_serializable(package="tfp_flows")
class RowLSTM(RasterConditioner):
    """PixelRNN's Row LSTM: parameters of every pixel and channel from those before it.

    Long short-term memories go down the image, a whole row at a time, so that a call takes far
    fewer steps than `DiagonalBiLSTM`, which sees more. With `x1` the image with a channel of ones,
    which tells the inside from the padding, `c` the context, and `i, j` a row and a column,

        f_0 = K * x1                  the rows above and the columns to the left      (mask A)
        in each layer
        z = sum_{d=0..r} W_d f(i, j - d) + R c + sum_{d=-r..r} V_d h(i - 1, j - d) + b   (mask B)
        o, k, e, g = the quarters of z
        m(i, j) = sigmoid(k) * m(i - 1, j) + sigmoid(e) * tanh(g)
        h(i, j) = sigmoid(o) * tanh(m(i, j))
        f(i, j) = f(i, j) + S h(i, j) + s
        out_q = W''_q a(W' f + U'_q x_{<q} + b'_q) + b''_q     for channel q of the pixel

    where `r = (kernel_size - 1) / 2`, and what is outside of the image is zero. One layer sees a
    triangle: of the f of the row k above, r k columns to the right and r (k + 1) to the left.
    Channel q of a pixel depends on the pixels before it, row by row, and on channels 0 .. q - 1 of
    its own (red, green, blue), and on nothing else, whatever values the weights have. `W''` starts
    at zero (`zero_output`), so that a fresh flow is the identity, and so do the S, so that depth
    does not blow up the activations; the biases of `k` start at one, so that the memory lasts.

    One call takes `num_layers H` steps one after another, each of a row. Step by step
    (`init_cache`, `step`: see `tfp_flows.bijectors.stepwise`) a step is a channel of a pixel.

    Shapes: `x` is `[batch, H, W, C]`, the output `[batch, H, W, num_parameters * C]`,
    parameter-major in the last axis. The context is `[batch, context_size]`, one vector for all
    pixels; with `context_size=[H, W, F]`, one a pixel, `[batch, H, W, F]`; or a dictionary of
    either by name. A single row serves the whole batch.

    Args:
      event_shape: `[H, W, C]`.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      filters: `int >= 1`, size of the f. Default 32.
      num_layers: `int >= 1`, layers of memories. Default 7.
      units: `int >= 1`, size of the h. Default: half of `filters`.
      hidden_filters: `int >= 1`, width of the layer before the last. Default: `filters`.
      kernel_size: odd `int >= 1`, of the convolutions along a row. Default 3.
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
      ValueError: if a size is out of range, a kernel size even, the order unknown, or the input
        or the context of a call has another shape.

    >>> layer = RowLSTM([4, 4, 3], filters=4, num_layers=1, context_size=2, seed=0)
    >>> layer(tf.ones([5, 4, 4, 3]), context=tf.ones([5, 2])).shape
    TensorShape([5, 4, 4, 6])
    >>> layer.num_steps
    48

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, sections 3.1, 3.3 and 3.4 and equation 3. There the features are split
    among the channels of a pixel; here the channels share them, and the layer before the last adds
    what is known of the pixel.
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
        kernel_size=3,
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
        super().__init__(arguments=locals(), sizes=("units",), odd={"kernel_size": 1})
        self._reach = self.kernel_size // 2

    def _add_features(self):
        filters, units, layers, reach = self.filters, self.units, self.num_layers, self._reach
        inputs = (reach + 1) * filters, (2 * reach + 1) * units
        self._add_shares(4 * units, more_inputs=sum(inputs))
        self._input, self._above = (
            self._add_kernel(
                name, (size, 4 * units), more_inputs=sum(inputs) - size, small=True, copies=layers
            )
            for name, size in zip(("input_kernel", "above_kernel"), inputs, strict=True)
        )
        self._bias = self.add_weight(name="bias", shape=(layers, 4 * units), initializer=lasting)
        self._residual = self._add_kernel(
            "residual_kernel", (units, filters), zero=True, copies=layers
        )
        self._residual_bias = self.add_weight(
            name="residual_bias", shape=(layers, filters), initializer="zeros"
        )

    def _features(self, above, left, shares):
        f = above + left
        weights = (self._input, self._bias, self._above, self._residual, self._residual_bias)
        layers = zip(*map(tf.unstack, in_dtype(f.dtype, *weights)), shares, strict=True)
        for kernel, bias, over, residual, shift, share in layers:
            drive = add_bias(product(_taps(f, self._reach, 0), kernel), bias)
            drive = drive if share is None else add_bias(drive, share)
            f += add_bias(product(self._states(drive, over), residual), shift)
        return f

    def _states(self, drive, kernel):
        """The h, `[n, H, W, units]`, given what drives their z."""
        height = self.event_shape[0]
        zeros = at_least_float32(tf.zeros_like(drive[:, 0, :, : self.units]))
        # Reading an array has a sparse gradient, slicing a tensor one of the whole image's size.
        rows = tf.TensorArray(drive.dtype, size=height)
        rows = rows.unstack(tf.transpose(drive, [1, 0, 2, 3]))

        def body(i, states, memories, results):
            z = product(_taps(states, self._reach, self._reach), kernel) + rows.read(i)
            states, memories = remembered(tf.cast(z, memories.dtype), memories)
            states = tf.cast(states, drive.dtype)
            return i + 1, states, memories, results.write(i, states)

        # The bound lets XLA differentiate the loop.
        *_, results = tf.while_loop(
            lambda i, *_: i < height,
            body,
            (
                tf.constant(0),
                tf.cast(zeros, drive.dtype),
                zeros,
                tf.TensorArray(drive.dtype, size=height),
            ),
            maximum_iterations=height,
            parallel_iterations=1,
        )
        return tf.transpose(results.stack(), [1, 0, 2, 3])

    # --- Step by step. ---

    def _kept_at_first(self, n, dtype):
        # Of each layer, in this row: what drives it beside f, the m of the row above, h and m as
        # they are made, the last columns of f.
        width, layers, units = self.event_shape[1], self.num_layers, self.units
        return {
            "first": tf.zeros([n, width, self.filters], dtype),
            "drives": tf.zeros([layers, n, width, 4 * units], dtype),
            "memories": tf.zeros([layers, n, width, units], dtype),
            "made": tf.zeros([layers, n, width, 2 * units], dtype),
            "left": tuple(
                tuple(tf.zeros([n, self.filters], dtype) for _ in range(self._reach))
                for _ in range(layers)
            ),
        }

    def _kept_at_row(self, kept, above, shares, row):
        states, memories = tf.split(kept["made"], 2, axis=-1)
        kernels, bias = in_dtype(states.dtype, self._above, self._bias)
        drives = products(_taps(states, self._reach, self._reach), kernels)
        drives += bias[:, tf.newaxis, tf.newaxis]
        if shares[0] is not None:
            drives += tf.stack([share[:, 0] for share in shares])
        return {
            **kept,
            "first": above[:, 0],
            "drives": drives,
            "memories": memories,
            "left": tf.nest.map_structure(tf.zeros_like, kept["left"]),
        }

    def _features_of_pixel(self, kept, left, column):
        f = left + tf.gather(kept["first"], column, axis=1)
        here = [tf.gather(kept[name], column, axis=2) for name in ("drives", "memories")]
        weights = in_dtype(f.dtype, self._input, self._residual, self._residual_bias)
        layers = zip(kept["left"], *map(tf.unstack, (*here, *weights)), strict=True)
        made, columns = [], []
        for earlier, drive, memory, kernel, residual, shift in layers:
            near = (*earlier, f)
            columns.append(near[1:])
            z = tf.matmul(tf.concat(near, -1), kernel) + drive
            state, memory = remembered(z, memory)
            made.append(tf.concat([state, memory], -1))
            f += tf.matmul(state, residual) + shift
        there = (tf.range(self.event_shape[1]) == column)[:, tf.newaxis]
        made = tf.where(there, tf.stack(made)[:, :, tf.newaxis], kept["made"])
        return f, {**kept, "made": made, "left": tuple(columns)}


def _taps(x, left, right):
    """Every column beside those to its left and right, `[..., W, k]` to `[..., W, taps * k]`."""
    width = x.shape[-2]
    padded = tf.pad(x, [*[[0, 0]] * (x.shape.rank - 2), [left, right], [0, 0]])
    return tf.concat([padded[..., i : i + width, :] for i in range(left + right + 1)], -1)
