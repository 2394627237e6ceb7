"""Squeeze: trades resolution for channels."""

import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector

# Positions of a 2x2 block. "diagonal" puts the two that share a checkerboard colour first.
_DIAGONAL = ((0, 0), (1, 1), (0, 1), (1, 0))


class Squeeze(FlowBijector):
    """Folds every 2x2 block of pixels into channels: `[H, W, C]` to `[H/2, W/2, 4C]`.

    `forward` squeezes, `inverse` unfolds; in a generative chain, which runs from latent to
    data, use `tfb.Invert(Squeeze())`. A permutation, so log|det| = 0.

    The order of the new channels, for pixel (dy, dx) of the block and old channel c:

        "glow":      4 * c + 2 * dy + dx     (the four pixels of a channel stay together)
        "diagonal":  k * C + c with k = 0, 1, 2, 3 for (0,0), (1,1), (0,1), (1,0), so that the
                     first half of the channels is one colour of a checkerboard: what
                     RealNVP factors out

    Args:
      order: `"glow"` (default) or `"diagonal"`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      ValueError: for an unknown order; for an odd height or width, or, in `inverse`, a number
        of channels that is no multiple of 4.

    >>> Squeeze().forward(tf.zeros([5, 4, 6, 3])).shape
    TensorShape([5, 2, 3, 12])

    References:
      L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
      arXiv:1605.08803, section 3.6; D. P. Kingma, P. Dhariwal, Glow, 2018, arXiv:1807.03039.
    """

    def __init__(self, order="glow", *, name="squeeze", **kwargs):
        if order not in ("glow", "diagonal"):
            raise ValueError(f"{self._title()}: order must be 'glow' or 'diagonal', got {order!r}.")
        super().__init__(event_ndims=3, is_constant_jacobian=True, name=name, **kwargs)
        self._order = order

    @property
    def _is_permutation(self):
        return True

    def _check_event(self, value, method):
        if value.shape.rank is None:
            return
        height, width, channels = value.shape[-3:]
        if method.startswith("forward"):
            if (height or 0) % 2 or (width or 0) % 2:
                raise ValueError(
                    f"{self._title()}.{method}: expected an even height and width, got "
                    f"{height} x {width}. Pad or crop the images to even sizes."
                )
        elif (channels or 0) % 4:
            raise ValueError(
                f"{self._title()}.{method}: expected a multiple of 4 channels, got {channels}."
            )

    def _forward_and_log_det(self, x, context):
        batch, (height, width, channels) = _batch_and_event(x)
        height, width = self._multiple(height, 2, "height"), self._multiple(width, 2, "width")
        x = tf.reshape(x, [-1, height // 2, 2, width // 2, 2, channels])
        if self._order == "glow":
            x = tf.transpose(x, [0, 1, 3, 5, 2, 4])
        else:
            x = tf.stack([x[:, :, dy, :, dx] for dy, dx in _DIAGONAL], axis=-2)
        event = [height // 2, width // 2, 4 * channels]
        return _with_batch(x, batch, event), tf.zeros([], x.dtype)

    def _inverse_and_log_det(self, y, context):
        batch, (height, width, channels) = _batch_and_event(y)
        channels = self._multiple(channels, 4, "number of channels") // 4
        if self._order == "glow":
            y = tf.reshape(y, [-1, height, width, channels, 2, 2])
            y = tf.transpose(y, [0, 1, 4, 2, 5, 3])
        else:
            y = tf.reshape(y, [-1, height, width, 4, channels])
            part = dict(zip(_DIAGONAL, tf.unstack(y, 4, axis=-2), strict=True))
            rows = [tf.stack([part[dy, 0], part[dy, 1]], axis=3) for dy in (0, 1)]
            y = tf.stack(rows, axis=2)
        event = [2 * height, 2 * width, channels]
        return _with_batch(y, batch, event), tf.zeros([], y.dtype)

    def _multiple(self, size, factor, what):
        """Checks a size that was not known before the call."""
        if not tf.is_tensor(size):
            return size
        # The reshape would not fail: with an even batch it would mix pixels of different images.
        check = tf.debugging.assert_equal(
            size % factor, 0, f"{self._title()}: expected a {what} that is a multiple of {factor}."
        )
        with tf.control_dependencies([check]):
            return tf.identity(size)

    def _forward_event_shape(self, input_shape):
        height, width, channels = _last_three(input_shape)
        event = [_scale(height, 1, 2), _scale(width, 1, 2), _scale(channels, 4, 1)]
        return _batch_of(input_shape).concatenate(event)

    def _inverse_event_shape(self, output_shape):
        height, width, channels = _last_three(output_shape)
        event = [_scale(height, 2, 1), _scale(width, 2, 1), _scale(channels, 1, 4)]
        return _batch_of(output_shape).concatenate(event)

    def _forward_event_shape_tensor(self, input_shape):
        height, width, channels = tf.unstack(input_shape[-3:])
        event = tf.stack([height // 2, width // 2, channels * 4])
        return tf.concat([input_shape[:-3], event], axis=0)

    def _inverse_event_shape_tensor(self, output_shape):
        height, width, channels = tf.unstack(output_shape[-3:])
        event = tf.stack([height * 2, width * 2, channels // 4])
        return tf.concat([output_shape[:-3], event], axis=0)


def _batch_of(shape):
    shape = tf.TensorShape(shape)
    # Of an event of unknown rank all that is known is that it is an image.
    return tf.TensorShape([]) if shape.rank is None else shape[:-3]


def _last_three(shape):
    shape = tf.TensorShape(shape)
    return (None, None, None) if shape.rank is None else shape[-3:]


def _scale(size, times, over):
    return None if size is None else size * times // over


def _batch_and_event(value):
    """The batch shape (`None` for one axis of any size) and the sizes of an image."""
    static = value.shape.as_list()
    dynamic = tf.shape(value) if None in static[-3:] or len(static) != 4 else None
    event = [dynamic[n] if static[n] is None else static[n] for n in (-3, -2, -1)]
    return (None if len(static) == 4 else (dynamic[:-3], value.shape[:-3])), event


def _with_batch(value, batch, event):
    if batch is None:
        return tf.reshape(value, [-1, *event])
    sizes, static = batch
    value = tf.reshape(value, tf.concat([sizes, event], axis=0))
    return tf.ensure_shape(value, static.concatenate(value.shape[-3:]))
