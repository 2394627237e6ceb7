"""What the parameters of an autoregressive network mean: the distribution of one entry."""

import abc

import numpy as np
import tensorflow as tf

from tfp_flows._checks import integer
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

    >>> from tfp_flows.distributions import get_output
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
        """Entries `[..., k]`, integers as floating numbers.

        Args:
          noise: `[..., num_noises, k]`, as `noise` gives it.
          parameters: `[..., num_parameters, k]`.
        """

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


class MixtureOutput(Output):
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

    def _chosen(self, u, weights, *parts):
        """Of parts of each component `[..., K, k]` those of the one that uniform numbers choose."""
        numbers = tf.range(weights.shape[-2])[:, tf.newaxis]
        chosen = tf.equal(choice(u, weights)[..., tf.newaxis, :], numbers)
        chosen = tf.cast(chosen, weights.dtype)
        return [tf.reduce_sum(chosen * part, axis=-2) for part in parts]

    @property
    def num_parameters(self):
        """Those of a component times their number."""
        return self._num_parts * self.num_components


def halves(shape, seed, dtype, second):
    """Uniform numbers, and others, each `[n, 1, k]` of a shape `[n, 2, k]`."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    one = tf.stack([shape[0], 1, shape[2]])
    uniform = tf.random.stateless_uniform(one, seeds[0], dtype=dtype)
    return [uniform, second(one, seeds[1], dtype=dtype)]


def choice(u, logits):
    """The least index whose cumulative probability exceeds `u`, `[..., k]` of `[..., K, k]`."""
    ends = tf.cumsum(tf.nn.softmax(logits, axis=-2), axis=-2)[..., :-1, :]
    return tf.math.count_nonzero(ends <= u[..., tf.newaxis, :], axis=-2, dtype=tf.int32)
