"""The sequential direction of an autoregressive map around a MADE, and its gradient.

Both run the network by `blocks`, at the arithmetic of one pass.
"""

import functools

import numpy as np
import tensorflow as tf

from tfp_flows._private import record
from tfp_flows.bijectors.blocks import Plan, run

# Entries a block, about. Larger blocks trace longer and are no faster (RESULTS.md).
_BLOCK_SIZE = 12


class Sequential:
    """The sequential direction of an autoregressive bijector around a `MADE`.

    Solves x_i = act(u_i; parameters_i(x_1, ..., x_{i-1})) for x, with its elementwise log-det.

    The gradient is that of the solution, not of the steps that led there. With G(x) = u the
    other direction (one pass), J = dG/dx, and gradients x_bar, l_bar of the result,

        J^T w = v,  v = x_bar + (what l_bar sends to x at fixed weights)
        u_bar = w,  weights_bar = -(dG/dweights)^T w + (what l_bar sends to them)

    J^T is triangular, and it is solved as x was found: the backward pass of the network is
    itself a masked network, with the kernels transposed and the order reversed. So the gradient
    costs about one more sequential sweep and three passes, and keeps the values of one.

    Args:
      layer: `conditioners.MADE`.
      elementwise: the elementwise map.
      forward: whether the map is applied forward to get x from u, or backward.
      block_size: entries a block, or `None`.
    """

    def __init__(self, layer, elementwise, *, forward, block_size):
        self._layer, self._elementwise = layer, elementwise
        self._forward, self._block_size = forward, block_size

    def __call__(self, u, context, mask_index=0):
        """Returns x and its elementwise log-det, for `u` with any batch dimensions.

        Args:
          u: `[..., D]`; `[n, num_noises * D]` where the map has `num_noises` of each entry.
          context: `[..., context_size]`, or `None`.
          mask_index: `int`, the layer's set of masks.
        """
        rank, size = u.shape.rank, u.shape[-1]
        shape = tf.shape(u)
        if context is not None and context.shape.rank != 1:
            batch = tf.concat([shape[:-1], context.shape[-1:]], 0)
            context = tf.reshape(tf.broadcast_to(context, batch), [-1, context.shape[-1]])
        elif context is not None:
            context = context[tf.newaxis]
        parts = self._layer.sequential_parts(context, mask_index, dtype=u.dtype)
        flat = u if rank == 2 else tf.reshape(u, [-1, size])
        weights = [*parts["kernels"], *parts["offsets"]]
        x, log_det = self._solver(parts, weights)(flat, *weights)
        if rank == 2:
            shape = tf.TensorShape([u.shape[0], len(parts["input_degrees"])])
            x.set_shape(shape)
            log_det.set_shape(shape)
            return x, log_det
        return (tf.ensure_shape(tf.reshape(t, shape), u.shape) for t in (x, log_det))

    def _solver(self, parts, weights):
        hidden = tuple(degrees.tobytes() for degrees in parts["hidden_degrees"])
        # One trace serves every number of rows: the first axis of what has rows is left free.
        num_kernels = len(parts["kernels"])
        shapes = [w.shape.as_list() for w in weights]
        for shape in shapes[num_kernels:]:
            shape[:-1] = [None] * (len(shape) - 1)
        return _solver(
            parts["input_degrees"].tobytes(),
            hidden,
            tuple(map(tuple, shapes)),
            weights[0].dtype,
            self._elementwise,
            self._forward,
            self._block_size,
            parts["activation"],
            parts["ends_block"],
            parts["evaluate"],
        )


@functools.lru_cache(maxsize=64)
def _solver(input_degrees, hidden_degrees, shapes, dtype, *args):
    """The solution as a function of `u`, kernels and offsets.

    Layers of equal degrees, like every second one of `flows.maf`, share it and its traces. In
    eager mode it also spares thousands of small steps run from Python.
    """
    degrees = [np.frombuffer(d, np.int32) for d in (input_degrees, *hidden_degrees)]
    width = getattr(args[0], "num_noises", 1) * len(degrees[0])
    shapes = ((None, width), *shapes)
    return _Solver(degrees, [tf.TensorSpec(shape, dtype) for shape in shapes], *args)


class _Solver:
    """Solves for one set of degrees; a function of `u` `[n, D]`, kernels and offsets."""

    def __init__(
        self, degrees, signature, elementwise, forward, block_size, activation, ends_block, evaluate
    ):
        inputs, *hidden = degrees
        size = len(inputs)
        if block_size is None:
            block_size = -(-size // max(1, round(size / _BLOCK_SIZE)))
        # The unchecked maps: of parameters that come one by one, shaped as the argument.
        maps = elementwise._forward, elementwise._inverse
        self._act, self._back = maps if forward else maps[::-1]
        self._num_parameters, self._num_hidden = elementwise.num_parameters, len(hidden)
        self._activation, self._ends_block = activation, ends_block
        self._evaluate = evaluate
        self._degrees = [*degrees, np.tile(inputs, self._num_parameters)]
        self._plan = Plan(
            inputs,
            hidden,
            input_width=1,
            output_width=self._num_parameters,
            block_size=block_size,
        )
        # Who comes last is first: the degree d of a unit, which sees d entries and feeds
        # size - d, becomes size - d; of an entry, d becomes size + 1 - d.
        self._reversed_plan = Plan(
            size + 1 - inputs,
            [size - degrees for degrees in reversed(hidden)],
            input_width=self._num_parameters,
            output_width=1,
            block_size=block_size,
        )
        event = signature[0]
        # As partials they count one by one where TensorFlow warns of many traces.
        self._solution = tf.function(
            functools.partial(self._solve), input_signature=signature, autograph=False
        )
        self._solution_gradient = tf.function(
            functools.partial(self._gradient),
            input_signature=[event] * 3 + signature[1:],
            autograph=False,
        )

    def __call__(self, u, *weights):
        @tf.custom_gradient
        def solve(u, *weights):
            # A tape would prepare the derivatives of the loop, which are not used.
            with record.stop_recording():
                x, log_det = self._solution(u, *weights)

            def gradient(x_bar, log_det_bar):
                # For a second derivative x has to be a function of the arguments again.
                known = solve(u, *weights)[0] if record.could_possibly_record() else x
                return self._solution_gradient(known, x_bar, log_det_bar, *weights)

            return (x, log_det), gradient

        return solve(u, *weights)

    def _solve(self, u, *weights):
        kernels, offsets = weights[: self._num_hidden + 1], weights[self._num_hidden + 1 :]
        rows, size = tf.shape(u)[0], len(self._degrees[0])
        width = self._num_parameters

        def unit(layer, value, auxiliary, skip):
            if self._ends_block[layer]:
                skip = value = value if skip is None else skip + value
            return self._activation(value), skip

        def step(drive, parameters):
            fed, log_det = self._act(drive, tf.split(parameters, width))
            return fed, tf.concat([fed, log_det], 0)

        results = run(
            self._plan,
            kernels,
            [_spread(o, rows) for o in offsets],
            tf.transpose(tf.reshape(u, [rows, u.shape[1] // size, size]), [2, 1, 0]),
            [None] * self._num_hidden,
            unit,
            step,
        )
        return tf.transpose(results[:, 0]), tf.transpose(results[:, 1])

    def _gradient(self, x, x_bar, log_det_bar, *weights):
        kernels, offsets = weights[: self._num_hidden + 1], weights[self._num_hidden + 1 :]
        width = self._num_parameters
        with tf.GradientTape(persistent=True) as network:
            network.watch([x, *kernels, *offsets])
            parameters, values = self._evaluate(
                x, kernels, offsets, self._degrees, self._activation, self._ends_block
            )
        # The map by itself: each entry of a result depends on its own entry of the arguments
        # alone, so that the gradient of a sum holds all the derivatives.
        with tf.GradientTape(persistent=True) as entrywise:
            entrywise.watch([x, parameters])
            # The log-det of the solution is minus that of the way back.
            u, minus_log_det = self._back(x, tf.split(parameters, width, axis=-1))
        zero = tf.UnconnectedGradients.ZERO
        x_slope, parameters_slope = entrywise.gradient(
            u, [x, parameters], unconnected_gradients=zero
        )
        x_direct, parameters_bar = entrywise.gradient(
            minus_log_det,
            [x, parameters],
            output_gradients=-log_det_bar,
            unconnected_gradients=zero,
        )
        v = x_bar + x_direct
        v += network.gradient(
            parameters, x, output_gradients=parameters_bar, unconnected_gradients=zero
        )
        slopes = []
        for value in values:
            with tf.GradientTape() as tape:
                tape.watch(value)
                activated = self._activation(value)
            slopes.append(tape.gradient(activated, value))
        u_bar = self._solve_adjoint(v, x_slope, parameters_slope, kernels, slopes)
        parameters_bar -= parameters_slope * tf.tile(u_bar, [1, width])
        return u_bar, *network.gradient(
            parameters, list(weights), output_gradients=parameters_bar, unconnected_gradients=zero
        )

    def _solve_adjoint(self, v, x_slope, parameters_slope, kernels, slopes):
        """Solves J^T w = v, last entry first."""
        width, hidden_ends_block = self._num_parameters, self._ends_block[:-1]

        def unit(layer, value, slope, skip):
            value = value * slope
            if hidden_ends_block[-1 - layer]:
                skip = value = value if skip is None else skip + value
            return value, skip

        def step(drive, arrived):
            own, x_slope, *parameters_slope = tf.split(drive, 2 + width)
            w = (own - arrived) / x_slope
            return tf.concat([slope * w for slope in parameters_slope], 0), w

        drive = [v, x_slope, *tf.split(parameters_slope, width, axis=-1)]
        kernels = [tf.transpose(k) for k in reversed(kernels)]
        rows = tf.shape(v)[0]
        results = run(
            self._reversed_plan,
            kernels,
            [tf.zeros([k.shape[1], rows], v.dtype) for k in kernels],
            tf.transpose(tf.stack(drive, axis=1)),
            [tf.transpose(s) for s in reversed(slopes)],
            unit,
            step,
        )
        return tf.transpose(results[:, 0])


def _spread(offset, rows):
    """An offset `[width]`, `[1, width]` or `[n, width]` as `[width, n]`."""
    if offset.shape.rank == 1:
        offset = offset[tf.newaxis]
    return tf.broadcast_to(tf.transpose(offset), [offset.shape[-1], rows])
