"""What a step of a `FlowModel` refuses, said in Python's own exceptions."""

import contextlib
import weakref

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.models import replicas
from tfp_flows.models.diagnosis import (
    SPOILT,
    explain_gradients,
    explain_nonfinite,
    explain_objective,
    spoilt_variable,
)
from tfp_flows.models.inputs import checks_of_batch


class Checks:
    """The part of `FlowModel` that looks at the values of data, losses and gradients."""

    def _check_finite(self, losses, gradients, squares, x, context):
        """Returns 1, or raises inside the graph after noting what went wrong.

        Args:
          losses: of each replica.
          gradients: of the global batch, `None` for variables without one.
          squares: their sums of squares, of those that have one.
          x, context: of this replica.
        """
        local = replicas.replicas_here(self.distribute_strategy)
        pairs = zip(self.trainable_variables, gradients, strict=True)
        there = [v for v, g in pairs if g is not None]

        def packed(flat):
            return tf.nest.pack_sequence_as(context, flat) if flat else None

        def explain(losses, squares, number, x, *flat):
            bad = np.flatnonzero(~np.isfinite(losses.numpy()))
            number = int(number)
            if not len(bad):  # All see the same sums: the first replica of each process says it.
                if number % local:
                    return None
                of = [there[n].value for n in np.flatnonzero(~np.isfinite(squares.numpy()))]
                what, (found, remedy) = "gradient", explain_gradients(self._road, of)
            elif number in bad and self._objective is not None:
                what, (found, remedy) = "loss", explain_objective(self._road, self._objective)
            elif number in bad:
                what = "loss"
                found, remedy = explain_nonfinite(self._road, x, self._embedded(packed(flat)))
            elif (bad // local == number // local).any():
                return None  # Another replica of this process says it.
            else:
                what, found, remedy = "loss", f"worker {bad[0] // local} says why", "See there."
            if remedy is SPOILT:
                remedy += _known_of(self.optimizer)
            step = int(self.optimizer.iterations.numpy())
            return (
                f"FlowModel '{self.name}': the {what} is not finite at step {step}: {found}. "
                f"{remedy}"
            )

        arguments = [losses, squares, replicas.replica_id(), x]
        arguments += [] if context is None else tf.nest.flatten(context)
        finite = tf.reduce_all(tf.math.is_finite(tf.concat([losses, squares], axis=0)))
        return self._require(finite, explain, arguments, FloatingPointError)

    def _check_sound(self):
        """Refuses what updates by finite gradients have made infinite, or NaN."""
        found = spoilt_variable(self._road, [v.value for v in self.trainable_variables])
        for v in self.optimizer.variables:
            if not found and not np.isfinite(v.numpy()).all():
                found = f"the variable '{v.path}' of the optimizer holds values that are not finite"
        if found:
            step = int(self.optimizer.iterations.numpy())
            raise FloatingPointError(
                f"FlowModel '{self.name}': after step {step} {found}. {SPOILT}"
                f"{_known_of(self.optimizer)}"
            )

    def _checked(self, x, nan=True):
        """`x` of a step once it has passed the checks that need its values."""
        x = tf.convert_to_tensor(x)
        checks = [self._require(*check) for check in checks_of_batch(x, self._example, nan)]
        with tf.control_dependencies(checks):
            x = tf.identity(x) if checks else x
        return tf.ensure_shape(x, [None, *self.event_shape])

    def _require(self, good, explain, arguments, error=ValueError):
        """Returns 1 if `good`; else raises inside the graph, and `_explained` outside of it.

        Args:
          good: Boolean tensor.
          explain: function of the values of `arguments` that returns the message, or `None` if
            this is not the replica to raise.
          arguments: tensors.
          error: class of the exception.
        """

        # TensorFlow 2.21 keeps every py_function on the default graph, for as long as the process
        # lives: one that held the model, as `explain` does, would keep it as long. The model itself
        # holds `explain`; as a plain list, for Keras would track it.
        if "_explanations" not in vars(self):
            object.__setattr__(self, "_explanations", [])

        def fail():
            model, number = weakref.ref(self), len(self._explanations)
            self._explanations.append(explain)

            def report(*arguments):
                message = model()._explanations[number](*arguments)
                if message is None:
                    return ""
                model()._fault = error(message)
                return message

            # Raised in here, TensorFlow would print the way to it, twice.
            message = tf.ensure_shape(tf.py_function(report, arguments, tf.string), [])
            raised = tf.debugging.Assert(tf.equal(message, ""), [message])
            with tf.control_dependencies([] if raised is None else [raised]):
                return tf.ones([])

        return tf.cond(good, lambda: tf.ones([]), fail)

    @contextlib.contextmanager
    def _explained(self):
        """Raises what went wrong inside a graph as Python's own exception, without the graph."""
        self._fault = None
        try:
            yield
        except tf.errors.OpError as error:
            if self._fault is not None:
                raise self._fault.with_traceback(None) from None
            replicas.explain_lost_worker(self.distribute_strategy, error)
            raise


def _known_of(optimizer):
    """What is known of an optimizer that spoils weights by finite gradients."""
    # Its second moments are products of two that may be epsilon_1 each: 0 in float32, from 0.
    if isinstance(optimizer, keras.optimizers.Adafactor) and optimizer.epsilon_1 < 1e-19:
        return (
            " Keras's Adafactor divides 0 by 0 where a row and a column of a kernel have no "
            "gradient: give it epsilon_1=1e-15."
        )
    return ""
