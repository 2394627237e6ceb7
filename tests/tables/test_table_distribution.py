"""The distribution of a table's columns, against sums, quadrature and frequencies."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf
from scipy import integrate

from tfp_flows import bijectors, conditioners, tables

INFINITY = float("inf")


def measured(schema, frame):
    return schema.measured(schema.encode(frame))


def rows_of(schema, seed=0, width=16):
    """A distribution whose network says something else of every row."""
    inputs, outputs = tables.TableDistribution.sizes(schema)
    layer = conditioners.MLP(outputs, hidden_units=(width,), zero_output=False, seed=seed)
    rows = tables.TableDistribution(schema, layer, seed=seed)
    for v in layer.weights:  # Far from the identity.
        v.assign(2.0 * v)
    return rows


def heaped_frame(rng, n=4000):
    """Carats: some values of a grid are much more common than their neighbours."""
    values = np.round(np.exp(0.5 * rng.normal(size=n)), 1) + 0.1
    values = np.where(rng.random(n) < 0.4, np.round(values), values)
    return np.maximum(np.round(values, 1), 0.1)


# Kind -> how to make it, values to measure it by, and all values that a sum has to go through.
DISCRETE = {
    "count": (tables.count(), lambda rng: rng.poisson(4.0, 300), np.arange(0, 30_000)),
    "ordinal": (tables.ordinal(["S", "M", "L", "XL"]), None, np.arange(4)),
    "categorical": (tables.categorical(["a", "b", "c"]), None, np.arange(3)),
    "grid": (
        tables.real(step=0.5),
        lambda rng: np.round(rng.normal(size=300) * 3.0) / 2.0,
        np.arange(-20_000, 20_001) / 2.0,
    ),
    "positive grid": (
        tables.positive(step=0.5),
        lambda rng: np.maximum(0.5, np.round(2.0 * np.exp(rng.normal(size=300))) / 2.0),
        np.arange(1, 60_000) / 2.0,
    ),
    "bounded grid": (
        tables.bounded(-1, 1, step=0.25),
        lambda rng: np.round(4.0 * rng.uniform(-1, 1, 300)) / 4.0,
        np.arange(-4, 5) / 4.0,
    ),
    "heaped": (tables.positive(step=0.1), heaped_frame, np.arange(1, 60_000) / 10.0),
    # More steps from zero than an int32 counts.
    "heaped far off": (
        tables.real(step=1.0),
        lambda rng: 3e9 + rng.choice([0.0, 1.0, 5.0, 50.0], 300),
        3e9 + np.arange(-3000.0, 3000.0),
    ),
}
OTHER = {"other": tables.real()}


@pytest.mark.parametrize("kind", DISCRETE)
def test_probabilities_of_all_values_sum_to_one(kind):
    column, draw, values = DISCRETE[kind]
    rng = np.random.default_rng(0)
    seen = values[rng.integers(0, len(values), 300)] if draw is None else draw(rng)
    if column.levels is not None:
        seen = np.array(column.levels, object)[seen]
    schema = tables.Schema({**OTHER, "it": column})
    schema = measured(schema, {"other": rng.normal(size=len(seen)), "it": seen})
    assert schema.columns["it"].is_heaped or "heaped" not in kind
    rows = rows_of(schema)
    for other in (-0.7, 0.3):
        x = np.stack([np.full(len(values), other), values], axis=1)
        given = np.broadcast_to([True, False], x.shape)
        total = np.exp(rows.conditional_log_prob(tf.constant(x), given)).sum()
        # What the last value of an unbounded grid leaves out.
        np.testing.assert_allclose(total, 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("column", "seen", "low", "high"),
    [
        (tables.real(), lambda rng: rng.normal(size=300) * 2.0 + 5.0, -80.0, 90.0),
        (tables.positive(), lambda rng: np.exp(0.3 * rng.normal(size=300)), 0.0, 400.0),
        (tables.bounded(2, 3), lambda rng: rng.uniform(2.0, 3.0, 300), 2.0, 3.0),
        (tables.angle(360), lambda rng: rng.uniform(0.0, 360.0, 300), 0.0, 360.0),
    ],
    ids=["real", "positive", "bounded", "angle"],
)
def test_densities_integrate_to_one(column, seen, low, high):
    rng = np.random.default_rng(1)
    schema = tables.Schema({**OTHER, "it": column})
    schema = measured(schema, {"other": rng.normal(size=300), "it": seen(rng)})
    rows = rows_of(schema)
    # Midpoints, by a sigmoid of them near both ends, where the density may have poles.
    u = 60.0 * ((np.arange(200_000) + 0.5) / 200_000 - 0.5)
    share = 1.0 / (1.0 + np.exp(-u))
    values = low + (high - low) * share
    widths = (high - low) * share * (1.0 - share) * (u[1] - u[0])
    inside = (values > low) & (values < high)
    values, widths = values[inside], widths[inside]
    x = np.stack([np.full(len(values), 0.4), values], axis=1)
    given = np.broadcast_to([True, False], x.shape)
    density = np.exp(rows.conditional_log_prob(tf.constant(x), given))
    np.testing.assert_allclose((density * widths).sum(), 1.0, atol=1e-3)


def small(seed=0):
    """Three discrete columns of 3, 2 and 4 values, and all 24 rows of them."""
    schema = tables.Schema(
        {
            "a": tables.ordinal([1, 2, 3]),
            "b": tables.categorical(["x", "y"]),
            "c": tables.bounded(0, 3, step=1),
        }
    )
    everything = np.array(list(itertools.product(range(3), range(2), range(4))), float)
    return rows_of(schema.measured(everything), seed), everything


def test_rows_sum_to_one_and_samples_are_as_frequent_as_they_are_probable():
    rows, everything = small()
    expected = np.exp(rows.log_prob(everything))
    np.testing.assert_allclose(expected.sum(), 1.0, rtol=1e-12)
    drawn = rows.sample(20_000, seed=[0, 1]).numpy()
    found = [(drawn == row).all(axis=1).mean() for row in everything]
    assert np.ptp(expected) > 0.05
    np.testing.assert_allclose(found, expected, atol=5.0 * math.sqrt(0.25 / 20_000) * 0.6)


def test_what_is_missing_last_in_the_order_is_summed_out():
    rows, everything = small()
    holes = everything.copy()
    holes[:, 2] = np.nan
    together = np.exp(rows.log_prob(everything)).reshape(6, 4).sum(axis=1)
    np.testing.assert_allclose(np.exp(rows.log_prob(holes[::4])), together, rtol=1e-12)


def test_completions_are_as_frequent_as_they_are_probable():
    rows, everything = small(seed=3)
    some = everything[everything[:, 1] == 1]  # b = y is given, a and c are drawn
    given = np.broadcast_to([False, True, False], some.shape)
    expected = np.exp(rows.conditional_log_prob(tf.constant(some), given))
    np.testing.assert_allclose(expected.sum(), 1.0, rtol=1e-12)
    holes = np.tile([[np.nan, 1.0, np.nan]], [20_000, 1])
    drawn = rows.complete(holes, seed=[1, 2]).numpy()
    assert (drawn[:, 1] == 1.0).all()
    found = [(drawn == row).all(axis=1).mean() for row in some]
    np.testing.assert_allclose(found, expected, atol=0.012)


def test_one_place_is_in_the_mean_the_log_probability_over_orders():
    """Training's estimate, over many draws, against all six orders."""
    rows, everything = small(seed=1)
    row = everything[7:8]
    each = []
    for order in itertools.permutations(range(3)):
        total, given = 0.0, np.zeros([1, 3], bool)
        for n in order:
            # All but n are left out of the score by being missing or given.
            alone = np.where(given | (np.arange(3) == n), row, np.nan)
            total += float(rows.conditional_log_prob(tf.constant(alone), given)[0])
            given = given | (np.arange(3) == n)
        each.append(total)
    with bijectors.training_mode():
        found = rows.log_prob(np.tile(row, [160_000, 1])).numpy()
    assert np.std(each) > 1e-3
    error = found.std() / math.sqrt(len(found))
    assert abs(found.mean() - np.mean(each)) < 4.0 * error
    assert error < 0.02


def test_training_leaves_missing_entries_out():
    rows, everything = small(seed=1)
    with bijectors.training_mode():
        holes = np.array([[np.nan, 1.0, np.nan], [np.nan, np.nan, np.nan]])
        found = rows.log_prob(holes).numpy()
    expected = rows.log_prob(holes).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found[1] == 0.0


def test_each_entry_given_the_others():
    rows, everything = small(seed=2)
    each = tf.function(rows.each_log_prob, autograph=False)
    found, mean = (t.numpy() for t in each(tf.constant(everything)))
    for n in range(3):
        given = np.broadcast_to(np.arange(3) != n, everything.shape)
        alone = rows.conditional_log_prob(tf.constant(everything), given)
        np.testing.assert_allclose(found[:, n], alone, rtol=1e-12)
    # Its mean over draws, against the sum over the values of column b.
    given_b = everything[:, [0, 2]]
    for row, value in zip(everything, mean[:, 1], strict=True):
        same = (given_b == row[[0, 2]]).all(axis=1)
        expected = (np.exp(found[same, 1]) * found[same, 1]).sum()
        assert abs(value - expected) < 0.9


def test_an_outlier_has_a_finite_score_and_gradient():
    rng = np.random.default_rng(0)
    schema = tables.Schema({**OTHER, "it": tables.real(step=0.1)})
    schema = measured(
        schema, {"other": rng.normal(size=99), "it": np.round(rng.normal(size=99), 1)}
    )
    rows = rows_of(schema)
    x = tf.constant([[1e6, -1e6], [-1e3, 0.0]], tf.float64)
    with tf.GradientTape() as tape:
        found = rows.log_prob(x)
    assert np.isfinite(found).all()
    assert all(np.isfinite(g).all() for g in tape.gradient(found, rows.trainable_variables))
    # No worse than by its own column, but for the share.
    alone = -1e6 / schema.columns["other"].scale + math.log(1e-4)
    assert found[0] > 2.1 * alone


def test_a_heaped_column_knows_values_far_beyond_its_heaps():
    column = tables.count().measured(np.repeat([1.0, 5.0, 50.0], 100), "it")
    assert column.is_heaped
    far = tf.constant([60.0, 1e6, 2.0**31 + 1, 2.0**33, 1e12, 1e15], tf.float64)
    below, above = (edge.numpy() for edge in column.edges(far))
    assert (below <= above).all() and (np.diff(below) > 0).all()


def test_the_cells_of_a_heaped_column_are_told_from_their_coordinates():
    rng = np.random.default_rng(0)
    column = tables.positive(step=0.1).measured(heaped_frame(rng), "carat")
    assert column.is_heaped
    last = column.first_cell + len(column.cell_shares) - 1
    values = tf.constant(np.arange(1, last + 400) / 10.0)
    below, above = column.edges(values)
    assert below[0] == -INFINITY and np.isfinite(above).all()
    np.testing.assert_allclose(below[1:], above[:-1], rtol=1e-13)
    middle = tf.where(tf.math.is_finite(below), 0.5 * (below + above), above - 1.0)
    np.testing.assert_allclose(column.value(middle), values, atol=1e-9)
    # The heaps are in the coordinate: untrained, a cell is as probable as in the training rows.
    share = tf.sigmoid(above) - tf.sigmoid(below)
    at_one = column.cell_shares[10 - column.first_cell]
    np.testing.assert_allclose(share[9], at_one, rtol=0.02)


def test_log_of_a_cell_loses_no_digits():
    from tfp_flows.tables.distribution import _log_cell

    a = tf.constant([-40.0, 30.0, 2.0], tf.float64)
    b = a + tf.constant([0.5, 0.5, 1e-9], tf.float64)
    no = tf.zeros([3], tf.bool)
    expected = []
    for left, right in zip(a.numpy(), b.numpy(), strict=True):
        # The integral of the density, scaled to be near one.
        top = min(left, -right) if abs(left) > 10 else 0.0

        def density(u, top=top):
            return math.exp(-abs(u) - top) / (1.0 + math.exp(-abs(u))) ** 2

        expected.append(math.log(integrate.quad(density, left, right, epsabs=0)[0]) + top)
    np.testing.assert_allclose(_log_cell(a, b, no, no), expected, rtol=1e-7)
