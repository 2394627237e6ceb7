"""Kills a training, or a save, again and again, and checks that nothing of it is lost or half.

    python tools/kill_test.py                       # 20 kills of one process
    python tools/kill_test.py --strategy mirrored   # two replicas in one process
    python tools/kill_test.py --strategy workers    # two worker processes, one or both killed
    python tools/kill_test.py --what save           # or save_weights, export

A small Glow is trained on integer images (fresh dequantization noise every step, shuffled arrays,
ActNorm, a validation split, early stopping) with a `keras.callbacks.BackupAndRestore` every two
steps. Its processes get SIGKILL at random moments, those of saving included, and are started
again with the same command. In the end weights, optimizer state and losses are compared with those
of the same training left alone.

With `--what save`, `save_weights` or `export` a process writes, over and over, models whose weights
are all 1, all 2 and so on. After each kill what is there must load, with weights that are all the
same, and what the killed one left must be gone after the next save to that name.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import launch
import numpy as np
from machine import environment

ROWS, BATCH = 512, 16


def train(args):
    """The child: trains, and writes what it has at the end."""
    import keras

    from tfp_flows import FlowModel, distribute, flows, preprocessing

    strategy = distribute.make_strategy(replicas=2 if args.strategy == "mirrored" else None)
    keras.utils.set_random_seed(1)
    images = np.random.default_rng(0).integers(0, 17, size=(ROWS, 4, 4, 1)).astype("uint8")
    with strategy.scope():
        glow = flows.glow([4, 4, 1], num_levels=1, num_steps=2, hidden_filters=4, seed=0)
        noise = preprocessing.UniformDequantization(17, seed=0)
        model = FlowModel(glow, dequantization=noise)
        model.compile(optimizer=keras.optimizers.Adam(1e-3))

    class Watch(keras.callbacks.Callback):
        """Says when steps are taken, and slows them down, so that kills fall among them."""

        def on_train_begin(self, logs=None):
            self.start = int(self.model.optimizer.iterations.numpy())
            self.said = False

        def on_train_batch_end(self, batch, logs=None):
            if not self.said and int(self.model.optimizer.iterations.numpy()) > self.start:
                print("training", self.start, flush=True)
                self.said = True
            time.sleep(args.sleep)

    callbacks = [
        keras.callbacks.BackupAndRestore(args.folder / "backup", save_freq=2),
        keras.callbacks.EarlyStopping(patience=1000, restore_best_weights=True),
        Watch(),
    ]
    history = model.fit(
        images,
        batch_size=BATCH,
        epochs=args.epochs,
        validation_split=0.25,
        callbacks=callbacks,
        verbose=0,
    )
    variables = [*model.variables, *model.optimizer.variables]
    last = {name: values[-1] for name, values in history.history.items()}
    index = json.loads(os.environ.get("TF_CONFIG", '{"task": {"index": 0}}'))["task"]["index"]
    np.savez(
        args.folder / f"end-{index}.npz",
        *[np.asarray(v).astype("float64") for v in variables],
        **last,
    )


class Training:
    """The processes of one training."""

    def __init__(self, folder, args, sleep):
        count = 2 if args.strategy == "workers" else 1
        command = [sys.executable, __file__, "--folder", str(folder), "--strategy", args.strategy]
        command += ["--epochs", str(args.epochs), "--sleep", str(sleep)]
        env = environment()
        self.log = folder / "log.txt"
        with open(self.log, "ab") as log:
            self.processes = launch.start(
                command, count, env=env, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def wait_for_steps(self):
        """Returns the step that the training starts or resumes from."""
        for line in self.processes[0].stdout:
            if line.startswith("training"):
                return int(line.split()[1])
        self.fail(self.processes[0])

    def fail(self, process):
        """Ends this program with what the training said last."""
        code = process.wait()
        launch.end(self.processes)
        raise SystemExit(f"{self.log.read_text()[-3000:]}\nthe training ended with code {code}")

    def kill(self, rng):
        """Kills one of the processes at first, or all; then whoever is left."""
        first = list(self.processes)
        if len(first) > 1 and rng.random() < 0.5:
            first = [rng.choice(first)]
        for process in first:
            process.send_signal(signal.SIGKILL)
        time.sleep(rng.uniform(0.0, 0.3))
        for process in self.processes:
            process.kill()
            process.wait()

    def finish(self, timeout):
        """Waits for the end."""
        for process in self.processes:
            process.communicate(timeout=timeout)
            if process.returncode:
                self.fail(process)


def compare(wanted, found):
    """The largest difference, relative to 1 and the value, between two ends of a training."""
    with np.load(wanted) as a, np.load(found) as b:
        if set(a.files) != set(b.files):
            raise SystemExit("the two trainings have other variables")
        return max(float(np.max(np.abs(a[n] - b[n]) / (1.0 + np.abs(a[n])))) for n in a.files)


def small_model(level):
    """A model whose weights are all equal."""
    from tfp_flows import FlowModel, flows

    model = FlowModel(flows.real_nvp([4], num_couplings=2, hidden_units=(64, 64), seed=0))
    set_level(model, level)
    return model


def set_level(model, level):
    """Sets every weight to one number."""
    for variable in model.variables:
        variable.assign(np.full(variable.shape, level, variable.dtype))


def write(args):
    """The child: writes until it is killed."""
    model = small_model(0.0)
    print("ready", flush=True)
    for line in sys.stdin:
        # A save runs no thread of TensorFlow, so a fork will do, and spares its start.
        child = 0 if args.what == "export" else os.fork()
        if child:
            print(child, flush=True)
            os.waitpid(child, 0)
            continue
        if args.what == "export":
            print(os.getpid(), flush=True)
        for level in range(int(line), int(line) + 10**6):
            set_level(model, float(level))
            if args.what == "save":
                model.save(args.folder / "m.keras")
            elif args.what == "save_weights":
                model.save_weights(args.folder / "m.weights.h5")
            else:
                model.export(args.folder / f"export-{level}")


def level_of(path, model):
    """Loads what was written; the weights that it has, all different ones of them."""
    import tensorflow as tf

    import tfp_flows

    if path.suffix == ".keras":
        variables = tfp_flows.load(path).variables
    elif path.suffix == ".h5":
        model.load_weights(path)
        variables = model.variables
    else:
        loaded = tf.saved_model.load(str(path))
        if loaded.log_prob(tf.zeros([1, 4]))["log_prob"].shape != [1]:
            return []
        variables = loaded.flow_variables
    return np.unique(np.concatenate([np.ravel(v.numpy()) for v in variables]))


def kill_writers(args):
    """Kills processes that write; returns how many left a half file, or one that stays."""
    rng, model = random.Random(args.seed), small_model(0.0)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kill_test_"))
    command = [sys.executable, __file__, "--what", args.what, "--folder", str(folder)]
    halves = found = 0
    leftovers = set()  # what a later save to the same name takes away
    writer = None
    try:
        for number in range(args.kills):
            if writer is None or writer.poll() is not None:
                writer = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
                while writer.stdout.readline() != "ready\n":
                    pass
            writer.stdin.write(
                f"{number * 10**6 + 1}\n" if args.what != "export" else f"{number}00\n"
            )
            writer.stdin.flush()
            pid = int(writer.stdout.readline())
            time.sleep(rng.uniform(0.0, args.span))
            os.kill(pid, signal.SIGKILL)
            if pid == writer.pid:
                writer.wait()
            else:
                while pathlib.Path(f"/proc/{pid}").exists():
                    time.sleep(0.01)
            leftovers |= {(p.name, p.stat().st_ino) for p in folder.glob(".*.partial")}
            for path in folder.glob("[!.]*"):
                found += 1
                try:
                    whole = len(level_of(path, model)) == 1
                except Exception as error:
                    print(f"kill {number + 1}: {path.name}: {error}")
                    whole = False
                halves += not whole
                if args.what == "export":
                    shutil.rmtree(path)
            print(f"kill {number + 1}: {found} files found, {halves} half", flush=True)
        if args.what == "save":
            model.save(folder / "m.keras")
        elif args.what == "save_weights":
            model.save_weights(folder / "m.weights.h5")
        stay = len(list(folder.glob(".*.partial"))) if args.what != "export" else 0
        print(
            f"{args.what}: {args.kills} kills, {len(leftovers)} of them amid a write; of {found} "
            f"files found after them {halves} were half; {stay} leftovers after the next save"
        )
        return halves + stay
    finally:
        if writer is not None:
            writer.kill()
            writer.wait()
        shutil.rmtree(folder, ignore_errors=True)


def main():
    """Kills, and says how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strategy", choices=("one", "mirrored", "workers"), default="one")
    parser.add_argument("--what", choices=("fit", "save", "save_weights", "export"), default="fit")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--span", type=float, default=1.0, help="most seconds to a kill")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--sleep", type=float, default=0.01, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.folder:
        return train(args) if args.what == "fit" else write(args)
    if args.what != "fit":
        return int(kill_writers(args) > 0)
    rng = random.Random(args.seed)
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kill_test_"))
    alone, killed = folder / "alone", folder / "killed"
    alone.mkdir()
    killed.mkdir()
    try:
        Training(alone, args, 0.0).finish(300)
        steps = []
        for number in range(args.kills):
            training = Training(killed, args, args.sleep)
            steps.append(training.wait_for_steps())
            time.sleep(rng.uniform(0.0, args.span))
            training.kill(rng)
            print(f"kill {number + 1}: resumed from step {steps[-1]}", flush=True)
        training = Training(killed, args, 0.0)
        steps.append(training.wait_for_steps())
        training.finish(300)
        worst = max(compare(path, killed / path.name) for path in sorted(alone.glob("end-*.npz")))
        steps_back = [b for a, b in zip(steps, steps[1:], strict=False) if b < a]
        print(
            f"{args.strategy}: {args.kills} kills, last resumed from step {steps[-1]}; largest "
            f"difference from the training left alone {worst:.1e}"
        )
        return int(worst > 1e-5 or bool(steps_back) or steps[-1] == 0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
