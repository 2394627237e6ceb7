"""Checks of what a bijector computes."""

import functools

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import FlowBijector
from tfp_flows.testing.subject import BACK, DIRECTIONS, expect, expect_close


def round_trips(subject):
    """There and back, from points of the domain and from independent ones of the codomain.

    Of one that has one direction: there.
    """
    for direction in subject.directions:
        start = subject.points(direction)
        there = subject.call(direction, start)
        expect(
            np.isfinite(there.numpy()).all(), f"{direction}(...) gives values that are not finite"
        )
        if BACK[direction] not in subject.directions:
            continue
        expect_close(
            subject.call(BACK[direction], there),
            start,
            subject.round_trip_tolerance,
            f"{BACK[direction]}({direction}(...)) is not its argument",
        )


def other_direction_is_refused(subject):
    """A direction that does not exist raises a NotImplementedError, and gives no value."""
    for direction in set(DIRECTIONS) - set(subject.directions):
        points = subject.points(direction)
        for what, act in (("", subject.call), (" log-det", subject.log_det)):
            try:
                act(direction, points)
            except NotImplementedError:
                continue
            raise AssertionError(
                f"the {direction}{what} gives a value, but is not among the directions "
                f"{list(subject.directions)}. Raise a NotImplementedError that says what to use."
            )


def log_det_is_reduced(subject):
    """The log-det has the batch shape, and sums over further event axes."""
    for direction in subject.directions:
        points = subject.points(direction)
        log_det = subject.log_det(direction, points)
        # TFP's own leave the batch shape out of a constant; a FlowBijector does not.
        is_stock = not isinstance(subject.bijector, FlowBijector)
        if is_stock and subject.bijector.is_constant_jacobian and log_det.shape.rank == 0:
            log_det = tf.broadcast_to(log_det, points.shape[:1])
        expect(
            log_det.shape == points.shape[:1],
            f"the {direction} log-det has shape {log_det.shape}, expected {points.shape[:1]}: sum "
            "it over the event, `tf.reduce_sum(log_det, axis=list(range(-event_ndims, 0)))`, or "
            "return a scalar where it does not depend on the argument",
        )
        if subject.context is not None:
            continue
        act = getattr(subject.bijector, f"{direction}_log_det_jacobian")
        whole = act(tf.identity(points), event_ndims=subject.event_ndims[direction] + 1)
        expect_close(
            whole,
            tf.reduce_sum(log_det),
            1e-5,
            f"the {direction} log-det with one more event axis is not the sum over it",
        )


def log_det_matches_autodiff(subject):
    """Both log-dets against `slogdet` of the autodiff Jacobian."""
    for direction in subject.directions:
        points = subject.points(direction)
        wanted = np.linalg.slogdet(_jacobian_in_float64(subject, direction))[1]
        # Asked for alone and after the value: TFP takes a different way for each.
        alone = subject.log_det(direction, points)
        value = tf.identity(points)
        image = getattr(subject.bijector, direction)(value, **subject.kwargs)
        after = getattr(subject.bijector, f"{direction}_log_det_jacobian")(
            value, event_ndims=subject.event_ndims[direction], **subject.kwargs
        )
        back = getattr(subject.bijector, f"{BACK[direction]}_log_det_jacobian")(
            image, event_ndims=subject.event_ndims[BACK[direction]], **subject.kwargs
        )
        for what, got in (("", alone), (" after the value", after), (" of the result", -back)):
            expect_close(
                got,
                wanted,
                subject.log_det_tolerance,
                f"the {direction} log-det{what} is not that of the autodiff Jacobian",
            )


def jacobian_zero_pattern(subject):
    """Entries of the Jacobian that are declared zero are exactly zero."""
    if subject.zero_pattern is None:
        return
    jacobian = _jacobian(subject, "forward")
    pattern = np.asarray(subject.zero_pattern)
    expect(
        pattern.shape == jacobian.shape[1:],
        f"zero_pattern has shape {pattern.shape}, the Jacobian {jacobian.shape[1:]}",
    )
    leaks = np.argwhere((jacobian != 0).any(axis=0) & pattern)
    expect(not len(leaks), f"dy_i/dx_j is not zero for (i, j) = {leaks[:5].tolist()}")
    dependent = (jacobian != 0).any(axis=0) | pattern
    expect(
        dependent.all(),
        f"dy_i/dx_j is zero for (i, j) = {np.argwhere(~dependent)[:5].tolist()}, which "
        "zero_pattern does not declare",
    )


def gradients_reach_every_weight(subject):
    """Value and log-det together have a finite gradient for every trainable weight."""
    variables = subject.bijector.trainable_variables
    for direction in subject.directions:
        points = tf.identity(subject.points(direction))
        with tf.GradientTape() as tape:
            tape.watch(points)
            value = subject.call(direction, points)
            weights = tf.constant(subject.rng.normal(size=value.shape), value.dtype)
            log_det = subject.log_det(direction, points)
            target = tf.reduce_sum(value * weights) + tf.reduce_sum(log_det)
        gradients = tape.gradient(target, [points, *variables])
        for what, gradient in zip(["the argument", *variables], gradients, strict=True):
            name = what if isinstance(what, str) else what.name
            expect(gradient is not None, f"{direction}: no gradient reaches {name}")
            gradient = tf.convert_to_tensor(gradient).numpy()
            expect(np.isfinite(gradient).all(), f"{direction}: gradient of {name} is not finite")
            expect((gradient != 0).any(), f"{direction}: gradient of {name} is zero throughout")


def batch_shapes_agree(subject):
    """No batch axis, one, and two give the same, row by row."""
    for direction in subject.directions:
        points = subject.points(direction)
        log_dets = tf.broadcast_to(subject.log_det(direction, points), points.shape[:1])
        wanted = subject.call(direction, points), log_dets
        tolerance = subject.round_trip_tolerance
        row = {} if subject.context is None else {"context": subject.context[1]}
        expect_close(
            subject.call(direction, points[1], **row),
            wanted[0][1],
            tolerance,
            f"{direction} of one event without a batch axis",
        )
        expect_close(
            subject.log_det(direction, points[1], **row),
            wanted[1][1],
            tolerance,
            f"{direction} log-det of one event without a batch axis",
        )
        twice = tf.stack([points, points[::-1]])
        both = {}
        if subject.context is not None:
            both = {"context": tf.stack([subject.context, subject.context[::-1]])}
        for what, act, one in (
            ("", subject.call, wanted[0]),
            (" log-det", subject.log_det, wanted[1]),
        ):
            expect_close(
                act(direction, twice, **both),
                tf.stack([one, one[::-1]]),
                tolerance,
                f"{direction}{what} with two batch axes",
            )


def event_shapes_agree(subject):
    """The event shapes that the bijector announces are those of its results."""
    for direction in subject.directions:
        points = subject.points(direction)
        wanted = subject.call(direction, points).shape[1:].as_list()
        argument = points.shape[1:]
        bijector = subject.bijector
        static = getattr(bijector, f"{direction}_event_shape")(argument)
        dynamic = getattr(bijector, f"{direction}_event_shape_tensor")(argument.as_list())
        for what, got in (("", static.as_list()), ("_tensor", np.asarray(dynamic).tolist())):
            expect(
                got == wanted,
                f"{direction}_event_shape{what} is {got}, the result's event shape {wanted}",
            )


def context_matters(subject):
    """Each row's value or log-det depends on its context, and on no other row's."""
    if subject.context is None:
        return
    noise = tf.constant(subject.rng.normal(size=subject.context.shape), subject.context.dtype)
    first = np.arange(len(subject.x)) == 0
    first = first.reshape([-1] + [1] * (subject.context.shape.rank - 1))
    changed = tf.where(first, subject.context + noise, subject.context)
    for direction in subject.directions:
        points = subject.points(direction)
        differs = np.zeros(len(points), bool)
        for act in (subject.call, subject.log_det):
            before, after = act(direction, points), act(direction, points, context=changed)
            difference = np.abs(after - before).reshape(len(points), -1).max(axis=1)
            differs |= difference > 0
            expect(
                (difference[1:] <= subject.round_trip_tolerance * (1 + np.abs(before).max())).all(),
                f"{direction}: the context of one row changes another row",
            )
        expect(differs[0], f"{direction} ignores the context")


def modes_agree(subject):
    """Eager, graph, XLA, and graph with an unknown batch size give the same."""
    modes = {"tf.function": {}, "an unknown batch size": {}}
    if subject.xla:
        modes["jit_compile=True"] = {"jit_compile": True}
    for direction in subject.directions:
        points = subject.points(direction)
        arguments = [points] if subject.context is None else [points, subject.context]
        wanted = subject.call(direction, points), subject.log_det(direction, points)

        def both(value, *context, direction=direction):
            kwargs = {"context": context[0]} if context else {}
            result = getattr(subject.bijector, direction)(value, **kwargs)
            log_det = getattr(subject.bijector, f"{direction}_log_det_jacobian")(
                value, event_ndims=subject.event_ndims[direction], **kwargs
            )
            return result, log_det

        for mode, options in modes.items():
            if mode == "an unknown batch size":
                options = {
                    "input_signature": [
                        tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arguments
                    ]
                }
            # A partial: TensorFlow would count the traces of them all together, and warn.
            got = tf.function(functools.partial(both), **options)(*arguments)
            for what, a, b in zip(("", " log-det"), got, wanted, strict=True):
                expect_close(
                    a,
                    b,
                    max(subject.round_trip_tolerance, subject.log_det_tolerance),
                    f"{direction}{what} differs between eager mode and {mode}",
                )


def _jacobian_in_float64(subject, direction):
    """The Jacobian of the float64 twin at the same points, if there is one."""
    if subject.reference is None or subject.dtype == "float64":
        return _jacobian(subject, direction)
    twin = subject.reference
    for variable, double in zip(subject.bijector.variables, twin.bijector.variables, strict=True):
        double.assign(tf.cast(variable, double.dtype))
    points = tf.cast(subject.points(direction), tf.float64)
    return _jacobian(twin, direction, points)


def _jacobian(subject, direction, points=None):
    """Jacobians `[n, size of result, size of argument]` by one reverse pass a result entry."""
    points = tf.identity(subject.points(direction) if points is None else points)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        image = subject.call(direction, points)
        flat = tf.reshape(image, [image.shape[0], -1])
        entries = tf.unstack(flat, axis=1)
    rows = [
        tape.gradient(e, points, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for e in entries
    ]
    rows = [tf.reshape(row, [row.shape[0], -1]) for row in rows]
    return tf.stack(rows, axis=1).numpy()
