"""Does memory stay flat? Long trainings, many calls, and models that come and go.

    python tools/endurance.py                   # all parts, some ten minutes on two cores
    python tools/endurance.py --parts calls     # one of them
    python tools/endurance.py --parts models --count 20 --details

fit     10,000 steps: half of them in one `fit`, half in fits of 100 steps each
calls   10,000 calls of log_prob, sample and predict, each of 1 to 256 rows
models  50 models built, fitted for some steps and dropped: a flow, beside a plain Keras model
        whose layers are those of the flow's networks, each with and without
        `keras.backend.clear_session()` after it

Every row is a process of its own. What it prints is the resident memory (of /proc, so on Linux) and
the number of objects that Python's collector knows, after a collection, at equal intervals; the
slope is that of the last half, by least squares. `--details` lists the types whose numbers grow.
"""

import argparse
import collections
import ctypes
import gc
import os
import subprocess
import sys
import time
import weakref

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

D, HIDDEN, COUPLINGS = 8, (32, 32), 4


def resident():
    """Resident memory in MB, without what the allocator merely has not given back."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


class Watch:
    """Rows of a table: what has been done, memory, objects."""

    def __init__(self, name, unit):
        self._name, self._unit, self._rows, self._start = name, unit, [], time.perf_counter()

    def note(self, done):
        """Adds a row."""
        self._rows.append((done, resident(), len(gc.get_objects())))

    def report(self):
        """Prints the rows and the slope."""
        done, memory, objects = np.array(self._rows, float).T
        half = len(done) // 2
        slope, per = (np.polyfit(done[half:], column[half:], 1)[0] for column in (memory, objects))
        shown = ", ".join(f"{d:.0f}: {m:.1f}" for d, m in zip(done, memory, strict=True))
        print(
            f"{self._name}: MB after {self._unit} {shown}\n"
            f"  last half: {1024 * slope:+.2f} KB and {per:+.2f} objects each; "
            f"{time.perf_counter() - self._start:.0f} s",
            flush=True,
        )


def make_flow():
    """A RealNVP of two layers of 32 units in each of four couplings."""
    from tfp_flows import FlowModel, flows

    return FlowModel(flows.real_nvp([D], num_couplings=COUPLINGS, hidden_units=HIDDEN, seed=0))


def make_plain():
    """A Keras model with the layers of that flow's networks, one after the other."""
    import keras

    x = inputs = keras.Input([D])
    for _ in range(COUPLINGS):
        for units in HIDDEN:
            x = keras.layers.Dense(units, activation="relu")(x)
        x = keras.layers.Dense(2 * D)(x)
    return keras.Model(inputs, x)


def fit(args):
    """Steps of training."""
    import keras

    model = make_flow()
    model.compile(optimizer="adam")
    x = np.random.default_rng(0).normal(size=(6400, D)).astype("float32")
    watch = Watch("fit", "steps")
    steps = 0

    class Note(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            nonlocal steps
            steps += 1
            if steps % (args.count // 20) == 0:
                watch.note(steps)

    model.fit(x, batch_size=64, epochs=args.count // 200, verbose=0, callbacks=[Note()])
    while steps < args.count:
        model.fit(x, batch_size=64, verbose=0, callbacks=[Note()])
    watch.report()


def calls(args):
    """Calls of varying sizes."""
    model = make_flow()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(256, D)).astype("float32")
    watch = Watch("calls", "calls")
    for call in range(1, args.count + 1):
        rows = int(rng.integers(1, 257))
        kind = call % 3
        if kind == 0:
            model.log_prob(x[:rows])
        elif kind == 1:
            model.sample(rows, seed=call)
        else:
            model.predict(x[:rows], verbose=0)
        if call % (args.count // 20) == 0:
            watch.note(call)
    watch.report()


def models(args):
    """Models that are fitted and dropped."""
    import keras

    x = np.random.default_rng(0).normal(size=(640, D)).astype("float32")
    make, clear = {"flow": make_flow, "plain": make_plain}[args.kind], args.clear
    watch = Watch(f"models, {args.kind}{', clear_session' if clear else ''}", "models")
    types, alive = [], []
    for number in range(1, args.count + 1):
        model = make()
        if args.kind == "flow":
            model.compile(optimizer="adam")
            model.fit(x, batch_size=64, verbose=0)
        else:
            model.compile(optimizer="adam", loss="mse")
            model.fit(x, np.zeros([len(x), 2 * D], "float32"), batch_size=64, verbose=0)
        alive.append(weakref.ref(model))
        del model
        if clear:
            keras.backend.clear_session()
        if number % max(args.count // 10, 1) == 0:
            watch.note(number)
        if number in (args.count // 2, args.count):
            gc.collect()
            types.append(collections.Counter(map(_type, gc.get_objects())))
    watch.report()
    print(f"  models still alive: {sum(ref() is not None for ref in alive)} of {args.count}")
    if args.details:
        more = types[1] - types[0]
        per = args.count - args.count // 2
        for name, count in more.most_common(25):
            print(f"    {count / per:8.2f} more a model: {name}")


def _type(thing):
    return f"{type(thing).__module__}.{type(thing).__qualname__}"


def main():
    """Runs the parts that were asked for, each as a process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = {"fit": fit, "calls": calls, "models": models}
    parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts))
    parser.add_argument("--count", type=int, help="instead of 10,000 steps or calls, 50 models")
    parser.add_argument("--details", action="store_true", help="which types of objects grow")
    parser.add_argument("--kind", choices=("flow", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--clear", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.kind:  # A child.
        parts[args.parts[0]](args)
        return
    for part in args.parts:
        count = ["--count", str(args.count or (50 if part == "models" else 10000))]
        details = ["--details"] if args.details else []
        rows = [["flow"]]
        if part == "models":
            rows = [["flow"], ["plain"], ["flow", "--clear"], ["plain", "--clear"]]
        for row in rows:
            command = [sys.executable, __file__, "--parts", part, *count, *details, "--kind", *row]
            if subprocess.run(command, check=False).returncode:
                sys.exit(f"endurance.py: {part} failed")


if __name__ == "__main__":
    main()
