"""An export is loaded and called by programs that know nothing of this package."""

import importlib.util
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from export_models import arguments, image_model, images, manifest_of, vector_model, vectors

CONSUMERS = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "consumers")
# Modules that are None cannot be imported, and do not disturb TensorFlow's own looking round.
ALONE = """
import runpy, sys
blocked = ("tensorflow_probability", "keras", "tf_keras", "tfp_flows")
sys.modules.update(dict.fromkeys(blocked))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
found = [n for n in sys.modules if n.split(".")[0] in blocked and sys.modules[n] is not None]
sys.exit(f"imported {found}" if found else 0)
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A conditional Glow over integers, what to feed it, and what it must answer."""
    model, folder = image_model(context_size=3), tmp_path_factory.mktemp("consumers")
    path = str(folder / "model")
    model.export(path)
    x, context = images(6).astype(np.int32), vectors(6, 3, seed=4)
    z = np.random.default_rng(5).normal(size=(6, 4, 4, 1)).astype(np.float32)
    values = arguments(x, z=z, context=context, n=6)
    np.savez(folder / "inputs.npz", **{k: v for k, v in values.items() if k != "temperature"})
    wanted = {
        "log_prob/log_prob": model.log_prob(x, context),
        "log_prob_dequantized/log_prob": model.log_prob(x.astype(np.float32), context),
        "sample/samples": model.sample(6, seed=(1, 2), context=context),
        "sample_and_log_prob/samples": model.sample(6, seed=(1, 2), context=context),
    }
    return path, folder, {name: np.asarray(value) for name, value in wanted.items()}


@pytest.mark.parametrize("loader", ["tf2", "tf1"])
def test_python_with_tensorflow_alone(exported, loader):
    path, folder, wanted = exported
    np.savez(folder / "all.npz", temperature=np.float32(1.0), **np.load(folder / "inputs.npz"))
    # TensorFlow 1 knows the temperature's default, and is not given one.
    inputs = folder / ("all.npz" if loader == "tf2" else "inputs.npz")
    outputs = folder / f"{loader}.npz"
    program = os.path.join(CONSUMERS, "tensorflow_only.py")
    command = [sys.executable, "-c", ALONE, program, path, inputs, outputs]
    done = subprocess.run(
        command + ["--tf1"] * (loader == "tf1"), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = dict(np.load(outputs))
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    assert set(found) == {
        "bits_per_dim/bits_per_dim",
        "forward/x",
        "inverse/z",
        "log_prob/log_prob",
        "log_prob_dequantized/log_prob",
        "sample/samples",
        "sample_and_log_prob/log_prob",
        "sample_and_log_prob/samples",
    }


def test_saved_model_cli(exported):
    path, folder, wanted = exported
    inputs = folder / "inputs.npz"
    command = [
        sys.executable,
        "-m",
        "tensorflow.python.tools.saved_model_cli",
        "run",
        f"--dir={path}",
        "--tag_set=serve",
        "--signature_def=log_prob",
        f"--inputs=x={inputs}[x];context={inputs}[context]",
        f"--outdir={folder}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.load(folder / "log_prob.npy")
    np.testing.assert_allclose(found, wanted["log_prob/log_prob"], rtol=1e-6)


def _tensorflow_folder():
    return os.path.dirname(importlib.util.find_spec("tensorflow").origin)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_the_c_library(tmp_path):
    model, path = vector_model(), str(tmp_path / "model")
    model.export(path)
    tensorflow, program = _tensorflow_folder(), str(tmp_path / "log_prob")
    compiled = subprocess.run(
        [
            "cc",
            os.path.join(CONSUMERS, "log_prob.c"),
            f"-I{tensorflow}/include",
            f"{tensorflow}/libtensorflow_cc.so.2",
            f"{tensorflow}/libtensorflow_framework.so.2",
            f"-Wl,-rpath,{tensorflow}",
            "-o",
            program,
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert compiled.returncode == 0, compiled.stderr
    log_prob = manifest_of(path)["signatures"]["log_prob"]
    tensors = log_prob["inputs"]["x"]["tensor"], log_prob["outputs"]["log_prob"]["tensor"]
    x = vectors(20)

    def run(folder, size):
        return subprocess.run(
            [program, folder, *tensors, size], input=x.tobytes(), capture_output=True, timeout=120
        )

    done = run(path, "4")
    assert done.returncode == 0, done.stderr[-2000:]
    found = np.array(done.stdout.split(), np.float32)
    np.testing.assert_allclose(found, model.log_prob(x), rtol=1e-6, atol=1e-6)
    # A wrong shape is an error there, too, not numbers.
    wrong = run(path, "5")
    assert wrong.returncode == 1
    assert b"shape" in wrong.stderr.lower()
