"""Pictures: what they draw is read back from their axes, and compared with closed forms."""

import importlib
import io

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import _optional, metrics, plots

RNG = np.random.default_rng(0)
X = RNG.normal(size=(200, 3))
FRAME = {
    "size": ["S", "L", "M", None] * 50,
    "weight": np.where(np.arange(200) % 7, X[:, 0], np.nan),
    "new": X[:, 1] > 0,
}


def normal(x):
    return -0.5 * np.sum(np.asarray(x) ** 2, axis=-1) - np.log(2.0 * np.pi)


def drawn(figure):
    """The picture's bytes: only when it is drawn does matplotlib look at everything."""
    file = io.BytesIO()
    figure.savefig(file, dpi=40)
    return file.getvalue()


def test_pairs_of_arrays():
    figure = plots.pairs(
        X, 2.0 * X[:50], labels=list("abc"), units=["m", None, ""], truth=[1, 2, 3], max_points=30
    )
    axes = np.reshape(figure.axes, [3, 3])
    assert [a.get_xlabel() for a in axes[-1]] == ["a (m)", "b", "c"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["a (m)", "b", "c"]
    below, above = axes[2, 0].lines, axes[0, 2].lines
    np.testing.assert_array_equal(below[0].get_xydata(), X[:30, [0, 2]])
    np.testing.assert_array_equal(above[0].get_xydata(), 2.0 * X[:30, [2, 0]])
    assert below[0].get_color() != above[0].get_color()
    np.testing.assert_array_equal(below[1].get_xydata(), [[1.0, 3.0]])
    # A panel and its mirror image have the columns' axes, wide enough for the wider sample.
    assert axes[2, 0].get_xlim() == axes[0, 2].get_ylim() == axes[0, 0].get_xlim()
    low, high = axes[0, 0].get_xlim()
    held = 2.0 * X[:50, 0]
    assert low < np.quantile(held, 0.002) and np.quantile(held, 0.998) < high < 1.2 * held.max()
    # The histogram counts all rows, and those beyond the axis count as such.
    heights = [patch.get_height() for patch in axes[0, 0].patches[:40]]
    edges = np.linspace(low, high, 41)
    np.testing.assert_allclose(heights, np.histogram(X[:, 0], edges)[0] / 200)
    assert [t.get_text() for t in figure.legends[0].texts] == ["data", "samples", "truth"]
    assert drawn(figure)[1:4] == b"PNG"


def test_bins_of_whole_numbers_hold_equally_many():
    x = np.repeat(np.arange(53.0), 3)[:, None]  # Each of them as often.
    axis = plots.pairs(x).axes[0]
    heights = np.array([patch.get_height() for patch in axis.patches])
    np.testing.assert_allclose(heights.sum(), 1.0)
    inner = heights[heights > 0.0][1:-1]
    assert len(inner) > 20 and np.ptp(inner) < 1e-12


def test_dates_are_dates():
    when = np.datetime64("2024-01-01") + np.arange(0, 400, 2) * np.timedelta64(1, "D")
    when[3] = "NaT"
    frame = {"when": when.astype("datetime64[ns]"), "weight": X[:, 0]}
    figure = plots.pairs(frame, frame, limits={"when": ("2024-01-01", "2025-02-03")})
    panel = figure.axes[2]
    days = panel.lines[0].get_xdata()
    assert days[0] == 19723 and days[2] == 19727 and np.isnan(days[3])
    assert panel.get_xlim() == (19723, 20122)
    drawn(figure)
    texts = [text.get_text() for text in panel.get_xticklabels()]
    assert "2025" in texts and len(texts) < 6
    np.testing.assert_allclose(sum(p.get_height() for p in figure.axes[0].patches[:-1]), 1.0)


def test_pairs_of_frames_show_all_of_the_levels():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FRAME)
    frame["size"] = pandas.Categorical(frame["size"], ["S", "M", "L"], ordered=True)
    for x, levels in ((frame, None), (FRAME, {"size": ["S", "M", "L"]})):
        figure = plots.pairs(x, x, levels=levels, columns=["weight", "size", "new"])
        axes = np.reshape(figure.axes, [3, 3])
        assert axes[2, 1].get_xlim() == axes[1, 0].get_ylim() == (-0.5, 2.5)
        assert [t.get_text() for t in axes[2, 1].get_xticklabels()] == ["S", "M", "L"]
        # Spread out, but within the axis; what is missing is not there.
        _, y = axes[1, 0].lines[0].get_xydata().T
        known = np.array([{"S": 0, "M": 1, "L": 2, None: np.nan}[v] for v in FRAME["size"]])
        assert np.nanmax(np.abs(y - known)) < 0.5 and np.isnan(y).sum() == 50
        shares = [patch.get_height() for patch in axes[1, 1].patches[:3]]
        np.testing.assert_allclose(shares, [1 / 3] * 3)
        assert [t.get_text() for t in axes[2, 2].get_xticklabels()] == ["False", "True"]
    assert len(plots.pairs(FRAME, columns=["weight"], limits={"weight": (0, 1)}).axes) == 1


def test_density_contours_hold_their_share():
    figure = plots.density_2d(
        {"normal": normal, "twice": lambda x: normal(x) + np.log(2.0)},
        [-5.0, -5.0],
        [5.0, 5.0],
        points=X[:, :2],
        units=["m", "s"],
    )
    first, second = figure.axes[:2]
    assert first.get_title().endswith("1.00 of the mass") and "2.00" in second.get_title()
    assert first.get_xlabel() == "x1 (m)" and first.get_ylabel() == "x2 (s)"
    contours = next(c for c in first.collections if hasattr(c, "levels"))
    # Of a standard normal a share s lies where p > (1 - s) / (2 pi).
    np.testing.assert_allclose(contours.levels, [0.1 / (2 * np.pi), 0.5 / (2 * np.pi)], rtol=0.02)
    np.testing.assert_allclose(first.images[0].get_array().max(), 1 / (2 * np.pi), rtol=0.01)
    assert drawn(figure)
    nowhere = plots.density_2d(lambda x: np.full(len(x), -np.inf), [0, 0], [1, 1], num=3)
    assert nowhere.axes[0].get_title() == "0.00 of the mass"


def test_calibration_counts_ranks():
    draws, truths = RNG.normal(size=(10, 300, 2)), RNG.normal(size=(300, 2))
    ranks, covered = metrics.sbc_ranks(draws, truths), metrics.coverage(draws, truths)
    figure = plots.calibration(ranks, covered, labels=["mass", "spin"])
    band, line = figure.axes[1].patches
    np.testing.assert_array_equal(line.get_data().values, np.bincount(ranks.ranks[:, 1]))
    assert line.get_data().edges.tolist() == [n - 0.5 for n in range(12)]
    expected = 300 / 11
    spread = 2.0 * np.sqrt(expected * (1 - 1 / 11))
    np.testing.assert_allclose(band.get_data().values, expected + spread)
    assert figure.axes[1].get_title() == f"spin, p = {ranks.p_values[1]:.2g}"
    lines = figure.axes[2].lines
    np.testing.assert_array_equal(lines[1].get_ydata(), covered.observed[:, 1])
    assert drawn(figure)


def test_predictive_bands_are_quantiles():
    simulated = np.arange(101.0)[:, None, None] + np.zeros([1, 2, 3])
    figure = plots.predictive(simulated, [[1, 2, 3], [4, 5, 6]], at=[0.1, 0.2, 0.4], unit="mm")
    wide, narrow = figure.axes[1].collections
    for band, ends in ((wide, (5.0, 95.0)), (narrow, (25.0, 75.0))):
        y = band.get_paths()[0].vertices[:, 1]
        np.testing.assert_allclose([y.min(), y.max()], ends)
    median, dots = figure.axes[1].lines
    assert set(median.get_ydata()) == {50.0} and dots.get_xdata().tolist() == [0.1, 0.2, 0.4]
    assert dots.get_ydata().tolist() == [4, 5, 6] and figure.axes[0].get_ylabel() == "mm"
    assert drawn(figure)


def test_images_keep_their_greys_and_places():
    x = np.arange(6, dtype="uint8")[:, None, None] * np.ones([1, 2, 3], "uint8") * 51
    grid = plots.images(x, columns=4).axes[0].images[0].get_array()
    assert grid.shape == (2 * 3 - 1, 4 * 4 - 1)
    np.testing.assert_allclose(grid[0, [0, 4, 8, 12]], [0.0, 0.2, 0.4, 0.6])
    np.testing.assert_allclose(grid[3, [0, 4, 8]], [0.8, 1.0, 1.0])  # then white, where none is
    strip = plots.images(x, columns=6)
    assert strip.get_size_inches()[1] < 0.3 * strip.get_size_inches()[0]
    colours = tf.random.stateless_uniform([3, 4, 4, 3], seed=[0, 0])
    figure = plots.images({"a": colours, "b": colours}, low=0.0, high=1.0)
    found = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(found[:, 5:9], colours[1], rtol=1e-6)
    assert drawn(figure)


BAD = {
    "shape": (lambda: plots.pairs(X[0]), "x must have 2 axes, got shape"),
    "text": (lambda: plots.pairs([["a"]]), "must hold real numbers"),
    "infinite": (lambda: plots.pairs(X / 0.0), "entries that are infinite"),
    "columns": (lambda: plots.pairs(X, X[:, :2]), "must have the same columns"),
    "too many": (lambda: plots.pairs(np.ones([2, 13])), "expected 1 to 12 columns, got 13"),
    "unknown": (lambda: plots.pairs(FRAME, columns=["wait"]), "there is no column 'wait'"),
    "levels": (lambda: plots.pairs(FRAME, levels={"size": ["S"]}), "'size' must hold numbers, or"),
    "dates": (
        lambda: plots.pairs({"a": np.array(["2024"], "datetime64[s]")}, {"a": [1.0]}),
        "'a' must hold dates in both x and y",
    ),
    "truth": (lambda: plots.pairs(X, truth=[1.0]), "truth must be 3 numbers"),
    "labels": (lambda: plots.pairs(X, labels="abc"), "labels must be 3 texts"),
    "lengths": (lambda: plots.pairs({"a": [1], "b": [1, 2]}), "must be of one length"),
    "corner": (lambda: plots.density_2d(normal, [0, 0], [0, 1]), "low below high"),
    "scalar": (lambda: plots.density_2d(np.sum, [0, 0], [1, 1]), "one number a row"),
    "nan": (lambda: plots.density_2d(lambda x: x[:, 0] * np.nan, [0, 0], [1, 1]), "is NaN at"),
    "ranks": (lambda: plots.calibration(X, X), "must be what metrics.sbc_ranks returns"),
    "panels": (lambda: plots.predictive(X, X), "The first axis counts the draws"),
    "places": (lambda: plots.predictive(X, X[0], at=[1]), "at must be 3 numbers"),
    "grey": (lambda: plots.images(np.ones([2, 2, 2])), "low must be below high"),
    "one": (lambda: plots.images(X), "A single image is x"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_bad_arguments(name):
    call, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=f"^plots.*{message}") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_without_matplotlib(monkeypatch):
    real = importlib.import_module

    def import_module(name):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name)

    monkeypatch.setattr(_optional.importlib, "import_module", import_module)
    with pytest.raises(
        ImportError, match=r'plots.pairs needs matplotlib: pip install "tfp_flows\['
    ):
        plots.pairs(X)
