"""The sequential direction of an autoregressive map, one step of its network after another.

A network that maps an event to parameters of every entry, each from the entries before it, can be
inverted by calling it once for each of the D entries. Most of what those D calls compute they have
computed before. A network that keeps what it needs again, a WaveNet the values of its layers some
steps ago, a transformer its keys and values, gets from one step to the next at the cost of one
position. It offers

    num_steps           `int` S
    step_entries        int array `[S, k]`, a permutation of 0..D - 1: the entries, of the
                        flattened event, whose parameters step s gives; they depend on no entry
                        of their own step or of a later one
    init_cache(n, context, dtype)
                        what the network knows of n rows before the first step: any nest of
                        tensors and `tf.TensorArray`s
    step(cache, s, previous)
                        from the entries of step s - 1, `previous` `[n, k]` (zeros at s = 0), the
                        parameters of those of step s, `[n, P, k]`, and the new cache, of the same
                        structure and shapes

`n` is an `int`, or a scalar tensor where the batch size is free; `s` a scalar int32 tensor; the
context is what the network's `call` takes, n rows of it. All are of `dtype`, float32 or float64,
also where `call` computes in bfloat16. `step` must give what `call` gives: `validate_args` of the
bijectors and `testing.assert_bijector` compare the two.

Where what a step does depends on its place in a cycle, as that of a channel in a pixel, the network
may offer a divisor of S, `cycle`. It is then told the place, s modulo `cycle`, as a Python integer:
`step(cache, s, previous, phase=place)`.

>>> import keras
>>> from tfp_flows import bijectors
>>> class AfterTheLast(keras.layers.Layer):
...     num_steps, step_entries = 4, [[0], [1], [2], [3]]
...     def build(self, shape):
...         self.slope = self.add_weight(name="slope", shape=(), initializer="ones")
...     def call(self, x):
...         return self.slope * tf.pad(x[:, :-1], [[0, 0], [1, 0]])
...     def init_cache(self, n, context, dtype):
...         return ()  # `previous` is all that it needs
...     def step(self, cache, s, previous):
...         return self.slope * previous[:, tf.newaxis], cache
>>> walk = bijectors.MaskedAutoregressive(AfterTheLast(), "shift", size=4, validate_args=True)
>>> walk.forward(tf.ones([1, 4])).numpy()
array([[1., 2., 3., 4.]], dtype=float32)

`conditioners.WaveNet` is one to read.

The rest is one `tf.while_loop`: its graph does not grow with S, XLA compiles it, and its gradient
is that of the differentiated loop, which keeps the values of all steps: four to five times the
time of the sweep itself, and the memory of S steps.
"""

import functools

import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.modes import substitutes

_PARTS = ("num_steps", "step_entries", "init_cache", "step")


def missing_parts(layer):
    """What a layer lacks to be run step by step."""
    return [name for name in _PARTS if not hasattr(layer, name)]


def entries_of(layer, size, title):
    """The `step_entries` of a layer for events of `size` entries, checked.

    Raises:
      ValueError: if they are no permutation, or not as many as `num_steps`.
    """
    entries = np.asarray(layer.step_entries)
    if entries.ndim != 2 or not np.array_equal(np.sort(entries, axis=None), np.arange(size)):
        raise ValueError(
            f"{title}: step_entries of '{layer.name}' must be an array [num_steps, k] with each of "
            f"the {size} entries once, got one of shape {list(entries.shape)}."
        )
    if len(entries) != layer.num_steps:
        raise ValueError(
            f"{title}: '{layer.name}' has {layer.num_steps} num_steps, but step_entries of "
            f"{len(entries)} steps. They must be equal."
        )
    cycle = positive_integer(getattr(layer, "cycle", 1), f"cycle of '{layer.name}'", title)
    if len(entries) % cycle:
        raise ValueError(
            f"{title}: '{layer.name}' has a cycle of {cycle}, which must divide its "
            f"{len(entries)} steps."
        )
    return entries.astype(np.int32)


def places_of(layer, event_shape, title):
    """The step that gives each entry its parameters, an int array of the event shape.

    Entries of one step do not depend on each other. `None` for a layer that has no steps.
    """
    if missing_parts(layer):
        return None
    entries = entries_of(layer, int(np.prod(event_shape)), title)
    places = np.empty(entries.size, np.int32)
    places[entries] = np.arange(len(entries))[:, np.newaxis]
    return places.reshape(event_shape)


def comes_first(places, given):
    """Whether in no row of a mask a given entry comes after one that is not.

    Args:
      places: int array of the event shape.
      given: Boolean, `[..., *event_shape]`.
    """
    axes = tuple(range(-places.ndim, 0))
    last = np.where(given, places, -1).max(axis=axes)
    first = np.where(given, places.max() + 1, places).min(axis=axes)
    return bool((last <= first).all())


def run(layer, drive, act, context, *, num_parameters, title):
    """Runs a layer step by step.

    Args:
      layer: what the module's docstring describes.
      drive: tensor `[n, D]`, or `[n, D, m]`: what `act` is given of each entry.
      act: function of (drive `[n, k]` or `[n, k, m]`, list of P parameters `[n, k]`) that returns a
        list of tensors `[n, k]`, of which the first is fed to the next step.
      context: n rows of it, or `None`.
      num_parameters: P.
      title: who asks.

    Returns:
      A list of tensors `[n, D]`, what `act` has returned of each entry.

    Raises:
      ValueError: if a step gives parameters of another shape.
    """
    entries = np.asarray(layer.step_entries, np.int32)
    steps, width = entries.shape
    order = entries.reshape(-1)
    in_order = np.array_equal(order, np.arange(len(order)))
    n = tf.shape(drive)[0] if drive.shape[0] is None else drive.shape[0]
    driven = drive if in_order else tf.gather(drive, order, axis=1)
    driven = tf.reshape(driven, [n, steps, width, *drive.shape[2:]])
    driven = tf.transpose(driven, [1, 0, *range(2, driven.shape.rank)])
    cycle, count = getattr(layer, "cycle", None), None
    told = [{}] if cycle is None else [{"phase": phase} for phase in range(cycle)]

    def body(s, previous, cache, results):
        nonlocal count
        for phase in told:
            parameters, cache = layer.step(cache, s, previous, **phase)
            if not parameters.shape.is_compatible_with([None, num_parameters, width]):
                raise ValueError(
                    f"{title}: a step of '{layer.name}' must give parameters of shape [n, "
                    f"{num_parameters}, {width}], got {parameters.shape}."
                )
            parameters = tf.unstack(tf.cast(parameters, drive.dtype), num=num_parameters, axis=1)
            found = act(driven[s], parameters)
            count = len(found)
            s, previous, results = s + 1, found[0], results.write(s, tf.stack(found))
        return s, previous, cache, results

    state = (
        tf.constant(0),
        tf.zeros([n, width], drive.dtype),
        layer.init_cache(n, context, drive.dtype),
        tf.TensorArray(drive.dtype, size=steps),
    )
    # The bound lets XLA differentiate the loop.
    *_, results = tf.while_loop(
        lambda s, *_: s < steps,
        body,
        state,
        maximum_iterations=steps // len(told),
        parallel_iterations=1,
    )
    results = tf.transpose(results.stack(), [1, 2, 0, 3])  # [count, n, steps, width]
    results = tf.reshape(results, [count, n, len(order)])
    if not in_order:
        results = tf.gather(results, np.argsort(order).astype(np.int32), axis=2)
    return tf.unstack(results)


class Stepwise:
    """The sequential direction of an autoregressive bijector around a stepwise network.

    Solves x_i = act(u_i; parameters_i(x_1, ..., x_{i-1})) for x, with its elementwise log-det.

    Args:
      network: `Network` of a layer that the module's docstring describes.
      elementwise: the elementwise map.
      event_shape: tuple of `int`.
      forward: whether the map is applied forward to get x from u, or backward.
      title: who asks.
    """

    def __init__(self, network, elementwise, event_shape, *, forward, title):
        self._network = network
        self._rest = {"num_parameters": elementwise.num_parameters, "title": title}
        # The unchecked map: of parameters that come one by one, shaped as the argument.
        self._act = elementwise._forward if forward else elementwise._inverse
        self._event_shape = event_shape
        self._compiled = None

    def __call__(self, u, context):
        """Returns x and its elementwise log-det, for `u` with any batch dimensions."""
        batch = tf.shape(u)[: u.shape.rank - len(self._event_shape)]

        def rows(tensor, shape):
            whole = tf.broadcast_to(tensor, tf.concat([batch, shape], 0))
            return tf.reshape(whole, [-1, *shape])

        size = int(np.prod(self._event_shape))
        context = contexts.each(rows, context, self._network.context_shapes)
        if u.shape.rank == 1 + len(self._event_shape) and u.shape[0] is not None:
            flat = tf.reshape(u, [u.shape[0], size])
        else:
            flat = tf.reshape(u, [-1, size])
        arguments = [flat] if context is None else [flat, context]
        solve = self._solve
        # Run from Python, thousands of small steps take long. But a trace would keep the values
        # that `reading` puts in.
        if tf.executing_eagerly() and not substitutes():
            if self._compiled is None:
                signature = tf.nest.map_structure(
                    lambda t: tf.TensorSpec([None, *t.shape[1:]], t.dtype), arguments
                )
                self._compiled = tf.function(
                    functools.partial(solve), input_signature=signature, autograph=False
                )
            solve = self._compiled
        return [tf.ensure_shape(tf.reshape(t, tf.shape(u)), u.shape) for t in solve(*arguments)]

    def _solve(self, u, context=None):
        return run(self._network.layer, u, self._act, context, **self._rest)
