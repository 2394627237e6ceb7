"""The rational-quadratic map of angles."""

import math

import keras
import tensorflow as tf

from tfp_flows.elementwise.spline import RationalQuadraticSpline


@keras.saving.register_keras_serializable(package="tfp_flows")
class CircularRationalQuadraticSpline(RationalQuadraticSpline):
    """Rational-quadratic spline of the circle: of angles in `[-pi, pi)`, in radians.

    A `RationalQuadraticSpline` s on [-pi, pi] whose slopes at the two ends are one and the same
    parameter, so that it closes up smoothly, and a rotation by an angle t:

        forward:  y = wrap(s(wrap(x)) + t)          wrap(v) = v - 2 pi * floor((v + pi) / (2 pi))
        inverse:  x = s^-1(wrap(y - t))
        log|dy/dx| = log(ds/dx)

    Arguments are angles, any of them: those outside of [-pi, pi) are wrapped, and results lie
    within. As a map of the circle it is a bijection; as one of numbers it jumps where the circle
    is cut open. Take it with a base on the circle, such as `tfd.VonMises` or `tfd.Uniform(-pi,
    pi)`, and give a conditioner cosines and sines, for it does not know that -pi is pi.

    Parameters: `[..., (3 K + 1) n]`. K times n raw widths, heights and slopes as those of
    `RationalQuadraticSpline` with bound pi, the first slope that at -pi; then n times the
    rotation t in radians. The identity on [-pi, pi) at zero, to rounding.

    Numerics: as the spline. Wrapping costs an absolute error of a rounding of the argument. An
    angle next to the cut may come back at its other end.

    Args:
      num_bins: `int >= 2`, the number K of bins. Default: 8.
      min_bin_width: least width of a bin, as a share of 2 pi; in `[1e-6, 1 / num_bins)`. Default:
        0.001.
      min_bin_height: least height of a bin, likewise. Default: 0.001.
      min_slope: least slope at a knot, in (0, 1). Default: 0.001.

    Raises:
      TypeError: if an argument is not a number, or `num_bins` not an integer.
      ValueError: if an argument is out of range.

    References:
      Danilo Jimenez Rezende, George Papamakarios, Sebastien Racaniere, Michael S. Albergo, Gurtej
        Kanwar, Phiala E. Shanahan, Kyle Cranmer. Normalizing Flows on Tori and Spheres, 2020,
        arXiv:2002.02428, section 2.1, circular splines and phase translations. There on
        [0, 2 pi].

    >>> spline = CircularRationalQuadraticSpline(num_bins=4)
    >>> spline.num_parameters
    13
    >>> parameters = tf.concat([tf.zeros([12]), [1.0]], 0)  # a rotation by 1
    >>> y, log_det = spline.forward(tf.constant([3.0]), parameters)
    >>> round(float(y[0]), 4), abs(round(float(log_det[0]), 4))  # 4 - 2 pi
    (-2.2832, 0.0)
    """

    def __init__(self, num_bins=8, min_bin_width=1e-3, min_bin_height=1e-3, min_slope=1e-3):
        super().__init__(num_bins, math.pi, min_bin_width, min_bin_height, min_slope)

    @property
    def num_parameters(self):
        """3 * num_bins + 1: the widths, the heights, the slopes and the rotation."""
        return 3 * self.num_bins + 1

    def get_config(self):
        """Returns the number of bins and the three minima."""
        config = super().get_config()
        del config["bound"]
        return config

    def _forward(self, x, parameters):
        y, log_slope = self._forward_in_box(_wrap(x), parameters[:-1])
        return _wrap(y + parameters[-1]), log_slope

    def _inverse(self, y, parameters):
        x, log_slope = self._inverse_in_box(_wrap(y - parameters[-1]), parameters[:-1])
        return _wrap(x), -log_slope

    def _raw_slopes(self, own):
        return [*own, own[0]]


def _wrap(angle):
    """The angle in [-pi, pi)."""
    wrapped = angle - 2.0 * math.pi * tf.floor((angle + math.pi) * (0.5 / math.pi))
    # By rounding it may be pi, or a little less than -pi.
    wrapped = tf.where(wrapped >= math.pi, -math.pi * tf.ones_like(wrapped), wrapped)
    return tf.where(tf.abs(angle) < math.pi, angle, tf.maximum(wrapped, -math.pi))
