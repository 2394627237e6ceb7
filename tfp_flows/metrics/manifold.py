"""Precision and recall of samples, by nearest neighbours."""

from dataclasses import dataclass

import numpy as np

from tfp_flows import _checks
from tfp_flows.metrics._samples import slices, squared_distances, two_samples

# Squared distances are sure to this share of the squared norms of both rows.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class PrecisionRecall:
    """What `precision_recall` finds; all are shares of rows, but for the density.

    Attributes:
      precision: share of samples within the data's manifold. Low: samples that look like no data.
      recall: share of data within the samples' manifold. Low: dropped modes.
      density: in how many neighbourhoods of data a sample lies, over k; near 1 if the distributions
        are equal, above where samples crowd. An outlier among the data weighs less than in
        `precision`.
      coverage: share of data with a sample in their neighbourhood. Low: dropped modes. An outlier
        among the samples weighs less than in `recall`.

    >>> PrecisionRecall(1.0, 0.5, 1.1, 0.6).recall
    0.5
    """

    precision: float
    recall: float
    density: float
    coverage: float


def precision_recall(samples, data, *, num_neighbors=5):
    """Precision, recall, density and coverage of samples: are they good, and are they all there.

        ball(a)   = what is no further from a than its k-th neighbour in a's own sample
        precision = share of samples in some ball of the data
        recall    = share of data in some ball of the samples
        density   = 1 / (k n) * sum over samples and balls of the data of [sample in ball]
        coverage  = share of the data's balls with a sample in them

    Distances are Euclidean on what is given: of images take features if pixels are not what
    counts. Figures depend on the numbers of rows and on k: compare at equal ones. For samples and
    data of one distribution, equally many, the expected coverage is near 1 - 2^-k.

    Args:
      samples: array or tensor `[n, *event]`, events flattened.
      data: array or tensor `[m, *event]`.
      num_neighbors: `int >= 1`, the k; both need more rows than it. The papers have 3 for precision
        and recall, 5 for density and coverage. Default: 5.

    Returns:
      A `PrecisionRecall`.

    Raises:
      TypeError, ValueError: for samples of other spaces, too few rows, all rows equal, entries that
        are not finite, or a number of neighbours below 1.

    References:
      Tuomas Kynkaanniemi, Tero Karras, Samuli Laine, Jaakko Lehtinen, Timo Aila. Improved Precision
        and Recall Metric for Assessing Generative Models, 2019, arXiv:1904.06991, equations 1, 2.
      Muhammad Ferjad Naeem, Seong Joon Oh, Youngjung Uh, Yunjey Choi, Jaejun Yoo. Reliable Fidelity
        and Diversity Metrics for Generative Models, 2020, arXiv:2002.09797, section 3.

    >>> rng = np.random.default_rng(0)
    >>> data = rng.normal(size=(400, 2)) + 10.0 * rng.integers(0, 2, size=(400, 1))
    >>> one_mode = rng.normal(size=(400, 2))
    >>> found = precision_recall(one_mode, data)
    >>> found.precision > 0.9, 0.4 < found.recall < 0.6
    (True, True)
    """
    title = "metrics.precision_recall"
    k = _checks.integer(num_neighbors, "num_neighbors", title, least=1)
    samples, data = two_samples(samples, data, title, least=k + 1)
    center = data.mean(axis=0)
    samples, data = samples - center, data - center
    # A row is its own nearest neighbour, at distance zero.
    sample_radii, data_radii = _kth_smallest(samples, k), _kth_smallest(data, k)
    if not (sample_radii.any() or data_radii.any()) and (samples[0] == data).all():
        raise ValueError(f"{title}: all rows are equal: there is no manifold. Look at the samples.")
    in_data_balls = np.zeros(len(samples), int)
    in_sample_balls, covered = np.zeros(len(data), bool), np.zeros(len(data), bool)
    norms = [_ROUNDING * np.sum(rows * rows, axis=1) for rows in (samples, data)]
    for part in slices(len(samples), len(data)):
        squares = squared_distances(samples[part], data).numpy()
        # Of whole numbers many are at the radius itself: rounding must not decide.
        squares -= norms[0][part, None] + norms[1]
        inside = squares <= data_radii
        in_data_balls[part] = inside.sum(axis=1)
        covered |= inside.any(axis=0)
        in_sample_balls |= (squares <= sample_radii[part, None]).any(axis=0)
    return PrecisionRecall(
        precision=float((in_data_balls > 0).mean()),
        recall=float(in_sample_balls.mean()),
        density=float(in_data_balls.mean() / k),
        coverage=float(covered.mean()),
    )


def _kth_smallest(rows, k):
    """Each row's squared distance to its k-th neighbour, itself not counted."""
    return np.concatenate(
        [
            np.partition(squared_distances(rows[part], rows).numpy(), k, axis=1)[:, k]
            for part in slices(len(rows), len(rows))
        ]
    )
