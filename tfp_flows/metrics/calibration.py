"""Whether posteriors are as wide as they say."""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from tfp_flows import _checks
from tfp_flows.metrics._samples import numbers

_MOST_BINS = 20
_TRUTHS_A_BIN = 10  # Fewer, and the statistic's law is not yet the chi-squared one.


@dataclass(frozen=True)
class Ranks:
    """What `sbc_ranks` finds.

    Attributes:
      ranks: int array `[n, *event]`: how many draws are below the truth, 0 to `num_draws`. Uniform
        if the posteriors are right. A histogram that is high at both ends: posteriors too narrow;
        in the middle: too wide; at one end: shifted.
      num_draws: `int`.
      p_values: float array `[*event]`: how often right posteriors give ranks as uneven (chi-squared
        over bins), each entry for itself.
      p_value: the least of them times their number, at most 1 (Bonferroni): all entries at once.

    >>> Ranks(np.array([0, 2]), 2, np.array(0.4), 0.4).p_value
    0.4
    """

    ranks: np.ndarray
    num_draws: int
    p_values: np.ndarray
    p_value: float


def sbc_ranks(posterior_samples, truths, *, num_bins=None):
    """Ranks of the truths among posterior draws, and a test of their uniformity.

    Draw a parameter from the prior, simulate data, draw from the posterior given the data: the
    parameter's rank among the draws is uniform on 0 to L if the posterior is right. It is also for
    the prior in the posterior's place: ranks tell of widths and shifts, not of sharpness.

    Args:
      posterior_samples: array or tensor `[L, n, *event]`: L independent draws of each of n
        posteriors, as `condition(flow, contexts).sample(L)` or `model.sample([L, n], context=...)`
        give them. Thin those of a Markov chain.
      truths: array or tensor `[n, *event]`: the parameters that the n data were simulated with,
        drawn from the prior.
      num_bins: `int` from 2 to L + 1, of the test. Default: as many as leave 10 truths in each, at
        most 20.

    Returns:
      A `Ranks`.

    Raises:
      TypeError: for parameters that are integers: equal ones have no rank.
      ValueError: for shapes that do not go together, fewer than 20 truths, draws that are all
        equal, or entries that are not finite.

    References:
      Sean Talts, Michael Betancourt, Daniel Simpson, Aki Vehtari, Andrew Gelman. Validating
        Bayesian Inference Algorithms with Simulation-Based Calibration, 2018, arXiv:1804.06788,
        theorem 1.

    >>> rng = np.random.default_rng(0)
    >>> center = rng.normal(size=500)
    >>> truths = center + rng.normal(size=500)
    >>> sbc_ranks(center + rng.normal(size=(99, 500)), truths).p_value > 0.05
    True
    >>> sbc_ranks(center + 0.5 * rng.normal(size=(99, 500)), truths).p_value < 1e-6
    True
    """
    title = "metrics.sbc_ranks"
    draws, truths = _draws_and_truths(posterior_samples, truths, title)
    num_draws, n = draws.shape[:2]
    if n < 2 * _TRUTHS_A_BIN:
        raise ValueError(
            f"{title}: expected at least {2 * _TRUTHS_A_BIN} truths, got {n}: fewer tell nothing "
            "of uniformity. Simulate more."
        )
    if num_bins is None:
        num_bins = min(_MOST_BINS, num_draws + 1, n // _TRUTHS_A_BIN)
    num_bins = _checks.integer(num_bins, "num_bins", title, least=2)
    if num_bins > num_draws + 1:
        raise ValueError(
            f"{title}: num_bins must be at most {num_draws + 1}, as many as {num_draws} draws have "
            f"ranks, got {num_bins}."
        )
    ranks = np.sum(draws < truths, axis=0)
    # Bins need not divide the ranks evenly: each is expected to get its share of them.
    bin_of_rank = np.arange(num_draws + 1) * num_bins // (num_draws + 1)
    expected = n * np.bincount(bin_of_rank)[:, None] / (num_draws + 1)
    bins = bin_of_rank[ranks.reshape(n, -1)]
    counts = np.stack([np.sum(bins == b, axis=0) for b in range(num_bins)])
    statistic = np.sum((counts - expected) ** 2 / expected, axis=0)
    p_values = tf.math.igammac(np.float64(0.5 * (num_bins - 1)), 0.5 * statistic).numpy()
    return Ranks(
        ranks=ranks,
        num_draws=num_draws,
        p_values=p_values.reshape(ranks.shape[1:]),
        p_value=float(min(1.0, p_values.min() * p_values.size)),
    )


@dataclass(frozen=True)
class Coverage:
    """What `coverage` finds.

    Attributes:
      levels: float array `[k]`: how often the intervals should hold the truth.
      observed: float array `[k, *event]`: how often they do. Below its level: posteriors too
        narrow, or shifted; above: too wide.
      standard_error: float array `[k]`: how far `observed` may be off its level if the posteriors
        are right.

    >>> Coverage(np.array([0.5]), np.array([0.52]), np.array([0.03])).observed
    array([0.52])
    """

    levels: np.ndarray
    observed: np.ndarray
    standard_error: np.ndarray


def coverage(posterior_samples, truths, levels=(0.5, 0.8, 0.9, 0.95)):
    """How often the central credible intervals of posteriors hold the truth, entry by entry.

    The interval of level a lies between the quantiles (1 - a) / 2 and (1 + a) / 2 of the draws. Of
    right posteriors it holds the truth in a share a of the data. For regions in several dimensions,
    give a one-dimensional function of the parameters in their place, such as the log-density.

    Args:
      posterior_samples: array or tensor `[L, n, *event]`, as `sbc_ranks` takes them.
      truths: array or tensor `[n, *event]`.
      levels: numbers in (0, 1). A level is met to 1 / (L + 1): only so many are there between L
        draws; 99 draws meet 0.5, 0.8 and 0.9 exactly. Default: `(0.5, 0.8, 0.9, 0.95)`.

    Returns:
      A `Coverage`.

    Raises:
      TypeError: for parameters that are integers: equal ones have no rank.
      ValueError: for shapes that do not go together, draws that are all equal, levels out of range,
        or entries that are not finite.

    References:
      Joeri Hermans, Arnaud Delaunoy, Francois Rozet, Antoine Wehenkel, Volodimir Begy, Gilles
        Louppe. A Trust Crisis In Simulation-Based Inference?, 2022, arXiv:2110.06581, section 2.
        There the regions are those of highest density; here the intervals are central.

    >>> rng = np.random.default_rng(0)
    >>> found = coverage(rng.normal(size=(99, 4000)), rng.normal(size=4000), levels=[0.5, 0.9])
    >>> bool((abs(found.observed - found.levels) < 3 * found.standard_error).all())
    True
    """
    title = "metrics.coverage"
    levels = np.atleast_1d(numbers(levels, "levels", title))
    if levels.ndim != 1 or not ((levels > 0.0) & (levels < 1.0)).all():
        raise ValueError(
            f"{title}: levels must be numbers between 0 and 1, got {levels.tolist()}. A credible "
            "interval of 90% has the level 0.9."
        )
    draws, truths = _draws_and_truths(posterior_samples, truths, title)
    num_draws, n = draws.shape[:2]
    ranks = np.sum(draws < truths, axis=0)
    # Twice the distance from the middle of the ranks, in integers so that no level is rounded off.
    distance = np.abs(2 * ranks - num_draws)
    reach = levels * (num_draws + 1) * (1.0 + 1e-12)
    inside = distance <= reach.reshape(-1, *[1] * ranks.ndim)
    return Coverage(levels, inside.mean(axis=1), np.sqrt(levels * (1.0 - levels) / n))


def _draws_and_truths(draws, truths, title):
    for name, values in (("posterior_samples", draws), ("truths", truths)):
        kind = np.asarray(values).dtype.kind
        if kind in "biu":
            raise TypeError(
                f"{title}: {name} must be floating, got dtype {np.asarray(values).dtype}: equal "
                "integers have no rank among each other. Add uniform noise to both if they are "
                "counts; cast them if they are not."
            )
    draws, truths = numbers(draws, "posterior_samples", title), numbers(truths, "truths", title)
    if not truths.ndim or draws.shape[1:] != truths.shape or not truths.size or not len(draws):
        raise ValueError(
            f"{title}: expected posterior samples [L, n, *event] and truths [n, *event], got "
            f"{list(draws.shape)} and {list(truths.shape)}. The first axis counts the draws: "
            "transpose if it counts the posteriors."
        )
    if len(draws) > 1 and (draws == draws[0]).all():
        raise ValueError(
            f"{title}: the {len(draws)} draws of each posterior are all equal. Draw with a fresh "
            "seed, all at once: `sample(L)`."
        )
    return draws, truths
