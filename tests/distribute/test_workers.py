"""Two worker processes: their files, their errors, and a training that is killed."""

import json
import re
import subprocess
import sys

import keras
import pytest
from distribute.processes import ENVIRONMENT, ROOT, launch, once

import tfp_flows  # noqa: F401 - registers FlowModel with Keras


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """The folder, what each worker said (a dictionary of all its lines), and what it printed."""

    def run(folder):
        command = [sys.executable, str(ROOT / "tests" / "distribute" / "workers.py"), str(folder)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        processes = launch.start(command, 2, env=ENVIRONMENT, **pipes)
        try:
            printed = [process.communicate(timeout=300)[0] for process in processes]
        finally:
            launch.end(processes, patience=1.0)
        (folder / ".printed").write_text(json.dumps(printed))

    folder = once(tmp_path_factory, "workers", run)
    printed = json.loads((folder / ".printed").read_text())
    said = []
    for text in printed:
        lines = re.findall(r'^\{"\w+": .*?\}(?=\S*$)', text, flags=re.MULTILINE)
        said.append({k: v for line in lines for k, v in json.loads(line).items()})
    return folder, said, printed


def test_shuffled_arrays_train_alike(workers):
    _, (chief, other), _ = workers
    assert chief["weights"] == other["weights"]


def test_files_are_the_chiefs(workers):
    folder, _, _ = workers
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".h5", ".keras", ".csv"))
    assert names == ["best.weights.h5", "last.keras", "log.csv"]
    assert len((folder / "log.csv").read_text().splitlines()) == 3
    model = keras.models.load_model(folder / "last.keras")
    assert int(model.optimizer.iterations.numpy()) == 8


def test_backups_are_each_workers_own(workers):
    folder, (chief, other), _ = workers
    assert sorted(p.name for p in (folder / "backup").iterdir()) == ["worker-0", "worker-1"]
    assert chief["resumed"] == other["resumed"] == 1


def test_progress_is_printed_once(workers):
    _, _, (chief, other) = workers
    assert len(re.findall(r"Epoch \d/2", chief)) == 2
    assert not re.findall(r"Epoch \d", other)


def test_files_are_shared_out_and_every_row_counts_once(workers):
    _, (chief, other), _ = workers
    assert chief["rows"] == [32.0, 32.0]
    assert chief["losses"] == other["losses"]


def test_a_bad_loss_on_one_worker_stops_all(workers):
    _, (chief, other), _ = workers
    assert "not finite at step 0: 1 of 4 rows of the data itself hold NaN" in chief["infinity"]
    assert "not finite at step 0: worker 0 says why" in other["infinity"]
    assert chief["kept"] and other["kept"]


def test_a_lost_worker_is_reported_in_bounded_time(workers):
    _, (chief, _), _ = workers
    assert "worker 0 of 2 lost another one. Start all of them again" in chief["lost"]
    assert chief["seconds"] < 90


def test_killed_for_real():
    """20 kills of each strategy are in RESULTS.md; this shows that the tool still works."""
    command = [sys.executable, str(ROOT / "tools" / "kill_test.py"), "--strategy", "workers"]
    command += ["--kills", "1", "--epochs", "3"]
    result = subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, text=True, timeout=400, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]


def test_the_launcher_ends_the_others_and_starts_again(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, os, pathlib, sys, time\n"
        "index = json.loads(os.environ['TF_CONFIG'])['task']['index']\n"
        "mark = pathlib.Path(sys.argv[1]) / 'failed'\n"
        "print('hello from', index, flush=True)\n"
        "if not mark.exists():\n"
        "    if index == 1:\n"
        "        mark.touch()\n"
        "        sys.exit(7)\n"
        "    time.sleep(60)\n"
    )
    command = [sys.executable, str(ROOT / "tools" / "launch.py"), "--workers", "2"]
    run = [*command, "--restarts", "1", "--", str(script), str(tmp_path)]
    result = subprocess.run(run, capture_output=True, text=True, timeout=40, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "hello from 0\n" * 2
    assert "a worker ended with status 7; starting all again" in result.stderr
    (tmp_path / "failed").unlink()
    run = [*command, "--", str(script), str(tmp_path)]
    assert subprocess.run(run, capture_output=True, timeout=40, check=False).returncode == 7
