"""Steps in a loop, traced once, and the gradient that computes each of them anew."""

import tensorflow as tf

from tfp_flows._private import record


class Loop:
    """Step after step, and the gradient.

    Args:
      step: function of a step's number in the loop, a value, the tensors of the context, and the
        step's weights; it returns a value of the same shape and a log-det of the batch shape.
      num: number of steps.
      order: function of a step's number in the loop, to its index in the stacks.
      num_contexts: number of tensors of the context, which come before the stacks.
    """

    def __init__(self, step, num, order, num_contexts):
        self._step, self._num, self._order = step, num, order
        self._num_contexts = num_contexts

    def plain(self, value, zeros, *rest):
        """Value and log-det after all steps, with TensorFlow's own gradient of the loop."""
        flat, stacks = self._split(rest)
        # Reading an array has a sparse gradient, slicing a stack one of the whole stack's size.
        arrays = [self._array(stack.dtype, stack.shape[1:]).unstack(stack) for stack in stacks]

        def body(n, value, total):
            weights = [array.read(self._order(n)) for array in arrays]
            value, log_det = self._step(n, value, flat, weights)
            return n + 1, value, total + log_det

        return self._while(body, [value, zeros])

    def recomputed(self, value, zeros, *rest):
        """The same; the way back computes each step anew from what it was given."""

        @tf.custom_gradient
        def run(value, *rest):
            flat, stacks = self._split(rest)

            def body(n, value, total, given):
                weights = [stack[self._order(n)] for stack in stacks]
                given = given.write(n, value)
                value, log_det = self._step(n, value, flat, weights)
                return n + 1, value, total + log_det, given

            given = self._array(value.dtype, value.shape)
            # A tape would prepare the derivatives of the loop, which are not used.
            with record.stop_recording():
                result, total, given = self._while(body, [value, zeros, given])
                given = given.stack()  # A SavedModel keeps no array with a gradient.

            def gradient(result_bar, total_bar):
                if record.could_possibly_record():  # For a second derivative.
                    with tf.GradientTape() as tape:
                        tape.watch([value, *rest])
                        results = self.plain(value, zeros, *rest)
                    return _gradients(tape, results, [value, *rest], [result_bar, total_bar])
                return self._way_back(given, result_bar, total_bar, flat, stacks)

            return (result, total), gradient

        return run(value, *rest)

    def _way_back(self, given, value_bar, total_bar, flat, stacks):
        def body(done, value_bar, flat_bars, arrays):
            n = self._num - 1 - done
            k = self._order(n)
            value = tf.ensure_shape(given[n], value_bar.shape)
            weights = [stack[k] for stack in stacks]
            sources = [value, *flat, *weights]
            with tf.GradientTape() as tape:
                tape.watch(sources)
                results = self._step(n, value, flat, weights)
            value_bar, *bars = _gradients(tape, results, sources, [value_bar, total_bar])
            of_flat, of_weights = self._split(bars)
            flat_bars = [a + b for a, b in zip(flat_bars, of_flat, strict=True)]
            arrays = [array.write(k, b) for array, b in zip(arrays, of_weights, strict=True)]
            return done + 1, value_bar, flat_bars, arrays

        arrays = [self._array(stack.dtype, stack.shape[1:]) for stack in stacks]
        start = [value_bar, [tf.zeros_like(c) for c in flat], arrays]
        value_bar, flat_bars, arrays = self._while(body, start)
        return (value_bar, *flat_bars, *(array.stack() for array in arrays))

    def _split(self, rest):
        return list(rest[: self._num_contexts]), list(rest[self._num_contexts :])

    def _array(self, dtype, shape):
        return tf.TensorArray(dtype, self._num, element_shape=shape, clear_after_read=False)

    def _while(self, body, start):
        def shape_of(thing):
            return tf.TensorShape(None) if isinstance(thing, tf.TensorArray) else thing.shape

        start = (tf.constant(0), *start)
        return tf.while_loop(
            lambda n, *_: n < self._num,
            body,
            start,
            shape_invariants=tf.nest.map_structure(shape_of, start),
            maximum_iterations=self._num,
        )[1:]


def _gradients(tape, results, sources, bars):
    found = tape.gradient(
        results, sources, bars, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return [tf.convert_to_tensor(g) for g in found]
