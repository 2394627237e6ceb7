"""What it costs to start: from the process to the end of the first training step, part by part.

    python tools/start_report.py
    python tools/start_report.py --steps 8 32 --variants unrolled stacked --turns 7

Trains a Glow (32x32x3, 3 levels, width 128, batch 16) of K steps a level, unrolled, stacked
(`bijectors.Repeat`), and stacked with TensorFlow's own gradient of the loop (`recompute=False`),
each in a process of its own, and prints the CPU seconds and the share of

    import   of the package, with TensorFlow, TFP and Keras
    build    of the flow, the model and the optimizer
    data     the data-dependent initialisation, from 128 rows
    trace    of the training step
    run      of the first step, TensorFlow's optimization of its graph included

then the largest resident memory by then, and the CPU time of a later step of `fit`, measured in
turns, and all of it against the unrolled flow of the same K.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

from machine import environment

LEVELS, WIDTH, BATCH, ROWS = 3, 128, 16, 128
PARTS = ("import", "build", "data", "trace", "run")
VARIANTS = ("unrolled", "stacked", "kept")


def child(variant, num_steps):
    """Starts, answers with the seconds of each part, then with those of a step when told to."""
    seconds, last = {}, time.process_time()  # From the start of the process on.
    seconds["import"] = last

    def part(name):
        nonlocal last
        seconds[name] = seconds.get(name, 0.0) + time.process_time() - last
        last = time.process_time()

    import numpy as np
    import tensorflow as tf

    from tfp_flows import FlowModel, bijectors, flows

    part("import")
    flow = flows.glow(
        [32, 32, 3],
        num_levels=LEVELS,
        num_steps=num_steps,
        hidden_filters=WIDTH,
        stacked=variant != "unrolled",
        seed=0,
    )
    if variant == "kept":
        for module in flow.submodules:
            if isinstance(module, bijectors.Repeat):
                module._recompute = False
    model = FlowModel(flow)
    model.compile("adam")
    part("build")
    x = np.random.default_rng(0).normal(size=(ROWS, 32, 32, 3)).astype("float32")
    model.initialize(x)
    part("data")
    step, tracing = model.train_step, 0.0

    def timed(data):
        nonlocal tracing
        start = time.process_time()
        try:
            return step(data)
        finally:
            tracing += time.process_time() - start

    model.train_step = timed
    model.train_on_batch(x[:BATCH])
    part("run")
    seconds["trace"], seconds["run"] = tracing, seconds["run"] - tracing
    facts = {
        "seconds": seconds,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "variables": len(model.trainable_variables),
    }
    print(json.dumps(facts), flush=True)
    dataset = tf.data.Dataset.from_tensors(x[:BATCH]).repeat()
    for line in sys.stdin:
        start = time.process_time()
        model.fit(dataset, steps_per_epoch=int(line), verbose=0)
        print(json.dumps((time.process_time() - start) / int(line)), flush=True)


def measure(variants, num_steps, turns, batches):
    """Variant -> what its process answered; steps are measured in turns, after one for warmth."""
    env = environment()
    children, found = {}, {}
    try:
        for variant in variants:
            command = [sys.executable, __file__, "--child", variant, "--steps", str(num_steps)]
            children[variant] = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            found[variant] = json.loads(children[variant].stdout.readline())
            found[variant]["steps"] = []
        for turn in range(turns + 1 if turns else 0):
            for variant, process in children.items():
                process.stdin.write(f"{batches}\n")
                process.stdin.flush()
                step = json.loads(process.stdout.readline())
                if turn:
                    found[variant]["steps"].append(step)
    finally:
        for process in children.values():
            process.kill()
            process.wait()
    return found


def main():
    """Measures, and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, nargs="+", default=[8, 16, 32], help="K, of a level")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--turns", type=int, default=5, help="0: no later steps")
    parser.add_argument("--batches", type=int, default=3, help="of each turn")
    parser.add_argument("--child", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.steps[0])
    head = "".join(f"{part:>14}" for part in PARTS)
    head = f"{'first step':>11}{head}{'memory MB':>11}{'step ms':>9}{'weights':>9}"
    print(f"{'K':>3} {'variant':<9}{head}")
    for num_steps in args.steps:
        found = measure(args.variants, num_steps, args.turns, args.batches)
        first = None
        for variant, facts in found.items():
            total = sum(facts["seconds"].values())
            parts = "".join(
                f"{facts['seconds'][part]:>8.2f} {facts['seconds'][part] / total:>5.0%}"
                for part in PARTS
            )
            step = statistics.median(facts["steps"]) if facts["steps"] else float("nan")
            print(
                f"{num_steps:>3} {variant:<9}{total:>11.1f}{parts}{facts['memory']:>11.0f}"
                f"{1e3 * step:>9.0f}{facts['variables']:>9}",
                flush=True,
            )
            if first is None:
                first = total, facts["memory"], facts["steps"]
                continue
            ratio = (
                statistics.median(a / b for a, b in zip(facts["steps"], first[2], strict=True))
                if facts["steps"]
                else float("nan")
            )
            print(
                f"    to {next(iter(found))}: first step {total / first[0]:.2f}, memory "
                f"{facts['memory'] / first[1]:.2f}, step {ratio:.2f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
