"""Entries that are independent given their parameters, as an autoregressive network sees them."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tfp_flows")
class Given(keras.layers.Layer):
    """A causal network that sees nothing: it gives the context as the parameters of all entries.

    In an `AutoregressiveDistribution` it makes them independent of each other given the context.

    Args:
      shape: event shape.
      num_parameters: of an entry.
      **kwargs: as `keras.layers.Layer`.
    """

    def __init__(self, shape, num_parameters, **kwargs):
        super().__init__(**kwargs)
        self.shape, self.num_parameters = tuple(shape), num_parameters
        self.context_size = (*self.shape[:-1], num_parameters * self.shape[-1])
        self.num_steps = 1
        self.step_entries = np.arange(np.prod(self.shape), dtype=np.int32)[np.newaxis]
        self.built = True

    def call(self, x, context):
        """The context."""
        del x
        return context

    def init_cache(self, n, context, dtype):
        """Nothing is kept but the parameters, `[n, num_parameters, D]`."""
        del n, dtype
        apart = tf.reshape(context, [-1, *self.shape[:-1], self.num_parameters, self.shape[-1]])
        rank = len(self.shape) + 1
        apart = tf.transpose(apart, [0, rank - 1, *range(1, rank - 1), rank])
        return tf.reshape(apart, [-1, self.num_parameters, self.step_entries.size])

    def step(self, cache, s, previous):
        """All parameters."""
        del s, previous
        return cache, cache

    def get_config(self):
        """The constructor's arguments."""
        config = {"shape": list(self.shape), "num_parameters": self.num_parameters}
        return {**super().get_config(), **config}
