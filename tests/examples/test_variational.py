"""`examples/variational.py` end to end, shortly trained."""

import importlib
import pathlib
import sys

import matplotlib.image

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


def test_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("variational")
    flows = example.build()
    monkeypatch.setattr(example, "build", lambda: {"RealNVP": flows["RealNVP, 8 couplings"]})
    monkeypatch.setattr(example, "POINTS", 61)
    picture = tmp_path / "densities.png"
    monkeypatch.setattr(sys, "argv", f"x --steps 200 --samples 64 --out {picture}".split())
    example.main()
    divergence = float(capsys.readouterr().out.split("= ")[1].split(" ")[0])
    assert 0.0 < divergence < 1.0
    assert matplotlib.image.imread(picture).shape[2] == 4
