"""`tools/mnist_report.py`: its network, its data, and a run that is killed and goes on."""

import importlib
import json
import pathlib

import numpy as np
import pytest
import tensorflow as tf

TOOLS = str(pathlib.Path(__file__).parents[2] / "tools")


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(TOOLS)
    return importlib.import_module("mnist_report")


@pytest.fixture
def data(tmp_path):
    """A square that is grey here and there."""
    images = np.zeros([20, 6, 6], np.uint8)
    images[:, 1:5, 1:5] = np.random.default_rng(0).integers(128, 256, size=(20, 4, 4))
    np.savez(tmp_path / "images.npz", x_train=images, x_test=images[:8])
    return str(tmp_path / "images.npz")


def test_a_pixel_sees_what_is_before_it(report):
    layer = report.MaskedConvolutions(filters=4, num_blocks=2, hidden_filters=4)
    x = tf.random.stateless_uniform([1, 5, 5, 1], [0, 1])
    layer(x)
    rng = np.random.default_rng(0)
    for v in layer.variables:
        v.assign(rng.normal(size=v.shape))
    with tf.GradientTape() as tape:
        tape.watch(x)
        out = tf.reshape(layer(x), [25])
    jacobian = tape.jacobian(out, x).numpy().reshape(25, 25)
    assert (jacobian[np.triu_indices(25)] == 0.0).all()
    # In this one's reach: left, above, and above to the right.
    assert (jacobian[12, [11, 10, 7, 8, 2]] != 0.0).all()


def test_every_pass_draws_every_image_once(report):
    images = np.zeros([12, 4, 4, 1], np.uint8)
    images[np.arange(12), np.arange(12) // 4, np.arange(12) % 4] = 255  # its number
    images[:, 3, 3] = 128
    batches = report.binarized(images, 4, seed=3)
    drawn = np.stack(list(batches.take(6))).reshape(2, 12, 16)
    numbers = drawn[..., :15].argmax(axis=-1)
    assert drawn[..., :15].sum() == 24 and (np.sort(numbers) == np.arange(12)).all()
    assert (numbers[0] != numbers[1]).any()
    assert 0 < drawn[..., 15].sum() < 24
    # From the number of a batch alone.
    np.testing.assert_array_equal(next(iter(batches.skip(4))), drawn.reshape(6, 4, 4, 4, 1)[4])


def test_a_run_that_is_killed_goes_on(report, data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    command = ["--data", data, "--model", "pixel_cnn", "--out", str(out), "--every", "30"]
    command += ["--width", "8", "--depth", "1", "--batch-size", "10", "--passes", "60"]
    command += ["--learning-rate", "0.03"]
    write, points = report.write, []

    def killed(path, found):
        write(path, found)
        points.append(found["curve"][-1])
        if len(points) == 3:  # After the point, before its backup.
            raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(report, "write", killed)
        report.main(command)
    report.main([*command, "--result", str(tmp_path / "cells.json")])
    (cell,) = report.record.read(tmp_path / "cells.json")
    found = json.loads((out / "pixel_cnn.json").read_text())
    assert [point["steps"] for point in found["curve"]] == [30, 60, 90, 120]
    assert found["curve"][:2] == points[:2]
    assert found["curve"][2]["minutes"] > points[1]["minutes"]
    # Half of the pixels are always black, the others mostly white.
    assert 5.0 < found["final"]["test_nats"] < 36 * np.log(2.0) / 2
    assert abs(found["final"]["test_nats"] - found["curve"][-1]["test_nats"]) < 1e-3
    assert cell["ours"] == -found["final"]["test_nats"] and cell["reason"].startswith("60.0 passes")
    assert (out / "pixel_cnn.weights.h5").exists() and not (out / "pixel_cnn.backup").exists()
    with pytest.raises(SystemExit, match="is done"):
        report.main(command)
    with pytest.raises(SystemExit, match="expected uint8 images"):
        np.savez(tmp_path / "flat.npz", x_train=np.zeros([3, 4]), x_test=np.zeros([3, 4]))
        report.main([*command[2:], "--data", str(tmp_path / "flat.npz")])
