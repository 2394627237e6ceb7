"""The models that come with the package: whole, and as good as their cards say."""

import io
import json
import pathlib
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits
from test_architecture import ROOT

from tfp_flows import FlowModel, pretrained
from tfp_flows.pretrained import cards

FOLDER = ROOT / "pretrained"


@pytest.fixture(scope="module")
def glow():
    return pretrained.load("glow_digits")


def held_out():
    digits = load_digits()
    rows = np.random.default_rng(0).permutation(len(digits.images))[:297]
    return digits.images[rows].astype("uint8")[..., np.newaxis], digits.target[rows]


def test_together_they_are_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir() if path.is_file()) < 2_000_000


@pytest.mark.parametrize("name", pretrained.available())
def test_a_card_says_what_one_must_know(name):
    card = pretrained.card(name)
    assert card["name"] == name and card["title"] and card["what"] and len(card["limits"]) > 1
    assert card["bytes"] == (FOLDER / f"{name}.keras").stat().st_size
    assert {"name", "licence", "split"} == set(card["data"])
    assert {"command", "seed", "budget", "minutes", "versions"} == set(card["training"])
    for number in card["numbers"]:
        assert number["standard_error"] > 0 and number["rows"] > 1 and number["unit"]
    words = json.loads((ROOT.parent / "tools" / "cards" / f"{name}.json").read_text())
    assert all(card[key] == words[key] for key in words if key != "training")
    assert card["training"].items() >= words["training"].items()


def test_digits_score_what_the_card_says(glow):
    images, labels = held_out()
    scores = np.asarray(glow.log_prob(images, labels))
    bits, nats = pretrained.card("glow_digits")["numbers"][:2]
    assert len(scores) == nats["rows"]
    np.testing.assert_allclose(scores.mean(), nats["value"], atol=2e-3)
    np.testing.assert_allclose(-scores.mean() / (64 * np.log(2.0)), bits["value"], atol=1e-4)


@pytest.mark.parametrize("name", ["made_mnist", "wavenet_digits"])
def test_what_a_model_drew_scores_as_it_did(name):
    """Whoever has no data of it sees so that the file is whole, and this version reads it alike."""
    model = pretrained.load(name)
    with np.load(FOLDER / f"{name}.npz") as drawn:
        context = {"context": drawn["context"]} if "context" in drawn else {}
        x, expected = drawn["x"].astype("int32"), drawn["log_prob"]
    np.testing.assert_allclose(model.log_prob(x, **context), expected, rtol=1e-5)
    backwards = np.asarray(model.log_prob(x[:, ::-1], **context))
    assert backwards.mean() < expected.mean() - 20.0


def test_the_line_on_the_card_runs(glow):
    names = {"np": np, "model": glow}
    exec(pretrained.card("glow_digits")["example"], names)
    digits = names["digits"].numpy()
    assert digits.shape == (4, 10, 8, 8, 1) and digits.dtype.kind in "iu"
    assert digits.min() >= 0 and digits.max() <= 16
    # Each digit's mean sample is most like the mean of its own images.
    images, labels = load_digits().images, load_digits().target
    means = np.stack([images[labels == k].mean(axis=0) for k in range(10)])
    far = ((digits.mean(axis=0)[:, np.newaxis, ..., 0] - means) ** 2).sum(axis=(2, 3))
    assert (far.argmin(axis=1) == np.arange(10)).sum() >= 8


def test_it_has_no_optimizer_and_can_be_trained_on(glow):
    for name in pretrained.available():
        with zipfile.ZipFile(FOLDER / f"{name}.keras") as file:
            assert not json.loads(file.read("config.json"))["compile_config"]
            with h5py.File(io.BytesIO(file.read("model.weights.h5"))) as weights:
                assert "optimizer" not in weights
    assert isinstance(glow, FlowModel) and not glow.compiled
    images, labels = held_out()
    before = glow.get_weights()
    glow.compile(keras.optimizers.SGD(1e-6))
    glow.fit(images[:8], labels[:8], epochs=1, verbose=0)
    assert any((a != b).any() for a, b in zip(before, glow.get_weights(), strict=True))
    glow.set_weights(before)


def test_a_changed_file_is_not_loaded(tmp_path, monkeypatch):
    for path in FOLDER.glob("glow_digits.*"):
        shutil.copy(path, tmp_path)
    monkeypatch.setattr(cards, "_FOLDER", pathlib.Path(tmp_path))
    path = tmp_path / "glow_digits.keras"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    expected = pretrained.card("glow_digits")["sha256"]
    with pytest.raises(ValueError, match=f"not loaded: expected SHA-256 {expected}, got ") as error:
        pretrained.load("glow_digits")
    assert "\n" not in str(error.value) and str(error.value).endswith("Install the package again.")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"glow_digits.keras' is missing. Install"):
        pretrained.load("glow_digits")


def test_unknown_names():
    with pytest.raises(ValueError, match="load: no model 'glow'. There are glow_digits"):
        pretrained.load("glow")
    with pytest.raises(ValueError, match="no model '../x'"):
        pretrained.card("../x")
    with pytest.raises(TypeError, match="card: expected a name, got int"):
        pretrained.card(3)
