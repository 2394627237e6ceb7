"""Runge-Kutta methods of which each row has its own steps, differentiated step by step."""

import numpy as np
import tensorflow as tf

from tfp_flows._solve import settled

# Nodes, rows, weights of the solution and of the estimated error, the last of which is for the
# derivative at the new point.
_METHODS = {
    "rk4": (
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
        None,
    ),
    # Dormand and Prince, 1980, table 2.
    "dopri5": (
        (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0),
        (
            (),
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        ),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
        (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40),
    ),
}
METHODS = tuple(_METHODS)
_ORDER = 5
_FIRST_STEP = 0.1
_NO_SECOND_DERIVATIVE = (
    "Continuous: second derivatives through an ODE solver are not computed. Leave out the outer "
    "gradient, or take a flow with closed directions."
)


def integrate(field, x, arguments, *, method, num_steps, tolerances, name):
    """Goes from s = 0 to s = 1 along dx/ds = f(s, x), dl/ds = g(s, x), l(0) = 0.

    The gradient is that of the steps that were taken, exactly: the state before each step is kept,
    and the step is computed again on the way back. The sizes of the steps count as constants.

    Args:
      field: function of s `[n]`, x `[n, *event]` and a list of tensors that returns f, of the
        shape of x, and g `[n]`. It must depend on no other tensors.
      x: tensor `[n, *event]`.
      arguments: list of tensors, those that the field is given.
      method: one of `METHODS`; the first has `num_steps` equal steps, the second adapts each
        row's to the tolerances, with at most `num_steps` tries.
      num_steps: `int >= 1`.
      tolerances: relative and absolute one.
      name: whom an error is about.

    Returns:
      x(1), l(1), and the number of evaluations of the field that each row took, `[n]`.

    Raises:
      tf.errors.InvalidArgumentError: if rows did not reach s = 1, with their number. Under XLA,
        which drops assertions, they are NaN instead.
    """
    tableau = _METHODS[method]
    search = _fixed if tableau[-1] is None else _adaptive

    @tf.custom_gradient
    def solve(x, *arguments):
        # No tape is to see the loop: a `stop_recording` would blind the tapes of the field as well.
        x, *arguments = map(tf.stop_gradient, (x, *arguments))
        end, log_det, count, evaluations, taken = search(
            field, x, arguments, tableau, num_steps, tolerances, name
        )

        def gradient(x_bar, log_det_bar, _):
            return _backward(field, arguments, tableau, count, taken, x_bar, log_det_bar)

        return (end, log_det, evaluations), gradient

    return solve(x, *arguments)


def _step(field, tableau, s, h, x, arguments, first=None):
    """One step of the solution: x and l after it, and the stages."""
    nodes, rows, weights, _ = tableau
    stages = []
    for node, row in zip(nodes, rows, strict=True):
        if not row and first is not None:
            stages.append(first)
            continue
        inner = x + _wide(h, x) * _sum(row, [f for f, _ in stages]) if row else x
        stages.append(field(s + node * h, inner, arguments))
    end = x + _wide(h, x) * _sum(weights, [f for f, _ in stages])
    return end, h * _sum(weights, [g for _, g in stages]), stages


def _fixed(field, x, arguments, tableau, num_steps, tolerances, name):
    del tolerances, name
    rows = tf.shape(x)[0]
    h = tf.fill([rows], tf.constant(1.0 / num_steps, x.dtype))
    states = _array(num_steps, x)

    def body(number, x, log_det, states):
        states = states.write(number, x)
        s = tf.cast(number, x.dtype) * h
        end, added, _ = _step(field, tableau, s, h, x, arguments)
        return number + 1, tf.ensure_shape(end, x.shape), log_det + added, states

    start = (tf.constant(0), x, tf.zeros_like(h), states)
    count, end, log_det, states = _loop(lambda number, *_: number < num_steps, body, start)
    starts = tf.range(num_steps, dtype=tf.int32)[:, tf.newaxis]
    taken = states.stack(), tf.cast(starts, x.dtype) * h, tf.tile(h[tf.newaxis], [num_steps, 1])
    evaluations = tf.fill([rows], num_steps * len(tableau[0]))
    return end, log_det, count, evaluations, taken


def _adaptive(field, x, arguments, tableau, num_steps, tolerances, name):
    zeros = tf.zeros(tf.shape(x)[:1], x.dtype)
    arrays = _array(num_steps, x), _array(num_steps, zeros), _array(num_steps, zeros)
    error_weights = tableau[-1]
    relative, absolute = tolerances

    def body(number, s, h, x, log_det, f, g, done, tries, states, starts, sizes):
        h = tf.minimum(h, 1.0 - s)
        end, added, stages = _step(field, tableau, s, h, x, arguments, first=(f, g))
        # The last stage is the first one of the next step.
        following = field(s + h, end, arguments)
        stages.append(following)
        error = _wide(h, x) * _sum(error_weights, [stage[0] for stage in stages])
        scale = absolute + relative * tf.maximum(tf.abs(x), tf.abs(end))
        total = tf.reduce_sum(tf.square(error / scale), axis=list(range(1, x.shape.rank)))
        total /= float(np.prod(x.shape[1:]))
        error = h * _sum(error_weights, [stage[1] for stage in stages])
        after = log_det + added
        scale = absolute + relative * tf.maximum(tf.abs(log_det), tf.abs(after))
        ratio = tf.sqrt(tf.maximum(total, tf.square(error / scale)))
        # Values that are not finite come out as NaN, at once.
        unknown = ~tf.math.is_finite(ratio) & ~done
        accepted = (ratio <= 1.0) & ~done
        states = states.write(number, x)
        starts = starts.write(number, s)
        sizes = sizes.write(number, tf.where(accepted, h, tf.zeros_like(h)))
        tries += tf.cast(~done, tf.int32)
        wide = _wide(accepted, x)
        x = tf.where(wide, end, x)
        x = tf.where(_wide(unknown, x), tf.constant(float("nan"), x.dtype), x)
        log_det = tf.where(accepted, after, log_det)
        f, g = tf.where(wide, following[0], f), tf.where(accepted, following[1], g)
        last = s + h >= 1.0
        s = tf.where(accepted, s + h, s)
        done |= (accepted & last) | unknown
        factor = 0.9 * tf.maximum(ratio, 1e-10) ** (-1.0 / _ORDER)
        h *= tf.clip_by_value(tf.where(unknown, tf.ones_like(factor), factor), 0.2, 10.0)
        return number + 1, s, h, x, log_det, f, g, done, tries, states, starts, sizes

    first = field(zeros, x, arguments)
    start = (
        *(tf.constant(0), zeros, zeros + _FIRST_STEP, x, zeros, *first),
        *(zeros > 0.0, tf.cast(zeros, tf.int32), *arrays),
    )
    count, *_, end, log_det, _, _, done, tries, states, starts, sizes = _loop(
        lambda number, *state: (number < num_steps) & ~tf.reduce_all(state[6]), body, start
    )
    message = (
        f"{name}: the ODE solver did not reach the end within {num_steps} steps; rows that did "
        "not, of how many, and which the first ones are:"
    )
    end = settled(end, _wide(done, end), message, tf.where(~done)[:3, 0])
    taken = states.stack(), starts.stack(), sizes.stack()
    return end, log_det, count, 1 + (len(error_weights) - 1) * tries, taken


def _backward(field, arguments, tableau, count, taken, x_bar, log_det_bar):
    """The gradients by x(0) and by the arguments."""
    states, starts, sizes = taken

    def body(number, x_bar, *totals):
        n = number - 1
        x, s, h = states[n], starts[n], sizes[n]
        with tf.GradientTape() as tape:
            tape.watch([x, *arguments])
            end, added, _ = _step(field, tableau, s, h, x, arguments)
        x_bar, *more = tape.gradient(
            [end, added],
            [x, *arguments],
            output_gradients=[x_bar, log_det_bar],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return n, x_bar, *(total + g for total, g in zip(totals, more, strict=True))

    start = (count, x_bar, *map(tf.zeros_like, arguments))
    _, *gradients = _loop(lambda number, *_: number > 0, body, start)
    return [tf.raw_ops.PreventGradient(input=g, message=_NO_SECOND_DERIVATIVE) for g in gradients]


def _loop(condition, body, start):
    return tf.while_loop(condition, body, start, parallel_iterations=1)


def _array(size, element):
    return tf.TensorArray(element.dtype, size=size, element_shape=element.shape)


def _wide(row, x):
    """A number for each row, as it multiplies events."""
    return tf.reshape(row, tf.concat([tf.shape(row), [1] * (x.shape.rank - 1)], axis=0))


def _sum(weights, values):
    return tf.add_n([w * v for w, v in zip(weights, values, strict=True) if w != 0.0])
