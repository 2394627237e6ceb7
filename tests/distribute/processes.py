"""Runs the programs of this folder, each strategy in processes of its own."""

import fcntl
import os
import pathlib
import subprocess
import sys

FOLDER = pathlib.Path(__file__).parent
ROOT = FOLDER.parent.parent
ENVIRONMENT = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
ENVIRONMENT.pop("TF_CONFIG", None)
sys.path.insert(0, str(ROOT / "tools"))

import launch  # noqa: E402


def run(program, *arguments, workers=1, timeout=400, fail=False):
    """Runs a program of this folder to its end; returns what each process printed."""
    command = [sys.executable, str(FOLDER / program), *map(str, arguments)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    if workers == 1:
        env = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
        processes = [subprocess.Popen(command, env=env, **pipes)]
    else:
        processes = launch.start(command, workers, env=ENVIRONMENT, **pipes)
    try:
        printed = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        launch.end(processes, patience=2.0)
    for process, text in zip(processes, printed, strict=True):
        assert (process.returncode != 0) == fail, text[-4000:]
    return printed


def once(tmp_path_factory, name, make):
    """The folder that `make(folder)` has filled, once for all processes of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / name
    folder.mkdir(exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / ".done").exists():
            make(folder)
            (folder / ".done").touch()
    return folder
