"""A frame in, a frame out."""

import pickle

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, flows, tables
from tfp_flows.models import backup
from tfp_flows.tables import TableFlow
from tfp_flows.tables.training import KeepBest, split


def frame_of(n, seed=0):
    """The wind blows from one side on weekdays; heavier things are bigger; some are missing."""
    rng = np.random.default_rng(seed)
    size = rng.integers(0, 3, n)
    weight = np.exp(size + 0.1 * rng.normal(size=n))
    weekday = rng.random(n) < 0.7
    wind = np.where(weekday, 90.0, 270.0) + 20.0 * rng.normal(size=n)
    count = rng.poisson(3.0 * (1 + size))
    frame = {
        "size": np.array(["S", "M", "L"])[size].astype(object),
        "weight": weight,
        "count": count,
        "weekday": weekday,
        "wind": wind % 360.0,
        "share": np.round(rng.beta(2.0 + 3.0 * weekday, 3.0, n), 2),
    }
    frame["size"][rng.random(n) < 0.1] = None
    frame["weight"] = np.where(rng.random(n) < 0.1, np.nan, frame["weight"])
    return frame


SCHEMA = {
    "size": tables.ordinal(["S", "M", "L"]),
    "weight": tables.positive(),
    "count": tables.count(),
    "weekday": tables.categorical([False, True]),
    "wind": tables.angle(360),
    "share": tables.bounded(0, 1, step=0.01),
}


def columns(frame):
    """A frame as a dictionary of arrays, be it of pandas or not."""
    return {name: np.asarray(frame[name], object) for name in frame}


@pytest.fixture(scope="module")
def table():
    table = TableFlow(tables.Schema(SCHEMA), hidden_units=(32, 32), seed=2)
    table.fit(frame_of(2000), epochs=15, batch_size=100, learning_rate=5e-3, verbose=0)
    return table


def test_it_learns_what_depends_on_what(table):
    new = frame_of(500, seed=1)
    alone = TableFlow(table.schema, hidden_units=(32, 32), seed=0)
    alone.fit(frame_of(200), epochs=1, learning_rate=1e-6, validation=None, verbose=0)
    gain = table.log_prob(new).mean() - alone.log_prob(new).mean()
    assert gain > 1.5  # Nearly independent columns, as untrained.
    # A thing of e^2 is large: from the weight, and the count, alone.
    hidden = {"size": [None], "weight": [np.exp(2.0)], "count": [9]}
    rest = {"weekday": [None], "wind": [None], "share": [None]}
    drawn = table.impute({**hidden, **rest}, 60, seed=0)
    assert np.mean([columns(one)["size"][0] == "L" for one in drawn]) > 0.9
    # In the mean over the circle the wind is that of the weekdays.
    week = {name: [None] for name in SCHEMA} | {"weekday": [True]}
    wind = [columns(one)["wind"][0] for one in table.impute(week, 200, seed=0)]
    mean = np.angle(np.exp(1j * np.radians(np.array(wind, float))).mean(), deg=True)
    assert abs(mean - 90.0) < 15.0


def test_samples_are_of_the_columns_kinds(table):
    drawn = columns(table.sample(300, seed=1))
    again = columns(table.sample(300, seed=1))
    assert list(drawn) == list(SCHEMA)
    np.testing.assert_array_equal(drawn["count"], again["count"])
    assert set(drawn["size"]) == {"S", "M", "L"} and set(drawn["weekday"]) == {True, False}
    assert all(isinstance(v, (int, np.integer)) and v >= 0 for v in drawn["count"])
    assert (drawn["weight"] > 0).all()
    assert ((drawn["wind"] >= 0) & (drawn["wind"] < 360)).all()
    assert ((drawn["share"] >= 0) & (drawn["share"] <= 1)).all()
    np.testing.assert_array_equal(
        drawn["share"].astype(float), np.round(drawn["share"].astype(float), 2)
    )
    assert np.isfinite(table.log_prob(drawn)).all()  # A frame of its own is one to score.


def test_pair_plot_has_a_place_for_every_level(table):
    pytest.importorskip("matplotlib")
    few = {name: values[:20] for name, values in frame_of(400, seed=1).items()}
    few["size"] = np.array(["S", "M"] * 10, object)
    figure = table.pairs(few, columns=["size", "weekday", "wind"], units=[None, None, "deg"])
    axes = np.reshape(figure.axes, [3, 3])
    assert axes[2, 0].get_xlim() == axes[0, 2].get_ylim() == (-0.5, 2.5)
    assert [text.get_text() for text in axes[2, 0].get_xticklabels()] == ["S", "M", "L"]
    assert axes[2, 0].get_ylabel() == "wind (deg)"
    np.testing.assert_array_equal(axes[2, 0].lines[0].get_ydata(), few["wind"])
    drawn = columns(table.sample(20, seed=3))["wind"]
    again = table.pairs(few, seed=3, columns=["weekday", "wind"]).axes[1].lines[0]
    np.testing.assert_allclose(again.get_xdata(), drawn.astype(float))
    with pytest.raises(ValueError, match="TableFlow.pairs: the frame lacks the columns"):
        table.pairs({"size": ["S"]})


def test_imputation_keeps_what_is_there(table):
    frame = frame_of(50, seed=2)
    for one in table.impute(frame, 2, seed=3):
        for name, values in columns(one).items():
            old = np.asarray(frame[name], object)
            there = np.array([v is not None and v == v for v in old])
            assert all(v is not None and v == v for v in values)
            if name in ("size", "weekday"):
                assert (values[there] == old[there]).all()
            else:
                np.testing.assert_allclose(
                    values[there].astype(float), old[there].astype(float), rtol=1e-12
                )


def test_a_planted_oddity_is_found_and_named(table):
    frame = {name: values[:200].copy() for name, values in frame_of(300, seed=4).items()}
    frame["size"][17], frame["weight"][17], frame["count"][17] = "S", 12.0, 2
    found = columns(table.rank(frame))
    assert found["row"][0] == 17 and found["column"][0] == "weight"
    assert sorted(found["row"]) == list(range(200))
    np.testing.assert_allclose(
        found["log_prob"].astype(float), table.log_prob(frame)[found["row"].astype(int)]
    )
    assert (np.diff(found["surprise"].astype(float)) <= 0).all()
    found = columns(table.rank({name: [None, values[17]] for name, values in frame.items()}))
    assert list(found["row"]) == [1, 0] and found["surprise"][1] == -np.inf
    assert found["column"][0] == "weight" and not isinstance(found["column"][1], str)


def test_hidden_entries_are_scored_given_the_others(table):
    frame = {name: v[:20] for name, v in frame_of(300, seed=5).items()}
    by_name = table.log_prob(frame, hidden=["wind", "share"])
    mask = np.tile([name in ("wind", "share") for name in SCHEMA], [20, 1])
    np.testing.assert_array_equal(by_name, table.log_prob(frame, hidden=mask))
    # They are the last in the order: the whole is the rest and they.
    rest = {**frame, "wind": [None] * 20, "share": [None] * 20}
    np.testing.assert_allclose(by_name, table.log_prob(frame) - table.log_prob(rest), rtol=1e-9)
    with pytest.raises(ValueError, match="hidden must be names of columns or a Boolean array"):
        table.log_prob(frame, hidden=["size", "moon"])


def test_a_file_gives_the_same_table_and_trains_on(table, tmp_path):
    table.save(tmp_path / "table.keras")
    again = TableFlow.load(tmp_path / "table.keras")
    new = frame_of(40, seed=6)
    np.testing.assert_allclose(again.log_prob(new), table.log_prob(new), rtol=1e-12)
    assert str(again.schema) == str(table.schema)
    drawn = columns(table.sample(20, seed=1))
    for name, values in columns(again.sample(20, seed=1)).items():
        same = values == drawn[name]
        if name in ("weight", "wind"):  # To rounding: TensorFlow sums in several threads.
            same = np.isclose(values.astype(float), drawn[name].astype(float), rtol=1e-9)
        assert same.all()
    # Of one frame the same rows are held out.
    for one, other in zip(again._split(new, 0.3), table._split(new, 0.3), strict=True):
        np.testing.assert_array_equal(one, other)
    again.fit(new, epochs=1, verbose=0)
    assert np.isfinite(again.log_prob(new)).all()
    FlowModel(flows.maf([2], num_layers=1, hidden_units=(4,), seed=0)).save(tmp_path / "o.keras")
    with pytest.raises(ValueError, match="holds no table but a _?TransformedDistribution"):
        TableFlow.load(tmp_path / "o.keras")


def test_it_may_be_pickled(table):
    again = pickle.loads(pickle.dumps(table))
    np.testing.assert_array_equal(again.log_prob(frame_of(9)), table.log_prob(frame_of(9)))


def test_an_export_scores_rows_with_holes(table, tmp_path):
    table.model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    x = table.schema.encode(frame_of(30, seed=7))
    assert np.isnan(x).any()
    found = served.log_prob(tf.constant(x))["log_prob"]
    np.testing.assert_allclose(found, table.log_prob(frame_of(30, seed=7)), rtol=1e-9)
    drawn = served.sample(tf.constant(20), tf.constant([0, 1]))["samples"].numpy()
    assert set(drawn[:, 0]) <= {0.0, 1.0, 2.0} and (drawn[:, 1] > 0.0).all()


class _Weights:
    """What a callback sees of a model."""

    weights, stop_training = 0, False

    def get_weights(self):
        return self.weights

    def set_weights(self, weights):
        self.weights = weights


@pytest.mark.parametrize(("patience", "epochs"), [(3, 9), (20, 10)])
def test_held_out_rows_choose_the_weights(patience, epochs):
    scores = iter([5.0, 3.0, 4.0, 3.5, 9.0])
    keep = KeepBest(lambda: next(scores), cost=2.2, patience=patience)
    model = _Weights()
    keep.set_model(model)
    keep.set_params({"epochs": 10})
    logs = []
    for epoch in range(10):
        model.weights = epoch
        logs.append({})
        keep.on_epoch_end(epoch, logs[-1])
        if model.stop_training:
            break
    keep.on_train_end()
    # Scored every second epoch; 3.0 after the fourth, and then three times no better.
    assert [log.get("val_loss") for log in logs[:4]] == [None, 5.0, None, 3.0]
    assert model.weights == 3 and len(logs) == epochs + (patience == 3)


def test_weights_stay_with_their_rows():
    weight = np.arange(50.0)  # The first one counts for nothing.
    x = np.stack([weight, -weight], axis=1)
    x[7] = np.nan
    rows, of_rows, held_out, of_held_out = split(x, weight, 0.2, 3, "test")
    np.testing.assert_array_equal(rows[:, 0], of_rows)
    np.testing.assert_array_equal(held_out[:, 0], of_held_out)
    both = np.sort(np.concatenate([of_rows, of_held_out]))
    np.testing.assert_array_equal(both, np.delete(weight, [0, 7]))
    assert len(held_out) == 10


def test_a_backup_remembers_the_best_weights():
    keep = KeepBest(lambda: 3.0, cost=1.0, patience=2)
    model = _Weights()
    model.weights = "the best"
    keep.set_model(model)
    keep.set_params({"epochs": 10})
    keep.on_epoch_end(0, {})
    # After an interruption: another one, given what a backup keeps of callbacks.
    again = KeepBest(lambda: 4.0, cost=1.0, patience=2)
    for name in (*backup._REMEMBERED, "best_weights"):
        if hasattr(keep, name):
            setattr(again, name, getattr(keep, name))
    model.weights = "others"
    again.set_model(model)
    again.set_params({"epochs": 10})
    again.on_epoch_end(1, {})
    assert not model.stop_training
    again.on_epoch_end(2, {})
    again.on_train_end()
    assert model.stop_training and model.weights == "the best"


def test_a_category_never_seen_is_refused_or_impossible(table):
    frame = {name: v[:3] for name, v in frame_of(10).items()}
    frame["size"] = np.array(["S", "XXL", "M"], object)
    with pytest.raises(ValueError, match="column 'size': 1 values are not among its 3 levels"):
        table.log_prob(frame)
    found = table.log_prob(frame, unseen="impossible")
    assert found[1] == -np.inf and np.isfinite(found[[0, 2]]).all()
    found = table.log_prob(frame, unseen="impossible", hidden=["size"])
    assert found[1] == -np.inf


def test_frames_of_pandas(table):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(frame_of(30), index=range(100, 130))
    frame["size"] = pandas.Categorical(frame["size"], ["S", "M", "L"], ordered=True)
    np.testing.assert_array_equal(table.log_prob(frame), table.log_prob(frame_of(30)))
    one = table.impute(frame, seed=0)[0]
    assert isinstance(one, pandas.DataFrame) and (one.index == frame.index).all()
    assert one["size"].dtype == frame["size"].dtype and not one.isna().any().any()
    schema = tables.Schema.infer(frame, verbose=False)
    assert schema.columns["size"].kind == "ordinal" and schema.columns["size"].levels[0] == "S"


# --- Bad input. ---


def test_what_is_wrong_with_a_frame_is_said_by_column(table):
    good = {name: v[:4] for name, v in frame_of(10).items()}

    def refused(match, error=ValueError, **changed):
        with pytest.raises(error, match=match) as found:
            table.log_prob({**good, **changed})
        assert "\n" not in str(found.value)

    refused(
        "column 'weight': expected positive values, got 1 others, the first is -1 in row 2",
        weight=[1.0, 2.0, -1.0, 3.0],
    )
    refused("column 'weight': expected finite values", weight=[1.0, np.inf, 1.0, 1.0])
    refused("column 'count': expected counts from 0 up", count=[1, -2, 3, 4])
    refused("column 'count': expected multiples of 1", count=[1, 2.5, 3, 4])
    refused("column 'share': expected values from 0 to 1, ends included", share=[0, 1, 1.5, 1])
    refused("column 'share': expected multiples of 0.01", share=[0.5, 0.005, 0.1, 0.1])
    refused("column 'wind': expected angles", TypeError, wind=["a", "b", "c", "d"])
    refused("columns that the schema does not know, \\['moon'\\]", moon=[1, 2, 3, 4])
    refused("expected columns of one length", count=[1, 2])
    with pytest.raises(ValueError, match="lacks the columns \\['wind'\\]"):
        table.log_prob({n: v for n, v in good.items() if n != "wind"})
    with pytest.raises(TypeError, match="expected a pandas DataFrame or a dictionary"):
        table.log_prob([1, 2, 3])
    with pytest.raises(ValueError, match="unseen must be 'refuse' or 'impossible'"):
        table.log_prob(good, unseen="ignore")


def test_what_is_wrong_with_training():
    schema = tables.Schema({"a": tables.real(), "b": tables.categorical(["x", "y"])})
    table = TableFlow(schema)
    with pytest.raises(ValueError, match=r"TableFlow.sample: not fitted yet. Call `fit`"):
        table.sample(3)
    with pytest.raises(ValueError, match="column 'a': constant in the training rows"):
        table.fit({"a": [1.0, 1.0], "b": ["x", "y"]}, validation=None)
    with pytest.raises(ValueError, match="column 'a': all of its values are missing"):
        table.fit({"a": [None, None], "b": ["x", "y"]}, validation=None)
    with pytest.raises(ValueError, match="validation must be a share between 0 and 1"):
        table.fit({"a": [1.0, 2.0], "b": ["x", "y"]}, validation=2.0)
    for how, message in (
        ({"validation": 0.9}, "no rows to train on"),
        ({"validation_split": 0.5}, "no validation_split: give `validation`"),
        ({"learning_rate": -1.0}, "learning_rate must be positive"),
        ({"patience": 0}, "patience must be an integer >= 1"),
        ({"sample_weight": [1.0]}, r"sample_weight must be .* each of the 2 rows, .* shape \[1\]"),
        ({"sample_weight": [1.0, -1.0]}, "sample_weight must be a finite number >= 0"),
    ):
        with pytest.raises(ValueError, match=f"TableFlow.fit: {message}"):
            table.fit({"a": [1.0, 2.0], "b": ["x", "y"]}, **how)
    with pytest.raises(TypeError, match="expected a tables.Schema, got dict"):
        TableFlow({"a": tables.real()})
