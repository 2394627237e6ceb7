"""What `fit` adds to the training step, and whether its default mode is the fast one.

    python tools/fit_report.py [--work maf spline glow] [--steps 300] [--repeats 5]
    python tools/fit_report.py --modes [--work maf realnvp spline glow nice digits]

Prints, for each work of `tools/benchmark.py`, the milliseconds of a step by `fit` with
`steps_per_execution` of 1, 8 and 32, with batches that come from the host (as arrays and
`tf.data` do) or lie on the device, and of the bare step function on one batch there: what no
loop can be faster than. In turns, medians.

`--modes` trains each work with `compile(jit_compile=)` "auto", `False` and `True` instead, in
turns: the CPU seconds to the end of the first step (tracing and compiling; XLA compiles once more
for a last batch of another size), the CPU milliseconds of a later step, the steps from which XLA
has paid for its compiling, and what `fit` takes in all by the mode that "auto" chose, over the best
of both, for trainings of several lengths.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from peers import ours_peer, works

from tfp_flows import FlowModel, flows

EXECUTIONS = (1, 8, 32)
MODES = {"auto": "auto", "graph": False, "XLA": True}
LENGTHS = (100, 1_000, 10_000, 100_000)
# Beside those of `tools/benchmark.py`: digits of 8x8 levels, as vectors and as images.
DIGITS = {
    "nice": works.Work("nice", "NICE D 64, 4 couplings of 5x1000, batch 100", (64,), 100, ()),
    "digits": works.Work(
        "digits", "Glow 8x8x1, 2 levels of 4, hidden 32, batch 100", (8, 8, 1), 100, ()
    ),
}
WORKS = {**works.WORKS, **DIGITS}


def make_distribution(work, glow_steps):
    """The recipe of a work."""
    if work.name == "nice":
        return flows.nice([64], seed=0)
    if work.name == "digits":
        return flows.glow([8, 8, 1], num_levels=2, num_steps=4, hidden_filters=32, seed=0)
    return ours_peer.make_distribution(work, {"glow_steps": glow_steps})


class Contender:
    """A model of a work, compiled with some arguments."""

    def __init__(self, work, glow_steps, **kwargs):
        self.work = work
        self.model = FlowModel(make_distribution(work, glow_steps))
        self.data = works.make_batches(work)
        self.model.initialize(self.data[0])
        self.model.compile(keras.optimizers.Adam(1e-4), **kwargs)
        self.bare = None

    def batches(self, on_device):
        """An endless dataset of batches."""
        options = tf.data.Options()
        options.autotune.enabled = False  # Its thread is waited for at the end of an iterator.
        dataset = tf.data.Dataset.from_tensor_slices(self.data).cache().repeat()
        dataset = dataset.with_options(options)
        device = tf.config.list_logical_devices("GPU")
        if on_device and device:
            dataset = dataset.apply(tf.data.experimental.prefetch_to_device(device[0].name, 4))
        return dataset

    def fit(self, dataset, steps):
        """Milliseconds of a step in an epoch of `steps`."""
        start = time.perf_counter()
        self.model.fit(dataset, steps_per_epoch=steps, epochs=1, verbose=0)
        return (time.perf_counter() - start) * 1e3 / steps

    def step(self, steps):
        """Milliseconds of the step function alone, on one batch that lies on the device."""
        if self.bare is None:
            self.bare = tf.function(self.model.train_step)
        x = tf.constant(self.data[0])
        start = time.perf_counter()
        for _ in range(steps):
            logs = self.bare(x)
        float(logs["loss"])
        return (time.perf_counter() - start) * 1e3 / steps


def show_loops(work, args, devices):
    """Prints a row a work and place of its batches: what the loop adds."""
    contenders = [Contender(work, args.glow_steps, steps_per_execution=k) for k in EXECUTIONS]
    for on_device in (False, True) if devices else (False,):
        times = {k: [] for k in (*EXECUTIONS, "bare")}
        for turn in range(args.repeats + 1):
            for k, contender in zip(EXECUTIONS, contenders, strict=True):
                found = contender.fit(contender.batches(on_device), args.steps)
                if turn:  # The first one traces.
                    times[k].append(found)
            found = contenders[0].step(args.steps)
            if turn:
                times["bare"].append(found)
        cells = [f"{statistics.median(values):.2f}" for values in times.values()]
        place = "on the device" if on_device else "from the host"
        print("|", " | ".join([work.name, place, *cells]), "|", flush=True)


def show_modes(work, args):
    """Prints a row of a work: its modes."""
    contenders, first, times = {}, {}, {mode: [] for mode in MODES}
    for mode, xla in MODES.items():
        start = time.process_time()
        contenders[mode] = contender = Contender(work, args.glow_steps, jit_compile=xla)
        contender.fit(contender.batches(False), 1)
        first[mode] = time.process_time() - start
    for _ in range(args.repeats):
        for mode, contender in contenders.items():
            start = time.process_time()
            contender.fit(contender.batches(False), args.steps)
            times[mode].append((time.process_time() - start) / args.steps)
    step = {mode: statistics.median(values) for mode, values in times.items()}
    chosen = "XLA" if contenders["auto"].model.jit_compile else "graph"
    gain, cost = step["graph"] - step["XLA"], first["XLA"] - first["graph"]
    pays = f"{max(0.0, cost / gain):,.0f}" if gain > 0 else "never"
    cells = [f"{first[m]:.1f} / {1e3 * step[m]:.1f}" for m in MODES]
    total = {n: {m: first[m] + n * step[m] for m in ("graph", "XLA")} for n in LENGTHS}
    over = [f"{total[n][chosen] / min(total[n].values()):.2f}" for n in LENGTHS]
    print("|", " | ".join([work.name, chosen, *cells, pays, *over]), "|", flush=True)


def main():
    """Prints a row a work."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", nargs="*", choices=WORKS, default=["maf", "spline"])
    parser.add_argument("--steps", type=int, default=300, help="of an epoch; default 300")
    parser.add_argument("--repeats", type=int, default=5, help="turns; default 5")
    parser.add_argument("--glow-steps", type=int, default=4)
    parser.add_argument("--modes", action="store_true", help="compare graph, XLA and auto")
    args = parser.parse_args()
    devices = tf.config.list_physical_devices("GPU")
    print(f"TensorFlow {tf.__version__}, {len(devices)} GPU(s); milliseconds of a step")
    head = ["batches", *(f"{k} at once" for k in EXECUTIONS), "bare step"]
    if args.modes:
        head = ["chosen", *(f"{mode}, first s / step ms" for mode in MODES), "XLA pays from"]
        head += [f"{n:,} steps, over the best" for n in LENGTHS]
    print("| work |", " | ".join(head), "|\n|---|" + "---|" * len(head))
    for name in args.work:
        if args.modes:
            show_modes(WORKS[name], args)
        else:
            show_loops(WORKS[name], args, devices)


if __name__ == "__main__":
    main()
