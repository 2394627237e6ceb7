"""The sequential direction of an autoregressive map, all entries at once, again and again."""

import tensorflow as tf

from tfp_flows._solve import settled

_NO_SECOND_DERIVATIVE = (
    "The fixed point of an autoregressive network has a first derivative alone. Leave `tolerance` "
    "out for second ones."
)


class FixedPoint:
    """Solves x = act(u; parameters(x)) for x by passes of an autoregressive network.

    Every pass takes the x of the one before. After k passes the first k entries are right, in
    whatever order the network has, and so after D of them all are. Most networks depend little on
    most of what came before, and are there much sooner: a row is done when a pass changes no entry
    by more than `tolerance * max(1, |entry|)`, and left as it is then.

    The gradient is that of the solution, by the implicit function theorem: its adjoint is a fixed
    point as well, found by as many passes forward and back, in the memory of one.

    Args:
      network: `Network` of an autoregressive layer.
      act: function of (u, network's output) that returns x and its elementwise log-det.
      event_shape: tuple of `int`.
      size: their product, D.
      tolerance: `float > 0`.
      max_passes: `int >= 1`, or `None` for D.
      title: who asks.
    """

    def __init__(self, network, act, event_shape, *, size, tolerance, max_passes, title):
        self._network, self._act = network, act
        self._axes = list(range(-len(event_shape), 0))
        self._size, self._tolerance = size, tolerance
        self._most = size if max_passes is None else min(size, max_passes)
        self._title = title

    def __call__(self, u, context):
        """Returns x and its elementwise log-det, for `u` with any batch dimensions."""
        found = self._iterate(lambda x: self._pass(u, x, context)[0], u, tf.ones_like(u))
        rest = self._pass(u, found, context)[0] - found
        # One pass more, whose gradient is that of the solution.
        x = found + self._with_gradient_of_solution(rest, u, found, context)
        return x, self._pass(u, x, context)[1]

    def _pass(self, u, x, context):
        # Entries that are not right yet may be anything, and must not turn the network's sums
        # into NaN, which masks do not stop: 0 * inf is NaN.
        x = tf.where(tf.math.is_finite(x), x, tf.zeros([], x.dtype))
        return self._act(u, self._network(x, context))

    def _with_gradient_of_solution(self, rest, u, found, context):
        """`rest`, with the gradient of (I - J)^-1 rest, J that of a pass by x."""

        @tf.custom_gradient
        def solve(rest):
            def gradient(bar):
                def act(a):
                    with tf.GradientTape() as tape:
                        tape.watch(found)
                        x, _ = self._pass(u, found, context)
                    zero = tf.UnconnectedGradients.ZERO
                    return bar + tape.gradient(x, found, a, unconnected_gradients=zero)

                largest = tf.reduce_max(tf.abs(bar), axis=self._axes, keepdims=True)
                a = self._iterate(act, bar, tf.broadcast_to(largest, tf.shape(bar)))
                return tf.raw_ops.PreventGradient(input=a, message=_NO_SECOND_DERIVATIVE)

            return tf.identity(rest), gradient

        return solve(rest)

    def _iterate(self, act, like, least):
        """The fixed point of `act` from zeros; `least`: which entries count as no smaller."""

        def body(number, x, done):
            following = act(x)
            change = tf.abs(following - x)
            # Not `>`: of NaN nothing is known.
            near = change <= self._tolerance * tf.maximum(tf.abs(following), least)
            near = tf.reduce_all(near, axis=self._axes, keepdims=True)
            x = tf.ensure_shape(tf.where(done, x, following), like.shape)
            return number + 1, x, tf.ensure_shape(done | near, undone.shape)

        undone = tf.reduce_any(like != like, axis=self._axes, keepdims=True) & False
        number, x, done = tf.while_loop(
            lambda number, x, done: ~tf.reduce_all(done),
            body,
            (tf.constant(0), tf.zeros_like(like), undone),
            maximum_iterations=self._most,
            parallel_iterations=1,
        )
        done |= number >= self._size
        message = (
            f"{self._title}: the sequential direction did not converge within {self._most} passes "
            f"to a tolerance of {self._tolerance:g}. {self._size} passes are always enough: leave "
            "`max_passes` out. Rows that did not, of how many:"
        )
        return tf.stop_gradient(settled(x, done, message))
