"""Flips single bytes of files and counts what loading says: nothing may load other weights.

    python tools/flip_test.py                                    # 1,000 of each kind, small files
    python tools/flip_test.py --kinds weights backup --flips 100 --large    # files of 10 MB

Kinds: `keras` (`tfp_flows.load`), `stock` (the same file by `keras.models.load_model`), `weights`
(`load_weights` of a `.weights.h5`), `backup` (the folder of a `BackupAndRestore`, in whatever file
of it). Every flip ends as one of

    refused   by an error, and the model's weights and optimizer are what they were before
    equal     loaded, with every weight, the optimizer's state and the progress as written
    older     the backup before it was taken, whole
    half      refused, with weights changed
    silent    loaded, with something else than what was written
    crashed   the process died, or took more than 60 seconds

The flips are drawn by a seed. A process that dies is replaced.
"""

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings

import numpy as np

KINDS = ("keras", "stock", "weights", "backup")
GOOD = ("refused", "equal", "older")


def model(large):
    """A model and its data; compiled."""
    import keras

    from tfp_flows import FlowModel, flows

    keras.utils.set_random_seed(0)
    units = (900, 900) if large else (8,)
    flow = flows.real_nvp([4], num_couplings=1, hidden_units=units, actnorm=True, seed=0)
    made = FlowModel(flow)
    made.compile(optimizer=keras.optimizers.Adam(1e-3))
    return made


def write(kind, folder, large):
    """Writes the files of a kind, from a model that has trained."""
    import keras

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if int(self.model.optimizer.iterations.numpy()) >= 11:
                raise KeyboardInterrupt

    x = np.random.default_rng(0).normal(size=(40, 4)).astype("float32")
    made = model(large)
    callbacks = [keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)]
    if kind == "backup":
        backup = keras.callbacks.BackupAndRestore(folder, save_freq=2, delete_checkpoint=False)
        callbacks += [backup, Stop()]
    with contextlib.suppress(KeyboardInterrupt):
        made.fit(x, batch_size=7, epochs=9, validation_split=0.3, callbacks=callbacks, verbose=0)
    if kind == "weights":
        made.save_weights(folder / "m.weights.h5")
    elif kind != "backup":
        made.save(folder / "m.keras")


def state_of(made):
    """All that a file is to bring back."""
    return [np.asarray(v.numpy()) for v in [*made.variables, *made.optimizer.variables]]


def same(one, other):
    """Whether two states are equal, bit for bit."""
    return len(one) == len(other) and all(
        a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        for a, b in zip(one, other, strict=True)
    )


class Case:
    """One kind of file, and how it is loaded."""

    def __init__(self, kind, folder, large):
        self.kind, self.folder = kind, folder
        self.large = large
        self.model = model(large)
        self.model._build_optimizer()
        if kind in ("weights", "backup"):
            self.spoilt = [np.full_like(a, 1) for a in state_of(self.model)]
        self.good = [self.load()]
        if kind == "backup":
            newest = sorted(folder.glob("*.json"))[-1]
            content = newest.read_bytes()
            newest.unlink()
            self.good.append(self.load())
            newest.write_bytes(content)
        self.files = sorted(path for path in folder.rglob("*") if path.is_file())

    def load(self):
        """Loads what is in the folder; returns the state."""
        import keras

        import tfp_flows
        from tfp_flows.models.backup import Backup

        if self.kind == "keras":
            return state_of(tfp_flows.load(self.folder / "m.keras"))
        if self.kind == "stock":
            return state_of(keras.models.load_model(self.folder / "m.keras"))
        for v, a in zip(
            [*self.model.variables, *self.model.optimizer.variables], self.spoilt, strict=True
        ):
            v.assign(a)
        if self.kind == "weights":
            self.model.load_weights(self.folder / "m.weights.h5")
            return state_of(self.model)
        backup = Backup(keras.callbacks.BackupAndRestore(self.folder), self.model)
        stopping = keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True)
        backup.callbacks = [stopping]
        progress = backup.restore()
        if progress is None:
            raise ValueError("no backup was found")
        backup.on_train_begin()
        rest = [repr(progress), stopping.best, stopping.wait, stopping.best_epoch]
        rest = [np.frombuffer(repr(rest).encode(), np.uint8)]
        return [*state_of(self.model), *rest, *stopping.best_weights]

    def flip(self, rng):
        """Flips a byte, loads, puts it back; returns how that ended, and what was said."""
        place = rng.randrange(sum(path.stat().st_size for path in self.files))
        for path in self.files:
            if place < path.stat().st_size:
                break
            place -= path.stat().st_size
        change = rng.randrange(1, 256)

        def turn():
            with open(path, "r+b") as file:
                file.seek(place)
                byte = file.read(1)[0]
                file.seek(place)
                file.write(bytes([byte ^ change]))

        where = f"{path.name} byte {place} ^ {change}"
        turn()
        try:
            found = self.load()
        except Exception as error:  # Of what kind is said beside the counts.
            if self.kind in ("weights", "backup") and not same(state_of(self.model), self.spoilt):
                return "half", where
            return "refused", type(error).__name__
        finally:
            turn()
        for outcome, good in zip(("equal", "older"), self.good, strict=False):
            if same(found, good):
                return outcome, where
        return "silent", where


def child(args):
    """Flips from a number on, and says how each ended."""
    warnings.simplefilter("ignore")
    case = Case(args.kinds[0], args.folder, args.large)
    signal.alarm(60)
    for number in range(args.first, args.flips):
        rng = random.Random(f"{args.seed}-{args.kinds[0]}-{number}")
        print(json.dumps([number, *case.flip(rng)]), flush=True)
        signal.alarm(60)


def count(kind, args):
    """Counts the ends of all flips of a kind."""
    counts, kinds, bad = collections.Counter(), collections.Counter(), []
    folder = pathlib.Path(tempfile.mkdtemp(prefix="flip_test_"))
    try:
        write(kind, folder, args.large)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        sound = pathlib.Path(tempfile.mkdtemp(prefix="flip_test_"))
        first = 0
        while first < args.flips:
            shutil.rmtree(sound)
            shutil.copytree(folder, sound)
            command = [sys.executable, __file__, "--kinds", kind, "--folder", str(sound)]
            command += ["--flips", str(args.flips), "--first", str(first)]
            command += ["--seed", str(args.seed), *(["--large"] if args.large else [])]
            with subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            ) as process:
                for line in process.stdout:
                    if not line.startswith("["):
                        continue
                    number, outcome, said = json.loads(line)
                    counts[outcome] += 1
                    first = number + 1
                    if outcome == "refused":
                        kinds[said] += 1
                    elif outcome not in GOOD:
                        bad.append(f"{outcome}: {said}")
                errors = process.stderr.read()
            if first < args.flips:
                counts["crashed"] += 1
                bad.append(f"crashed at {first} ({process.returncode}): {errors[-200:]}")
                first += 1
        shutil.rmtree(sound)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ends, errors = (
        ", ".join(f"{number} {name}" for name, number in counter.most_common())
        for counter in (counts, kinds)
    )
    by = f" (refused by {errors})" if errors else ""
    print(f"{kind}, {size / 1e6:.2f} MB: {args.flips} flips: {ends}{by}", flush=True)
    for line in bad[:20]:
        print(f"  {line}")
    return len(bad)


def main():
    """Flips, and says how it went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--flips", type=int, default=1000)
    parser.add_argument("--large", action="store_true", help="files of 10 MB")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if args.folder:
        return child(args)
    return int(any([count(kind, args) for kind in args.kinds]))


if __name__ == "__main__":
    sys.exit(main())
