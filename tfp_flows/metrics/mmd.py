"""The maximum mean discrepancy."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows import _checks
from tfp_flows.metrics._samples import Estimate, slices, squared_distances, two_samples

# The median of so many rows' distances is as good as that of all for a bandwidth.
_ROWS_FOR_MEDIAN = 1000


def mmd(
    x,
    y,
    *,
    scales=(0.5, 1.0, 2.0),
    bandwidth=None,
    estimator="unbiased",
    num_permutations=0,
    seed=0,
):
    """The squared maximum mean discrepancy of two samples, under a mixture of Gaussian kernels.

        k(a, b) = mean over s of exp(-|a - b|^2 / (2 (s h)^2))
        MMD^2   = E k(x, x') + E k(y, y') - 2 E k(x, y)

    Zero if and only if the distributions are equal. In blocks: 10,000 rows against 10,000 need no
    matrix in memory; the time goes with (n + m)^2 but for `"linear"`.

    Args:
      x, y: arrays or tensors `[n, *event]` and `[m, *event]`, events flattened; at least 3 rows
        each, 4 for `"linear"`. Computed in float64.
      scales: positive numbers s: the kernel's widths as multiples of the bandwidth. Default: `(0.5,
        1.0, 2.0)`.
      bandwidth: positive number h. Default: the median distance between different rows of both
        samples together (the median heuristic; of 1,000 rows, drawn by `seed`, if there are more).
      estimator: `"unbiased"`, the U-statistic, which may be negative; `"biased"`, the
        V-statistic: the discrepancy of the two empirical distributions, never negative, too large
        by O(1/n); or `"linear"`, the unbiased mean over disjoint pairs of rows, for many rows of
        equal number. The last of an odd number is left out.
      num_permutations: how many times the rows are dealt anew for the p-value; 0: no p-value. The
        smallest that can come out is `1 / (num_permutations + 1)`. Each costs 2 (n + m)^2
        multiplications. `"linear"` has its p-value from the normal law of its mean instead.
        Default: 0.
      seed: `int >= 0`, of the permutations and of the rows for the median.

    Returns:
      An `Estimate`: MMD^2 in `[-2, 2]`, its standard error, and the p-value of equality. The
      error is the jackknife's (of `"linear"` that of a mean): it is right where the distributions
      differ, and on the large side, up to sqrt(2), where they are equal. It does not know of the
      bandwidth's own choice.

    Raises:
      TypeError, ValueError: for samples of other spaces, too few rows, all rows equal, entries
        that are not finite, or arguments out of range.

    Numerics: a kernel's argument errs by some roundings of the centred squared norms, in float64.

    References:
      Arthur Gretton, Karsten Borgwardt, Malte Rasch, Bernhard Schoelkopf, Alexander Smola. A Kernel
        Two-Sample Test, JMLR 13, 2012: equations 3 and 5 (unbiased, biased), section 6 (linear
        time), section 8 (median heuristic). The p-value by permutations counts the sample itself.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(100, 2)), rng.normal(size=(80, 2))
    >>> bool(mmd(x, y, num_permutations=99).p_value > 0.05)
    True
    >>> mmd(x, y + 1.0, num_permutations=99).p_value
    0.01
    """
    title = "metrics.mmd"
    _checks.one_of(estimator, ("unbiased", "biased", "linear"), "estimator", title)
    num_permutations = _checks.integer(num_permutations, "num_permutations", title, least=0)
    rng = np.random.default_rng(_checks.integer(seed, "seed", title, least=0))
    if isinstance(scales, (str, bytes)) or not np.iterable(scales) or not len(scales):
        raise TypeError(f"{title}: scales must be a sequence of numbers > 0, got {scales!r}.")
    scales = [_checks.positive_number(s, "scales", title) for s in scales]
    linear = estimator == "linear"
    x, y = two_samples(x, y, title, least=4 if linear else 3)
    pooled = np.concatenate([x, y])
    pooled -= pooled.mean(axis=0)
    if bandwidth is None:
        bandwidth = _median_distance(pooled, rng, title)
    else:
        bandwidth = _checks.positive_number(bandwidth, "bandwidth", title)
    rates = [0.5 / (s * bandwidth) ** 2 for s in scales]
    if linear:
        if num_permutations:
            raise ValueError(
                f"{title}: the linear estimator has its p-value without permutations, got "
                f"num_permutations={num_permutations}. Leave it out."
            )
        return _linear(pooled[: len(x)], pooled[len(x) :], rates, title)
    return _quadratic(pooled, len(x), rates, estimator == "biased", num_permutations, rng)


def _median_distance(pooled, rng, title):
    if len(pooled) > _ROWS_FOR_MEDIAN:
        pooled = pooled[rng.choice(len(pooled), _ROWS_FOR_MEDIAN, replace=False)]
    squares = squared_distances(pooled, pooled).numpy()
    # Of different rows: samples on a grid may have more equal pairs than others.
    squares = squares[squares > 0.0]
    if not squares.size:
        raise ValueError(
            f"{title}: all rows are equal: no distance gives the kernel's bandwidth. Give "
            "`bandwidth`, or look at the samples."
        )
    return float(np.median(np.sqrt(squares)))


def _kernel(squares, rates):
    return tf.add_n([tf.exp(-rate * squares) for rate in rates]) / len(rates)


def _quadratic(pooled, n, rates, biased, num_permutations, rng):
    """The U- or V-statistic. Every figure is a sum over the columns of K @ [in x, all ones]."""
    total = len(pooled)
    m = total - n
    # Columns: who is in x (first as given, then dealt anew), and everybody.
    columns = np.zeros([total, num_permutations + 2])
    columns[:n, 0] = 1.0
    for column in range(1, num_permutations + 1):
        columns[rng.permutation(total)[:n], column] = 1.0
    columns[:, -1] = 1.0
    sums = _kernel_times(pooled, columns, rates)

    members, to_all = columns[:, :-1], sums[:, -1]
    xx = np.sum(members * sums[:, :-1], axis=0)
    x_all = members.T @ to_all
    xy = x_all - xx
    yy = to_all.sum() - x_all - xy
    # A row's kernel with itself is 1, on both diagonals.
    values = _statistic(xx - n, yy - m, xy, n, m, biased)

    with_x, with_y = sums[:, 0], to_all - sums[:, 0]
    # Each row left out in turn: it takes with it, twice, its kernels with its own sample.
    without_x = _statistic(
        xx[0] - n - 2.0 * (with_x[:n] - 1.0), yy[0] - m, xy[0] - with_y[:n], n - 1, m, biased
    )
    without_y = _statistic(
        xx[0] - n, yy[0] - m - 2.0 * (with_y[n:] - 1.0), xy[0] - with_x[n:], n, m - 1, biased
    )
    variance = (n - 1) * np.var(without_x) + (m - 1) * np.var(without_y)
    p_value = None
    if num_permutations:
        # Of equal figures rounding must not decide.
        as_large = values[1:] >= values[0] - 1e-12
        p_value = float((1 + np.count_nonzero(as_large)) / (1 + num_permutations))
    return Estimate(float(values[0]), math.sqrt(variance), p_value)


def _statistic(xx, yy, xy, n, m, biased):
    """MMD^2 from the sums of kernels, those of rows with themselves left out."""
    if biased:
        return (xx + n) / n**2 + (yy + m) / m**2 - 2.0 * xy / (n * m)  # equation 5
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2.0 * xy / (n * m)  # equation 3


def _kernel_times(rows, columns, rates):
    """K @ columns, block by block; of the symmetric K only the blocks on and above the diagonal."""
    rows, columns = tf.constant(rows), tf.constant(columns)
    found = np.zeros(columns.shape)
    for part in slices(len(rows), len(rows)):
        block = _kernel(squared_distances(rows[part], rows[part.start :]), rates)
        found[part] += tf.matmul(block, columns[part.start :]).numpy()
        beyond = block[:, part.stop - part.start :]
        found[part.stop :] += tf.matmul(beyond, columns[part], transpose_a=True).numpy()
    return found


def _linear(x, y, rates, title):
    if len(x) != len(y):
        raise ValueError(
            f"{title}: the linear estimator pairs the rows of x and y, got {len(x)} and {len(y)}. "
            "Cut the longer sample."
        )
    pairs = len(x) // 2
    a, b, c, d = x[: 2 * pairs : 2], x[1 : 2 * pairs : 2], y[: 2 * pairs : 2], y[1 : 2 * pairs : 2]

    def kernel(u, v):
        return _kernel(tf.reduce_sum(tf.math.squared_difference(u, v), axis=1), rates).numpy()

    terms = kernel(a, b) + kernel(c, d) - kernel(a, d) - kernel(b, c)
    mean, error = float(terms.mean()), float(terms.std(ddof=1) / math.sqrt(pairs))
    p_value = 0.5 * math.erfc(mean / error / math.sqrt(2.0)) if error else float(mean <= 0.0)
    return Estimate(mean, error, p_value)
