"""`examples/anomaly.py` end to end, shortly trained: scores, pictures and the caveat."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import matplotlib.image

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "anomaly.py"


def test_scores_histograms_and_the_caveat(tmp_path):
    command = [
        sys.executable,
        str(SCRIPT),
        "--epochs",
        "12",
        "--steps",
        "1",
        "--out",
        str(tmp_path),
    ]
    if importlib.util.find_spec("aiohttp"):
        command.append("--serve")
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["shuffled pixels"]["low_density"] > 0.95
    # What the script is honest about: a high density is no sign of normality.
    assert results["plain bars"]["low_density"] < 0.5
    assert results["plain bars"]["typicality"] > results["plain bars"]["low_density"]
    assert "Denser than the digits" in done.stdout and "plain bars" in done.stdout
    assert matplotlib.image.imread(tmp_path / "histograms.png").shape[0] > 300
    assert (tmp_path / "export" / "saved_model.pb").exists()
