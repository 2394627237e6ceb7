"""`examples/tabular.py` and `examples/vae_iaf.py` end to end, shortly trained."""

import json
import os
import pathlib
import subprocess
import sys

import matplotlib.image
import numpy as np

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_tabular_on_a_file_with_missing_values(tmp_path):
    rng = np.random.default_rng(0)
    table = rng.normal(size=(300, 4))
    table[:, 1] = 10.0 + 5.0 * table[:, 0] ** 2 + 0.2 * table[:, 1]
    table[:, 2] = rng.integers(0, 3, 300)
    truth = table[:8, 1].copy()
    table[:8, 1] = np.nan
    table[290:, 3] = 8.0 * (-1.0) ** np.arange(10)  # odd rows, some of which are tested
    path = tmp_path / "table.csv"
    np.savetxt(path, table, delimiter=",", header="a,b,c,d", comments="")
    text = run("tabular.py", "--data", path, "--out", tmp_path, "--epochs", 60, "--steps", 150)
    assert "discrete, spread by noise: c" in text and "8 with missing values" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["MAF"] > results["full-covariance Gaussian"] + 0.5
    filled = np.loadtxt(tmp_path / "filled.csv", delimiter=",", skiprows=1)
    assert filled.shape == (8, 4)
    # Column b follows from column a, though its correlation with it is zero.
    mean_error = np.abs(np.nanmean(table[:, 1]) - truth).mean()
    assert np.abs(filled[:, 1] - truth).mean() < 0.5 * mean_error
    np.testing.assert_allclose(filled[:, [0, 2, 3]], table[:8, [0, 2, 3]], rtol=1e-12)
    ranking = np.loadtxt(tmp_path / "unusual.csv", delimiter=",", skiprows=1)
    assert len(ranking) == 292 // 5 and (np.diff(ranking[:, 1]) >= 0).all()
    odd = np.flatnonzero(ranking[:, 0] >= 290)  # rows are numbered as in the file
    assert ranking[:, 0].min() >= 8 and len(odd) and odd.max() < 10
    assert matplotlib.image.imread(tmp_path / "corner.png").shape[0] > 300


def test_vae_with_an_iaf_posterior(tmp_path):
    text = run("vae_iaf.py", "--epochs", 15, "--weights", 20, "--out", tmp_path)
    assert "ELBO" in text and "IWAE-20" in text
    results = json.loads((tmp_path / "results.json").read_text())
    assert "image by image" in text and len(results["gain of iwae"]) == 2
    for name in ("diagonal Gaussian", "IAF"):
        found = results[name]
        # An importance-weighted estimate is no less than the ELBO; 44 nats are 64 fair coins.
        assert -30.0 < found["elbo"] < found["iwae"] < 0.0
    for name in ("images.png", "posteriors.png"):
        assert matplotlib.image.imread(tmp_path / name).shape[0] > 200
