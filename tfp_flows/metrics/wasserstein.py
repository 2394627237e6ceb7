"""Wasserstein distances."""

import math

import numpy as np

from tfp_flows import _checks
from tfp_flows._optional import optional
from tfp_flows.metrics._samples import Estimate, slices, two_samples

# The assignment takes rows^2 numbers of memory and up to rows^3 steps: 128 MB and seconds here.
_ROWS_OF_ASSIGNMENT = 4000


def wasserstein(x, y, *, p=1):
    """The Wasserstein distance of two samples, exactly: the cheapest way to carry one to the other.

        W_p = (min over couplings of E |x - y|^p)^(1/p)

    with the Euclidean distance, between the two empirical distributions. Of events with one entry
    by sorting, any numbers of rows; of others by an optimal assignment, up to 4,000 rows.

    Read it with care in many dimensions: between two samples of one distribution it falls as
    n^(-1/d) only. Compare it with that of two halves of the data, or take `sliced_wasserstein`.

    Args:
      x, y: arrays or tensors `[n, *event]` and `[m, *event]`, events flattened; at least 2 rows
        each. For events of more than one entry the least common multiple of n and m must be at
        most 4,000: each row is then carried in equal parts.
      p: number >= 1, the power. Default: 1.

    Returns:
      `float`, in the samples' units.

    Raises:
      ImportError: if SciPy is missing, for events of more than one entry.
      TypeError, ValueError: for samples of other spaces, one row, too many rows or numbers of them
        without a small common multiple, entries that are not finite, or p below 1.

    References:
      Gabriel Peyre, Marco Cuturi. Computational Optimal Transport, 2019, arXiv:1803.00567,
        proposition 2.1 (equal weights: an assignment) and section 2.6 (one dimension: quantiles).

    >>> wasserstein([0.0, 1.0, 3.0], [5.0, 6.0, 8.0])
    5.0
    >>> wasserstein([[0.0, 0.0], [1.0, 0.0]], [[1.0, 2.0], [0.0, 2.0]], p=2)
    2.0
    """
    title = "metrics.wasserstein"
    p = _power(p, title)
    x, y = two_samples(x, y, title)
    if x.shape[1] == 1:
        return float(_quantile_cost(x, y, p)[0] ** (1.0 / p))
    rows = math.lcm(len(x), len(y))
    if rows > _ROWS_OF_ASSIGNMENT:
        what = f"{rows} rows" if len(x) == len(y) else f"{len(x)} rows against {len(y)}"
        raise ValueError(
            f"{title}: {what} make an assignment of {rows}, more than {_ROWS_OF_ASSIGNMENT}. Cut "
            "both samples to one smaller number, or take metrics.sliced_wasserstein."
        )
    optimize = optional("scipy.optimize", title, "metrics")
    distance = optional("scipy.spatial.distance", title, "metrics")
    # A row of weight 1/n is rows/n rows of weight 1/rows; some optimal plan moves them whole.
    cost = distance.cdist(np.repeat(x, rows // len(x), 0), np.repeat(y, rows // len(y), 0)) ** p
    return float(cost[optimize.linear_sum_assignment(cost)].mean() ** (1.0 / p))


def sliced_wasserstein(x, y, *, num_projections=500, p=2, seed=0):
    """The sliced Wasserstein distance: the mean over directions of one-dimensional distances.

        SW_p = (E over unit vectors u of W_p(u.x, u.y)^p)^(1/p)

    Zero if and only if the distributions are equal, and between samples of one distribution it
    falls as n^(-1/2) in any dimension. Needs no more than sorting.

    Args:
      x, y: arrays or tensors `[n, *event]` and `[m, *event]`, events flattened; at least 2 rows
        each, n and m as they are.
      num_projections: `int >= 2`, how many directions. Default: 500.
      p: number >= 1, the power. Default: 2.
      seed: `int >= 0`, of the directions.

    Returns:
      An `Estimate` in the samples' units. Its standard error is that of the directions, the samples
      given: zero for events of one entry.

    Raises:
      TypeError, ValueError: for samples of other spaces, one row, entries that are not finite, or
        arguments out of range.

    References:
      Nicolas Bonneel, Julien Rabin, Gabriel Peyre, Hanspeter Pfister. Sliced and Radon Wasserstein
        Barycenters of Measures, JMIV 51, 2015.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(500, 3))
    >>> sliced_wasserstein(x, x).value, sliced_wasserstein(x, x + [1.0, 0.0, 0.0]).value > 0.5
    (0.0, True)
    """
    title = "metrics.sliced_wasserstein"
    p = _power(p, title)
    num_projections = _checks.integer(num_projections, "num_projections", title, least=2)
    rng = np.random.default_rng(_checks.integer(seed, "seed", title, least=0))
    x, y = two_samples(x, y, title)
    directions = rng.normal(size=(x.shape[1], num_projections))
    directions /= np.linalg.norm(directions, axis=0)
    costs = np.concatenate(
        [
            _quantile_cost(x @ directions[:, part], y @ directions[:, part], p)
            for part in slices(num_projections, len(x) + len(y))
        ]
    )
    mean, error = costs.mean(), costs.std(ddof=1) / math.sqrt(num_projections)
    value = mean ** (1.0 / p)
    # The root's slope at the mean carries the error over.
    return Estimate(float(value), float(error * value / (p * mean)) if mean else 0.0)


def _power(p, title):
    p = _checks.positive_number(p, "p", title)
    if p < 1.0:
        raise ValueError(f"{title}: p must be >= 1, got {p}: below, it is no distance.")
    return p


def _quantile_cost(x, y, p):
    """`W_p^p` of each column: the integral of |F^-1 - G^-1|^p, whose steps are at i/n and j/m."""
    n, m = len(x), len(y)
    # In units of 1 / (n m) the steps are integers: no rounding can misplace one.
    ends = np.union1d(np.arange(1, n + 1) * m, np.arange(1, m + 1) * n)
    widths = np.diff(ends, prepend=0) / (n * m)
    x, y = np.sort(x, axis=0)[(ends - 1) // m], np.sort(y, axis=0)[(ends - 1) // n]
    return widths @ np.abs(x - y) ** p
