"""Surjections that forget which of many equal ways data came: signs, and orders."""

import math

import keras
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.bijectors.stochastic import StochasticTransform


@keras.saving.register_keras_serializable(package="tfp_flows")
class AbsoluteValue(StochasticTransform):
    """Forgets the signs of a latent: `x = |z|`, whose signs are drawn at even odds.

        z_i = s_i x_i,  s_i = -1 or 1,      v = D log 2,  -inf where an x_i is negative

    The bound is exact where the density of `z` is even in each entry; elsewhere it is below, and
    the importance-weighted estimate is of the mean over 2^D ways. Of a latent with a density: of
    one of whole numbers, a zero, which has one sign, would count twice.

    Args:
      event_ndims: `int >= 1`, rank of an event. Default: 1.

    Raises:
      TypeError: if it is no integer.
      ValueError: if it is below 1.

    >>> import tensorflow_probability as tfp
    >>> from tfp_flows import distributions
    >>> normal = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
    >>> half = distributions.Surjected(normal, AbsoluteValue())
    >>> x = tf.constant([1.0, 2.0])
    >>> round(float(half.log_prob(x, seed=3) - normal.log_prob(x)), 4)  # log 4
    1.3863

    Reference: D. Nielsen, P. Jaini, E. Hoogeboom, O. Winther, M. Welling, SurVAE flows, 2020,
    arXiv:2007.02731, section 3 (generative absolute value).
    """

    needs_density = True

    def __init__(self, event_ndims=1):
        super().__init__()
        self._event_ndims = positive_integer(event_ndims, "event_ndims", type(self).__name__)

    def get_config(self):
        """The constructor arguments, for saving."""
        return {"event_ndims": self._event_ndims}

    def data_event_shape(self, latent_event_shape):
        """That of the latent."""
        return _of_rank(self._event_ndims, latent_event_shape, self, "Pass event_ndims={}")

    def draw_noise(self, shape, seed, event_shape):
        """Uniform numbers `[*shape, *event_shape]`, below 1/2 for a minus."""
        return tf.random.stateless_uniform([*shape, *event_shape], seed)

    def inverse(self, x, noise, context=None):
        """Returns `x` with drawn signs, and `v`: see `StochasticTransform`."""
        axes = list(range(-self._event_ndims, 0))
        size = math.prod(x.shape[-self._event_ndims :])
        inside = tf.reduce_all(x >= 0.0, axis=axes)
        return tf.where(noise < 0.5, -x, x), _where(inside, size * math.log(2.0), x.dtype)

    def forward(self, z, seed=None, context=None):
        """The absolute values."""
        return tf.abs(z)


@keras.saving.register_keras_serializable(package="tfp_flows")
class Sort(StochasticTransform):
    """Forgets the order of a latent's entries: `x` is `z` sorted, whose order is drawn evenly.

        z = x in a random order of n,       v = log n!,  -inf where x is not in rising order

    The bound is exact where the density of `z` is the same for all orders, as that of independent
    draws; elsewhere it is below. Of a latent with a density: of one of whole numbers, entries that
    are equal would count in orders that are the same. Events are `[n]`.

    >>> import tensorflow_probability as tfp
    >>> from tfp_flows import distributions
    >>> draws = tfp.distributions.Sample(tfp.distributions.Exponential(1.0), 3)
    >>> ranked = distributions.Surjected(draws, Sort())
    >>> ranked.log_prob([[0.0, 1.0, 2.0], [1.0, 0.0, 2.0]], seed=0).numpy().round(3)  # log 6 - 3
    array([-1.208,   -inf], dtype=float32)

    Reference: D. Nielsen, P. Jaini, E. Hoogeboom, O. Winther, M. Welling, SurVAE flows, 2020,
    arXiv:2007.02731, section 3 (generative sorting).
    """

    needs_density = True

    def get_config(self):
        """The constructor arguments: none."""
        return {}

    def data_event_shape(self, latent_event_shape):
        """That of the latent."""
        return _of_rank(1, latent_event_shape, self, "Reshape them by a tfb.Reshape")

    def draw_noise(self, shape, seed, event_shape):
        """Uniform numbers `[*shape, n]`, whose ranks are an order."""
        return tf.random.stateless_uniform([*shape, *event_shape], seed)

    def inverse(self, x, noise, context=None):
        """Returns `x` in a drawn order, and `v`: see `StochasticTransform`."""
        order = tf.argsort(noise, axis=-1)
        inside = tf.reduce_all(x[..., 1:] >= x[..., :-1], axis=-1)
        z = tf.gather(x, order, axis=-1, batch_dims=x.shape.rank - 1)
        return z, _where(inside, math.lgamma(1.0 + x.shape[-1]), x.dtype)

    def forward(self, z, seed=None, context=None):
        """The entries in rising order."""
        return tf.sort(z, axis=-1)


def _of_rank(rank, event_shape, transform, remedy):
    """The shape of events, if they have this rank: with another `v` counts the wrong entries."""
    shape = tf.TensorShape(event_shape)
    if shape.rank not in (None, rank):
        raise ValueError(
            f"{type(transform).__name__}: expected latents of rank {rank}, got events "
            f"{shape.as_list()}. {remedy.format(shape.rank)}."
        )
    return shape


def _where(inside, value, dtype):
    return tf.where(inside, tf.cast(value, dtype), tf.constant(-math.inf, dtype))
