"""The rational-quadratic map of neural spline flows."""

import math

import keras
import tensorflow as tf

from tfp_flows._checks import fraction
from tfp_flows.elementwise._box import BoxSpline, bins_beyond, exponentials, select, sums_of


@keras.saving.register_keras_serializable(package="tfp_flows")
class RationalQuadraticSpline(BoxSpline):
    """Monotone rational-quadratic spline on `[-B, B]`, the identity outside.

    With K bins between the knots (x_k, y_k), slopes d_k at the knots, and within a bin

        theta = (x - x_k) / (x_{k+1} - x_k)
        s     = (y_{k+1} - y_k) / (x_{k+1} - x_k)
        den   = s * (theta^2 + (1 - theta)^2) + (d_k + d_{k+1}) * theta * (1 - theta)

        forward:  y = y_k + (y_{k+1} - y_k) * theta * (s * theta + d_k * (1 - theta)) / den
        inverse:  theta by the root of a quadratic, without cancellation; x by theta
        dy/dx   = (s / den)^2 * (d_{k+1} * theta^2 + 2 * s * theta * (1 - theta)
                                 + d_k * (1 - theta)^2)

    Outside of `(-B, B)` y = x and log|dy/dx| = 0; the slopes at -B and B are 1, so that the
    derivative is continuous.

    Parameters: `[..., (3 K - 1) n]`. First K times n raw widths, then K times n raw heights,
    then K - 1 times n raw slopes of the inner knots:

        width  = 2 * B * (min_bin_width  + (1 - K * min_bin_width)  * softmax(raw))
        height = 2 * B * (min_bin_height + (1 - K * min_bin_height) * softmax(raw))
        slope  = min_slope + softplus(raw + offset)

    with the offset that makes the slope 1 at raw = 0. Zero parameters are therefore the
    identity, to rounding.

    Numerics: every denominator, and all under a root or a log, is a sum of terms >= 0. Values
    and gradients are finite for every finite argument, at knots and at -B and B too. A round
    trip errs by a few roundings of B times what the map magnifies; from raw parameters drawn
    with deviation 2, slopes fall to 1e-6, and float32 loses all but one digit there. The
    bin is found by a chain of selections over the K bins, on tensors of the shape of `x`.

    Args:
      num_bins: `int >= 2`, the number K of bins. Default: 8.
      bound: positive number, the tail bound B. Data should lie mostly within: the map does nothing
        beyond. Default: 3.
      min_bin_width: least width of a bin, as a share of 2 B; in `[1e-6, 1 / num_bins)`. Default:
        0.001.
      min_bin_height: least height of a bin, likewise. Default: 0.001.
      min_slope: least slope at an inner knot, in (0, 1). Default: 0.001.

    Raises:
      TypeError: if an argument is not a number, or `num_bins` not an integer.
      ValueError: if an argument is out of range.

    References:
      Conor Durkan, Artur Bekasov, Iain Murray, George Papamakarios. Neural Spline Flows, 2019,
        arXiv:1906.04032, equations 4 to 8 and appendix A. Departures: the softplus is offset, so
        that zero parameters are the identity; the quadratic is solved as a function of
        (y - y_k) / (y_{k+1} - y_k), its discriminant written as a sum of squares; the tail
        bound stands for the range of knots, whose least bin sizes are shares of it.

    >>> spline = RationalQuadraticSpline(num_bins=4)
    >>> spline.num_parameters
    11
    >>> x = tf.constant([[-5.0, 0.3]])
    >>> parameters = tf.random.stateless_normal([1, 22], seed=[1, 2])
    >>> y, log_det = spline.forward(x, parameters)
    >>> back, minus_log_det = spline.inverse(y, parameters)
    >>> bool(tf.reduce_all(tf.abs(back - x) < 1e-5)), float(y[0, 0]), float(log_det[0, 0])
    (True, -5.0, 0.0)
    """

    def __init__(
        self, num_bins=8, bound=3.0, min_bin_width=1e-3, min_bin_height=1e-3, min_slope=1e-3
    ):
        super().__init__(num_bins, bound)
        self.min_bin_width = self._least_share("min_bin_width", min_bin_width)
        self.min_bin_height = self._least_share("min_bin_height", min_bin_height)
        self.min_slope = fraction(min_slope, "min_slope", type(self).__name__)
        # softplus(offset) = 1 - min_slope
        self._slope_offset = math.log(math.expm1(1.0 - self.min_slope))

    @property
    def num_parameters(self):
        """3 * num_bins - 1: the widths, the heights and the inner slopes."""
        return 3 * self.num_bins - 1

    def get_config(self):
        """Returns the number of bins, the bound and the three minima."""
        return {
            "num_bins": self.num_bins,
            "bound": self.bound,
            "min_bin_width": self.min_bin_width,
            "min_bin_height": self.min_bin_height,
            "min_slope": self.min_slope,
        }

    def _forward_in_box(self, x, parameters):
        (x0, x1), (y0, y1), slopes = self._bin(x, parameters, searched=0)
        width, height = x1 - x0, y1 - y0
        s = height / width
        # Within [0, 1] by the choice of the bin, unless XLA rounds a knot once this way for the
        # comparison and once that way for the difference: then the log would see a negative.
        theta = tf.clip_by_value((x - x0) / width, 0.0, 1.0)
        rest = 1.0 - theta
        den, log_slope = _den_and_log_slope(theta, rest, s, slopes)
        y = y0 + height * theta * (s * theta + slopes[0] * rest) / den  # equation 4
        return y, log_slope

    def _inverse_in_box(self, y, parameters):
        (x0, x1), (y0, y1), slopes = self._bin(y, parameters, searched=1)
        width, height = x1 - x0, y1 - y0
        s = height / width
        # Equation 4 solved for theta, with xi = (y - y_k) / height in [0, 1]:
        #   (s - b) * theta^2 + b * theta - s * xi = 0,    b = m + 2 * s * xi,
        #   m = d_k * (1 - xi) - d_{k+1} * xi,
        # whose discriminant b^2 + 4 * (s - b) * s * xi is m^2 + 4 * s^2 * xi * (1 - xi): a sum
        # of terms >= 0, and > 0, for m is d_k > 0 at xi = 0 and -d_{k+1} at xi = 1.
        # The clip is that of the forward direction.
        xi = tf.clip_by_value((y - y0) / height, 0.0, 1.0)
        other = 1.0 - xi
        m = slopes[0] * other - slopes[1] * xi
        root = tf.sqrt(m * m + 4.0 * s * s * xi * other)
        # theta = 2 s xi / (2 s xi + m + root), and by the symmetry of the bin
        # 1 - theta = 2 s (1 - xi) / (2 s (1 - xi) - m + root). Each is free of cancellation on
        # one side of m = 0, and there the other follows from (root + m) * (root - m) =
        # 4 s^2 xi (1 - xi). The absolute value by `where`: at m = 0 the gradient of tf.abs is 0.
        rising = m >= 0.0
        total = root + tf.where(rising, m, -m)
        low = tf.where(rising, 2.0 * s * xi, total)
        high = tf.where(rising, total, 2.0 * s * other)
        theta = low / (low + high)
        rest = high / (low + high)
        _, log_slope = _den_and_log_slope(theta, rest, s, slopes)
        return x0 + width * theta, log_slope

    def _bin(self, v, parameters, searched):
        """Left and right x, y and slope of the bin that holds `v`, an x or a y by `searched`."""
        num_bins, knots = self.num_bins, []
        for start, least in ((0, self.min_bin_width), (num_bins, self.min_bin_height)):
            raw = parameters[start : start + num_bins]
            exps = exponentials([tf.stop_gradient(r) for r in raw])
            sums = sums_of(exps)
            knots.append((raw, least, exps, sums, self._knots_from(sums, least)))
        beyond = bins_beyond(v, knots[searched][-1])
        bins = [self._knots_of_bin(beyond, *own) for own in knots]
        # Raw slopes are selected first, so that softplus runs on two of them, not on all.
        raw = select(beyond, self._raw_slopes(parameters[2 * num_bins :]))
        slopes = [self.min_slope + tf.nn.softplus(r + self._slope_offset) for r in raw]
        return *bins, slopes

    def _raw_slopes(self, inner):
        """The K + 1 raw slopes at all knots."""
        # At the ends the raw slope 0 stands for the slope 1.
        ends = tf.zeros_like(inner[0])
        return [ends, *inner, ends]


def _den_and_log_slope(theta, rest, s, slopes):
    """The denominator of equation 4, and log(dy/dx) of equation 5."""
    both = theta * rest
    den = s * (1.0 - 2.0 * both) + (slopes[0] + slopes[1]) * both
    num = slopes[1] * theta * theta + 2.0 * s * both + slopes[0] * rest * rest
    return den, tf.math.log(num * tf.square(s / den))
