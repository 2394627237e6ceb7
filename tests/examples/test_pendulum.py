"""`examples/pendulum.py` end to end, shortly trained; and that what it compares with is exact."""

import importlib
import json
import pathlib
import sys

import matplotlib.image
import numpy as np
import pytest
import scipy.stats

from tfp_flows import load

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("pendulum")


def test_the_likelihood_is_that_of_the_simulator(example):
    rng = np.random.default_rng(0)
    truths = example.prior(2000, rng)
    x = example.simulate(truths, rng)
    theta = example.prior(15, rng).reshape(5, 3, 3)
    by_hand = scipy.stats.norm(example.swing(theta), example.NOISE).logpdf(x[:3]).sum(axis=-1)
    np.testing.assert_allclose(example.log_likelihood(theta, x[:3]), by_hand)
    # In the mean minus the entropy of its noise: the same swing is in both.
    found = example.log_likelihood(truths[None], x).mean()
    entropy = 60 * scipy.stats.norm(0.0, example.NOISE).entropy()
    assert abs(found + entropy) < 4.0 * np.sqrt(60 / 2 / 2000)


def test_the_share_is_of_the_weights(example):
    theta = example.prior(50, np.random.default_rng(0))[:, None]
    x = example.swing(theta[0])
    log_p = example.log_likelihood(theta, x)
    shares, _ = example.effective_share(theta, log_p + 7.0, x)
    np.testing.assert_allclose(shares, 1.0)
    # Of the first draw alone three times the weight of each other one.
    shares, w = example.effective_share(theta, log_p - np.log(3.0) * np.eye(50)[:, :1], x)
    np.testing.assert_allclose(w[:, 0], np.r_[3.0, np.ones(49)] / 52.0)
    np.testing.assert_allclose(shares, 52.0**2 / (9.0 + 49.0) / 50.0)


def test_end_to_end(example, tmp_path, monkeypatch, capsys):
    arguments = "--simulations 600 --epochs 2 --layers 1 --series 60 --draws 39"
    monkeypatch.setattr(sys, "argv", ["pendulum.py", *arguments.split(), "--out", str(tmp_path)])
    example.main()
    text = capsys.readouterr().out
    assert "39 draws of each of 60 posteriors" in text and "90% intervals" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert 0.0 <= results["sbc_p_value"] <= 1.0 and np.shape(results["coverage"]) == (9, 3)
    # So little training is not enough, and the weights say so.
    assert 0.0 < results["effective_share"]["median"] < 0.4
    for name in ("calibration", "predictive", "posterior"):
        assert matplotlib.image.imread(tmp_path / f"{name}.png").shape[0] > 200
    theta = load(tmp_path / "posterior.keras").sample(100, context=np.zeros([1, 60]))
    theta = theta.numpy()
    assert (theta >= example.LOW).all() and (theta <= example.HIGH).all()
