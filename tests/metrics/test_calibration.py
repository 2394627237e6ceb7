"""Ranks and coverage of posteriors whose truth is known."""

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

from tfp_flows import metrics


def posteriors(n, num_draws, width=1.0, shift=0.0, seed=0):
    """theta ~ N(0, 1), x ~ N(theta, 1): the posterior is N(x / 2, 1 / 2), here two such entries."""
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=(n, 2))
    x = theta + rng.normal(size=(n, 2))
    draws = x / 2 + shift + width * np.sqrt(0.5) * rng.normal(size=(num_draws, n, 2))
    return draws, theta


def test_ranks_beside_a_loop():
    draws, truths = posteriors(40, 9)
    found = metrics.sbc_ranks(draws, truths)
    assert found.ranks.shape == (40, 2) and found.num_draws == 9
    for i in range(40):
        for j in range(2):
            assert found.ranks[i, j] == sum(d[i, j] < truths[i, j] for d in draws)
    assert found.p_values.shape == (2,)
    assert found.p_value == min(1.0, 2 * found.p_values.min())


def test_uniformity_beside_scipy():
    """Ten ranks in four bins, of which two hold two ranks and two hold three."""
    draws, truths = posteriors(200, 9)
    found = metrics.sbc_ranks(draws[..., 0], truths[..., 0], num_bins=4)
    bins = np.array([0, 0, 0, 1, 1, 2, 2, 2, 3, 3])
    counts = np.bincount(bins[found.ranks], minlength=4)
    truth = scipy.stats.chisquare(counts, 200 * np.array([0.3, 0.2, 0.3, 0.2]))
    np.testing.assert_allclose(found.p_values, truth.pvalue, rtol=1e-10)
    assert found.p_value == found.p_values


def test_p_values_are_uniform_for_right_posteriors():
    found = [metrics.sbc_ranks(*posteriors(300, 50, seed=s)) for s in range(60)]
    assert scipy.stats.kstest(np.ravel([f.p_values for f in found]), "uniform").pvalue > 0.05
    assert np.mean([f.p_value <= 0.1 for f in found]) < 0.25


@pytest.mark.parametrize("fault", [{"width": 0.6}, {"width": 1.6}, {"shift": 0.7}])
def test_wrong_posteriors_are_found(fault):
    draws, truths = posteriors(300, 99, **fault)
    assert metrics.sbc_ranks(draws, truths).p_value < 1e-3
    observed = metrics.coverage(draws, truths, [0.5]).observed
    assert (observed > 0.58).all() if fault.get("width", 0) > 1 else (observed < 0.45).all()


def test_coverage_beside_quantiles():
    """Ranks r and levels a: inside if (1 - a) / 2 <= the share of draws below <= (1 + a) / 2."""
    draws, truths = posteriors(100, 99)
    found = metrics.coverage(draws, truths, [0.2, 0.9])
    for k, level in enumerate((0.2, 0.9)):
        # Of 99 draws the i-th is the quantile i / 100.
        ordered = np.sort(draws, axis=0)
        low = ordered[round(50 * (1 - level)) - 1]
        high = ordered[round(50 * (1 + level)) - 1]
        inside = ((low < truths) & (truths < high)).mean(axis=0)
        np.testing.assert_array_equal(found.observed[k], inside)
    np.testing.assert_allclose(found.standard_error, np.sqrt([0.2 * 0.8, 0.9 * 0.1]) / 10)


@pytest.mark.parametrize("num_draws", [1, 10, 99])
def test_levels_are_met_to_a_rank(num_draws):
    """Over every possible rank once, as right posteriors give them."""
    draws = np.tile(np.arange(num_draws, dtype=float)[:, None], num_draws + 1)
    truths = np.arange(num_draws + 1) - 0.5
    levels = np.array([0.3, 0.5, 0.8, 0.9])
    found = metrics.coverage(draws, truths, levels)
    assert (np.abs(found.observed - levels) <= 1.0 / (num_draws + 1) + 1e-12).all()
    if num_draws == 99:
        np.testing.assert_allclose(found.observed, levels, rtol=1e-12)


def test_tensors_and_event_shapes():
    draws, truths = posteriors(60, 20)
    truth = metrics.sbc_ranks(draws, truths)
    found = metrics.sbc_ranks(
        tf.constant(draws.reshape(20, 60, 1, 2)), tf.constant(truths.reshape(60, 1, 2))
    )
    np.testing.assert_array_equal(found.ranks[:, 0], truth.ranks)
    assert found.p_values.shape == (1, 2)
    assert metrics.coverage(draws, truths).observed.shape == (4, 2)
    assert metrics.coverage(draws, truths, 0.5).observed.shape == (1, 2)


DRAWS, TRUTHS = posteriors(30, 9)


@pytest.mark.parametrize(
    ("draws", "truths", "error", "message"),
    [
        (DRAWS, TRUTHS[:20], ValueError, r"got \[9, 30, 2\] and \[20, 2\]. The first axis counts"),
        (DRAWS.swapaxes(0, 1), TRUTHS, ValueError, "transpose if it counts the posteriors"),
        (DRAWS, 0.5, ValueError, r"expected posterior samples \[L, n, \*event\]"),
        (DRAWS[:0], TRUTHS, ValueError, r"got \[0, 30, 2\]"),
        (np.tile(DRAWS[:1], (9, 1, 1)), TRUTHS, ValueError, "the 9 draws of each.*all equal"),
        (DRAWS.astype(int), TRUTHS, TypeError, "posterior_samples must be floating, got dtype int"),
        (DRAWS, TRUTHS.astype("int32"), TypeError, "truths must be floating, got dtype int32"),
        (DRAWS * np.nan, TRUTHS, ValueError, "posterior_samples holds 540 of 540 entries"),
        (DRAWS, TRUTHS.astype(str), TypeError, "truths must hold real numbers"),
    ],
)
@pytest.mark.parametrize("name", ["sbc_ranks", "coverage"])
def test_bad_input(name, draws, truths, error, message):
    with pytest.raises(error, match=message) as caught:
        getattr(metrics, name)(draws, truths)
    text = str(caught.value)
    assert text.startswith(f"metrics.{name}: ") and "\n" not in text


def test_bad_arguments():
    with pytest.raises(ValueError, match="sbc_ranks: expected at least 20 truths, got 10"):
        metrics.sbc_ranks(DRAWS[:, :10], TRUTHS[:10])
    with pytest.raises(ValueError, match="num_bins must be at most 10, as many as 9 draws"):
        metrics.sbc_ranks(DRAWS, TRUTHS, num_bins=11)
    with pytest.raises(ValueError, match="num_bins must be an integer >= 2"):
        metrics.sbc_ranks(DRAWS, TRUTHS, num_bins=1)
    for levels in (90, [0.5, 1.0], [0.0]):
        with pytest.raises(ValueError, match="levels must be numbers between 0 and 1.*level 0.9"):
            metrics.coverage(DRAWS, TRUTHS, levels)
