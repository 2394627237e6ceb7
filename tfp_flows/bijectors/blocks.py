"""The blocks by which a masked network is run entry by entry, at the arithmetic of one pass.

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

import numpy as np
import tensorflow as tf

# Outputs a unit of the last hidden layer from which blocks fetch theirs.
_FETCHED_FROM = 4
# Degree of padding: above every degree, so that the mask cuts all that leaves it.
_NEVER = np.iinfo(np.int32).max


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
