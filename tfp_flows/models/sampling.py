"""Drawing samples at a temperature."""

import numpy as np
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
    message = (
        f"{type(distribution).__name__} '{distribution.name}' has no mean, which a temperature "
        "other than 1 scales the latent's spread around. Sample at temperature 1."
    )
    try:
        mean = distribution.mean(**kwargs)
    except NotImplementedError as error:
        raise ValueError(message) from error
    with tf.init_scope():  # A Cauchy says NaN. By value, so when the function is traced.
        undefined = not kwargs and np.isnan(distribution.mean()).any()
    if undefined:
        raise ValueError(message)
    return mean + tf.cast(temperature, latent.dtype) * (latent - mean)


def stateless_seed(seed):
    """A pair of int32 from `None`, an `int` or a pair; in a replica of a strategy, one of its own.

    The same stateless seed would draw the same samples on every replica.
    """
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 0:
        high = seed // 2**32 if seed.dtype == tf.int64 else tf.zeros_like(seed)
        seed = tf.stack([high, seed])
    seed = tf.cast(seed, tf.int32)  # Of int64 the low half.
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, replica.replica_id_in_sync_group)
