"""What `fit` adds to the training step: Keras's loop, the batch on its way, the metrics.

    python tools/fit_report.py [--work maf spline glow] [--steps 300] [--repeats 5]

Prints, for each work of `tools/benchmark.py`, the milliseconds of a step by `fit` with
`steps_per_execution` of 1, 8 and 32, with batches that come from the host (as arrays and
`tf.data` do) or lie on the device, and of the bare step function on one batch there: what no
loop can be faster than. In turns, medians.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import tensorflow as tf
from peers import ours_peer, works

from tfp_flows import FlowModel

EXECUTIONS = (1, 8, 32)


class Contender:
    """A model of a work, compiled with some `steps_per_execution`."""

    def __init__(self, work, per_execution, glow_steps):
        self.work = work
        self.model = FlowModel(ours_peer.make_distribution(work, {"glow_steps": glow_steps}))
        self.data = works.make_batches(work)
        self.model.initialize(self.data[0])
        self.model.compile(keras.optimizers.Adam(1e-4), steps_per_execution=per_execution)
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


def main():
    """Prints a row a work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", nargs="*", choices=works.WORKS, default=["maf", "spline"])
    parser.add_argument("--steps", type=int, default=300, help="of an epoch; default 300")
    parser.add_argument("--repeats", type=int, default=5, help="turns; default 5")
    parser.add_argument("--glow-steps", type=int, default=4)
    args = parser.parse_args()
    devices = tf.config.list_physical_devices("GPU")
    print(f"TensorFlow {tf.__version__}, {len(devices)} GPU(s); milliseconds of a step")
    print("| work | batches |", " | ".join(f"{k} at once" for k in EXECUTIONS), "| bare step |")
    print("|---|---|" + "---|" * (len(EXECUTIONS) + 1))
    for name in args.work:
        contenders = [Contender(works.WORKS[name], k, args.glow_steps) for k in EXECUTIONS]
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
            print("|", " | ".join([name, place, *cells]), "|", flush=True)


if __name__ == "__main__":
    main()
