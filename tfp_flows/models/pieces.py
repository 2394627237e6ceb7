"""A batch in pieces, one after another: for batches whose activations do not fit into memory."""

import keras
import tensorflow as tf

from tfp_flows import _private, bijectors
from tfp_flows._checks import positive_integer


def check_size(size, distribution, networks, objective, title):
    """The most rows of a piece, or `None`.

    Args:
      size: as given to `compile`.
      distribution, networks, objective: those of the model.
      title: who asks, for messages.

    Raises:
      TypeError, ValueError: if it is no whole number of rows, or if a sum over pieces would not
        be that over the batch.
    """
    if size is None:
        return None
    size = positive_integer(size, "micro_batch_size", title)
    if objective.compares_rows:
        raise ValueError(
            f"{title}: {type(objective).__name__} compares the rows of a batch with each other, "
            "which its pieces would not be. Leave micro_batch_size out, and take a smaller batch."
        )
    parts = [p for p in distribution.submodules if isinstance(p, bijectors.BatchNorm)]
    layers = [layer for network in networks for layer in _private.layers_of(network)]
    parts += [p for p in layers if isinstance(p, keras.layers.BatchNormalization)]
    if parts:
        raise ValueError(
            f"{title}: {type(parts[0]).__name__} '{parts[0].name}' normalizes by the moments of a "
            "batch, and would by those of its pieces. Leave micro_batch_size out, or use ActNorm."
        )
    return size


def sum_over_pieces(function, batch, size):
    """The sum of what a function gives for the pieces of a batch.

    Args:
      function: of a piece, a structure like `batch`; of its number; and of how many there are
        (int64 scalars). It returns a structure of tensors of known shapes, and of `None`.
      batch: structure of tensors `[rows, ...]`, and of `None`.
      size: `int`, the most rows of a piece; all have as many, or one less.
    """
    flat = tf.nest.flatten(batch)
    there = [v for v in flat if v is not None]
    rows = tf.shape(there[0], tf.int64)[0]
    number = tf.maximum(-(-rows // size), 1)

    def piece(n):
        return [v[n * rows // number : (n + 1) * rows // number] for v in there]

    def call(values, n, number):
        values = iter(values)
        values = [v if v is None else next(values) for v in flat]
        return function(tf.nest.pack_sequence_as(batch, values), n, number)

    if tf.executing_eagerly():
        results = [call(piece(n), n, number) for n in tf.range(number)]
        return tf.nest.map_structure(lambda *r: None if r[0] is None else sum(r), *results)
    # A trace of its own, for the loop has to start from zeros of the results' shapes.
    first = tf.constant(0, tf.int64)
    specs = [tf.TensorSpec(_free(v.shape), v.dtype) for v in there]
    scalar = tf.TensorSpec([], tf.int64)
    traced = tf.function(call, autograph=False).get_concrete_function(specs, scalar, scalar)
    outputs = tf.nest.flatten(traced.structured_outputs)
    zeros = [tf.zeros(s.shape, s.dtype) for s in outputs if s is not None]

    def add(n, sums):
        results = [r for r in tf.nest.flatten(traced(piece(n), n, number)) if r is not None]
        return n + 1, [total + r for total, r in zip(sums, results, strict=True)]

    # One piece at a time is what it is for.
    _, sums = tf.while_loop(lambda n, _: n < number, add, (first, zeros), parallel_iterations=1)
    sums = iter(sums)
    return tf.nest.pack_sequence_as(
        traced.structured_outputs, [s if s is None else next(sums) for s in outputs]
    )


def _free(shape):
    """A shape whose first size is free."""
    return shape if shape.rank is None else [None, *shape[1:]]
