"""An export that fails leaves nothing under its name."""

import os
import resource
import signal
import subprocess
import sys
import textwrap

import pytest
import tensorflow as tf
from export_models import signatures_of, vector_model, vectors


@pytest.fixture(scope="module")
def model():
    return vector_model()


def test_an_error_half_way_leaves_nothing(model, tmp_path, monkeypatch):
    def save(module, path, **kwargs):
        os.makedirs(os.path.join(path, "variables"))
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    monkeypatch.setattr(tf.saved_model, "save", save)
    with pytest.raises(OSError, match=r"^FlowModel.export: could not write .*No space left on dev"):
        model.export(tmp_path / "model")
    assert os.listdir(tmp_path) == []


def test_a_process_that_is_killed_leaves_nothing_under_the_name(tmp_path):
    program = """
        import os, signal, sys
        sys.path.insert(0, os.path.dirname(sys.argv[1]))
        import export_models, tensorflow as tf
        save = tf.saved_model.save
        def killed(*args, **kwargs):
            save(*args, **kwargs)
            os.kill(os.getpid(), signal.SIGKILL)
        tf.saved_model.save = killed
        export_models.vector_model().export(sys.argv[2])
    """
    path = tmp_path / "model"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), __file__, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
        capture_output=True,
        timeout=120,
    )
    assert not path.exists()
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".model.") and left.endswith(".partial")
    vector_model().export(path)  # What is left is in nobody's way, and goes.
    assert os.listdir(tmp_path) == ["model"]
    assert "log_prob" in signatures_of(path)


def test_a_full_disk(model, tmp_path):
    """A limit on the size of files, which the kernel enforces as it does a full disk."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"FlowModel.export: could not write"):
            model.export(tmp_path / "model")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert os.listdir(tmp_path) == []


def test_missing_parents_are_made_and_the_mode_is_the_users(model, tmp_path):
    path = tmp_path / "a" / "b" / "model"
    model.export(path)
    assert os.listdir(path.parent) == ["model"]
    os.mkdir(tmp_path / "plain")
    assert os.stat(path).st_mode == os.stat(tmp_path / "plain").st_mode
    got = signatures_of(path)["log_prob"](x=vectors(3))["log_prob"]
    assert got.shape == [3]
