"""What is written is there whole or not at all, under any name, and leaves nothing behind."""

import os
import signal

import numpy as np
import pytest

from tfp_flows import FlowModel, flows
from tfp_flows._files import written_whole


@pytest.fixture(scope="module")
def model():
    return FlowModel(flows.real_nvp([2], num_couplings=1, hidden_units=(2,), seed=0))


def put(path, text="new", **kwargs):
    kwargs = {"owner": "test", "overwrite": True, **kwargs}
    with written_whole(path, **kwargs) as partial, open(partial, "w") as file:
        file.write(text)


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_a_name_of_255_bytes(model, tmp_path, ending):
    name = "\u00e9" * 100  # Two bytes each.
    name += "x" * (255 - 200 - len(ending)) + ending
    path = tmp_path / name
    (model.save if ending == ".keras" else model.save_weights)(path)
    model.load_weights(path)
    assert os.listdir(tmp_path) == [name]


def test_a_link_stays_one_and_its_target_is_written(model, tmp_path):
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "m.keras", tmp_path / "m.keras"
    link.symlink_to(os.path.join("far", "m.keras"))
    for _ in range(2):  # First it points to nothing.
        model.save(link)
        assert link.is_symlink() and target.is_file() and not target.is_symlink()
    assert os.listdir(target.parent) == ["m.keras"]
    with pytest.raises(FileExistsError, match="already"):
        model.save(link, overwrite=False)


def test_the_mode_is_the_users_and_then_the_old_files(model, tmp_path):
    path, plain = tmp_path / "m.weights.h5", tmp_path / "plain"
    plain.touch()
    model.save_weights(path)
    assert path.stat().st_mode == plain.stat().st_mode
    path.chmod(0o640)
    model.save_weights(path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_data_are_on_the_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    """In the order of the calls: what a power cut leaves cannot be tried here."""
    calls = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        calls.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))))
        fsync(descriptor)

    def noted_replace(source, target):
        calls.append(("replace", os.path.basename(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    put(tmp_path / "m.keras")
    assert calls == [("fsync", "new"), ("replace", "m.keras"), ("fsync", tmp_path.name)]
    calls.clear()
    with written_whole(tmp_path / "export", owner="test", overwrite=False) as partial:
        os.makedirs(os.path.join(partial, "variables"))
        with open(os.path.join(partial, "variables", "shard"), "w") as file:
            file.write("data")
    assert [name for what, name in calls if what == "fsync"][:3] == ["shard", "variables", "new"]
    assert calls[-2:] == [("replace", "export"), ("fsync", tmp_path.name)]


def killed_while_writing(path):
    """Leaves what a writer leaves that gets SIGKILL in the middle."""
    child = os.fork()
    if child == 0:  # Nothing of TensorFlow here: it does not survive a fork.
        with written_whole(path, owner="test", overwrite=True) as partial:
            with open(partial, "w") as file:
                file.write("half")
                file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)


def test_what_a_killed_writer_left_is_no_model_and_goes_with_the_next_save(tmp_path):
    path, beside = tmp_path / "m.keras", tmp_path / "n.keras"
    put(path, "old")
    for one in (path, beside):
        killed_while_writing(one)
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 3
    for pattern in ("*.keras", "*.weights.h5"):
        assert set(tmp_path.rglob(pattern)) <= {path}
    put(path)
    assert path.read_text() == "new"
    (left,) = set(os.listdir(tmp_path)) - {"m.keras"}
    assert left.startswith(".n.keras.")  # Another's, for another name.


def test_a_writer_that_lives_is_left_alone(tmp_path):
    path = tmp_path / "m.keras"
    with written_whole(path, owner="first", overwrite=True) as partial:
        put(path, "second")
        with open(partial, "w") as file:
            file.write("first")
    assert path.read_text() == "first"  # The last to end.
    assert os.listdir(tmp_path) == ["m.keras"]


def test_save_takes_no_argument_that_it_would_ignore(model, tmp_path):
    with pytest.raises(ValueError, match=r"got zipped=False; a \.keras file is an archive"):
        model.save(tmp_path / "m.keras", zipped=False)
    model.save(tmp_path / "m.keras", include_optimizer=True)
    x = np.zeros([1, 2], np.float32)
    assert model.log_prob(x).shape == [1]
