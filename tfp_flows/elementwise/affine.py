"""The affine map of RealNVP, MAF, IAF and Glow."""

import math

import keras
import tensorflow as tf

from tfp_flows._checks import fraction, one_of, positive_number
from tfp_flows.elementwise.base import ElementwiseMap
from tfp_flows.elementwise.scales import capped, floored

_LOG_SCALES = ("tanh", "exp", "sigmoid", "double_sigmoid")


@keras.saving.register_keras_serializable(package="tfp_flows")
class Affine(ElementwiseMap):
    """Scales and shifts: the map of RealNVP, MAF, IAF and Glow.

        forward:  y = x * exp(s) + t        with shift_first:  y = (x - t) * exp(s)
        inverse:  x = (y - t) * exp(-s)                        x = y * exp(-s) + t
        log|dy/dx| = s

    Parameters: `[..., 2 n]`, first the raw shift, then the raw log-scale, each times `rate`
    before its use: t = rate * raw shift, and with raw = rate * raw log-scale

        "tanh":     s = cap * tanh(raw / cap)           in (-cap, cap)
        "exp":      s = raw                             unbounded, or with a min_scale m
                    s = log(m + (1 - m) exp(raw))       > log(m)
        "sigmoid":  s = -log(sigmoid(raw + 2))          > 0
        "double_sigmoid":  s = -log(2 sigmoid(raw))     > -log(2)

    "tanh", "exp" and "double_sigmoid" are the identity at zero parameters; the last is Jet's,
    where the direction from data to latents at most doubles. "sigmoid" is not the identity: it is
    Glow's, where the direction from data to latents multiplies by `sigmoid(raw + 2)`, 0.88 at zero.
    That direction can only contract, so that log-probabilities can't blow up in training, but
    samples of a bad fit can.

    Args:
      log_scale: "tanh", "exp", "sigmoid" or "double_sigmoid". Bounded by default, because an
        unbounded log-scale is the usual cause of NaN in training and of infinite samples.
      cap: positive finite number, the bound of |s|, used by "tanh" alone. The default of 3 lets
        one layer scale by 20 either way.
      shift_first: whether the forward direction shifts, then scales. The families are the same,
        but not what a network has to learn: after a scale the shift is in the units of `y`,
        before it in those of `x`. The papers differ. MAF and IAF scale `x` and then shift
        (`False`, the default); RealNVP scales `y` on the way to the latent and then shifts
        (`True`, and the default of `flows.real_nvp`, which learns better so).
      rate: positive finite number that both parameters are multiplied by; default 1. Adam moves
        every weight of a network's last layer by the learning rate, all the same way at first, so
        that the parameters move by its fan-in times that, in every layer of the flow at once. A
        rate below 1 keeps what a step does to the whole within bounds; the recipes take
        `min(1, 2048 / (layers * fan-in))^(3/2)`.
      min_scale: number in (0, 1), a floor of the scale exp(s), used by "exp" alone: the others have
        theirs, "tanh" at `exp(-cap)`. Default: none. Where an entry of the data is constant, as a
        pixel that is black in every image, the likelihood rises without bound as its scale falls:
        with a floor, by no more than -log(min_scale) a layer.

    Raises:
      TypeError: if `cap`, `rate` or `min_scale` is not a number.
      ValueError: if `log_scale` is not known, `cap` or `rate` not positive and finite, or
        `min_scale` not in (0, 1) or given for another `log_scale` than "exp".

    References:
      Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio. Density estimation using Real NVP, 2016,
        arXiv:1605.08803, equations 4 to 8, there from data to latent. Its log-scale is tanh with
        a learned factor; here the factor is fixed, and the raw value divided by it, so that
        s = raw near zero.
      Diederik P. Kingma, Prafulla Dhariwal. Glow: Generative Flow with Invertible 1x1
        Convolutions, 2018, arXiv:1807.03039, table 1. The sigmoid is that of the authors'
        program; there the shift is added before the scale in the direction to the latents, here
        it is subtracted, which differs by the sign of t.
      Alexander Kolesnikov, Andre Susano Pinto, Michael Tschannen. Jet: A Modern Transformer-Based
        Normalizing Flow, 2024, arXiv:2412.15129 ("double_sigmoid").

    >>> x, parameters = tf.constant([1.0, 2.0]), tf.constant([0.5, 0.5, 0.0, 100.0])
    >>> y, log_det = Affine().forward(x, parameters)
    >>> log_det.numpy()
    array([0., 3.], dtype=float32)
    >>> bool(tf.reduce_all(tf.abs(Affine().inverse(y, parameters)[0] - x) < 1e-6))
    True
    """

    num_parameters = 2

    def __init__(self, log_scale="tanh", cap=3.0, shift_first=False, rate=1.0, min_scale=None):
        self.log_scale = one_of(log_scale, _LOG_SCALES, "log_scale", "Affine")
        self.cap = positive_number(cap, "cap", "Affine")
        self.shift_first = bool(shift_first)
        self.rate = positive_number(rate, "rate", "Affine")
        if min_scale is not None and log_scale != "exp":
            raise ValueError(
                f"Affine: min_scale is for log_scale='exp', got {log_scale!r}, which has a floor "
                "of its own ('tanh': exp(-cap)). Leave it out."
            )
        self.min_scale = None if min_scale is None else fraction(min_scale, "min_scale", "Affine")

    def get_config(self):
        """Returns `log_scale`, `cap`, and those of the others that are set."""
        config = {"log_scale": self.log_scale, "cap": self.cap}
        # Not the defaults: version 0.1 reads the files then.
        config |= {"shift_first": True} if self.shift_first else {}
        config |= {} if self.rate == 1.0 else {"rate": self.rate}
        return config | ({} if self.min_scale is None else {"min_scale": self.min_scale})

    def _forward(self, x, parameters):
        shift, s = self._shift_and_log_scale(*parameters)
        if self.shift_first:
            return (x - shift) * tf.exp(s), s
        return x * tf.exp(s) + shift, s

    def _inverse(self, y, parameters):
        shift, s = self._shift_and_log_scale(*parameters)
        minus_s = -s
        if self.shift_first:
            return y * tf.exp(minus_s) + shift, minus_s
        return (y - shift) * tf.exp(minus_s), minus_s

    def _shift_and_log_scale(self, shift, raw):
        if self.rate != 1.0:
            shift, raw = self.rate * shift, self.rate * raw
        if self.log_scale == "tanh":
            return shift, capped(raw, self.cap)
        if self.log_scale == "sigmoid":
            return shift, tf.nn.softplus(-2.0 - raw)  # -log(sigmoid(v)) = softplus(-v)
        if self.log_scale == "double_sigmoid":
            return shift, tf.nn.softplus(-raw) - math.log(2.0)
        return shift, floored(raw, self.min_scale)
