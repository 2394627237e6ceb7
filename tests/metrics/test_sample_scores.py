"""Scores of samples in the logs of `fit`."""

import csv

import keras
import numpy as np
import pytest

from tfp_flows import FlowModel, flows, metrics

RNG = np.random.default_rng(0)
X = (3.0 + 0.5 * RNG.normal(size=(400, 2))).astype("float32")


def model(context_size=None):
    flow = flows.real_nvp(
        [2], num_couplings=2, hidden_units=(8,), context_size=context_size, seed=0
    )
    made = FlowModel(flow)
    made.compile(keras.optimizers.Adam(3e-2))
    return made


def test_scores_are_in_every_log(tmp_path):
    calls = []

    def counted(samples, held_out):
        calls.append(samples)
        return metrics.mmd(samples, held_out)

    scores = metrics.SampleScores(
        X[300:], {"mmd": counted, "pr": metrics.precision_recall}, every=2, num_samples=80
    )
    flow = model()
    history = flow.fit(
        X[:300],
        epochs=5,
        verbose=0,
        callbacks=[scores, keras.callbacks.CSVLogger(tmp_path / "log.csv")],
    ).history
    assert set(history) == {"loss", "mmd", "precision", "recall", "density", "coverage"}
    assert [len(values) for values in history.values()] == [5] * 6
    assert len(calls) == 3 and calls[0].shape == (80, 2)  # epochs 1, 3 and 5
    assert history["mmd"][0] == history["mmd"][1] and history["mmd"][2] == history["mmd"][3]
    # The model learns, and the score says so; it is that of the samples one would draw oneself.
    assert history["mmd"][-1] < 0.5 * history["mmd"][0]
    again = metrics.mmd(flow.sample(80, seed=0), X[300:]).value
    np.testing.assert_allclose(history["mmd"][-1], again, rtol=1e-5)
    with open(tmp_path / "log.csv") as file:
        logged = [float(row["mmd"]) for row in csv.DictReader(file)]
    np.testing.assert_allclose(logged, history["mmd"])


def test_early_stopping_hears_them_and_a_context_is_used():
    context = RNG.normal(size=(400, 3)).astype("float32")
    seen = []

    def constant(samples, held_out):
        seen.append(len(samples))
        return 1

    history = model(context_size=3).fit(
        X,
        context,
        epochs=9,
        verbose=0,
        callbacks=[
            metrics.SampleScores(X[:50], {"constant": constant}, context=context[:50]),
            keras.callbacks.EarlyStopping(monitor="constant", mode="min", patience=2),
        ],
    )
    assert history.epoch == [0, 1, 2] and seen == [50, 50, 50]


def test_default_metrics():
    scores = metrics.SampleScores(X[:50], num_samples=20)
    history = model().fit(X, epochs=1, verbose=0, callbacks=[scores]).history
    assert set(history) == {"loss", "mmd", "sliced_wasserstein"}


def test_bad_arguments():
    for wrong in ({}, [metrics.mmd], "mmd"):
        with pytest.raises(ValueError, match="SampleScores: metrics must be a dictionary"):
            metrics.SampleScores(X, wrong)
    with pytest.raises(TypeError, match="metric 'mmd' must be a function of"):
        metrics.SampleScores(X, {"mmd": "mmd"})
    with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
        metrics.SampleScores(X, every=0)
    cases = [
        ({"loss": lambda a, b: 0.0}, ValueError, "the logs have a 'loss' already"),
        ({"m": lambda a, b: None}, TypeError, "metric 'm' must return a number or a dataclass"),
        ({"mmd": lambda a, b: metrics.mmd(a, b[:, :1])}, ValueError, r"metrics.mmd: x and y must"),
    ]
    for wrong, error, message in cases:
        with pytest.raises(error, match=message) as caught:
            scores = metrics.SampleScores(X[:50], wrong)
            model().fit(X, epochs=1, verbose=0, callbacks=[scores])
        assert "\n" not in str(caught.value)
