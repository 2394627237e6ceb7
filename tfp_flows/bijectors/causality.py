"""Whether a network is autoregressive, and whether its steps give what its call gives."""

import contextlib
import functools

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import stepwise

# Entries that are changed one by one, of a network whose order is known.
_MOST_CHANGED = 64


def check_autoregressive(network, event_shape, dtype, title):
    """Raises unless a network's parameters of each entry depend on earlier entries alone.

    Earlier in the order of its `step_entries`, if it has them, and then its steps must give the
    parameters of its call; else in some order. Weights are replaced by random ones for the time of
    the check: with the initial ones, whose last layer is zero, nothing depends on anything.

    Args:
      network: `Network`.
      event_shape: tuple of `int`.
      dtype: dtype of the events.
      title: who asks.

    Raises:
      ValueError: naming the entries.
    """
    rng = np.random.default_rng(0)
    size, layer = int(np.prod(event_shape)), network.layer
    steps = None
    changed = np.arange(size)
    if not stepwise.missing_parts(layer):
        steps = np.empty(size, np.int32)  # of each entry
        for step, entries in enumerate(stepwise.entries_of(layer, size, title)):
            steps[entries] = step
        changed = np.sort(rng.permutation(size)[:_MOST_CHANGED])
    with tf.init_scope(), _random_weights(network, rng):
        # The first row against rows that differ from it in one entry each.
        x = np.tile(rng.normal(size=size), (len(changed) + 1, 1))
        x[np.arange(len(changed)) + 1, changed] += rng.normal(size=len(changed), loc=2.0)
        shapes = network.context_shapes
        context = contexts.each(
            lambda _, shape: tf.constant(rng.normal(size=(1, *(n or 4 for n in shape))), dtype),
            shapes,
            shapes,
        )
        events = tf.constant(x.reshape(-1, *event_shape), dtype)
        out = network(events, context).numpy()
        # Parameter-major in the last axis: `[rows, parameters, entries]`.
        parameters = out.shape[-1] // event_shape[-1]
        out = out.reshape(len(x), -1, parameters, event_shape[-1])
        out = out.transpose(0, 2, 1, 3).reshape(len(x), parameters, size)
        # Rows that are equal need not come out equal: they are summed in different orders.
        differs = np.abs(out[1:] - out[0]) > _rounding(out, layer)
        depends = differs.any(axis=1)  # [of changed entry, for entry]
        if steps is None:
            _check_some_order(depends, layer, title)
        else:
            _check_order(depends, changed, steps, layer, title)
            _check_steps(network, events[:2], context, out[:2], title)


def _check_order(depends, changed, steps, layer, title):
    """Raises if parameters of a step depend on an entry that was changed in it or later."""
    early = np.argwhere(depends & (steps[changed][:, np.newaxis] >= steps[np.newaxis]))
    if len(early):
        i, j = changed[early[0, 0]], early[0, 1]
        raise ValueError(
            f"{title}: the conditioner '{layer.name}' is not autoregressive: the parameters of "
            f"entry {j}, which step {steps[j]} gives, depend on entry {i} of step {steps[i]}. "
            "Shift its input by one step, or mask it."
        )


def _check_steps(network, x, context, wanted, title):
    """Raises unless the steps of a network, fed with `x`, give the parameters of its call."""
    flat = tf.reshape(x, [len(x), -1])
    rows = contexts.each(lambda c, _: tf.repeat(c, len(x), axis=0), context, network.context_shapes)
    with network.reading():
        run = functools.partial(
            stepwise.run,
            network.layer,
            flat,
            lambda fed, parameters: [fed, *parameters],
            rows,
            num_parameters=wanted.shape[1],
            title=title,
        )
        got = tf.stack(tf.function(run, autograph=False)()[1:], axis=1).numpy()
    error = np.abs(got - wanted)
    # Not `>`: NaN is no agreement.
    wrong = ~(error <= _rounding(wanted, network.layer)).all(axis=(0, 1))
    if wrong.any():
        first = next(e for step in network.layer.step_entries for e in step if wrong[e])
        raise ValueError(
            f"{title}: step and call of '{network.layer.name}' disagree: about {wrong.sum()} of "
            f"{len(wrong)} entries, in the order of the steps first about entry {first}, by "
            f"{error[..., first].max():.2g}. `step` must give the parameters that `call` gives."
        )


def _check_some_order(depends, layer, title):
    """Raises unless there is an order in which every entry depends on those before it alone."""
    own = np.flatnonzero(np.diag(depends))
    if len(own):
        raise ValueError(
            f"{title}: the conditioner '{layer.name}' is not autoregressive: the "
            f"parameters of entry {own[0]} depend on entry {own[0]} itself. Use "
            "conditioners.MADE, or mask it."
        )
    rest = np.arange(len(depends))
    while len(rest):
        # Entries whose parameters depend on none of the rest come next in the order.
        free = ~depends[np.ix_(rest, rest)].any(axis=0)
        if not free.any():
            raise ValueError(
                f"{title}: the conditioner '{layer.name}' is not autoregressive: entries "
                f"{rest[:5].tolist()} depend on each other in a circle. Use conditioners.MADE, or "
                "mask it."
            )
        rest = rest[~free]


def _rounding(out, layer):
    half = {"bfloat16": 2.0**-3, "float16": 2.0**-6}
    share = half.get(layer.compute_dtype, 1e3 * np.finfo(out.dtype).eps)
    return share * np.abs(out).max()


@contextlib.contextmanager
def _random_weights(network, rng):
    trainable = [v for v in network.variables if v.trainable]
    kept = [tf.identity(v) for v in trainable]
    try:
        for v in trainable:
            scale = 1.0 / np.sqrt(max(1, np.prod(v.shape[:-1] if v.shape.rank > 1 else v.shape)))
            v.assign(tf.cast(rng.normal(size=v.shape, scale=scale), v.dtype))
        yield
    finally:
        for v, old in zip(trainable, kept, strict=True):
            v.assign(old)
