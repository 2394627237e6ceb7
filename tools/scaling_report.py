"""What training on several replicas costs: measured on this machine, and predicted for GPUs.

    python tools/scaling_report.py
    python tools/scaling_report.py --model maf --gpus 8 --bandwidth 150 --step-ms 12

Measures `fit` with one replica and with two (logical CPUs) on the same global batch, in turns,
each in a process of its own that has all the cores. Two replicas on the cores of one cannot be
faster: what this shows is the overhead of dividing a step, of two smaller halves and of the sums
over them. It does not show a speed-up, nor the time of the sums on a real interconnect.

That is predicted. A step sums, over all replicas, one float32 for each trained weight, and a
handful of scalars. A ring of N devices moves 2 (N - 1) / N of those bytes through each of them:

    seconds = 2 (N - 1) / N * bytes / bandwidth + latency

Against the time of a step on one device with its share of the batch that gives the efficiency.
No overlap of computing and summing is counted on, so this is a lower bound.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

from machine import environment

MODELS = {
    "glow": ("Glow 32x32x3, 3 levels of 8 steps, hidden 128", [32, 32, 3], 16),
    "maf": ("MAF D = 43, 5 layers of 2x512", [43], 256),
}
LATENCY = 50e-6


def make_flow(name):
    """The model of `tools/benchmark.py`."""
    from tfp_flows import flows

    if name == "glow":
        return flows.glow([32, 32, 3], num_levels=3, num_steps=8, hidden_filters=128, seed=0)
    return flows.maf([43], num_layers=5, hidden_units=(512, 512), seed=0)


def child(name, replicas):
    """Trains when told to, and answers with the seconds of a step."""
    import numpy as np
    import tensorflow as tf

    from tfp_flows import FlowModel, distribute

    _, shape, batch = MODELS[name]
    strategy = distribute.make_strategy(replicas=replicas)
    x = np.random.default_rng(0).normal(size=(batch, *shape)).astype("float32")
    with strategy.scope():
        model = FlowModel(make_flow(name))
        model.compile("adam")
    dataset = tf.data.Dataset.from_tensors(x).repeat()
    weights = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    model.fit(dataset, steps_per_epoch=3, verbose=0)
    print(json.dumps({"weights": weights, "variables": len(model.trainable_variables)}), flush=True)
    for line in sys.stdin:
        steps = int(line)
        start = time.perf_counter()
        model.fit(dataset, steps_per_epoch=steps, verbose=0)
        print(json.dumps((time.perf_counter() - start) / steps), flush=True)


def measure(name, turns, steps):
    """Median seconds of a step with one and with two replicas, and what the model is."""
    env = environment()
    children = []
    for replicas in (1, 2):
        command = [sys.executable, __file__, "--child", str(replicas), "--model", name]
        children.append(
            subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
    try:
        facts = [json.loads(c.stdout.readline()) for c in children][0]
        times = [[], []]
        for _ in range(turns):
            for number, c in enumerate(children):
                c.stdin.write(f"{steps}\n")
                c.stdin.flush()
                times[number].append(json.loads(c.stdout.readline()))
    finally:
        for c in children:
            c.kill()
            c.wait()
    return facts, [statistics.median(t) for t in times]


def main():
    """Measures, and predicts."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=MODELS, action="append", help="default: all")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="of each turn")
    parser.add_argument("--gpus", type=int, default=8)
    parser.add_argument("--bandwidth", type=float, help="GB/s of a device's link")
    parser.add_argument("--step-ms", type=float, help="of one GPU with its share of the batch")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.model[0], args.child)
    for name in args.model or MODELS:
        title, _, batch = MODELS[name]
        facts, (one, two) = measure(name, args.turns, args.steps)
        size = 4 * facts["weights"]
        print(f"{title}, global batch {batch}")
        print(
            f"  one replica {1e3 * one:.1f} ms a step, two {1e3 * two:.1f}, ratio {two / one:.2f}"
        )
        print(f"  summed a step: {size / 1e6:.2f} MB in {facts['variables']} variables")
        moved = 2 * (args.gpus - 1) / args.gpus * size
        links = {"NVLink, 150 GB/s": 150.0, "PCIe, 12 GB/s": 12.0}
        if args.bandwidth:
            links = {f"{args.bandwidth:g} GB/s": args.bandwidth}
        for link, bandwidth in links.items():
            seconds = moved / (bandwidth * 1e9) + LATENCY
            line = f"  {args.gpus} GPUs, {link}: sums take {1e3 * seconds:.2f} ms"
            if args.step_ms:
                line += f", efficiency {args.step_ms / (args.step_ms + 1e3 * seconds):.0%}"
            else:
                line += f"; at least 90% efficient from {9e3 * seconds:.1f} ms a step on"
            print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
