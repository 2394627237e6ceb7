"""`fit` under MirroredStrategy gives the weights that one device gives."""

import os
import pathlib
import subprocess
import sys

import numpy as np

SCRIPT = pathlib.Path(__file__).with_name("train_on_replicas.py")


def train(replicas, folder):
    path = folder / f"{replicas}.npz"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # A process of its own: logical devices are set before TensorFlow starts.
    result = subprocess.run(
        [sys.executable, str(SCRIPT), str(replicas), str(path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return np.load(path)


def test_two_replicas_with_an_uneven_last_batch_equal_one_device(tmp_path):
    one, two = train(1, tmp_path), train(2, tmp_path)
    assert set(one.files) == set(two.files)
    for name in one.files:
        np.testing.assert_allclose(two[name], one[name], rtol=1e-5, atol=1e-5, err_msg=name)
