"""This machine: the memory of a process, the environment of another, and one report at a time.

from machine import environment, memory_mb
"""

import contextlib
import fcntl
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
_LOCK = "/tmp/tfp_flows_bench.lock"


def memory_mb(field):
    """Returns `VmHWM` (the peak) or `VmRSS` (now) of this process in MB, or None but on Linux."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1]) / 1024
    return None


def environment(**more):
    """The environment of a process of this checkout that computes on CPUs."""
    path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    return {**os.environ, **quiet, "PYTHONPATH": path, **more}


@contextlib.contextmanager
def only_one():
    """Waits until no other benchmark runs on this machine."""
    with open(_LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another benchmark holds {_LOCK}: waiting", file=sys.stderr, flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
