"""Small causal networks, as a user may write one: with `call` alone, and with steps."""

import keras
import numpy as np
import tensorflow as tf


@keras.saving.register_keras_serializable(package="tests")
class Passes(keras.layers.Layer):
    """Causal: parameters of a step from the sum of what came before, in a given order.

    Entries of one step (a pixel) do not see each other. `order` lists the flat entries, `width`
    of them a step.
    """

    def __init__(self, num_parameters, order, width=1, context_size=None, **kwargs):
        super().__init__(**kwargs)
        self.num_parameters, self.order, self.width = num_parameters, list(order), width
        self.context_size = context_size

    def get_config(self):
        names = "num_parameters", "order", "width", "context_size"
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    @property
    def num_steps(self):
        return len(self.order) // self.width

    @property
    def step_entries(self):
        return np.reshape(self.order, [-1, self.width])

    def build(self, input_shape):
        normal = keras.initializers.RandomNormal(stddev=1.0, seed=1)
        shape = (self.num_steps, self.num_parameters * self.width)
        self.start = self.add_weight(name="start", shape=shape, initializer=normal)
        self.slope = self.add_weight(name="slope", shape=shape, initializer=normal)
        if self.context_size:
            shape = (self.context_size, self.width)
            self.kernel = self.add_weight(name="kernel", shape=shape, initializer=normal)

    def _parameters(self, s, total, context):
        """`[n, P, width]` of step s, given the sum `[n, width]` of the entries before."""
        if context is not None:
            total = total + tf.matmul(context, tf.convert_to_tensor(self.kernel))
        shape = [-1, self.num_parameters, self.width]
        start, slope = (
            tf.reshape(tf.gather(tf.convert_to_tensor(v), s), shape)
            for v in (self.start, self.slope)
        )
        return start + slope * tf.tanh(total)[:, tf.newaxis]

    def call(self, x, context=None):
        flat = tf.gather(tf.reshape(x, [-1, len(self.order)]), self.order, axis=1)
        total = tf.zeros_like(flat[:, : self.width])
        found = []
        for s in range(self.num_steps):
            found.append(self._parameters(s, total, context))
            total += flat[:, s * self.width : (s + 1) * self.width]
        flat = tf.gather(tf.concat(found, axis=2), np.argsort(self.order), axis=2)
        *sizes, channels = x.shape[1:]  # [n, P, D] as [n, ..., P * C]
        flat = tf.reshape(flat, [-1, self.num_parameters, int(np.prod(sizes)), channels])
        return tf.reshape(
            tf.transpose(flat, [0, 2, 1, 3]), [-1, *sizes, self.num_parameters * channels]
        )


@keras.saving.register_keras_serializable(package="tests")
class Steps(Passes):
    """The same with a cache: the sum so far."""

    def init_cache(self, n, context, dtype):
        cache = {"total": tf.zeros([n, self.width], dtype)}
        return cache if context is None else {**cache, "context": context}

    def step(self, cache, s, previous):
        total = cache["total"] + previous
        return self._parameters(s, total, cache.get("context")), {**cache, "total": total}
