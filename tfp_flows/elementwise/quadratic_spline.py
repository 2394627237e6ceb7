"""The piecewise quadratic map of neural importance sampling."""

import keras
import tensorflow as tf

from tfp_flows._checks import fraction
from tfp_flows.elementwise._box import BoxSpline, bins_beyond, exponentials, select, sums_of


@keras.saving.register_keras_serializable(package="tfp_flows")
class QuadraticSpline(BoxSpline):
    """Monotone piecewise quadratic spline on `[-B, B]`, the identity outside.

    With K bins between the knots (x_k, y_k), slopes v_k at the knots, v_0 = v_K = 1, and within
    a bin theta = (x - x_k) / (x_{k+1} - x_k),

        forward:  y = y_k + (x_{k+1} - x_k) * (v_k * theta + (v_{k+1} - v_k) * theta^2 / 2)
        inverse:  theta by the root of a quadratic, without cancellation; x by theta
        dy/dx   = v_k * (1 - theta) + v_{k+1} * theta

    so that the slope is continuous and piecewise linear, and at -B and B joins that of the
    identity. The heights follow from widths and slopes: y_{k+1} - y_k = w_k (v_k + v_{k+1}) / 2.

    Parameters: `[..., (2 K - 1) n]`. First K times n raw widths, then K - 1 times n raw slopes
    of the inner knots:

        width = 2 * B * (min_bin_width + (1 - K * min_bin_width) * softmax(raw))
        h     = min_slope / (K - 1) + (1 - min_slope) * softmax(raw)
        v     = h * (1 - c) / N

    where, with the widths w as shares of 2 B, c = (w_0 + w_{K-1}) / 2 is what the end slopes of 1
    take of the whole area of 1, and N = sum_k h_k (w_{k-1} + w_k) / 2 that of the h. So only
    the ratios of the raw slopes count. The identity at zero, to rounding.

    Numerics: no slope is below min_slope / (2 K - 2), and every denominator, and all under a
    root or a log, is a sum of terms >= 0. Values and gradients are finite for every finite
    argument. A round trip errs by a few roundings of B times what the map magnifies.

    Args:
      num_bins: `int >= 3`, the number K of bins. (With two, the end slopes leave no choice but the
        identity.) Default: 8.
      bound: positive number, the tail bound B. Data should lie mostly within: the map does nothing
        beyond. Default: 3.
      min_bin_width: least width of a bin, as a share of 2 B; in `[1e-6, 1 / num_bins)`. Default:
        0.001.
      min_slope: the share of the inner slopes that is the same for all of them; in (0, 1). Default:
        0.001.

    Raises:
      TypeError: if an argument is not a number, or `num_bins` not an integer.
      ValueError: if an argument is out of range.

    References:
      Thomas Mueller, Brian McWilliams, Fabrice Rousselle, Markus Gross, Jan Novak. Neural
        Importance Sampling, 2018, arXiv:1808.03856, the piecewise-quadratic coupling transforms
        of section 4.3. There on the unit interval, the end slopes free; here they are 1, and
        widths and slopes have least sizes.

    >>> spline = QuadraticSpline(num_bins=4, bound=1.0)
    >>> spline.num_parameters
    7
    >>> raw = tf.constant([0.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0])  # steep in the middle
    >>> y, log_det = spline.forward(tf.constant([0.0, 0.5]), tf.repeat(raw, 2))
    >>> [round(float(slope), 2) for slope in tf.exp(log_det)]
    [3.0, 0.0]
    """

    def __init__(self, num_bins=8, bound=3.0, min_bin_width=1e-3, min_slope=1e-3):
        super().__init__(num_bins, bound, least_bins=3)
        self.min_bin_width = self._least_share("min_bin_width", min_bin_width)
        self.min_slope = fraction(min_slope, "min_slope", type(self).__name__)

    @property
    def num_parameters(self):
        """2 * num_bins - 1: the widths and the inner slopes."""
        return 2 * self.num_bins - 1

    def get_config(self):
        """Returns the number of bins, the bound and the two minima."""
        return {
            "num_bins": self.num_bins,
            "bound": self.bound,
            "min_bin_width": self.min_bin_width,
            "min_slope": self.min_slope,
        }

    def _forward_in_box(self, x, parameters):
        xs, ys, vs = self._knots_of(parameters)
        (x0, x1), (y0, y1), (v0, v1) = self._bin(bins_beyond(x, xs), xs, ys, vs)
        # The clip is for XLA, which may compute a knot twice, rounded otherwise.
        theta = tf.clip_by_value((x - x0) / (x1 - x0), 0.0, 1.0)
        # As shares of the bin, so that knots map to knots, whatever the rounding of the heights.
        share = theta * (2.0 * v0 + (v1 - v0) * theta) / (v0 + v1)
        return y0 + (y1 - y0) * share, tf.math.log(v0 * (1.0 - theta) + v1 * theta)

    def _inverse_in_box(self, y, parameters):
        xs, ys, vs = self._knots_of(parameters)
        (x0, x1), (y0, y1), (v0, v1) = self._bin(bins_beyond(y, ys), xs, ys, vs)
        # share = theta * (2 v0 + (v1 - v0) * theta) / (v0 + v1), solved for theta. The root is at
        # once the slope: v0 + (v1 - v0) * theta. It lies between v0 and v1.
        share = tf.clip_by_value((y - y0) / (y1 - y0), 0.0, 1.0)
        square = v0 * v0 * (1.0 - share) + v1 * v1 * share
        theta = share * (v0 + v1) / (v0 + tf.sqrt(square))
        return x0 + (x1 - x0) * theta, 0.5 * tf.math.log(square)

    def _knots_of(self, parameters):
        """The inner knots in x and y, and all K + 1 slopes."""
        num_bins, least = self.num_bins, self.min_bin_width
        raw = exponentials(parameters[:num_bins])
        rest = (1.0 - num_bins * least) / sums_of(raw)[-1]
        widths = [least + rest * e for e in raw]
        raw = exponentials(parameters[num_bins:])
        least, rest = self.min_slope / (num_bins - 1), (1.0 - self.min_slope) / sums_of(raw)[-1]
        heights = [least + rest * e for e in raw]
        areas = [
            0.5 * (before + after) * h
            for before, after, h in zip(widths[:-1], widths[1:], heights, strict=True)
        ]
        factor = (1.0 - 0.5 * (widths[0] + widths[-1])) / sums_of(areas)[-1]
        ones = tf.ones_like(factor)
        slopes = [ones, *(h * factor for h in heights), ones]
        places = sums_of(
            [w * (v + after) for w, v, after in zip(widths, slopes, slopes[1:], strict=False)]
        )
        xs = self._knots(parameters[:num_bins], self.min_bin_width)
        # With tiny minima a bin's height may be lost in the rounding of the sum. Two knots then
        # meet, but they never pass one another, and such a bin holds no y.
        return xs, [self.bound * (place - 1.0) for place in places[:-1]], slopes

    def _bin(self, beyond, xs, ys, slopes):
        return (
            select(beyond, self._with_ends(xs)),
            select(beyond, self._with_ends(ys)),
            select(beyond, slopes),
        )
