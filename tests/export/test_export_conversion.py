"""What other formats make of an export, and what they do not."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from export_models import (
    arguments,
    call,
    image_model,
    images,
    moved,
    signatures_of,
    vector_model,
    vectors,
)

from tfp_flows import FlowModel, flows


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conversion")
    maf = moved(FlowModel(flows.maf([4], num_layers=1, hidden_units=(8,), seed=0)))
    nice = moved(FlowModel(flows.nice([4], num_couplings=1, hidden_units=(8,), seed=0)))
    models = {
        "vector": vector_model(context_size=3),
        "image": image_model(),
        "maf": maf,
        "nice": nice,
    }
    for name, model in models.items():
        model.export(folder / name)
    return folder


def _values(name):
    if name == "image":
        return arguments(images(3).astype(np.float32))
    return arguments(vectors(3), context=vectors(3, 3, seed=4))


def _inputs(signature, values):
    specs = signature.structured_input_signature[1]
    return {k: np.asarray(values[k]).astype(s.dtype.as_numpy_dtype) for k, s in specs.items()}


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("vector", "log_prob"),
        ("vector", "forward"),
        ("vector", "inverse"),
        ("image", "log_prob"),
        ("image", "bits_per_dim"),
        ("image", "log_prob_dequantized"),
        ("image", "forward"),
        ("image", "inverse"),
        ("maf", "log_prob"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_tflite_runs_what_is_deterministic(exports, name, signature):
    path = str(exports / name)
    converter = tf.lite.TFLiteConverter.from_saved_model(path, signature_keys=[signature])
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    expected = signatures_of(path)
    values = _values(name)
    wanted = call(expected[signature], values)
    found = interpreter.get_signature_runner(signature)(**_inputs(expected[signature], values))
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "signature", "reason"),
    [
        ("vector", "sample", "StatelessRandom"),  # no seeded random numbers
        ("maf", "forward", "TensorList"),  # no lists of tensors, which its loop fills
    ],
)
def test_why_tflite_does_not_take_the_others(exports, name, signature, reason):
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(exports / name), signature_keys=[signature]
    )
    with pytest.raises(Exception, match=reason):
        converter.convert()


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("vector", "log_prob"),
        ("image", "inverse"),
        ("image", "log_prob_dequantized"),
        ("nice", "log_prob"),
        ("maf", "forward"),
    ],
)
def test_onnx_runs_both_directions(exports, tmp_path, name, signature):
    """The sequential one, and densities, too, whose base may not be tfd.Sample.

    tf2onnx 1.17 lacks the BroadcastArgs of its log_prob.
    """
    pytest.importorskip("tf2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    path, file = str(exports / name), str(tmp_path / "model.onnx")
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", path, "--tag", "serve"]
    command += ["--signature_def", signature, "--opset", "17", "--output", file]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    expected = signatures_of(path)
    values = _values(name)
    (wanted,) = call(expected[signature], values).values()
    (found,) = session.run(None, _inputs(expected[signature], values))
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
