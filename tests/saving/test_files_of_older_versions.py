"""What an older version wrote is read, and means what it meant."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tfp_flows

FOLDERS = sorted((pathlib.Path(__file__).parent.parent / "fixtures").glob("v*"))
MODELS = [(folder, path.stem) for folder in FOLDERS for path in sorted(folder.glob("*.keras"))]


def answers_of(folder, name):
    with np.load(folder / "answers.npz") as stored:
        return {k.split("/")[1]: stored[k] for k in stored if k.split("/")[0] == name}


@pytest.mark.parametrize("folder, name", MODELS, ids=lambda value: getattr(value, "name", value))
def test_a_model_answers_and_trains_as_it_did(folder, name):
    model = tfp_flows.load(folder / f"{name}.keras")
    found = answers_of(folder, name)
    x, context = found["x"], found.get("context")
    np.testing.assert_allclose(model.log_prob(x, context), found["log_prob"], rtol=1e-5, atol=1e-5)
    weights = folder / f"{name}.weights.h5"
    if weights.exists():
        trained = [v.numpy() for v in model.variables]
        for v in model.trainable_variables:
            v.assign(v + 1.0)
        model.load_weights(weights)
        for v, value in zip(model.variables, trained, strict=True):
            np.testing.assert_array_equal(v.numpy(), value)
    samples = model.sample(4, seed=3, context=None if context is None else context[:4])
    np.testing.assert_allclose(samples, found["samples"], rtol=1e-4, atol=1e-4)
    # Training goes on, with the optimizer's state of the file.
    rng = np.random.default_rng(0)
    normal = rng.normal(size=(64, 4)).astype("float32")
    contexts = rng.normal(size=(64, 2)).astype("float32")
    images = rng.integers(0, 17, size=(64, 4, 4, 1)).astype("int32")
    smooth = rng.normal(size=(64, 4, 4, 1)).astype("float32")
    data = {"glow_dequantized": images, "real_nvp_image": smooth, "by_hand": np.exp(normal)}
    history = model.fit(
        data.get(name, normal),
        None if context is None else contexts,
        epochs=1,
        batch_size=16,
        shuffle=False,
        verbose=0,
    )
    np.testing.assert_allclose(history.history["loss"][0], found["next_loss"], rtol=1e-4)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_export_answers_as_it_did(folder):
    loaded, found = tf.saved_model.load(str(folder / "export")), answers_of(folder, "real_nvp")
    got = loaded.log_prob(found["x"], found["context"])["log_prob"]
    np.testing.assert_allclose(got, found["log_prob"], rtol=1e-5, atol=1e-5)
