"""Residual flows."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer, positive_number
from tfp_flows._solve import settled
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._estimated import Estimated
from tfp_flows.bijectors.modes import log_dets_matter
from tfp_flows.bijectors.network import Network

_NO_SECOND_DERIVATIVE = (
    "Residual: second derivatives through its inverse are not computed. Leave out the outer "
    "gradient, or take the direction that is closed."
)


class Residual(Estimated):
    """Adds to an event a network's output that moves less than the event does.

        forward:  y = x + g(x, context)
        inverse:  numeric; the fixed point of x = y - g(x, context)
        log|det dy/dx| = log det(I + J) = sum_k (-1)^(k+1) tr(J^k) / k,  J = dg/dx

    It is a bijection because g is a contraction, |g(x) - g(x')| <= c |x - x'| with c < 1, which the
    network has to keep whatever its weights, and to state as `lipschitz_bound`:
    `conditioners.LipschitzMLP` does. For densities of data take `tfb.Invert(Residual(...))`, whose
    data go the closed way.

    Shapes: `x`, `y` `[..., *event_shape]`; `context` `[..., context_size]`; the network maps
    `[batch, *event_shape]` to the same.

    Args:
      residual: Keras layer with an attribute `lipschitz_bound` below 1.
      event_shape: shape of one event.
      log_det: "exact", by the Jacobian, one derivative an entry; or "series", an unbiased estimate
        by the power series: its first `num_terms` terms, and more of them as a Russian roulette
        goes on, with a probability of (1 + c^2) / 2 each time, by which what it finds is divided.
        Such a probability, above c^2, gives a finite variance whatever the network. Default:
        exact up to 16 entries. `flow.copy(log_det="exact")` scores by the exact one.
      num_terms: `int >= 1`, of "series". Default 8.
      tolerance: of the inverse: the distance to the fixed point, relative to max(1, |x|). Default:
        1e-5 in float32, 1e-12 in float64, or what c allows.
      context_size: size of the context, or `None`. Default: the network's own `context_size`.
      seed: `int` that the estimate's noise comes from. Default 0. In training each pass has noise
        of its own for each row, and each replica draws its rows' by itself; outside of it all rows
        have the same, at every call.
      passes: number of training passes so far, or the variable that counts them; with "series"
        alone.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `residual` is no Keras layer.
      ValueError: if it states no bound, or one that is not below 1; if the tolerance is below 4 eps
        / (1 - c), with eps that of the dtype; or its output has another shape than the event.
      tf.errors.InvalidArgumentError: by the inverse, if rows did not converge, with their number:
        then the network does not keep its bound.
      LookupError: for a second derivative through the inverse.

    Numerics: the inverse stops where the contraction guarantees the tolerance, |x - x*| <= c / (1 -
    c) |last step|, row by row. Its gradients are those of the solution. Those of the series are
    estimated by its derivative, tr(J^(k-1) dJ), of the same noise, which stores one evaluation of
    the network instead of one a term.

    >>> from tfp_flows import conditioners
    >>> network = conditioners.LipschitzMLP(2, hidden_units=(8,), zero_output=False, seed=0)
    >>> residual = Residual(network, [2])
    >>> x = tf.constant([[1.0, -2.0]])
    >>> y = residual.forward(x)
    >>> bool(tf.reduce_max(abs(residual.inverse(tf.identity(y)) - x)) < 1e-4)
    True

    References:
      J. Behrmann et al., Invertible residual networks, 2019, arXiv:1811.00995, theorem 1 and
        algorithm 1.
      R. T. Q. Chen, J. Behrmann, D. Duvenaud, J.-H. Jacobsen, Residual flows for invertible
        generative modeling, 2019, arXiv:1906.02735, equations 6 and 8. The roulette there goes on
        with probability 1/2, whatever c.
    """

    def __init__(
        self,
        residual,
        event_shape,
        *,
        log_det=None,
        num_terms=8,
        tolerance=None,
        context_size=None,
        seed=None,
        passes=None,
        name="residual",
        **kwargs,
    ):
        title = self._title()
        self._num_terms = positive_integer(num_terms, "num_terms", title)
        context_size = contexts.given_or_own(context_size, residual)
        super().__init__(
            event_shape,
            by=log_det,
            estimate="series",
            argument="log_det",
            seed=seed,
            passes=passes,
            context_size=context_size,
            name=name,
            **kwargs,
        )
        self._network = Network(
            residual,
            input_shape=self._domain,
            output_shape=self._domain,
            owner=title,
            context_size=context_size,
            dtype=self.dtype,
        )
        bound = getattr(residual, "lipschitz_bound", None)
        if bound is None or not 0.0 < bound < 1.0:
            raise ValueError(
                f"{title}: the layer '{residual.name}' must have a lipschitz_bound in (0, 1), got "
                f"{bound!r}: without one the map need not be a bijection. Use "
                "conditioners.LipschitzMLP, or state the bound that yours keeps."
            )
        self._bound_of_network = float(bound)
        eps = float(np.finfo(self.dtype.as_numpy_dtype).eps)
        least = 4.0 * eps / (1.0 - self._bound_of_network)
        if tolerance is None:
            tolerance = max(least, 1e-5 if self.dtype == tf.float32 else 1e-12)
        self._tolerance = positive_number(tolerance, "tolerance", title)
        if self._tolerance < least:
            raise ValueError(
                f"{title}: tolerance must be at least {least:.1e}, which a contraction by "
                f"{bound:g} reaches in {self.dtype.name}, got {tolerance:g}."
            )

    @property
    def solved_direction(self):
        """The inverse."""
        return "inverse"

    def _forward_and_log_det(self, x, context):
        log_det = tf.zeros([], x.dtype)
        if log_dets_matter():
            log_det = self._log_det(x, context)
        return x + self._network(x, context), log_det

    def _inverse_and_log_det(self, y, context):
        found = self._fixed_point(tf.stop_gradient(y), context)
        rest = y - found - self._network(found, context)
        # One iteration more, whose gradient is that of the solution.
        x = found + self._solution_gradient(rest, found, context)
        log_det = tf.zeros([], y.dtype)
        if log_dets_matter():
            log_det = -self._log_det(x, context)
        return x, log_det

    # --- The inverse. ---

    def _fixed_point(self, y, context):
        """x of x + g(x) = y."""
        return self._iterate(lambda x: y - self._network(x, context), y, "inverse")

    def _solution_gradient(self, rest, x, context):
        """`rest`, with the gradient of (I + J)^-1 rest."""

        @tf.custom_gradient
        def solve(rest):
            def gradient(bar):
                # a = (I + J^T)^-1 bar, a contraction as well.
                a = self._iterate(
                    lambda a: bar - self._times_jacobian(a, x, context), bar, "inverse's gradient"
                )
                return tf.raw_ops.PreventGradient(input=a, message=_NO_SECOND_DERIVATIVE)

            return tf.identity(rest), gradient

        return solve(rest)

    def _iterate(self, act, start, what):
        """The fixed point of a contraction by `lipschitz_bound`, each row as long as it takes."""
        axes = list(range(-len(self._domain), 0))
        c, tolerance = self._bound_of_network, self._tolerance
        # From up to 1e6 tolerances of size, and rounding beyond it.
        most = 2 + math.ceil(math.log(tolerance * (1.0 - c) * 1e-6) / math.log(c))

        def norm(value):
            return tf.sqrt(tf.reduce_sum(tf.square(value), axis=axes, keepdims=True))

        def body(number, x, done):
            following = act(x)
            step = norm(following - x) * (c / (1.0 - c))
            found = step <= tolerance * tf.maximum(norm(following), 1.0)
            # Of what is not finite there is no fixed point: the result is NaN.
            unknown = ~tf.math.is_finite(step)
            nan = tf.constant(float("nan"), x.dtype)
            following = tf.where(unknown, nan, following)
            x = tf.ensure_shape(tf.where(done, x, following), start.shape)
            return number + 1, x, tf.ensure_shape(done | found | unknown, undone.shape)

        undone = tf.zeros_like(norm(start)) > 0.0
        _, x, done = tf.while_loop(
            lambda number, x, done: (number < most) & ~tf.reduce_all(done),
            body,
            (tf.constant(0), start, undone),
            parallel_iterations=1,
        )
        x = tf.stop_gradient(x)
        message = (
            f"{self._title()}: the {what} did not converge within {most} steps, so the network "
            f"does not keep its lipschitz_bound of {c:g}; rows that did not, of how many:"
        )
        return settled(x, done, message)

    # --- The log-det. ---

    def _times_jacobian(self, vector, x, context):
        """vector^T J, row by row."""
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = self._network(x, context)
        return tape.gradient(value, x, vector, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def _log_det(self, x, context):
        return self._series(x, context) if self.estimates_log_det else self._exact(x, context)

    def _exact(self, x, context):
        size = math.prod(self._domain)
        batch = tf.shape(x)[: x.shape.rank - len(self._domain)]
        # An axis more, along which every event stands as often as it has entries.
        basis = tf.reshape(tf.eye(size, dtype=x.dtype), [size, *self._domain])
        many = tf.concat([batch, [size, *self._domain]], axis=0)
        repeated = tf.broadcast_to(tf.expand_dims(x, -1 - len(self._domain)), many)
        context = contexts.for_part(context, self._context_shapes, 1)
        columns = self._times_jacobian(tf.broadcast_to(basis, many), repeated, context)
        jacobian = tf.reshape(columns, tf.concat([batch, [size, size]], axis=0))
        jacobian += tf.eye(size, dtype=x.dtype)
        static = x.shape[: x.shape.rank - len(self._domain)]
        jacobian = tf.ensure_shape(jacobian, [*static, size, size])
        return _linear.log_abs_det(jacobian)

    def _series(self, x, context):
        """An estimate, with the estimate of its gradient."""
        axes = list(range(-len(self._domain), 0))
        noise, extra, goes_on = self._draw(x)
        fixed = tf.stop_gradient(x)

        def body(k, weight, power, total, neumann):
            weight = tf.where(k > self._num_terms, weight / goes_on, weight)
            sign = tf.where(k % 2 == 1, weight, -weight)
            neumann += sign * power
            power = tf.ensure_shape(self._times_jacobian(power, fixed, context), x.shape)
            total += sign * tf.reduce_sum(power * noise, axis=axes) / tf.cast(k, x.dtype)
            return k + 1, weight, power, total, neumann

        zeros = tf.zeros_like(tf.reduce_sum(fixed, axis=axes))
        one = tf.ones([], x.dtype)
        *_, total, neumann = tf.while_loop(
            lambda k, *_: k <= self._num_terms + extra,
            body,
            (tf.constant(1), one, noise, zeros, tf.zeros_like(fixed)),
            parallel_iterations=1,
        )
        total, neumann = tf.stop_gradient(total), tf.stop_gradient(neumann)
        slope = tf.reduce_sum(self._times_jacobian(neumann, x, context) * noise, axis=axes)
        return total + slope - tf.stop_gradient(slope)

    def _draw(self, x):
        """Signs of the shape of x, how many terms more there are, and the roulette's odds."""
        goes_on = 0.5 * (1.0 + self._bound_of_network**2)
        seeds = tf.random.experimental.stateless_split(self._seed_of_pass(), 2)
        uniform = tf.random.stateless_uniform([], seeds[1], minval=1e-12, dtype=tf.float64)
        extra = tf.cast(tf.math.log(uniform) / math.log(goes_on), tf.int32)
        return self._signs(x, seeds[0]), extra, goes_on
