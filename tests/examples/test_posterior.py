"""`examples/posterior.py` end to end, shortly trained; and that its exact posterior is exact."""

import importlib
import json
import pathlib
import sys

import matplotlib.image
import numpy as np
import pytest

from tfp_flows import metrics

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


@pytest.fixture(scope="module")
def example():
    sys.path.insert(0, EXAMPLES)
    yield importlib.import_module("posterior")
    sys.path.remove(EXAMPLES)


def test_the_exact_posterior_is_calibrated(example):
    rng = np.random.default_rng(0)
    truths = example.prior(400, rng)
    data = example.simulate(truths, rng)
    draws = np.stack([example.exact_posterior(x, 49, rng) for x in data], axis=1)
    assert metrics.sbc_ranks(draws, truths).p_value > 0.05
    # Both signs of the sum are as likely: the ranks of a half could not tell one lost moon.
    assert abs((draws.sum(-1) > 0).mean() - 0.5) < 0.05
    # Simulated again, its draws lie about the datum, no further than two points of a crescent.
    again = example.simulate(draws[:, 0], rng) - data[0]
    assert np.linalg.norm(again, axis=1).max() < 0.3


def test_end_to_end(example, tmp_path, monkeypatch, capsys):
    arguments = (
        "--simulations 1000 --epochs 4 --layers 1 --observations 1 --samples 200 --checks 60"
    )
    monkeypatch.setattr(sys, "argv", ["posterior.py", *arguments.split(), "--out", str(tmp_path)])
    example.main()
    text = capsys.readouterr().out
    assert "90% intervals" in text and "published for NPE at 1000 simulations: 0.725" in text
    results = json.loads((tmp_path / "results.json").read_text())
    # So little training is not enough, and the figures say so.
    assert 0.6 < results["c2st"] <= 1.0 and results["observations"][0]["precision"] < 0.9
    assert 0.0 <= results["sbc_p_value"] <= 1.0 and len(results["coverage"]) == 9
    for name in ("posteriors.png", "calibration.png"):
        assert matplotlib.image.imread(tmp_path / name).shape[0] > 200
