"""`examples/audio.py` and `examples/pixels.py` end to end, hardly trained."""

import functools
import importlib
import json
import math
import pathlib
import wave

import matplotlib.image
import numpy as np
import pytest

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


@pytest.fixture
def audio(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    example = importlib.import_module("audio")
    monkeypatch.setattr(example, "STEPS_PER_EPOCH", 6)
    few = functools.partial(example._audio.vowels, number=20)
    monkeypatch.setattr(example._audio, "vowels", few)
    return example


def test_linear_prediction_finds_the_noise_of_a_known_process(audio):
    rng = np.random.default_rng(0)
    x = np.zeros([40, 700])
    for t in range(2, 700):
        x[:, t] = 1.6 * x[:, t - 1] - 0.8 * x[:, t - 2] + rng.normal(size=40, scale=100.0)
    bits = audio._audio.linear_prediction_bits(x[:20, 200:], x[20:, 200:])
    entropy = 0.5 * math.log2(2.0 * math.pi * math.e * 100.0**2)
    # The variance is not known, but estimated from the last samples.
    assert entropy - 0.02 < bits.mean() < entropy + 0.1


def test_windows_are_where_they_say(audio):
    cuts = [np.arange(10, dtype=np.int16), np.arange(100, 107, dtype=np.int16)]
    rows, conditions = audio._audio.windows(cuts, [3, 5], np.array([True, True]), 4, 2)
    assert rows[:, 0].tolist() == [0, 2, 4, 6, 100, 102]
    assert conditions.tolist() == [[3, 0], [3, 2], [3, 4], [3, 6], [5, 0], [5, 2]]
    with pytest.raises(audio.InputError, match="the longest has 7 samples"):
        audio._audio.windows(cuts, [3, 5], np.array([False, True]), 8, 2)


def test_a_voice(audio, tmp_path):
    out = tmp_path / "run"
    command = ["--epochs", "2", "--steps", "64", "--clip", "80", "--filters", "4", "--layers", "3"]
    command += ["--takes", "2"]
    command += ["--batch-size", "8", "--out", str(out), "--quiet", "--learning-rate", "0.02"]

    audio.main(command)
    results = json.loads((out / "results.json").read_text())
    assert results["steps"] == 12
    lines = (out / "history.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["epoch", "0", "1"]
    assert 5.0 < results["bits_a_sample_of_ar16"] < results["bits_a_sample"] < 16.0
    assert results["difference_of_the_file"] < 1e-5
    assert results["difference_of_the_export"] < 1e-3
    with wave.open(str(out / "sample_heed.wav")) as file:
        assert (file.getframerate(), file.getsampwidth()) == (8000, 2)
        assert file.getnframes() == 2 * (80 + 1000)  # Two takes, each with a pause.
        said = np.frombuffer(file.readframes(2160), "<i2")
    assert not said[80:1080].any() and (said[:80] != said[1080:1160]).any()
    with wave.open(str(out / "sample_hod.wav")) as file:
        assert (said != np.frombuffer(file.readframes(2160), "<i2")).any()
    assert matplotlib.image.imread(out / "spectrograms.png").shape[0] > 300
    with pytest.raises(SystemExit, match="holds a finished run"):
        audio.main(command)
    with pytest.raises(SystemExit, match="holds a run with other settings"):
        audio.main([*command, "--seed", "1"])
    with pytest.raises(SystemExit, match="cannot be read as a .npz file"):
        audio.main(["--data", str(out / "history.csv"), "--out", str(tmp_path / "other")])


def test_the_flow_measures_its_round_trip(audio):
    args = audio.parse(["--density", "flow", "--filters", "4", "--layers", "3", "--steps", "64"])
    model = audio.make_model(args, 64, 3, 8000)
    conditions = np.array([[0, 0], [2, 100]], np.float32)
    rows = np.random.default_rng(0).integers(-3000, 3000, size=(2, 64)).astype(np.int16)
    assert np.isfinite(audio.bits_a_sample(model, rows, conditions)).all()
    # Nothing depends on the samples before, yet: no rounding is amplified.
    assert audio.round_trip(model, rows, conditions) < 1e-2


def test_pixels_are_compared_and_completed(tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(EXAMPLES)
    pixels = importlib.import_module("pixels")
    command = ["--minutes", "0.02", "--limit", "64", "--width", "4", "--out", str(tmp_path)]
    pixels.main([*command, "--models", "pixel_cnn"])
    results = json.loads((tmp_path / "results.json").read_text())
    found = results["models"]["pixel_cnn"]
    assert found["exact"] and found["steps"] > 0
    # 17 levels: a uniform density has 4.09 bits/dim.
    assert 2.0 < found["bits_per_dim"] < 5.0
    assert f"{found['bits_per_dim']:.3f}" in capsys.readouterr().out
    for name in ("samples.png", "completions.png"):
        assert matplotlib.image.imread(tmp_path / name)[..., :3].std() > 0.05
    images = np.arange(2 * 4).reshape(2, 2, 2, 1)
    guesses = np.tile(images, [3, 1, 1, 1, 1])
    guesses[:, :, 1:] += np.array([0, 1, 2]).reshape(3, 1, 1, 1, 1)
    train = images[:1] + 2
    ours, mean = pixels.measure_completions(guesses, images, train)
    assert ours == pytest.approx(1.0) and mean == pytest.approx(math.sqrt((4 + 4) / 2.0))
