"""What all metrics ask of the samples that they are given."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Estimate:
    """A figure with its standard error, and of a test its p-value.

    `float(estimate)` is the figure.

    Attributes:
      value: `float`.
      standard_error: `float`: how far the figure would move with other samples.
      p_value: `float`, how often equal distributions give a figure at least as large; `None`
        where no test was asked for.

    >>> float(Estimate(0.25, 0.01))
    0.25
    """

    value: float
    standard_error: float
    p_value: float | None = None

    def __float__(self):
        return self.value


def two_samples(x, y, title, *, least=2):
    """Both samples as float64 `[n, d]` and `[m, d]`, events flattened, or what is wrong with them.

    Args:
      x, y: arrays or tensors `[n, *event]` and `[m, *event]`; integers and booleans are numbers.
      title: the caller, for messages.
      least: how many rows each must have.

    Raises:
      TypeError: if one holds no real numbers.
      ValueError: if events differ, rows are too few, or an entry is not finite.
    """
    x, y = numbers(x, "x", title), numbers(y, "y", title)
    for name, rows in (("x", x), ("y", y)):
        if not rows.ndim:
            raise ValueError(
                f"{title}: {name} must hold one event a row, [n, *event], got a number. Give an "
                "array."
            )
        if len(rows) < least:
            raise ValueError(
                f"{title}: {name} must have at least {least} rows, got shape {list(rows.shape)}. "
                "Draw more samples; an event of its own belongs into one row."
            )
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"{title}: x and y must be samples of one space, got events of shape "
            f"{list(x.shape[1:])} and {list(y.shape[1:])}. The first axis counts the rows."
        )
    if not x[0].size:
        raise ValueError(f"{title}: events of shape {list(x.shape[1:])} have no entries.")
    return x.reshape(len(x), -1), y.reshape(len(y), -1)


def numbers(values, name, title):
    """`values` as a float64 array, if all are finite real numbers; raises as `two_samples`."""
    values = np.asarray(values)
    if values.dtype == tf.bfloat16.as_numpy_dtype:
        values = values.astype(np.float32)
    if values.dtype.kind not in "biuf":
        raise TypeError(
            f"{title}: {name} must hold real numbers, got dtype {values.dtype}. Give one array or "
            "tensor [n, *event]."
        )
    values = values.astype(np.float64)
    bad = values.size - np.count_nonzero(np.isfinite(values))
    if bad:
        raise ValueError(
            f"{title}: {name} holds {bad} of {values.size} entries that are NaN or infinite. Leave "
            "those rows out, and say how many they were."
        )
    return values


def squared_distances(x, y):
    """`|x_i - y_j|^2` as a tensor `[n, m]`; what is below rounding is zero.

    By the scalar product, which is one matrix product on any device. Its error is some roundings
    of the squared norms: centre the rows first.
    """
    norms = tf.reduce_sum(x * x, axis=1)[:, None] + tf.reduce_sum(y * y, axis=1)[None]
    squares = norms - 2.0 * tf.matmul(x, y, transpose_b=True)
    # Equal rows must be at distance zero: a neighbour at radius zero, a kernel of one.
    return tf.where(squares > 1e-13 * norms, squares, tf.zeros_like(squares))


def slices(num_rows, num_columns, entries=2**22):
    """Slices of rows such that a block of the matrix has about `entries` entries (32 MB)."""
    step = max(1, entries // max(1, num_columns))
    return [slice(n, min(n + step, num_rows)) for n in range(0, num_rows, step)]
