"""The piecewise linear map of neural importance sampling."""

import keras
import tensorflow as tf

from tfp_flows.elementwise._box import BoxSpline, bins_beyond, select


@keras.saving.register_keras_serializable(package="tfp_flows")
class LinearSpline(BoxSpline):
    """Monotone piecewise linear spline on `[-B, B]`, the identity outside.

    With K bins of equal width 2 B / K from x_k = -B + 2 B k / K, heights h_k that sum to 2 B,
    y_k = -B + h_0 + ... + h_{k-1}, and within bin k

        forward:  y = y_k + (x - x_k) * s_k         s_k = h_k * K / (2 B)
        inverse:  x = x_k + (y - y_k) / s_k
        log|dy/dx| = log(s_k)

    The density of a base under it is a histogram: the log-det jumps at the knots, at -B and B
    too. For a continuous density take `QuadraticSpline` or `RationalQuadraticSpline`.

    Parameters: `[..., K n]`, the raw heights:

        height = 2 * B * (min_bin_height + (1 - K * min_bin_height) * softmax(raw))

    The identity at zero, to rounding.

    Numerics: s_k lies between K * min_bin_height and K, so that values and gradients are finite
    for every finite argument; a round trip errs by a few roundings of B, over s_k.

    Args:
      num_bins: `int >= 2`, the number K of bins. Default: 8.
      bound: positive number, the tail bound B. Data should lie mostly within. Default: 3.
      min_bin_height: least height of a bin, as a share of 2 B; in `[1e-6, 1 / num_bins)`. Default:
        0.001.

    Raises:
      TypeError: if an argument is not a number, or `num_bins` not an integer.
      ValueError: if an argument is out of range.

    References:
      Thomas Mueller, Brian McWilliams, Fabrice Rousselle, Markus Gross, Jan Novak. Neural
        Importance Sampling, 2018, arXiv:1808.03856, the piecewise-linear coupling transforms of
        section 4.2. There on the unit interval and without a least height.

    >>> spline = LinearSpline(num_bins=2, bound=1.0, min_bin_height=1e-6)
    >>> raw = tf.math.log([3.0, 1.0])  # three quarters of the height to the left bin
    >>> y, log_det = spline.forward(tf.constant([-0.5]), raw)
    >>> round(float(y[0]), 4), round(float(tf.exp(log_det)[0]), 4)
    (-0.25, 1.5)
    """

    def __init__(self, num_bins=8, bound=3.0, min_bin_height=1e-3):
        super().__init__(num_bins, bound)
        self.min_bin_height = self._least_share("min_bin_height", min_bin_height)

    @property
    def num_parameters(self):
        """num_bins: the heights."""
        return self.num_bins

    def get_config(self):
        """Returns the number of bins, the bound and the least height."""
        return {
            "num_bins": self.num_bins,
            "bound": self.bound,
            "min_bin_height": self.min_bin_height,
        }

    def _forward_in_box(self, x, parameters):
        xs, ys = self._knots_of(x, parameters)
        x0, y0, slope = self._bin(bins_beyond(x, xs), xs, ys)
        return y0 + (x - x0) * slope, tf.math.log(slope)

    def _inverse_in_box(self, y, parameters):
        xs, ys = self._knots_of(y, parameters)
        x0, y0, slope = self._bin(bins_beyond(y, ys), xs, ys)
        return x0 + (y - y0) / slope, tf.math.log(slope)

    def _knots_of(self, v, parameters):
        width = 2.0 * self.bound / self.num_bins
        xs = [tf.zeros_like(v) + (width * k - self.bound) for k in range(1, self.num_bins)]
        return xs, self._knots(parameters, self.min_bin_height)

    def _bin(self, beyond, xs, ys):
        x0, _ = select(beyond, self._with_ends(xs))
        y0, y1 = select(beyond, self._with_ends(ys))
        return x0, y0, (y1 - y0) * (0.5 * self.num_bins / self.bound)
