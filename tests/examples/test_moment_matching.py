"""`examples/moment_matching.py` end to end, shortly trained."""

import os
import pathlib
import re
import subprocess
import sys

import matplotlib.image

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "moment_matching.py"


def test_a_generator_without_a_density(tmp_path):
    out = tmp_path / "moments.png"
    command = [sys.executable, EXAMPLE, "--objective", "sliced_wasserstein", "--epochs", "15"]
    done = subprocess.run(
        [*command, "--out", out],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    scores = dict(re.findall(r"(\w+): MMD\^2 .* SW ([0-9.]+)", done.stdout))
    # Uniform noise is about 0.5 away; rows of the data are 0.02.
    assert float(scores["data"]) < 0.04 and float(scores["samples"]) < 0.15
    assert matplotlib.image.imread(out).shape[0] > 200
