"""The root of an increasing function, entry by entry, with the gradient of the solution."""

import numpy as np
import tensorflow as tf

from tfp_flows._private import record

# A step of Newton's method that does not halve the one before gives way to a bisection. So every
# second step at least halves the bracket or the step, and this many take a bracket of 1e6 below
# the rounding of float64.
_MAX_ITERATIONS = 200


def increasing_root(function, y, parameters, bracket, *, name, max_iterations=_MAX_ITERATIONS):
    """Solves function(x, parameters)[0] = y for x, by Newton's method within a bracket.

    The bracket shrinks by the sign of each residual, and where a step of Newton's method would
    leave it or does not halve the step before, it is halved instead: from any bracket that holds
    the root the root is found. An entry is done when, with eps that of the dtype,

        |function(x) - y| <= 4 eps max(1, |y|),
        or the step of Newton's method or the bracket is no wider than 4 eps max(1, |x|),
        or steps below 64 eps max(1, |x|) shrink no more: the rest is the rounding of `function`.

    The gradient is that of the solution, by the implicit function theorem, and not of the steps
    that led there: dx/dy = 1 / f', dx/dp = -(df/dp) / f', both at x. Second derivatives are
    right as well. Runs in eager mode, in a graph and under XLA.

    Args:
      function: function of (x, parameters) that returns the value and the log of its derivative
        by x, both entry by entry. It must not depend on tensors other than its arguments.
      y: floating tensor.
      parameters: list of tensors.
      bracket: two tensors shaped as `y`, below and above the root, by rounding at most beyond it.
      name: whom an error is about.
      max_iterations: `int`.

    Returns:
      x, shaped as `y`; NaN where y, the bracket or a parameter is not finite.

    Raises:
      tf.errors.InvalidArgumentError: if an entry did not converge, with their number. Under XLA,
        which drops assertions, such entries are NaN instead.
    """
    lower, upper = (tf.stop_gradient(end) for end in bracket)

    @tf.custom_gradient
    def solve(y, *parameters):
        # A tape would prepare the derivatives of the loop, which are not used.
        with record.stop_recording():
            x = _search(function, y, parameters, lower, upper, name, max_iterations)

        def gradient(x_bar):
            # For a second derivative x has to be a function of the arguments again.
            known = solve(y, *parameters) if record.could_possibly_record() else x
            # In the gradient of a loop the arguments are those of another graph, where this tape
            # sees nothing.
            own = [tf.identity(p) for p in parameters]
            with tf.GradientTape() as tape:
                tape.watch(own)
                value, log_slope = function(known, own)
            y_bar = x_bar * tf.exp(-log_slope)
            return y_bar, *tape.gradient(
                value,
                own,
                output_gradients=-y_bar,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        return x, gradient

    return solve(y, *parameters)


def _search(function, y, parameters, lower, upper, name, max_iterations):
    eps = float(np.finfo(y.dtype.as_numpy_dtype).eps)
    # By rounding an end may lie beyond the root.
    margin = 16.0 * eps
    lower -= margin * tf.maximum(tf.abs(lower), 1.0)
    upper += margin * tf.maximum(tf.abs(upper), 1.0)
    near = 4.0 * eps * tf.maximum(tf.abs(y), 1.0)

    def body(number, x, lower, upper, step, done):
        value, log_slope = function(x, parameters)
        residual = value - y
        lower = tf.where(residual <= 0.0, x, lower)
        upper = tf.where(residual >= 0.0, x, upper)
        newton = x - residual * tf.exp(-log_slope)
        newton_step = tf.abs(newton - x)
        halves = newton_step <= 0.5 * step
        use_newton = halves & (newton >= lower) & (newton <= upper)
        following = tf.where(use_newton, newton, lower + 0.5 * (upper - lower))
        size = tf.maximum(tf.abs(x), 1.0)
        found = tf.abs(residual) <= near
        found |= newton_step <= 4.0 * eps * size
        found |= ~halves & (newton_step <= 64.0 * eps * size)
        tight = upper - lower <= 4.0 * eps * size
        following = tf.where(done | found, x, following)
        # Of no number there is no root: the result is NaN, and that is no failure to converge.
        unknown = tf.math.is_nan(residual)
        following = tf.where(unknown, residual, following)
        step = tf.where(done, step, tf.abs(following - x))
        return number + 1, following, lower, upper, step, done | found | tight | unknown

    start = lower + 0.5 * (upper - lower)
    # NaN and infinities among the arguments come out as NaN, at once.
    known = tf.math.is_finite(y) & tf.math.is_finite(start)
    start = tf.where(known, start, tf.constant(float("nan"), y.dtype))
    state = (tf.constant(0), start, lower, upper, upper - lower, ~known)
    # The bound lets XLA differentiate a loop that this one may be a part of.
    _, x, *_, done = tf.while_loop(
        lambda number, x, lower, upper, step, done: ~tf.reduce_all(done),
        body,
        state,
        maximum_iterations=max_iterations,
        parallel_iterations=1,
    )
    missed = ~done
    places = tf.where(missed if missed.shape.rank != 0 else missed[tf.newaxis])[:3]
    message = (
        f"{name}: the numeric inverse did not converge within {max_iterations} steps; entries that "
        "did not, of how many, and where the first ones are:"
    )
    return settled(x, done, message, places)


def settled(x, done, message, *more):
    """`x` where its search is done.

    Args:
      x: tensor.
      done: Boolean tensor, of a shape that broadcasts to that of `x`.
      message: what an error says before the number of entries of `done` that are false, and how
        many there are.
      *more: tensors to say after them.

    Returns:
      `x`, NaN where the search is not done, for XLA drops the assertion.

    Raises:
      tf.errors.InvalidArgumentError: unless all is done.
    """
    missed = ~done
    count = tf.math.count_nonzero(missed, dtype=tf.int32)
    check = tf.debugging.Assert(count == 0, [message, count, tf.size(missed), *more])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.where(missed, tf.constant(float("nan"), x.dtype), x)
