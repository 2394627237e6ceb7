"""`examples/moment_matching.py` end to end, shortly trained."""

import pathlib
import re
import runpy
import sys

import matplotlib.image

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "moment_matching.py"


def test_a_generator_without_a_density(tmp_path, monkeypatch, capsys):
    out = tmp_path / "moments.png"
    arguments = ["--objective", "sliced_wasserstein", "--epochs", "15", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    runpy.run_path(str(EXAMPLE))
    scores = dict(re.findall(r"(\w+): MMD\^2 .* SW ([0-9.]+)", capsys.readouterr().out))
    # Uniform noise is about 0.5 away; rows of the data are 0.02.
    assert float(scores["data"]) < 0.04 and float(scores["samples"]) < 0.15
    assert matplotlib.image.imread(out).shape[0] > 200
