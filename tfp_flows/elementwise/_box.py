"""What the splines on a box share: checked bins, knots, and the search for a bin."""

import abc

import tensorflow as tf

from tfp_flows._checks import integer, number, positive_number
from tfp_flows._private import record
from tfp_flows.elementwise.base import ElementwiseMap

# Knots are sums of rounded bin sizes. In float32 a smaller share of [-B, B] than this could
# be lost in the rounding, and knots trade places.
_LEAST_SHARE = 1e-6


class BoxSpline(ElementwiseMap):
    """A spline from `[-B, B]` to itself, the identity outside.

    A subclass gives `_forward_in_box(x, parameters)` and `_inverse_in_box(y, parameters)`, for
    arguments within the box, each with log(dy/dx), that of the forward direction.
    """

    def __init__(self, num_bins, bound, *, least_bins=2):
        name = type(self).__name__
        self.num_bins = integer(num_bins, "num_bins", name, least=least_bins)
        self.bound = positive_number(bound, "bound", name)

    def _least_share(self, what, value):
        """The checked least size of a bin."""
        name = type(self).__name__
        share = number(value, what, name)
        if not (share >= _LEAST_SHARE and share * self.num_bins < 1.0):
            raise ValueError(
                f"{name}: {what} must be at least {_LEAST_SHARE} and num_bins * {what} below "
                f"1, got {share!r} with num_bins {self.num_bins}. Bin sizes are shares of "
                "2 * bound."
            )
        return share

    def _forward(self, x, parameters):
        inside, x_in = self._inside(x)
        y, log_slope = self._forward_in_box(x_in, parameters)
        return tf.where(inside, y, x), tf.where(inside, log_slope, tf.zeros_like(x))

    def _inverse(self, y, parameters):
        inside, y_in = self._inside(y)
        x, log_slope = self._inverse_in_box(y_in, parameters)
        return tf.where(inside, x, y), tf.where(inside, -log_slope, tf.zeros_like(y))

    def _inside(self, v):
        # Outside the spline is evaluated at 0, never used, and so finite in its gradient too.
        inside = tf.abs(v) < self.bound
        return inside, tf.where(inside, v, tf.zeros_like(v))

    @abc.abstractmethod
    def _forward_in_box(self, x, parameters):
        """Returns `y` and `log(dy/dx)`."""

    @abc.abstractmethod
    def _inverse_in_box(self, y, parameters):
        """Returns `x` and `log(dy/dx)`."""

    def _knots(self, raw, least):
        """The K - 1 inner knots from K raw bin sizes."""
        return self._knots_from(sums_of(tf.unstack(exponentials(raw))), least)

    def _knots_from(self, sums, least):
        # A softmax shifted by the maximum, whose sums are at once the knots.
        scale = 2.0 * self.bound * (1.0 - self.num_bins * least) / sums[-1]
        return [
            total * scale + self.bound * (2.0 * least * k - 1.0)
            for k, total in enumerate(sums[:-1], start=1)
        ]

    def _knots_of_bin(self, place, raw, least, exps, sums):
        """The knots left and right of a bin; `exps` and `sums` are those of `raw`.

        With S_b and S_c the partial sums at the two knots, and dl and dr their gradients over
        S / (2 B (1 - K least)),

            raw_bar_j = e_j * ([j <= b] * dl + [j <= c] * dr - (dl * S_b + dr * S_c) / S)

        which is 0 of itself for a knot at an end of the box. Written by hand, for autodiff would
        go through all the sums; and with a division last in each gradient, because XLA computes
        what is cheap again for each of the K raw sizes that it goes into, all the arithmetic of
        the bin with it, but a division once.
        """
        size = 2.0 * self.bound * (1.0 - self.num_bins * least)
        step = 2.0 * self.bound * least
        number = tf.cast(place, raw[0].dtype)

        @tf.custom_gradient
        def knots(*raw):
            s_left, s_right = select(place, [tf.zeros_like(sums[0]), *sums])

            def gradient(d_left, d_right):
                e, s, s_b, s_c = exps, sums, s_left, s_right
                if record.could_possibly_record():  # For a second derivative, functions of raw.
                    e = exponentials(raw)
                    s = sums_of(tf.unstack(e))
                    s_b, s_c = select(place, [tf.zeros_like(s[0]), *s])
                dl, dr = d_left * size / s[-1], d_right * size / s[-1]
                mean = (dl * s_b + dr * s_c) / s[-1]
                indices = _indices(place, self.num_bins)  # j - 1
                below = tf.cast(indices < place, e.dtype)
                up_to = tf.cast(indices <= place, e.dtype)
                return tf.unstack(e * (below * dl + up_to * dr - mean))

            left = s_left * size / sums[-1] + (step * number - self.bound)
            right = s_right * size / sums[-1] + (step * (number + 1.0) - self.bound)
            return (left, right), gradient

        return knots(*raw)

    def _with_ends(self, inner):
        ends = tf.zeros_like(inner[0])
        return [ends - self.bound, *inner, ends + self.bound]


def exponentials(raw):
    """The exponentials of the K entries of a list, `[K, ...]`, the largest of which becomes 1."""
    raw = tf.stack(raw)
    return tf.exp(raw - tf.stop_gradient(tf.reduce_max(raw, axis=0)))


def sums_of(values):
    """The partial sums of a list."""
    sums = [values[0]]
    for value in values[1:]:
        sums.append(sums[-1] + value)
    return sums


def bin_of(v, inner_knots):
    """The number, from 0 to K - 1, of the bin between K - 1 inner knots that holds `v`."""
    # One count decides all selections. XLA may compute a knot twice, rounded otherwise the
    # second time; were each selection to compare on its own, then near a knot the left end of
    # one bin could meet the right end of another. A sum it does not compute twice.
    searched = tf.stop_gradient(tf.stack(inner_knots))
    return tf.reduce_sum(tf.cast(v >= searched, tf.int32), axis=0)


def select(place, values):
    """Returns `values[place]` and `values[place + 1]`, entry by entry.

    `place` is an integer tensor, and `values` a list of tensors of its shape.
    """

    # By sums over ones and zeros, not by a chain of selections, which is cheap enough for XLA to go
    # through again for each result that depends on it, and takes twice the time in a graph.
    # Autodiff would send a gradient through each sum to all values; by hand, one stack holds both.
    # Linear in the gradients, so that higher derivatives are right as well.
    @tf.custom_gradient
    def select(*values):
        stacked = tf.stack(values)
        one_hot = tf.cast(place == _indices(place, len(values) - 1), stacked.dtype)
        left = tf.reduce_sum(one_hot * stacked[:-1], axis=0)
        right = tf.reduce_sum(one_hot * stacked[1:], axis=0)

        def gradient(d_left, d_right):
            zeros = tf.zeros_like(d_left)[tf.newaxis]
            to_left = tf.concat([one_hot * d_left, zeros], axis=0)
            return tf.unstack(to_left + tf.concat([zeros, one_hot * d_right], axis=0))

        return (left, right), gradient

    return select(*values)


def _indices(place, num):
    """The numbers 0 to `num` - 1, along a new first axis before those of `place`."""
    return tf.reshape(tf.range(num), [num] + [1] * place.shape.rank)
