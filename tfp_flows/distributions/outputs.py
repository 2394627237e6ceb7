"""What the parameters of an autoregressive network mean: the distribution of one entry."""

import abc
import inspect
import math

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import elementwise
from tfp_flows._checks import integer, positive_number
from tfp_flows._configured import Configured


class Output(Configured, abc.ABC):
    """The distribution of an entry, as a function of the parameters that a network gives for it.

        log p(x_i; parameters_i)           nats
        x_i = draw(noise_i, parameters_i)

    Everything that samples goes through `draw`, which is a function: of equal noise the entries
    that are known come out equal, in whatever way and order they are computed.

    Shapes: entries are `[..., k]`, their parameters `[..., num_parameters, k]`, their noise
    `[..., num_noises, k]`. Where `whole_pixels`, k is the number of channels of one pixel, whose
    entries depend on each other.

    A subclass sets `num_parameters`, gives `log_prob`, `noise` and `draw`, and returns its
    constructor's arguments from `get_config`. For files it registers itself by
    `keras.saving.register_keras_serializable`. Outputs of one class and config are equal.

    >>> get_output("categorical", num_levels=5).num_parameters
    5
    """

    num_noises = 1
    # Of integers 0 to num_levels - 1 their number; `None` if the entries are real numbers.
    num_levels: int | None = None
    whole_pixels = False

    @property
    @abc.abstractmethod
    def num_parameters(self):
        """Number of parameters of one entry."""

    @abc.abstractmethod
    def log_prob(self, x, parameters):
        """Log-probabilities of entries in nats, `[..., k]`; of whole pixels, `[..., 1]`.

        Args:
          x: entries `[..., k]`, integers too as floating numbers.
          parameters: `[..., num_parameters, k]`.
        """

    @abc.abstractmethod
    def draw(self, noise, parameters):
        """Entries `[..., k]` of noise `[..., num_noises, k]`; integers as floating numbers."""

    def noise(self, shape, seed, dtype):
        """What `draw` takes. By default uniform on [0, 1).

        Args:
          shape: int tensor, `[n, num_noises, k]`.
          seed: pair of int32.
          dtype: float32 or float64.
        """
        return tf.random.stateless_uniform(shape, seed, dtype=dtype)

    def to_network(self, x):
        """Entries as the network sees them: levels as numbers from -1 to 1."""
        if self.num_levels is None:
            return x
        return x * (2.0 / (self.num_levels - 1)) - 1.0

    def is_level(self, x):
        """Which entries are one of the levels."""
        return (x >= 0.0) & (x <= self.num_levels - 1.0) & tf.equal(x, tf.round(x))

    def _possible(self, x, log_prob):
        """`log_prob`, -inf where an entry is no level."""
        return tf.where(self.is_level(x), log_prob, tf.constant(-np.inf, log_prob.dtype))


@keras.saving.register_keras_serializable(package="tfp_flows")
class BernoulliOutput(Output):
    """Zeros and ones, by the logit of a one.

        log p(x; a) = x log s(a) + (1 - x) log(1 - s(a)),     s the sigmoid

    One parameter an entry. Values between 0 and 1 count as their cross-entropy, others as
    impossible. The network sees them as they are.

    >>> float(BernoulliOutput().log_prob(tf.constant([1.0]), tf.constant([[100.0]]))[0])
    -0.0

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 2 and 4.
    """

    num_parameters = 1
    num_levels = 2

    def log_prob(self, x, parameters):
        """As `Output`."""
        # x log p + (1 - x) log(1 - p), without overflow.
        entries = -tf.nn.sigmoid_cross_entropy_with_logits(labels=x, logits=parameters[..., 0, :])
        # Outside of [0, 1] the line goes on, up to +infinity.
        outside = (x < 0.0) | (x > 1.0)
        return tf.where(outside, tf.constant(-np.inf, x.dtype), entries)

    def draw(self, noise, parameters):
        """As `Output`."""
        return tf.cast(noise < tf.sigmoid(parameters), noise.dtype)[..., 0, :]

    def to_network(self, x):
        """The entries themselves."""
        return x


@keras.saving.register_keras_serializable(package="tfp_flows")
class CategoricalOutput(Output):
    """One of several levels or classes, each with a logit of its own.

        p(x = l; a) = exp(a_l) / sum_m exp(a_m),     l = 0, ..., num_levels - 1

    `num_levels` parameters an entry. Samples invert the distribution function of one uniform
    number, which resolves probabilities down to 1e-7 in float32. The network sees the levels as
    numbers from -1 to 1.

    Args:
      num_levels: `int >= 2`. Default: 256.

    Raises:
      TypeError, ValueError: if `num_levels` is no integer, or below 2.

    >>> x, logits = tf.constant([2.0]), tf.zeros([4, 1])  # all four alike
    >>> round(float(tf.exp(CategoricalOutput(4).log_prob(x, logits))[0]), 6)
    0.25

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, section 3.3 (a softmax over the values of a channel).
    """

    def __init__(self, num_levels=256):
        self.num_levels = integer(num_levels, "num_levels", type(self).__name__, least=2)

    @property
    def num_parameters(self):
        """`num_levels`."""
        return self.num_levels

    def get_config(self):
        """Returns the number of levels."""
        return {"num_levels": self.num_levels}

    def log_prob(self, x, parameters):
        """As `Output`."""
        labels = tf.cast(tf.clip_by_value(x, 0.0, self.num_levels - 1.0), tf.int32)
        logits = tf.linalg.matrix_transpose(parameters)
        entries = -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        return self._possible(x, entries)

    def draw(self, noise, parameters):
        """As `Output`."""
        return tf.cast(_choice(noise[..., 0, :], parameters), noise.dtype)


class _Mixture(Output):
    """What the mixtures share: their components, and how one is drawn."""

    num_noises = 2

    def __init__(self, num_components):
        self.num_components = integer(
            num_components, "num_components", type(self).__name__, least=1
        )

    def _parts(self, parameters):
        """Raw weights, means, log-scales (and what else there is), each `[..., K, k]`."""
        weights, means, *others = tf.split(parameters, self._num_parts, axis=-2)
        return weights, means + self._spread(means), *others

    def _spread(self, like):
        # Components that are equal have equal gradients, and stay equal for ever.
        places = np.linspace(-1.0, 1.0, self.num_components) if self.num_components > 1 else [0.0]
        return tf.constant(np.reshape(places, [-1, 1]), like.dtype)

    @property
    def num_parameters(self):
        """Those of a component times their number."""
        return self._num_parts * self.num_components


@keras.saving.register_keras_serializable(package="tfp_flows")
class GaussianMixtureOutput(_Mixture):
    """Real numbers from a mixture of normal distributions.

        p(x) = sum_k w_k N(x; m_k, exp(s_k)^2)
        w = softmax(raw)     m_k = raw_k + c_k     s_k = cap * tanh(raw_k / cap)

    with `c_k` equally spaced from -1 to 1, so that the components of a fresh network differ; data
    of about unit variance suit them. 3 K parameters an entry: K raw weights, K means, K
    log-scales.

    Args:
      num_components: `int >= 1`, the number K. Default: 10.
      cap: positive finite number, the bound of the log-scales. Default: 7.

    Raises:
      TypeError, ValueError: if an argument is no number, or out of range.

    >>> p = GaussianMixtureOutput(1).log_prob(tf.constant([0.0]), tf.zeros([3, 1]))
    >>> round(float(p[0]), 4)  # -log(2 pi) / 2
    -0.9189

    References: G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
    estimation, 2017, arXiv:1705.07057, section 4 (MADE MoG); B. Uria, I. Murray, H. Larochelle,
    RNADE, 2013, arXiv:1306.0186, section 3.
    """

    _num_parts = 3

    def __init__(self, num_components=10, cap=7.0):
        super().__init__(num_components)
        self.cap = positive_number(cap, "cap", type(self).__name__)

    def get_config(self):
        """Returns the number of components and the bound."""
        return {"num_components": self.num_components, "cap": self.cap}

    def log_prob(self, x, parameters):
        """As `Output`."""
        weights, means, log_scales = self._natural(parameters)
        u = (x[..., tf.newaxis, :] - means) * tf.exp(-log_scales)
        each = -0.5 * (u * u + math.log(2.0 * math.pi)) - log_scales
        return tf.reduce_logsumexp(tf.nn.log_softmax(weights, axis=-2) + each, axis=-2)

    def noise(self, shape, seed, dtype):
        """A uniform number for the component, and a normal one."""
        return tf.concat(_halves(shape, seed, dtype, tf.random.stateless_normal), axis=1)

    def draw(self, noise, parameters):
        """As `Output`."""
        weights, means, log_scales = self._natural(parameters)
        chosen = _one_hot(noise[..., 0, :], weights)
        mean, log_scale = (tf.reduce_sum(chosen * part, axis=-2) for part in (means, log_scales))
        return mean + noise[..., 1, :] * tf.exp(log_scale)

    def _natural(self, parameters):
        weights, means, raw = self._parts(parameters)
        return weights, means, self.cap * tf.tanh(raw * (1.0 / self.cap))


@keras.saving.register_keras_serializable(package="tfp_flows")
class DiscretizedLogisticMixtureOutput(_Mixture):
    """Ordered levels from a mixture of logistic distributions, rounded to the nearest level.

    On the scale v = 2 x / (L - 1) - 1, from -1 to 1, with h = 1 / (L - 1) half a level wide,

        P(x) = sum_k w_k (F_k(v + h) - F_k(v - h)),     F_k(v) = sigmoid((v - m_k) exp(-s_k))

    where the lowest level has all that is below it, F_k(v + h), and the highest all that is
    above, 1 - F_k(v - h). The sum over the levels is 1.

        w = softmax(raw)     m_k = raw_k + c_k     s_k = clip(raw_k - log K, s_min, 7)

    with `c_k` equally spaced from -1 to 1: at zero parameters the mixture covers the levels. 3 K
    parameters an entry: K raw weights, K means, K log-scales. The network sees v.

    With `coupled=True` the red, green and blue of a pixel are not independent given the network,
    which then sees the pixels before this one alone. They share the component, and with
    coefficients `tanh(raw)`,

        m_G += a r     m_B += b r + c g     r, g the values v of red and green

    4 K parameters an entry; the raw weights of the three entries are added, and the coefficients
    a, b, c are the last K parameters of red, green and blue.

    Args:
      num_levels: `int >= 2`, the number L. Default: 256.
      num_components: `int >= 1`, the number K. Default: 10, as in the paper.
      coupled: whether it is of whole pixels of 3 channels. Default: `False`.

    Numerics: all in logs and exact in both tails, where the paper's program takes the density in
    the middle of a level for its share. s_min is the paper's -7 for 256 levels, and as many level
    widths for other numbers of them.

    Raises:
      TypeError, ValueError: if an argument is no integer, or out of range.

    >>> output = DiscretizedLogisticMixtureOutput(num_levels=16, num_components=3)
    >>> x = tf.range(16.0)
    >>> total = tf.reduce_sum(tf.exp(output.log_prob(x, tf.zeros([9, 16]))))
    >>> round(float(total), 5)
    1.0

    References: T. Salimans, A. Karpathy, X. Chen, D. P. Kingma, PixelCNN++, 2017,
    arXiv:1701.05517, section 2.1 (the mixture) and 2.2 (the channels of a pixel). Departures: the
    start, the exact logs, and weights that all three entries of a pixel add to.
    """

    def __init__(self, num_levels=256, num_components=10, coupled=False):
        super().__init__(num_components)
        self.num_levels = integer(num_levels, "num_levels", type(self).__name__, least=2)
        self.coupled = self.whole_pixels = bool(coupled)
        self._num_parts = 4 if self.coupled else 3
        self._least = -7.0 - math.log((self.num_levels - 1) / 255.0)

    def get_config(self):
        """Returns the numbers of levels and components, and `coupled`."""
        return {
            "num_levels": self.num_levels,
            "num_components": self.num_components,
            "coupled": self.coupled,
        }

    def log_prob(self, x, parameters):
        """As `Output`."""
        v = self.to_network(x)
        weights, means, log_scales = self._natural(parameters, v)
        rate, half = tf.exp(-log_scales), 1.0 / (self.num_levels - 1)
        distance = v[..., tf.newaxis, :] - means
        below = -tf.nn.softplus(-(distance + half) * rate)  # log F(v + h)
        above = -tf.nn.softplus((distance - half) * rate)  # log (1 - F(v - h))
        # sigmoid(b) - sigmoid(a) = sigmoid(b) (1 - sigmoid(a)) (1 - exp(a - b)): no difference of
        # numbers that are nearly equal, and the width b - a is known.
        between = below + above + tf.math.log(-tf.math.expm1(-2.0 * half * rate))
        level = x[..., tf.newaxis, :]
        each = tf.where(level < 0.5, below, tf.where(level > self.num_levels - 1.5, above, between))
        if self.coupled:
            each = tf.reduce_sum(self._possible(level, each), axis=-1, keepdims=True)
        entries = tf.reduce_logsumexp(tf.nn.log_softmax(weights, axis=-2) + each, axis=-2)
        return entries if self.coupled else self._possible(x, entries)

    def noise(self, shape, seed, dtype):
        """A uniform number for the component, and a logistic one."""
        chosen, u = _halves(shape, seed, dtype, tf.random.stateless_uniform)
        return tf.concat([chosen, tf.math.log(u) - tf.math.log1p(-u)], axis=1)

    def draw(self, noise, parameters):
        """As `Output`."""
        if not self.coupled:
            return self._rounded(noise, *self._natural(parameters, None))
        v = tf.zeros_like(noise[..., 0, :])
        for channel in range(3):  # Each from those before it.
            x = self._rounded(noise, *self._natural(parameters, v))
            v = tf.where(tf.range(3) <= channel, self.to_network(x), tf.zeros_like(v))
        return x

    def _rounded(self, noise, weights, means, log_scales):
        u = noise[..., 0, :1] if self.coupled else noise[..., 0, :]
        chosen = _one_hot(u, weights)
        mean, log_scale = (tf.reduce_sum(chosen * part, axis=-2) for part in (means, log_scales))
        v = mean + noise[..., 1, :] * tf.exp(log_scale)
        top = self.num_levels - 1.0
        return tf.round(tf.clip_by_value((v + 1.0) * (0.5 * top), 0.0, top))

    def _natural(self, parameters, v):
        """Raw weights, means and log-scales; of coupled channels, given the values `v` before."""
        weights, means, raw, *coefficients = self._parts(parameters)
        log_scales = tf.clip_by_value(raw - math.log(self.num_components), self._least, 7.0)
        if self.coupled:
            weights = tf.reduce_sum(weights, axis=-1, keepdims=True)
            a, b, c = tf.unstack(tf.tanh(coefficients[0]), axis=-1)
            red, green = v[..., tf.newaxis, 0], v[..., tf.newaxis, 1]
            means += tf.stack([tf.zeros_like(a), a * red, b * red + c * green], axis=-1)
        return weights, means, log_scales


@keras.saving.register_keras_serializable(package="tfp_flows")
class NormalOutput(Output):
    """Real numbers from one normal distribution.

        x = u * exp(s) + t,  u standard normal

    by `elementwise.Affine`, with its bound of s. Two parameters an entry: t and the raw s.

    >>> p = NormalOutput().log_prob(tf.constant([0.0]), tf.zeros([2, 1]))
    >>> round(float(p[0]), 4)
    -0.9189
    """

    num_parameters = 2
    map = elementwise.Affine()

    def log_prob(self, x, parameters):
        """As `Output`."""
        u, log_det = self.map._inverse(x, tf.unstack(parameters, axis=-2))
        return -0.5 * (u * u + math.log(2.0 * math.pi)) + log_det

    def noise(self, shape, seed, dtype):
        """Standard normal."""
        return tf.random.stateless_normal(shape, seed, dtype=dtype)

    def draw(self, noise, parameters):
        """As `Output`."""
        return self.map._forward(noise[..., 0, :], tf.unstack(parameters, axis=-2))[0]


_OUTPUTS = {
    "bernoulli": BernoulliOutput,
    "normal": NormalOutput,
    "categorical": CategoricalOutput,
    "discretized_logistic_mixture": DiscretizedLogisticMixtureOutput,
    "gaussian_mixture": GaussianMixtureOutput,
}


def get_output(identifier, **kwargs):
    """Returns the output of the given name, or the given output itself.

    Args:
      identifier: an `Output`, or the name of one: "bernoulli", "normal", "categorical",
        "discretized_logistic_mixture" or "gaussian_mixture".
      **kwargs: arguments of the output's constructor, as `num_levels=16`; only with a name.

    Returns:
      An `Output`.

    Raises:
      TypeError: if the constructor does not know an argument.
      ValueError: if the name is not known, or arguments come with a finished output.

    >>> get_output("discretized_logistic_mixture", num_levels=16)
    DiscretizedLogisticMixtureOutput(num_levels=16, num_components=10, coupled=False)
    """
    if isinstance(identifier, Output):
        if kwargs:
            raise ValueError(
                f"get_output: {identifier!r} is a finished output and takes no arguments, got "
                f"{sorted(kwargs)}. Give them to its constructor."
            )
        return identifier
    if not isinstance(identifier, str) or identifier not in _OUTPUTS:
        raise ValueError(
            f"get_output: output must be one of {tuple(_OUTPUTS)} or a distributions.Output, got "
            f"{identifier!r}."
        )
    kind = _OUTPUTS[identifier]
    known = inspect.signature(kind).parameters
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        raise TypeError(
            f"get_output: {identifier!r} takes {', '.join(known) or 'no arguments'}, got "
            f"{', '.join(unknown)}."
        )
    return kind(**kwargs)


def _halves(shape, seed, dtype, second):
    """Uniform numbers, and others, each `[n, 1, k]` of a shape `[n, 2, k]`."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    one = tf.stack([shape[0], 1, shape[2]])
    uniform = tf.random.stateless_uniform(one, seeds[0], dtype=dtype)
    return [uniform, second(one, seeds[1], dtype=dtype)]


def _choice(u, logits):
    """The least index whose cumulative probability exceeds `u`, `[..., k]` of `[..., K, k]`."""
    ends = tf.cumsum(tf.nn.softmax(logits, axis=-2), axis=-2)[..., :-1, :]
    return tf.math.count_nonzero(ends <= u[..., tf.newaxis, :], axis=-2, dtype=tf.int32)


def _one_hot(u, logits):
    numbers = tf.range(logits.shape[-2])[:, tf.newaxis]
    return tf.cast(tf.equal(_choice(u, logits)[..., tf.newaxis, :], numbers), logits.dtype)
