"""What a schema guesses, encodes and refuses."""

import numpy as np
import pytest

from tfp_flows import tables
from tfp_flows.saving import describe, rebuild


def test_guesses(capsys):
    rng = np.random.default_rng(0)
    n = 200
    frame = {
        "real": rng.normal(size=n),
        "grid": np.round(rng.normal(size=n), 1),
        "half": np.round(2.0 * rng.normal(size=n)) / 2.0,
        "price": np.exp(2.0 * rng.normal(size=n)),
        "cents": np.round(np.exp(rng.normal(size=n)) + 0.01, 2),
        "count": rng.poisson(4, n),
        "debt": rng.integers(-5, 5, n),
        "text": rng.choice(["red", "blue"], n),
        "flag": rng.random(n) < 0.5,
        "float32": np.round(rng.normal(size=n), 2).astype("float32"),
    }
    frame["real"][3] = np.nan
    schema = tables.Schema.infer(frame)
    found = {name: (c.kind, c.step) for name, c in schema.columns.items()}
    assert found == {
        "real": ("real", None),
        "grid": ("real", 0.1),
        "half": ("real", 0.5),
        "price": ("positive", None),
        "cents": ("positive", 0.01),
        "count": ("count", 1.0),
        "debt": ("real", 1.0),
        "text": ("categorical", None),
        "flag": ("categorical", None),
        "float32": ("real", 0.01),
    }
    assert capsys.readouterr().out.splitlines() == str(schema).splitlines()
    assert schema.columns["text"].levels == ("blue", "red")
    schema.encode(frame)


def test_codes_come_back():
    schema = tables.Schema(
        {
            "grid": tables.real(step=0.1),
            "year": tables.ordinal([1999, 2004, 2010]),
            "text": tables.categorical(["x", "y"]),
            "count": tables.count(),
        }
    )
    frame = {
        "grid": [61.7, -0.3, 0.3],
        "year": [2010, 1999, 2004],
        "text": ["y", "x", None],
        "count": [3, 0, 12],
    }
    codes = schema.encode(frame)
    np.testing.assert_allclose(codes[:, 1], [2.0, 0.0, 1.0])
    assert np.isnan(codes[2, 2])
    back = schema.decode(codes)
    for name, values in frame.items():
        assert list(back[name])[:2] == values[:2]
    assert list(back["grid"]) == [61.7, -0.3, 0.3]


def test_units_beyond_float64_are_refused():
    rng = np.random.default_rng(0)
    for column, values, message in (
        (tables.real(), 1e-310 * rng.normal(size=9), "the deviation .* beyond float64"),
        (tables.real(), 1e300 * rng.normal(size=9), "the deviation .* beyond float64"),
        (tables.count(), 10**13 + rng.integers(0, 10**13, 9), "steps of 1 are too fine"),
    ):
        schema = tables.Schema({"a": column})
        with pytest.raises(ValueError, match=f"column 'a': .*{message}"):
            schema.measured(schema.encode({"a": values}))


def test_a_description_is_that_of_the_schema():
    rng = np.random.default_rng(0)
    heaped = np.where(rng.random(4000) < 0.5, 1.0, np.round(rng.normal(size=4000), 1))
    schema = tables.Schema({"a": tables.real(step=0.1), "b": tables.categorical(["x", "y"])})
    x = np.stack([heaped, rng.integers(0, 2, 4000)], axis=1)
    schema = schema.measured(x)
    again = rebuild(describe(schema=schema))["schema"]
    assert str(again) == str(schema)
    for name, column in schema.columns.items():
        for field, value in column.get_config().items():
            np.testing.assert_array_equal(getattr(again.columns[name], field), value)
    assert again.columns["a"].is_heaped


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ([1.0, 1.0, 1.0], ValueError, "column 'a' is constant: 1"),
        ([None, None], ValueError, "column 'a' is empty"),
        ([1.0, np.inf], ValueError, "column 'a' holds infinite values"),
        (["x", "x"], ValueError, "column 'a' is constant: 'x'"),
        ([f"id{n}" for n in range(30)], ValueError, "names, not categories"),
        ([1 + 2j, 3j], TypeError, "expected numbers, strings or Booleans, got complex"),
    ],
)
def test_what_cannot_be_guessed(values, error, message):
    with pytest.raises(error, match=message):
        tables.Schema.infer({"a": values})


def test_nan_among_strings_is_no_level():
    frame = {"kind": ["a", float("nan"), "b", "b"], "n": [1, 2, 3, 3]}
    schema = tables.Schema.infer(frame, verbose=False)
    assert schema.columns["kind"].levels == ("a", "b")
    np.testing.assert_array_equal(schema.encode(frame)[:, 0], [0, np.nan, 1, 1])


def test_whole_numbers_are_counts_with_holes_and_without_repeats():
    unique = np.arange(40)
    frame = {
        "unique": unique,
        "below": unique - 20,
        "holes": np.where(unique % 7 == 0, np.nan, unique),
        "listed": [None, *range(39)],
        "fractions": np.where(unique % 7 == 0, np.nan, unique + 0.5),
    }
    schema = tables.Schema.infer(frame, verbose=False)
    found = {name: (c.kind, c.step) for name, c in schema.columns.items()}
    whole = ("count", 1.0)
    assert found["unique"] == found["holes"] == found["listed"] == whole
    assert found["below"] == ("real", 1.0) and found["fractions"][1] is None


def test_a_guess_takes_the_frame_that_it_was_made_of():
    rng = np.random.default_rng(0)
    for dtype in ("float16", "float32", "float64"):
        for rows in (5, 40):
            for unit in (1e-3, 1.0, 1e4):
                values = (unit * rng.normal(size=rows)).astype(dtype)
                frame = {"a": np.append(values, values[0])}  # One that repeats.
                schema = tables.Schema.infer(frame, verbose=False)
                assert schema.columns["a"].step is None or dtype == "float16"
                schema.encode(frame)


def test_columns_of_pandas():
    pandas = pytest.importorskip("pandas")
    text, flag = ["a", "b", None, "b"] * 3, [True, False, None, True] * 3
    frame = pandas.DataFrame(
        {
            "text": pandas.array(text, dtype="string"),
            "flag": pandas.array(flag, dtype="boolean"),
            "code": pandas.Categorical([30, 10, 10, None] * 3, categories=[10, 20, 30]),
            "whole": pandas.array([1, None, 5, 2] * 3, dtype="Int64"),
        }
    )
    schema = tables.Schema.infer(frame, verbose=False)
    found = {name: (c.kind, c.levels) for name, c in schema.columns.items()}
    assert found == {
        "text": ("categorical", ("a", "b")),
        "flag": ("categorical", (False, True)),
        "code": ("categorical", (10, 20, 30)),
        "whole": ("count", None),
    }
    times = pandas.Categorical(pandas.to_datetime(["2020-01-01", "2021-01-01"]), ordered=True)
    with pytest.raises(TypeError, match="column 't': tables.ordinal: .* got Timestamp.* Convert"):
        tables.Schema.infer({"t": times})
    back = schema.decode(schema.encode(frame))
    for name in frame:
        given, found = frame[name].isna(), back[name].isna()
        assert (given == found).all() and (frame[name][~given] == back[name][~given]).all()


@pytest.mark.parametrize("unit", ["ns", "us", "D"])
def test_times_are_no_numbers(unit):
    for kind in ("datetime64", "timedelta64"):
        times = np.arange(30).astype(f"{kind}[{unit}]")
        with pytest.raises(TypeError, match="column 'a': expected numbers, strings or Booleans"):
            tables.Schema.infer({"a": times})
        with pytest.raises(TypeError, match="column 'a': expected numbers, got"):
            tables.Schema({"a": tables.real()}).encode({"a": times})


@pytest.mark.parametrize("step", [1 / 3, 1 / 12, 1 / 32, 0.1, 2.54])
def test_grids_without_a_short_decimal_come_back(step):
    for column, low in (
        (tables.real(step), 0.0),
        (tables.bounded(1 / 3, 1 / 3 + 40 * step, step), 1 / 3),
    ):
        schema = tables.Schema({"a": column})
        values = low + step * np.arange(41)
        once = np.asarray(schema.decode(schema.encode({"a": values}))["a"])
        np.testing.assert_allclose(once, values, rtol=0.0, atol=1e-6 * step)
        np.testing.assert_array_equal(schema.decode(schema.encode({"a": once}))["a"], once)


def test_bad_arguments():
    with pytest.raises(ValueError, match="the frame has no column 'z'"):
        tables.Schema.infer({"a": [1.0, 2.0]}, z=tables.count())
    with pytest.raises(TypeError, match="Schema: column 'a': expected a kind such as"):
        tables.Schema({"a": "real"})
    with pytest.raises(TypeError, match="expected a dictionary of columns"):
        tables.Schema({})
    for value in (1.5, "red"):
        with pytest.raises(TypeError, match=rf"column 'a': .* got {value!r}. For one row write"):
            tables.Schema.infer({"a": value})
    row = type("Series", (), {"to_frame": None})()  # As pandas's.
    with pytest.raises(TypeError, match=r"got Series. For one row take frame.iloc\[\[0\]\]"):
        tables.Schema.infer(row)
    with pytest.raises(ValueError, match=r"'a': expected one value a row, .* of shape \[3, 2\]"):
        tables.Schema.infer({"a": [[1, 2]] * 3})
    with pytest.raises(ValueError, match=r"'a': expected values within 2\^53 steps of 1, got 1"):
        tables.Schema({"a": tables.count()}).encode({"a": [1, 2**60 + 1]})
    with pytest.raises(ValueError, match="low must be below high"):
        tables.bounded(2, 1)
    with pytest.raises(ValueError, match="the steps of 0.3 must lead from 0 to 1"):
        tables.bounded(0, 1, step=0.3)
    with pytest.raises(ValueError, match="two levels or more, all different"):
        tables.ordinal(["a", "a"])
    for levels in (["a", None], ["a", float("nan")], [["a"], ["b"]], [b"a", b"b"]):
        with pytest.raises(TypeError, match=r"levels that are strings, numbers or Booleans, got"):
            tables.categorical(levels)
    with pytest.raises(TypeError, match="expected a list of levels, got 'abc'"):
        tables.categorical("abc")
    with pytest.raises(ValueError, match="step must be positive"):
        tables.real(step=0)
