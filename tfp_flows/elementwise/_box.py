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
        return self._knots_from(sums_of(exponentials(raw)), least)

    def _knots_from(self, sums, least):
        # A softmax shifted by the maximum, whose sums are at once the knots.
        scale = 2.0 * self.bound * (1.0 - self.num_bins * least) / sums[-1]
        return [
            total * scale + self.bound * (2.0 * least * k - 1.0)
            for k, total in enumerate(sums[:-1], start=1)
        ]

    def _knots_of_bin(self, beyond, raw, least, exps, sums, inner):
        """The knots left and right of a bin; `exps`, `sums` and `inner` are those of `raw`.

        The gradient is written by hand. With S_b and S_c the partial sums at the two knots, dl and
        dr their gradients over 2 B (1 - K least), and [j <= b] 1 or 0,

            raw_bar_j = e_j / S * ([j <= b] * dl + [j <= c] * dr - (dl * S_b + dr * S_c) / S)

        which is 0 of itself for a knot at an end of the box. Autodiff would go through all the
        sums instead; and XLA, which computes what is cheap again for each of the results that it
        goes into, would do so for all the arithmetic within the bin that comes before, K times
        over. The divisions here, being dear, it does once.
        """
        size = 2.0 * self.bound * (1.0 - self.num_bins * least)

        @tf.custom_gradient
        def knots(*raw):
            def gradient(d_left, d_right):
                e, s = exps, sums
                if record.could_possibly_record():  # For a second derivative, functions of raw.
                    e = exponentials(raw)
                    s = sums_of(e)
                s_left, s_right = select(beyond, [tf.zeros_like(d_left), *s])
                dl, dr = d_left * size / s[-1], d_right * size / s[-1]
                mean = (dl * s_left + dr * s_right) / s[-1]
                before, within, after = dl + dr - mean, dr - mean, -mean
                shares = [tf.where(beyond[0], before, within)]
                shares += [
                    tf.where(below, before, tf.where(here, within, after))
                    for here, below in zip(beyond[:-1], beyond[1:], strict=True)
                ]
                shares += [tf.where(beyond[-1], within, after)]
                return [one * share for one, share in zip(e, shares, strict=True)]

            return tuple(select(beyond, self._with_ends(inner))), gradient

        return knots(*raw)

    def _with_ends(self, inner):
        ends = tf.zeros_like(inner[0])
        return [ends - self.bound, *inner, ends + self.bound]


def exponentials(raw):
    """The exponentials of the entries of a list, the largest of which becomes 1."""
    largest = raw[0]
    for r in raw[1:]:
        largest = tf.maximum(largest, r)
    largest = tf.stop_gradient(largest)
    return [tf.exp(r - largest) for r in raw]


def sums_of(values):
    """The partial sums of a list."""
    sums = [values[0]]
    for value in values[1:]:
        sums.append(sums[-1] + value)
    return sums


def bins_beyond(v, inner_knots):
    """K - 1 Boolean tensors, the first k of them true where `v` lies in bin k."""
    # One count decides all selections. XLA may compute a knot twice, rounded otherwise the
    # second time; were each selection to compare on its own, then near a knot the left end of
    # one bin could meet the right end of another. A sum it does not compute twice.
    searched = tf.stop_gradient(tf.stack(inner_knots))
    count = tf.reduce_sum(tf.cast(v >= searched, tf.int32), axis=0)
    return [count > k for k in range(len(inner_knots))]


def select(beyond, values):
    """Returns `values[k]` and `values[k + 1]`, where k counts the true among `beyond`.

    `beyond` is a list of K - 1 Boolean tensors, true up to some k and false from there;
    `values` a list of K + 1 tensors of one shape.
    """

    # Autodiff would send both gradients back through the whole chain. Written by hand, each
    # value gets its own at once, which takes 10 to 25% off a training step. Linear in the
    # gradients, so that higher derivatives are right as well.
    @tf.custom_gradient
    def select(*values):
        left, right = values[0], values[1]
        for condition, lower, upper in zip(beyond, values[1:], values[2:], strict=False):
            left = tf.where(condition, lower, left)
            right = tf.where(condition, upper, right)

        def gradient(d_left, d_right):
            zeros = tf.zeros_like(d_left)
            holds = [~beyond[0]]
            holds += [a & ~b for a, b in zip(beyond[:-1], beyond[1:], strict=True)]
            holds += [beyond[-1]]
            inner = [
                tf.where(here, d_left, tf.where(before, d_right, zeros))
                for before, here in zip(holds[:-1], holds[1:], strict=True)
            ]
            return [
                tf.where(holds[0], d_left, zeros),
                *inner,
                tf.where(holds[-1], d_right, zeros),
            ]

        return (left, right), gradient

    return select(*values)
