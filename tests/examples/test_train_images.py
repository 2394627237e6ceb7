"""Runs `examples/train_images.py` as a user would, on digits."""

import csv
import importlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import matplotlib.image
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPT = ROOT / "examples" / "train_images.py"
TINY = ["--steps", "1", "--width", "8", "--seed", "3"]
STEPS_PER_EPOCH = 10


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(SCRIPT.parent))
    yield importlib.import_module("train_images")
    sys.path.remove(str(SCRIPT.parent))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a finished run, and what it printed."""
    out = tmp_path_factory.mktemp("trained") / "deep" / "run"
    done = run("--epochs", "1", "--limit", "640", *TINY, "--out", out)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def command(*arguments):
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def environment():
    # The package of this tree, whatever is installed.
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path}


def run(*arguments):
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=240
    )


def history(out):
    path = out / "history.csv"
    return list(csv.DictReader(path.open())) if path.exists() else []


def test_a_run_leaves_numbers_pictures_and_weights(trained):
    out, printed = trained
    results = json.loads((out / "results.json").read_text())
    assert results["epochs"] == 1
    assert results["steps"] == STEPS_PER_EPOCH
    nats = results["held_out_nats"]
    # 64 pixels of 17 levels: a uniform density has log2(17) = 4.09 bits/dim.
    assert results["held_out_bits_per_dim"] == pytest.approx(-nats / 64 / np.log(2))
    assert 2.0 < results["held_out_bits_per_dim"] < 4.09
    assert results["held_out_nats_in_units_of_0_to_1"] == pytest.approx(nats + 64 * np.log(17))
    assert f"{results['held_out_bits_per_dim']:.4f}" in printed
    assert f"{nats:.2f}" in printed
    assert len(history(out)) == 1
    assert (out / "model.weights.h5").stat().st_size > 1000
    assert not (out / "backup").exists()
    for name in ("samples.png", "curve.png"):
        picture = matplotlib.image.imread(out / name)
        assert picture.shape[0] > 300 and picture[..., :3].std() > 0.05, name


def test_scores_rank_noise_above_digits(trained, script, tmp_path):
    out, _ = trained
    _, held_out, levels = script._images.load("digits")
    noise = np.random.default_rng(0).integers(0, levels, (2, 8, 8)).astype(np.uint8)
    np.savez(tmp_path / "mixed.npz", x_test=np.concatenate([held_out[:24, ..., 0], noise]))
    from PIL import Image

    Image.fromarray(held_out[0, ..., 0]).save(tmp_path / "digit.png")
    done = run("--out", out, "--score", tmp_path / "mixed.npz", tmp_path / "digit.png")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader((out / "scores.csv").open()))
    assert len(rows) == 27
    assert {row["image"][-4:] for row in rows[:2]} == {"[24]", "[25]"}
    assert all(float(row["percentile"]) == 100.0 for row in rows[:2])
    bits = [float(row["bits_per_dim"]) for row in rows]
    assert bits == sorted(bits, reverse=True)
    assert "the most unusual first" in done.stdout and "..." in done.stdout
    assert matplotlib.image.imread(out / "scores.png").shape[1] > 300
    # A picture file and the same image in an array score the same, but for the noise.
    scores = {row["image"]: float(row["bits_per_dim"]) for row in rows}
    first = scores[f"{tmp_path / 'mixed.npz'}[0]"]
    assert scores[str(tmp_path / "digit.png")] == pytest.approx(first, abs=0.1)
    # The weights that were loaded are those that were trained.
    trained_on = np.load(out / "held_out.npz")["bits_per_dim"]
    assert first == pytest.approx(trained_on[0], abs=0.1)
    assert np.std(trained_on) > 0.1


def test_a_killed_run_goes_on_where_it_was(script, tmp_path):
    out = tmp_path / "run"
    arguments = ["--epochs", "12", "--limit", "640", *TINY, "--batch-size", "64", "--out", out]
    process = subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.time() + 120
        while len(history(out)) < 3 and process.poll() is None and time.time() < deadline:
            time.sleep(0.02)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    assert not (out / "results.json").exists()
    before = history(out)
    assert 3 <= len(before) < 12

    other = run(*arguments[:-2], "--width", "16", "--out", out)
    assert other.returncode == 1
    assert "other settings (width 8 -> 16)" in other.stderr

    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert "going on with the run that was interrupted" in done.stdout
    assert "Epoch 1/12" not in done.stdout and "Epoch 12/12" in done.stdout
    # No step was lost, and none was taken twice.
    assert json.loads((out / "results.json").read_text())["steps"] == 12 * STEPS_PER_EPOCH
    # It went on from the trained weights: its first epoch is no worse than those before.
    after = [float(row["bits_per_dim"]) for row in history(out)]
    assert max(after[len(before) :]) < after[0]

    # A run that finished is neither gone on with nor overwritten unasked.
    settings = json.loads((out / "settings.json").read_text())
    with pytest.raises(script.InputError, match="holds a finished run"):
        script.prepare_folder(out, settings, restart=False)
    assert (out / "model.weights.h5").exists()
    assert script.prepare_folder(out, settings, restart=True) is False
    assert not (out / "model.weights.h5").exists()


@pytest.mark.parametrize("model", ["nice", "real_nvp", "glow"])
def test_sampling_inverts_the_density_for_every_model(script, model):
    images, _, levels = script._images.load("digits")
    args = script.parse(["--model", model, "--width", "8", "--steps", "1", "--alpha", "0.01"])
    built = script.make_model(args, images.shape[1:], levels, images)
    built.initialize(images[:256])
    nats = script.score(built, images[:64])
    assert nats.shape == (64,) and np.isfinite(nats).all()
    assert built.sample(3, seed=0).shape == (3, 8, 8, 1)


def test_nice_starts_from_the_pixels_own_means_and_deviations(script):
    images, _, levels = script._images.load("digits")
    args = script.parse(["--model", "nice"])
    model = script.make_model(args, images.shape[1:], levels, images)
    samples = np.asarray(model.sample(4000, seed=0))
    dequantized = images + np.float64(0.5)
    np.testing.assert_allclose(samples.mean(0), dequantized.mean(0), atol=0.6)
    deviation = np.sqrt(images.var(0) + 1 / 12)
    np.testing.assert_allclose(samples.std(0) / deviation, 1.0, atol=0.15)


def test_the_time_budget_ends_the_training_and_lowers_the_rate(script, tmp_path):
    import keras

    class Model:
        optimizer = keras.optimizers.Adam()
        stop_training = False

    budget = script.Budget(1e-3, 10**6, 1.0, tmp_path / "progress.json")
    budget._path.write_text('{"seconds": 30.0}')  # Half of it was spent before a kill.
    budget.set_model(Model())
    Model.optimizer.build([keras.Variable(0.0)])
    Model.optimizer.iterations.assign(1000)
    budget.on_train_begin()
    budget.on_train_batch_begin(0)
    assert float(Model.optimizer.learning_rate) == pytest.approx(0.505e-3, rel=1e-2)
    budget.on_train_batch_end(0)
    assert not budget.model.stop_training
    budget._start -= 31.0
    budget.on_train_batch_end(0)
    assert budget.model.stop_training
    budget.on_epoch_end(0)
    assert json.loads(budget._path.read_text())["seconds"] > 60.0


def test_padding_is_undone_by_cropping(script):
    images = np.random.default_rng(0).integers(1, 255, (2, 5, 6, 3)).astype(np.uint8)
    padded = script._images.pad(images, 4)
    assert padded.shape == (2, 8, 8, 3)
    assert padded.sum() == images.sum()
    np.testing.assert_array_equal(script._images.crop(padded, images.shape[1:]), images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "expected an array named x_train"),
        ({"x_train": np.zeros((2, 4, 4), np.uint8)}, "named x_test or x_heldout"),
        (
            {"x_train": np.zeros((2, 4, 4), np.float32), "x_test": np.zeros((2, 4, 4))},
            "expected integer pixels from 0 to 255, got float32",
        ),
        (
            {"x_train": np.zeros((2, 16), np.uint8), "x_test": np.zeros((2, 16), np.uint8)},
            r"got the shape \[2, 16\]",
        ),
        (
            {"x_train": np.zeros((2, 4, 4), np.uint8), "x_test": np.zeros((2, 5, 4), np.uint8)},
            "4 x 4 x 1, held-out ones 5 x 4 x 1",
        ),
        (
            {"x_train": np.full((2, 4, 4), 300), "x_test": np.zeros((2, 4, 4), np.uint8)},
            "from 0 to 255, got 300 to 300",
        ),
        (
            {"x_train": np.zeros((0, 4, 4), np.uint8), "x_test": np.zeros((2, 4, 4), np.uint8)},
            "holds no images",
        ),
    ],
)
def test_a_file_that_will_not_do_is_refused(script, tmp_path, arrays, message):
    np.savez(tmp_path / "images.npz", **arrays)
    with pytest.raises(script.InputError, match=message):
        script._images.load(str(tmp_path / "images.npz"))


def test_wrong_paths_and_files_are_refused(script, tmp_path):
    (tmp_path / "text.npz").write_text("no zip file")
    (tmp_path / "text.png").write_text("no picture")
    load, to_score = script._images.load, script._images.load_to_score
    with pytest.raises(script.InputError, match="there is no such file"):
        load(str(tmp_path / "missing.npz"))
    with pytest.raises(script.InputError, match="cannot be read as a .npz file"):
        load(str(tmp_path / "text.npz"))
    with pytest.raises(script.InputError, match="expected digits, mnist"):
        load("svhn")
    with pytest.raises(script.InputError, match="neither a picture nor a .npz file"):
        to_score([tmp_path / "text.png"], (8, 8, 1), 17)
    np.savez(tmp_path / "bright.npz", np.full((1, 8, 8), 255, np.uint8))
    with pytest.raises(script.InputError, match="trained on 17 levels"):
        to_score([tmp_path / "bright.npz"], (8, 8, 1), 17)
    with pytest.raises(script.InputError, match="8 x 8 x 1, but the model was trained on 4 x 4"):
        to_score([tmp_path / "bright.npz"], (4, 4, 1), 256)
    args = script.parse(["--out", str(tmp_path / "empty"), "--score", "a.png"])
    with pytest.raises(script.InputError, match="no finished run"):
        script.score_files(args)


@pytest.mark.parametrize(
    "arguments",
    [["--epochs", "0"], ["--minutes", "-1"], ["--alpha", "0.5"], ["--model", "vae"]],
)
def test_arguments_out_of_range_are_refused(script, arguments, capsys):
    with pytest.raises(SystemExit):
        script.parse(arguments)
    assert arguments[0] in capsys.readouterr().err
