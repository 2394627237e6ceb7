"""TFP's bijector cache, made safe against changed weights."""

import weakref

import numpy as np
import tensorflow as tf
from tensorflow_probability.python.internal import cache_util

from tfp_flows import _private
from tfp_flows.bijectors.modes import in_training_mode

# Graph -> how many of its operations were looked at, and how many there were at the last
# assignment.
_assignments: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


class FreshCache(cache_util.BijectorCacheWithGreedyAttrs):
    """Pairs of argument and result that are forgotten when a weight has changed.

    TFP answers `inverse(forward(x))`, a repeated `forward(x)` and every log-det from a cache
    keyed by the tensor. That is what makes a flow's `log_prob` cost one pass, and it is also
    wrong as soon as a variable is updated while an old result is alive, when a tensor made in
    one graph is met in another, or when a `tf.GradientTape` was started since: the gradient is
    `None` then (TFP 0.25 checks none of it). Here an entry remembers the graph it was computed
    in, in eager mode the values of the bijector's variables, and its result, which every tape
    that is active must have seen. It is used only while all of it still holds.

    Reading a variable in eager mode shares its memory (TensorFlow copies on the next write), so
    a snapshot costs no copy unless training goes on while an old result is kept.
    """

    def snapshot(self, context=None):
        """What an entry computed now depends on, besides its argument."""
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        return graph, in_training_mode(), self._weights(), _copy_if_mutable(context)

    def attributes(self, snapshot, argument, result, ildj):
        """The attributes of a new entry."""
        graph = snapshot[0]
        written = None if graph is None else graph.version
        return {
            "ildj": ildj,
            "computed_with": (*snapshot, written),
            "computed": (weakref.ref(argument), weakref.ref(result)),
        }

    def _weights(self):
        if not tf.executing_eagerly():
            return ()
        # In training mode nothing depends on running statistics, which every call moves.
        bijector = self.bijector
        variables = bijector.trainable_variables if in_training_mode() else bijector.variables
        return tuple(v.read_value() for v in variables)

    def _get_or_create_edge(self, input, forward_name, kwargs):
        edge = super()._get_or_create_edge(input, forward_name, kwargs)
        if "computed_with" not in edge.attributes or (
            self._is_current(edge.attributes["computed_with"], kwargs.get("context"))
            and self._is_on_every_tape(edge.attributes, kwargs.get("context"))
        ):
            return edge
        for ref in (edge.input_ref, edge.output_ref):
            if ref is not None and ref in self.storage:
                ref.cancel()  # The weak reference's callback would delete it a second time.
                del self.storage[ref]
        return super()._get_or_create_edge(input, forward_name, kwargs)

    def _is_current(self, computed_with, context):
        graph, training, old, old_context, written = computed_with
        if training != in_training_mode():
            return False
        if old_context is not None and not np.array_equal(old_context, _copy_if_mutable(context)):
            return False
        if not tf.executing_eagerly():
            here = tf.compat.v1.get_default_graph()
            return graph is here and _last_assignment(here) <= written
        if graph is not None:
            return False
        new = self._weights()
        return len(old) == len(new) and all(map(_same_value, old, new))

    def _is_on_every_tape(self, attributes, context):
        """Whether a gradient can flow through an entry to all that it was computed from."""
        if _private.no_tape():
            return True
        argument, result = (ref() for ref in attributes["computed"])
        sources = [t for t in (argument, context) if tf.is_tensor(t)]
        needed = max(map(_private.tapes_of, sources), default=0)
        if self.bijector.trainable_variables:
            needed = max(needed, 1)  # A tape sees a variable when it is read.
        return needed <= _private.tapes_of(attributes["ildj"] if result is None else result)


def _copy_if_mutable(context):
    """The values of a context that is no tensor, and so may change under the same name."""
    if context is None or isinstance(context, tf.Tensor):
        return None
    if isinstance(context, tf.Variable):
        return context.numpy() if tf.executing_eagerly() else None
    return None if tf.is_tensor(context) else np.array(context)


def _last_assignment(graph):
    """How many operations a graph had when a variable was last assigned in it."""
    seen, last = _assignments.get(graph, (0, 0))
    if graph.version > seen:
        operations = graph.get_operations()
        for n, operation in enumerate(operations[seen:], start=seen + 1):
            kind = operation.type
            if kind.startswith(("Assign", "Resource")) or kind.endswith(("Call", "While", "If")):
                last = n if _private.writes_variables(operation) else last
        _assignments[graph] = len(operations), last
    return last


def _same_value(a, b):
    if a.shape != b.shape:
        return False
    # Two reads of an unchanged variable on the CPU share one buffer, and a buffer that is
    # held by `a` cannot have been reused: no need to compare the values.
    if "CPU" in a.device and _address(a) == _address(b):
        return True
    return bool(tf.reduce_all(tf.equal(a, b)))


def _address(tensor):
    # The buffer protocol gives the memory itself; `tensor.numpy()` would give a copy.
    return np.asarray(memoryview(tensor)).__array_interface__["data"][0]
