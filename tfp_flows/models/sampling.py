"""Drawing samples at a temperature."""

import tensorflow as tf

from tfp_flows.bijectors import stock
from tfp_flows.bijectors.context import (
    context_kwargs,
    context_size_of,
    distribution_context_kwargs,
    distribution_context_size,
)


def draw(distribution, shape, seed, context=None, temperature=None):
    """Samples a distribution with its latent's spread scaled by the temperature.

    Args:
      distribution: `tfd.Distribution`.
      shape: int tensor `[n]`, the sample shape.
      seed: pair of int32.
      context: tensor or `None`; handed to the parts that take one.
      temperature: scalar tensor of the distribution's dtype, or `None` for 1, which needs no mean.
    """
    if isinstance(distribution, stock.TransformedDistribution):
        latent = draw(distribution.distribution, shape, seed, context, temperature)
        bijector = distribution.bijector
        if context_size_of(bijector) is None:
            context = None
        return bijector.forward(latent, **context_kwargs(bijector, context))
    if distribution_context_size(distribution) is None:
        context = None
    kwargs = distribution_context_kwargs(distribution, context)
    latent = distribution.sample(shape, seed=seed, **kwargs)
    if temperature is None:
        return latent
    try:
        mean = distribution.mean(**kwargs)
    except NotImplementedError as error:
        raise ValueError(
            f"{type(distribution).__name__} '{distribution.name}' has no mean, which a temperature "
            "other than 1 scales the latent's spread around. Sample at temperature 1."
        ) from error
    return mean + tf.cast(temperature, latent.dtype) * (latent - mean)


def stateless_seed(seed):
    """A pair of int32 from `None`, an `int` or a pair; in a replica of a strategy, one of its own.

    The same stateless seed would draw the same samples on every replica.
    """
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    seed = tf.stack([0, seed]) if seed.shape.rank == 0 else seed
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, replica.replica_id_in_sync_group)
