"""Continuous flows."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows._checks import one_of, positive_integer, positive_number
from tfp_flows.bijectors import _ode, modes
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._estimated import Estimated
from tfp_flows.bijectors.network import Network


class Continuous(Estimated):
    """The flow of an ordinary differential equation whose velocity is a network's output.

        dx/dt = v(t, x, context)
        forward:  from x at t = 0 to y at t = 1        inverse:  from y at t = 1 back to t = 0
        log|det dy/dx| = integral from 0 to 1 of tr(dv/dx) dt

    The network is free: no triangular Jacobian, no split in halves. Both directions are numeric,
    and cost as many evaluations as the equation asks for. Train it by `objectives.FlowMatching`,
    which solves no equation, or by maximum likelihood, which solves one a step.

    Shapes: `x`, `y` `[..., *event_shape]`; `context` `[..., context_size]`; the network maps
    `[batch, *event_shape]`, with the context `[batch, 1 + context_size]`, to `[batch,
    *event_shape]`. The first entry of its context is the time t, the others are those of the
    flow's context: a `conditioners.MLP(D, context_size=1 + context_size)` is such a network. It
    should be smooth, and have no dropout: the steps are computed again for gradients.

    Args:
      velocity: Keras layer.
      event_shape: shape of one event.
      solver: "dopri5" (default), the method of Dormand and Prince, whose steps adapt to the
        tolerances, for each row by itself: no row's result depends on another; or "rk4", the
        classical method with equal steps.
      rtol, atol: tolerances of a step of "dopri5", of the state and of the log-det. Default 1e-5
        both. The error at the end is of their order, unless the flow magnifies it.
      num_steps: of "rk4" the number of steps, default 20; of "dopri5" the most that are tried,
        default 100.
      trace: "exact", by one derivative for each entry of an event, or "hutchinson", an unbiased
        estimate by a single one. Default: exact up to 16 entries. `flow.copy(trace="exact")`
        scores by the exact one what was trained by the other.
      context_size: size of the flow's context, or `None`. Default: one less than the network's own
        `context_size`.
      seed: `int` that the noise of the estimate comes from. Default 0. In training each pass
        has noise of its own for each row, and each replica draws its rows' by itself; outside of it
        all rows have the same, at every call.
      passes: number of training passes so far, or the variable that counts them; with "hutchinson"
        alone.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `velocity` is no Keras layer.
      ValueError: for a tolerance below ten times the dtype's resolution, a number of steps below 1,
        a network whose output has another shape than the event, or a context that is no vector.
      tf.errors.InvalidArgumentError: by both directions, if rows did not reach the end within
        `num_steps`, with their number.
      LookupError: for a second derivative through the solver.

    Numerics: a round trip is exact to the solver's error, not to rounding. Gradients are those of
    the computed steps, to rounding: the state before each step is kept, and the step is computed
    again on the way back, so that memory holds one evaluation of the network and not all. Of
    infinities and NaN the result is NaN.

    >>> import keras
    >>> class Growth(keras.layers.Layer):  # x grows by a factor of e, whatever the time
    ...     def call(self, x, context):
    ...         return x
    >>> flow = Continuous(Growth(), [2])
    >>> y, log_det = flow.forward_and_log_det(tf.ones([1, 2]))
    >>> round(float(y[0, 0]), 3), round(float(log_det[0]), 3)
    (2.718, 2.0)
    >>> flow.num_evaluations(tf.ones([1, 2])).numpy()
    array([25], dtype=int32)

    References:
      R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, Neural ordinary differential
        equations, 2018, arXiv:1806.07366, theorem 1.
      W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever, D. Duvenaud, FFJORD, 2019,
        arXiv:1810.01367, section 3.1, for the estimated trace. Gradients there are an equation
        solved backwards, with an error of its own.
      J. R. Dormand, P. J. Prince, A family of embedded Runge-Kutta formulae, 1980, table 2.
    """

    def __init__(
        self,
        velocity,
        event_shape,
        *,
        solver="dopri5",
        rtol=1e-5,
        atol=1e-5,
        num_steps=None,
        trace=None,
        context_size=None,
        seed=None,
        passes=None,
        name="continuous",
        **kwargs,
    ):
        title = self._title()
        solver = one_of(solver, _ode.METHODS, "solver", title)
        if num_steps is None:
            num_steps = 20 if solver == "rk4" else 100
        num_steps = positive_integer(num_steps, "num_steps", title)
        own = getattr(velocity, "context_size", None)
        if context_size is None and isinstance(own, int) and own > 1:
            context_size = own - 1
        if context_size is not None:
            contexts.check_vector(context_size, title)
        super().__init__(
            event_shape,
            by=trace,
            estimate="hutchinson",
            argument="trace",
            seed=seed,
            passes=passes,
            context_size=context_size,
            name=name,
            **kwargs,
        )
        least = 10.0 * np.finfo(self.dtype.as_numpy_dtype).eps
        tolerances = []
        for which, value in (("rtol", rtol), ("atol", atol)):
            value = positive_number(value, which, title)
            if which == "rtol" and value < least:
                raise ValueError(
                    f"{title}: rtol must be at least {least:.1e}, ten times the resolution of "
                    f"{self.dtype.name}, got {value:g}. Build it with dtype float64 for less."
                )
            tolerances.append(value)
        self._solver = self._no_dependency(
            {"method": solver, "num_steps": num_steps, "tolerances": tuple(tolerances)}
        )
        self._network = Network(
            velocity,
            input_shape=self._domain,
            output_shape=self._domain,
            owner=title,
            context_size=1 + (context_size or 0),
            dtype=self.dtype,
        )
        weights = [v for v in self._network.variables if v.dtype.is_floating]
        self._weights = self._no_dependency(weights)
        self._traced = self._no_dependency({})

    @property
    def solved_direction(self):
        """Both."""
        return "both"

    def velocity(self, t, x, context=None):
        """The velocity v(t, x, context).

        Args:
          t: times `[n]`.
          x: tensor `[n, *event_shape]`.
          context: `[n, context_size]`, or `None`.

        Returns:
          Tensor of the shape of `x`.
        """
        time = t[:, tf.newaxis]
        given = time if context is None else tf.concat([time, context], axis=-1)
        return self._network(x, given)

    def num_evaluations(self, value, context=None, *, inverse=False):
        """How many evaluations of the network each row takes.

        Args:
          value: points `[..., *event_shape]`, of the domain or, if `inverse`, of the codomain.
          context: their context, or `None`.
          inverse: which direction.

        Returns:
          int32 tensor of the batch shape; with an exact trace each is of as many rows as an event
          has entries.
        """
        value, context = self._check(value, context, self._domain, "num_evaluations")
        return self._solve(value, context, inverse)[2]

    def _forward_and_log_det(self, x, context):
        return self._solve(x, context, inverse=False)[:2]

    def _inverse_and_log_det(self, y, context):
        return self._solve(y, context, inverse=True)[:2]

    def _solve(self, value, context, inverse):
        event = list(self._domain)
        batch = tf.shape(value)[: value.shape.rank - len(event)]
        rows = tf.reshape(value, [-1, *event])
        conditions = []
        if context is not None:
            context = tf.broadcast_to(context, tf.concat([batch, [context.shape[-1]]], axis=0))
            conditions = [tf.reshape(context, [-1, context.shape[-1]])]
        noise = []
        if self.estimates_log_det and modes.log_dets_matter():
            noise = [self._signs(rows, self._seed_of_pass())]
        # As arguments, for a custom gradient is to know all that it depends on.
        values = modes.substitutes()
        weights = [tf.convert_to_tensor(values.get(id(v), v)) for v in self._weights]
        end, log_det, evaluations = self._integrator(inverse)(rows, conditions, noise, weights)
        static = value.shape[: value.shape.rank - len(event)]
        end = tf.reshape(end, tf.shape(value))
        end.set_shape(value.shape)
        return end, *(
            tf.ensure_shape(tf.reshape(each, batch), static) for each in (log_det, evaluations)
        )

    def _integrator(self, inverse):
        """A function of rows, contexts, noise and weights, traced where nothing else is."""

        def solve(rows, conditions, noise, weights):
            arguments = [*conditions, *noise, *weights]
            sizes = len(conditions), len(noise)

            def field(s, x, arguments):
                context = arguments[0] if sizes[0] else None
                noise = arguments[sizes[0]] if sizes[1] else None
                t = 1.0 - s if inverse else s
                with modes.reading(zip(self._weights, arguments[sum(sizes) :], strict=True)):
                    velocity, divergence = self._velocity_and_divergence(t, x, context, noise)
                return (-velocity, -divergence) if inverse else (velocity, divergence)

            name = f"{self._title()}.{'inverse' if inverse else 'forward'}"
            return _ode.integrate(field, rows, arguments, name=name, **self._solver)

        if not tf.executing_eagerly():
            return solve
        # Keras and the tapes would take milliseconds for each of the many evaluations.
        policy = self._network.layer.dtype_policy.name
        key = inverse, modes.log_dets_matter(), modes.in_training_mode(), policy
        if key not in self._traced:
            self._traced[key] = tf.function(solve, autograph=False, reduce_retracing=True)
        return self._traced[key]

    def _velocity_and_divergence(self, t, x, context, noise):
        if not modes.log_dets_matter():
            return self.velocity(t, x, context), tf.zeros_like(t)
        if noise is not None:
            with tf.GradientTape() as tape:
                tape.watch(x)
                velocity = self.velocity(t, x, context)
            product = tape.gradient(
                velocity, x, noise, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            return velocity, _sum_rows(product * noise)
        # Every row as often as an event has entries: all of the diagonal in one pass.
        size = math.prod(self._domain)
        basis = tf.reshape(tf.eye(size, dtype=x.dtype), [size, *self._domain])
        basis = tf.tile(basis, tf.concat([tf.shape(x)[:1], [1] * (x.shape.rank - 1)], axis=0))
        t, x = tf.repeat(t, size, axis=0), tf.repeat(x, size, axis=0)
        context = None if context is None else tf.repeat(context, size, axis=0)
        with tf.GradientTape() as tape:
            tape.watch(x)
            velocity = self.velocity(t, x, context)
        columns = tape.gradient(
            velocity, x, basis, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        diagonal = tf.reshape(_sum_rows(columns * basis), [-1, size])
        return velocity[::size], tf.reduce_sum(diagonal, axis=-1)


def _sum_rows(value):
    return tf.reduce_sum(value, axis=list(range(1, value.shape.rank)))
