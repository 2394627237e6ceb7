"""MaCow's masked convolutions: autoregressive over the rows of an image."""

import tensorflow as tf

from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import known_shape, one_of
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._shapes import sum_of_map
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network

DIRECTIONS = ("down", "up", "right", "left")


class MaskedConvolution(FlowBijector):
    """Transforms each row of an image by a map whose parameters the rows before it give.

    With `g` the elementwise map, k rows that the conditioner sees, and zeros above the first,

        y[i] = g(x[i]; conditioner(y[i - k], ..., y[i - 1], context))      row by row
        x[i] = g^-1(y[i]; conditioner(y[i - k], ..., y[i - 1], context))   all rows at once
        log|det dy/dx| = sum of log|dg/dx|

    "Before" is above for `"down"`, below for `"up"`, to the left for `"right"` (columns then take
    the place of rows) and to the right for `"left"`. All pixels of a row are transformed together:
    the sequential direction takes as many steps as there are rows, each of which sees k of them,
    so that it costs little more arithmetic than the other one. In a flow the density is the fast
    direction, and of four in turn, from all sides, every pixel sees all that is around it.

    Shapes: `x`, `y` `[..., H, W, C]`; `context` `[..., context_size]`. The conditioner has an
    attribute `num_rows`, the k above, and maps `[batch, n + k - 1, W, C]` to `[batch, n, W,
    num_parameters * C]` for any n, row i of its output from the rows i to i + k - 1 of its input
    (with `"right"` and `"left"` W is the height of the images).

    Args:
      conditioner: Keras 3 layer (`conditioners.RowConvNet`); built here if it was not.
      event_shape: `[H, W, C]`, the shape of the images.
      elementwise: name of a map of `elementwise.get` (default `"affine"`), or an
        `elementwise.ElementwiseMap`.
      direction: `"down"` (default), `"up"`, `"right"` or `"left"`.
      context_size: what context the conditioner takes. Default: its own `context_size`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if the conditioner is no Keras layer.
      ValueError: if it has no `num_rows`, or its output has the wrong size; for an unknown
        direction, or an event shape that is not known.

    >>> from tfp_flows import conditioners
    >>> layer = conditioners.RowConvNet(4, filters=8, seed=0)
    >>> MaskedConvolution(layer, [4, 4, 2], direction="left").forward(tf.ones([3, 4, 4, 2])).shape
    TensorShape([3, 4, 4, 2])

    References: X. Ma, X. Kong, S. Zhang, E. Hovy, MaCow: Masked convolutional generative flow,
    2019, arXiv:1902.04208, section 3.1.
    """

    def __init__(
        self,
        conditioner,
        event_shape,
        elementwise="affine",
        *,
        direction="down",
        context_size=None,
        name="masked_convolution",
        **kwargs,
    ):
        title = self._title()
        one_of(direction, DIRECTIONS, "direction", title)
        elementwise = elementwise_maps.get(elementwise)
        shape = known_shape(event_shape, "event_shape", title, ranks=(3,))
        num_rows = getattr(conditioner, "num_rows", None)
        if num_rows is None:
            raise ValueError(
                f"{title}: its conditioner {type(conditioner).__name__} has no attribute "
                "`num_rows`, the number of rows that it makes one row of. Use "
                "conditioners.RowConvNet, or set it."
            )
        context_size = contexts.given_or_own(context_size, conditioner)
        super().__init__(
            event_shape=shape,
            context_size=context_size,
            name=name,
            **kwargs,
        )
        self._elementwise = self._no_dependency(elementwise)
        self._direction, self._num_before = direction, int(num_rows)
        height, width, channels = shape
        if direction in ("right", "left"):
            height, width = width, height
        self._height = height
        self._network = Network(
            conditioner,
            input_shape=(height + self._num_before - 1, width, channels),
            output_shape=(height, width, channels * elementwise.num_parameters),
            owner=title,
            context_size=context_size,
            dtype=self.dtype,
        )

    @property
    def conditioner(self):
        """The Keras layer that gives the map's parameters."""
        return self._network.layer

    @property
    def elementwise(self):
        """The elementwise map."""
        return self._elementwise

    @property
    def direction(self):
        """Where the rows follow each other to."""
        return self._direction

    def _inverse_and_log_det(self, y, context):
        rows = self._as_rows(y)
        # The last row is before none.
        before = tf.concat([self._nothing(rows), rows[..., :-1, :, :]], axis=-3)
        x, log_det = self._elementwise.inverse(rows, self._network(before, context))
        return self._as_rows(x, back=True), sum_of_map(self._elementwise, log_det, 3)

    def _forward_and_log_det(self, x, context):
        rows = self._as_rows(x)
        event = rows.shape[-2:]
        batch = rows.shape[:-3]

        def body(i, window, found, total):
            parameters = self._network(window, context)
            row, log_det = self._elementwise.forward(
                tf.gather(rows, i, axis=-3), tf.squeeze(parameters, -3)
            )
            row = tf.ensure_shape(row, batch + event)
            window = tf.concat([window[..., 1:, :, :], row[..., tf.newaxis, :, :]], axis=-3)
            total = tf.ensure_shape(total + tf.reduce_sum(log_det, [-2, -1]), batch)
            return i + 1, window, found.write(i, row), total

        found = tf.TensorArray(rows.dtype, size=self._height, element_shape=batch + event)
        # The bound lets XLA differentiate the loop.
        _, _, found, log_det = tf.while_loop(
            lambda i, *_: i < self._height,
            body,
            (
                tf.constant(0),
                self._nothing(rows),
                found,
                tf.zeros_like(rows[..., 0, 0, 0]),
            ),
            maximum_iterations=self._height,
            parallel_iterations=1,
        )
        y = found.stack()  # [H, ..., W, C]
        rank = y.shape.rank
        y = tf.transpose(y, [*range(1, rank - 2), 0, rank - 2, rank - 1])
        return self._as_rows(y, back=True), sum_of_map(self._elementwise, log_det, 0)

    def _as_rows(self, x, back=False):
        """The image turned so that its rows follow each other downwards, or turned back."""
        rank = x.shape.rank
        turns = [self._turned, self._flipped]
        for turn in reversed(turns) if back else turns:
            x = turn(x, rank)
        return x

    def _turned(self, x, rank):
        if self._direction in ("down", "up"):
            return x
        return tf.transpose(x, [*range(rank - 3), rank - 2, rank - 3, rank - 1])

    def _flipped(self, x, rank):
        return tf.reverse(x, [rank - 3]) if self._direction in ("up", "left") else x

    def _nothing(self, rows):
        """Zeros in place of the rows before the first."""
        zeros = tf.zeros_like(rows[..., :1, :, :])
        return tf.concat([zeros] * self._num_before, axis=-3)
