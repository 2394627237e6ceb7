"""The network of Gated PixelCNN."""

import keras
import tensorflow as tf

from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.raster import RasterConditioner, as_matrix, convolved, padded
from tfp_flows.conditioners.stepwise import gate, in_dtype, product


@keras.saving.register_keras_serializable(package="tfp_flows")
class PixelCNN(RasterConditioner):
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
        super().__init__(arguments=locals(), odd={"kernel_size": 1})
        # How far the kernels reach up, to the left and to the right.
        self._reach = self.kernel_size // 2

    def _add_features(self):
        filters, reach = self.filters, self._reach
        self._add_shares(4 * filters, more_inputs=2 * filters)

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

    def _features(self, above, left, shares):
        v, h, reach = above, left, self._reach
        for layer, share in zip(self._layers_in_order, shares, strict=True):
            z, down = self._from_above(padded(v, top=reach, left=reach, right=reach), layer, share)
            z_left = down + convolved(padded(h, left=reach), layer["left"])
            v = gate(z)
            h += self._residual(gate(z_left), layer)
        return h

    def _from_above(self, rows, layer, share):
        """The vertical stack's z, and what it and the context are to the horizontal one."""
        above = in_dtype(rows.dtype, layer["above_bias"], layer["left_bias"], layer["down"])
        z = add_bias(convolved(rows, layer["above"]), above[0])
        shares = [None, None] if share is None else tf.split(share, 2, axis=-1)
        if share is not None:
            z = add_bias(z, shares[0])
        down = add_bias(product(z, above[2]), above[1])
        return z, down if share is None else add_bias(down, shares[1])

    def _residual(self, gated, layer):
        kernel, bias = in_dtype(gated.dtype, layer["residual"], layer["residual_bias"])
        return add_bias(product(gated, kernel), bias)

    # --- Step by step. ---

    def _kept_at_first(self, n, dtype):
        # Of the vertical stack the last rows, and what it is to the horizontal one in this row; of
        # that one the last columns.
        width, filters, reach = self.event_shape[1], self.filters, self._reach
        layers = range(self.num_layers)
        return {
            "above": tuple(tf.zeros([n, reach, width, filters], dtype) for _ in layers),
            "down": tf.zeros([width, self.num_layers, n, 2 * filters], dtype),
            "left": tuple(
                tuple(tf.zeros([n, filters], dtype) for _ in range(reach)) for _ in layers
            ),
        }

    def _kept_at_row(self, kept, above, shares, row):
        # The vertical stack of the whole row.
        reach, v = self._reach, above
        rows, downs = [], []
        layers = zip(self._layers_in_order, kept["above"], shares, strict=True)
        for layer, earlier, share in layers:
            whole = tf.concat([earlier, v], 1)
            rows.append(whole[:, 1:])
            z, down = self._from_above(padded(whole, left=reach, right=reach), layer, share)
            downs.append(down[:, 0])
            v = gate(z)
        return {
            "above": tuple(rows),
            "down": tf.transpose(tf.stack(downs), [2, 0, 1, 3]),
            "left": tf.nest.map_structure(tf.zeros_like, kept["left"]),
        }

    def _features_of_pixel(self, kept, left, column):
        h = left
        down, columns = tf.unstack(kept["down"][column], num=self.num_layers), []
        for i, layer in enumerate(self._layers_in_order):
            near = (*kept["left"][i], h)
            columns.append(near[1:])
            z = tf.matmul(tf.concat(near, -1), as_matrix(layer["left"], h.dtype)) + down[i]
            h += self._residual(gate(z), layer)
        return h, {**kept, "left": tuple(columns)}
