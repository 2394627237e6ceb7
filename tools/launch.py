"""Starts N workers of one training on this machine.

    python tools/launch.py --workers 2 -- examples/train_distributed.py --epochs 3
    python tools/launch.py --workers 2 --restarts 5 -- my_training.py

Every worker is a process of its own with a `TF_CONFIG` for ports of the loopback. The chief's
output is passed on as it is; of the others what they write to stderr, with their number before each
line. When a worker fails the others are ended, and with `--restarts` all are started again: a
training with a `keras.callbacks.BackupAndRestore` goes on from its last backup. The exit status is
that of the worker that failed first, or 0. It is for trying things out on CPUs: every worker takes
all the GPUs that it sees.
"""

import argparse
import contextlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent


def free_ports(count):
    """Ports of the loopback that nobody listens at."""
    # Below those that the system gives to outgoing connections, which would take them again.
    candidates = random.sample(range(10_000, 32_000), 100)
    ports = []
    for port in candidates:
        with socket.socket() as s, contextlib.suppress(OSError):
            s.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    raise SystemExit(f"launch: no {count} free ports between 10000 and 32000")


def start(command, count, **kwargs):
    """Starts the workers.

    Args:
      command: list, what each of them runs.
      count: how many.
      **kwargs: of `subprocess.Popen`; `env` is added to.

    Returns:
      The processes, the chief first.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    env = dict(kwargs.pop("env", os.environ))
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH", "")]))
    processes = []
    for index in range(count):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        own = {**env, "TF_CONFIG": json.dumps(config)}
        processes.append(subprocess.Popen(command, env=own, **kwargs))
    return processes


def end(processes, patience=10.0):
    """Ends processes that are running: asked first, then killed."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + patience
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def run(command, count):
    """Runs the workers to their end; returns the exit status."""
    processes = start(command, count, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    threads = []
    for index, process in enumerate(processes):
        prefix = f"[worker {index}] " if index else ""
        for source, target in ((process.stderr, sys.stderr), (process.stdout, sys.stdout)):
            shown = target if index == 0 or source is process.stderr else None
            thread = threading.Thread(target=pass_on, args=(source, shown, prefix), daemon=True)
            thread.start()
            threads.append(thread)
    try:
        while True:
            codes = [process.poll() for process in processes]
            failed = [code for code in codes if code]
            if failed or None not in codes:
                break
            time.sleep(0.2)
    finally:
        end(processes)
        for thread in threads:
            thread.join(5.0)
    return failed[0] if failed else 0


def pass_on(source, target, prefix):
    """Copies what a worker writes, as it comes; a progress bar moves by carriage returns."""
    if prefix:
        for line in source:
            if target:
                print(prefix + line, end="", file=target, flush=True)
        return
    while part := source.read(1):
        if target:
            target.write(part)
            target.flush()


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default 2)")
    parser.add_argument("--restarts", type=int, default=0, help="at the most (default 0)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- script.py and its arguments")
    args = parser.parse_args()
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if args.workers < 1 or not command:
        parser.error("give --workers of at least 1 and, after --, a script")
    if command[0].endswith(".py"):
        command = [sys.executable, *command]
    # End the workers too when somebody ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for left in range(args.restarts, -1, -1):
        code = run(command, args.workers)
        if code == 0 or left == 0:
            break
        print(f"launch: a worker ended with status {code}; starting all again", file=sys.stderr)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
