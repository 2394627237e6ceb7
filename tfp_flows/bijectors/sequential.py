"""The sequential direction of an autoregressive map, at the arithmetic of one network pass.

A masked network gives the parameters of entry p (in the order of its degrees) from the entries
before it. Going against that direction, entry p is known only after the parameters that depend
on the entries before p. Evaluating the network once for each of D entries, as is commonly done,
computes every unit D times. Here every unit is computed once:

  * A unit of degree m sees entries of degree <= m alone, so that its value is final as soon as
    the first m entries are known. Entries and units are processed by ascending degree.
  * Every layer has an accumulator that holds, for each of its units, the sum of what has
    arrived: bias, context, and the shares of all units that are final.
  * `block_size` consecutive degrees form a block. Inside a block, the few units of each degree
    pass their values on to the others of the block, degree by degree. When the block is done,
    one matrix product a layer passes its values on to all the units of the later blocks. Where
    the outputs are many more than the units of the last hidden layer, each block fetches its own
    from those instead: an accumulator that all blocks write would cost more than the arithmetic.

So all but the small products inside the blocks are large matrix products. The loop over the
blocks is a `tf.while_loop` of static shapes, whose body holds `block_size` steps: its graph does
not grow with D, and XLA compiles it. The number of units of each degree is padded to the largest.

Tensors are transposed, `[units, n]` with n the flattened batch: units are picked by whole,
contiguous rows.
"""

import functools

import numpy as np
import tensorflow as tf

from tfp_flows._private import record


class Plan:
    """Which rows belong to which block: the static part, in NumPy.

    Rows of an input or output with several components an entry are component-major: first
    component 0 of every entry, as the parameters of an `ElementwiseMap`.

    Args:
      input_degrees: array `[D]`, a permutation of `1..D`.
      hidden_degrees: list of arrays, the degrees of the units of each hidden layer. Units of
        degree D or more feed no output and are left out.
      input_width: components of an entry that are fed to the network.
      output_width: components of an entry that the network puts out.
      block_size: degrees a block.
    """

    def __init__(self, input_degrees, hidden_degrees, *, input_width, output_width, block_size):
        self.size = size = len(input_degrees)
        self.block_size = block = min(block_size, size)
        self.num_blocks = num = -(-size // block)
        self.input_width, self.output_width = input_width, output_width
        # The entry of each degree; in the last block the last one again, as padding.
        by_degree = np.argsort(input_degrees)
        entries = by_degree[np.minimum(np.arange(num * block), size - 1)]
        self.entries = entries.reshape(num, block).astype(np.int32)
        self.places = (np.asarray(input_degrees) - 1).astype(np.int32)
        padding = np.arange(num * block).reshape(num, block) >= size
        self.rows, self.row_degrees = [], []  # of the units of a block, by layer
        rows = _of_components(entries, size, input_width).reshape(num, -1)
        self.rows.append(rows)
        self.row_degrees.append(_degrees_of(rows, np.tile(input_degrees, input_width), None))
        for degrees in hidden_degrees:
            rows, used = _units_of_blocks(np.asarray(degrees), num, block)
            self.rows.append(rows)
            self.row_degrees.append(_degrees_of(rows, degrees, used))
        self.row_degrees[0][np.repeat(padding, input_width, axis=1)] = _NEVER
        rows = _of_components(entries, size, output_width).reshape(num, -1)
        self.rows.append(rows)
        self.column_degrees = [
            *(np.asarray(d, np.int32) for d in hidden_degrees),
            np.tile(input_degrees, output_width).astype(np.int32),
        ]

    @property
    def num_layers(self):
        """Number of layers with weights."""
        return len(self.column_degrees)


# Entries a block, about. Larger blocks trace longer and are no faster (RESULTS.md).
_BLOCK_SIZE = 12
# Outputs a unit of the last hidden layer from which blocks fetch theirs.
_FETCHED_FROM = 4
# Degree of padding: above every degree, so that the mask cuts all that leaves it.
_NEVER = np.iinfo(np.int32).max


def _of_components(entries, size, width):
    return (entries[:, np.newaxis] + size * np.arange(width)).astype(np.int32)


def _degrees_of(rows, degrees, used):
    found = np.asarray(degrees, np.int32)[rows]
    return found if used is None else np.where(used, found, _NEVER)


def _units_of_blocks(degrees, num_blocks, block):
    """Unit numbers `[num_blocks, block * most units of a degree]`, and which are no padding."""
    groups = [np.flatnonzero(degrees == m) for m in range(num_blocks * block)]
    width = max(1, max(len(g) for g in groups))
    rows = np.zeros((len(groups), width), np.int32)
    used = np.zeros(rows.shape, bool)
    for m, group in enumerate(groups):
        rows[m, : len(group)] = group
        used[m, : len(group)] = True
    return rows.reshape(num_blocks, -1), used.reshape(num_blocks, -1)


def run(plan, kernels, accumulators, drive, auxiliary, unit, step):
    """Runs the network and the map of each entry, in turn.

    Args:
      plan: `Plan`.
      kernels: one tensor `[inputs, outputs]` a layer; masked here, block by block.
      accumulators: one tensor `[outputs, n]` a layer: bias and context.
      drive: tensor `[D, r, n]`: what `step` is given for each entry.
      auxiliary: list with one tensor `[units, n]` for each hidden layer, or `None`.
      unit: function of (hidden layer, accumulated values `[k, n]`, auxiliary `[k, n]` or
        `None`, skip) that returns the values passed on and the next hidden layer's skip.
      step: function of (drive `[r, n]`, output `[output_width, n]`) that returns what is fed to
        the network for the entry, `[input_width, n]`, and a result `[s, n]`.

    Returns:
      The results, `[D, s, n]`.
    """
    block, last = plan.block_size, plan.num_layers - 1
    num_units, num_outputs = kernels[last].shape
    fetched = last > 0 and num_outputs > _FETCHED_FROM * num_units
    entries = tf.constant(plan.entries)
    rows = [tf.constant(r) for r in plan.rows]
    row_degrees = [tf.constant(d)[:, :, tf.newaxis] for d in plan.row_degrees]
    column_degrees = [tf.constant(d)[tf.newaxis] for d in plan.column_degrees]
    accumulators = list(accumulators)
    if fetched:
        to_outputs, offsets = tf.transpose(kernels[last]), accumulators[last]
        # In place of the last accumulator: the values of all units that are final, and a row for
        # what padding puts out.
        shape = tf.concat([[num_units + 1], tf.shape(offsets)[1:]], 0)
        accumulators[last] = tf.ensure_shape(
            tf.zeros(shape, offsets.dtype), [num_units + 1, *offsets.shape[1:]]
        )
        final = tf.where(row_degrees[last] == _NEVER, num_units, rows[last][:, :, tf.newaxis])

    def body(number, accumulated, results):
        # The weights that leave this block's units, masked, and the square among them that
        # stays within the block; both `[units of this block, ...]`.
        leaving, within, received = [], [], []
        here = [r[number] for r in rows]
        for i, kernel in enumerate(kernels[:last] if fetched else kernels):
            compare = tf.less if i == last else tf.less_equal
            keep = compare(row_degrees[i][number], column_degrees[i])
            weights = tf.where(keep, tf.gather(kernel, here[i]), tf.zeros([], kernel.dtype))
            leaving.append(weights)
            # Transposed: `[units of this block in the next layer, units of this block]`.
            square = tf.transpose(tf.gather(weights, here[i + 1], axis=1))
            within.append(tf.split(square, block))
            received.append(tf.gather(accumulated[i], here[i + 1]))
        if fetched:
            zero = tf.zeros([], to_outputs.dtype)
            degrees = tf.transpose(tf.gather(column_degrees[last], here[-1], axis=1))
            weights = tf.gather(to_outputs, here[-1])
            weights = tf.where(column_degrees[last - 1] < degrees, weights, zero)
            # Units that are not final yet are zeros.
            shares = tf.matmul(weights, accumulated[last][:num_units])
            received.append(tf.gather(offsets, here[-1]) + shares)
            keep = tf.transpose(row_degrees[last][number]) < degrees  # no padding
            square = tf.where(keep, tf.gather(weights, here[last], axis=1), zero)
            within.append(tf.split(square, block))
        aux = [
            None if a is None else tf.split(tf.gather(a, here[i + 1]), block)
            for i, a in enumerate(auxiliary)
        ]
        driven = tf.unstack(tf.gather(drive, entries[number]), num=block)
        known = [None for _ in kernels]
        block_results = []
        for j in range(block):
            skip = None
            for i in range(last + 1):
                mine = _group(received[i], j, block)
                if known[i] is not None:
                    size = known[i].shape[0]
                    mine += tf.matmul(within[i][j][:, :size], known[i])
                if i < last:
                    value, skip = unit(i, mine, aux[i] and aux[i][j], skip)
                    known[i + 1] = _append(known[i + 1], value)
            fed, result = step(driven[j], mine)
            known[0] = _append(known[0], fed)
            block_results.append(result)
        new = [
            a + tf.matmul(w, v, transpose_a=True)
            for a, w, v in zip(accumulated, leaving, known, strict=False)
        ]
        if fetched:
            new.append(tf.tensor_scatter_nd_update(accumulated[last], final[number], known[last]))
        return number + 1, tuple(new), results.write(number, tf.stack(block_results))

    results = tf.TensorArray(drive.dtype, size=plan.num_blocks, element_shape=None)
    # The bound lets XLA differentiate the loop, which autodiff needs for second derivatives.
    *_, results = tf.while_loop(
        lambda number, *_: number < plan.num_blocks,
        body,
        (tf.constant(0), tuple(accumulators), results),
        maximum_iterations=plan.num_blocks,
        parallel_iterations=1,
    )
    results = results.stack()  # [num_blocks, block, s, n]
    shape = tf.shape(results)
    results = tf.reshape(results, [plan.num_blocks * block, shape[2], shape[3]])
    return tf.gather(results, plan.places)


def _group(values, number, count):
    size = values.shape[0] // count
    return values[number * size : (number + 1) * size]


def _append(known, value):
    return value if known is None else tf.concat([known, value], 0)


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
