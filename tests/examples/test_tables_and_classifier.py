"""`examples/tables.py` and `examples/digits_classifier.py` end to end, shortly trained."""

import importlib
import json
import pathlib
import sys

import matplotlib.image
import numpy as np
import pytest

from tfp_flows import tables

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)

    def run(name, arguments):
        example = importlib.import_module(name)
        argv = [f"{name}.py", *arguments.split(), "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", argv)
        example.main()
        return capsys.readouterr().out, json.loads((tmp_path / "results.json").read_text())

    return run


def test_tables(run, tmp_path):
    pytest.importorskip("pandas")
    text, results = run("tables", "--rows 600 --epochs 4 --batch-size 100 --width 32 --holes 60")
    assert "the most surprising entries" in text and "30 nearest rows" in text
    nats = results["nats"]
    assert nats["Gaussian copula"] > nats["independent columns"]
    assert -20.0 < nats["table flow"] < -14.0
    assert set(results["imputation"]) == {"column-wise", "30 nearest rows", "table flow"}
    assert matplotlib.image.imread(tmp_path / "pairs.png").shape[0] > 500
    assert len(tables.TableFlow.load(tmp_path / "table.keras").schema) == 7


def test_the_copula_of_the_example_is_one(monkeypatch):
    """Of normal columns on a fine grid it is the normal distribution that they have."""
    pytest.importorskip("pandas")
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("tables")
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.8], [0.8, 1.0]])
    x = np.round(rng.multivariate_normal([0.0, 0.0], covariance, 20_000), 1)
    schema = tables.Schema({"a": tables.real(step=0.1), "b": tables.real(step=0.1)})
    marginals = example.Marginals(schema, x, x)
    found = example.Copula(marginals, x, rng).log_prob(x, rng, draws=8).mean()
    entropy = 1.0 + np.log(2.0 * np.pi) + 0.5 * np.log(np.linalg.det(covariance))
    assert abs(found - (2.0 * np.log(0.1) - entropy)) < 0.02


def test_digits_classifier(run, tmp_path):
    text, results = run("digits_classifier", "--epochs 6 --steps 1 --filters 16 --batch-size 50")
    # Six epochs of a small flow are worth more than a guess, and the samples are drawn.
    assert results["accuracy"] > 0.3 and "297 right" in text
    assert matplotlib.image.imread(tmp_path / "samples.png").shape[0] > 300
