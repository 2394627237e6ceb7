"""A training step, a density pass and a sampling call as `tf.function`s."""

import itertools

import tensorflow as tf

from peers import works


class TensorFlowContender(works.Contender):
    """A contender on TensorFlow."""

    def device_memory_mb(self):
        """Returns the peak of TensorFlow's allocator on the GPU."""
        if not tf.config.list_physical_devices("GPU"):
            return None
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class FunctionContender(TensorFlowContender):
    """Measures `log_prob` and `sample` functions and a hand-written training step.

    A subclass calls `set_up` at the end of its constructor.
    """

    def set_up(self, log_prob, sample, variables, apply_gradients):
        """Builds the calls; `apply_gradients(gradients, variables)` is the optimizer."""
        batches = itertools.cycle([tf.constant(b) for b in works.make_batches(self.work)])
        jit = self.xla or None

        @tf.function(jit_compile=jit)
        def train_step(x):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(variables)
                loss = -tf.reduce_mean(log_prob(x))
            apply_gradients(tape.gradient(loss, variables), variables)
            return loss

        density = tf.function(log_prob, jit_compile=jit)
        draw = tf.function(lambda: sample(self.work.sample), jit_compile=jit)
        # .numpy() waits for the result where the device runs ahead.
        self.calls = {
            "train": lambda: train_step(next(batches)).numpy(),
            "log_prob": lambda: density(next(batches)).numpy(),
            "sample": lambda: draw().numpy(),
        }
