"""How cost grows: with entries, rows, depth, the size of images, and the number of devices.

    python tools/scale_report.py --json scale.json --picture scale.png
    python tools/scale_report.py --curves maf-size depth-stacked --quick
    python tools/scale_report.py --json scale.json --only-show

Each curve is a process of its own, whose points are measured one after another: the training step
as `fit` runs it, `log_prob`, samples, the time to the end of the first step (building, setting
ActNorms, tracing, running), and the memory that a step takes while it runs: the peak of
TensorFlow's allocator above what it held before, weights apart (of tensors above 256 KiB: oneDNN
keeps no account of smaller ones). Beside each stands what the
arithmetic says: the multiplications and additions of the networks, relative to the curve's last
point. `growth` is the factor by which a point cost more than the one before, over the factor of
the arithmetic: 1 is as it should be, less is overhead that is spread over more work, and more than
1.25 is marked, for what costs most of a step is then not what the arithmetic counts.

Times are of the process's CPU (all threads), which other programs on the machine move least; the
wall's are in the JSON file, which is written after every point. A point that would take too long
by the one before is left out, and says so; so is the rest of a curve that takes more than
`--minutes`.
"""

import argparse
import dataclasses
import gc
import json
import math
import pathlib
import select
import subprocess
import sys
import tempfile
import time

from machine import environment

WORSE = 1.25
CELLS = ("step", "log_prob", "samples")


@dataclasses.dataclass(frozen=True)
class Curve:
    """One model with one of its sizes growing."""

    group: str  # what grows
    title: str
    points: tuple
    quick: tuple
    batch: object  # function of the point
    arithmetic: object  # function of the point, in any unit


def _dense(layers, hidden, inputs, outputs):
    """Multiply-adds of a row in MLPs of two hidden layers."""
    return lambda d: layers * hidden * (inputs * d + hidden + outputs * d)


SIZES, ROWS = (16, 64, 256, 1024, 4096), (1, 16, 256, 4096, 16384, 65536)
STEPS, IMAGES = (1, 2, 4, 8, 16, 32, 64), (8, 16, 32, 64, 128)
MAF, NVP = "MAF, 5 layers of 2x512", "RealNVP, 10 couplings of 2x512"
GLOW = "Glow 32x32x3, one level, width 32, batch 16"
CURVES = {
    "maf-size": Curve("entries", MAF, SIZES, (16, 64), lambda d: 256, _dense(5, 512, 1, 2)),
    "nvp-size": Curve("entries", NVP, SIZES, (16, 64), lambda d: 256, _dense(10, 512, 0.5, 1)),
    "maf-batch": Curve("rows", MAF + ", D 43", ROWS, (1, 16), lambda n: n, lambda n: n),
    "nvp-batch": Curve("rows", NVP + ", D 63", ROWS, (1, 16), lambda n: n, lambda n: n),
    "depth-unrolled": Curve("steps", GLOW + ", unrolled", STEPS, (1, 2), lambda k: 16, lambda k: k),
    "depth-stacked": Curve("steps", GLOW + ", stacked", STEPS, (1, 2), lambda k: 16, lambda k: k),
    "image": Curve(
        "pixels a side",
        "Glow, 3 levels of 4 steps, width 32, batch 8",
        IMAGES,
        (8, 16),
        lambda s: 8,
        lambda s: s * s,
    ),
    "devices": Curve(
        "logical devices",
        MAF + ", D 43, global batch 4,096",
        (1, 2, 4),
        (1, 2),
        lambda n: 4096,
        lambda n: 1,
    ),
}


# --- The process of a curve. ---


def make_flow(name, point):
    """The model of a curve at a point, and the shape of its events."""
    from tfp_flows import flows

    family, grows = name.split("-") if "-" in name else (name, name)
    if family in ("maf", "devices"):
        size = point if grows == "size" else 43
        return flows.maf([size], num_layers=5, hidden_units=(512, 512), seed=0), [size]
    if family == "nvp":
        size = point if grows == "size" else 63
        return flows.real_nvp([size], num_couplings=10, hidden_units=(512, 512), seed=0), [size]
    if family == "depth":
        shape, levels, steps, stacked = [32, 32, 3], 1, point, grows == "stacked"
    else:
        shape, levels, steps, stacked = [point, point, 3], 3, 4, False
    glow = flows.glow(
        shape, num_levels=levels, num_steps=steps, hidden_filters=32, stacked=stacked, seed=0
    )
    return glow, shape


def measure_call(call, seconds):
    """Milliseconds of a call, of the CPU and the wall, and the memory it takes, in MB."""
    import tensorflow as tf

    start = time.process_time()
    call()
    first = time.process_time() - start
    memory = tf.config.experimental
    before = memory.get_memory_info("CPU:0")["current"]
    memory.reset_memory_stats("CPU:0")
    call()
    taken = (memory.get_memory_info("CPU:0")["peak"] - before) / 2**20
    cpu, wall, num = time.process_time(), time.perf_counter(), 0
    while num < 2 or (time.perf_counter() - wall < seconds and num < 200):
        call()
        num += 1
    return {
        "cpu_ms": 1e3 * (time.process_time() - cpu) / num,
        "wall_ms": 1e3 * (time.perf_counter() - wall) / num,
        "memory_mb": taken,
        "first_s": first,
    }


def measure(name, point, seconds):
    """What a point of a curve costs."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfp_flows import FlowModel

    start = time.process_time()
    strategy = tf.distribute.get_strategy()
    if name == "devices" and point > 1:
        devices = [device.name for device in tf.config.list_logical_devices("CPU")]
        strategy = tf.distribute.MirroredStrategy(devices[:point])
    rows = CURVES[name].batch(point)
    with strategy.scope():
        flow, shape = make_flow(name, point)
        model = FlowModel(flow)
        model.compile(keras.optimizers.Adam(1e-5))
    x = np.random.default_rng(0).normal(size=(max(rows, 128), *shape)).astype("float32")
    model.initialize(x[:128])
    x = tf.constant(x[:rows])
    dataset = tf.data.Dataset.from_tensors(x).repeat()
    if strategy.num_replicas_in_sync > 1:
        dataset = strategy.experimental_distribute_dataset(dataset)
    batches, train = iter(dataset), model.make_train_function()
    built = time.process_time() - start
    # What fit calls, without the start and end of an epoch.
    found = {"step": measure_call(lambda: float(train(batches)["loss"]), seconds)}
    found["first_step_s"] = built + found["step"]["first_s"]
    found["log_prob"] = measure_call(lambda: model.log_prob(x).numpy(), seconds)
    found["samples"] = measure_call(lambda: model.sample(rows, seed=0).numpy(), seconds)
    found["weights"] = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return found


def child(name, points, seconds, most):
    """Prints a line a point."""
    import tensorflow as tf

    if name == "devices":
        cpu = tf.config.list_physical_devices("CPU")[0]
        logical = [tf.config.LogicalDeviceConfiguration()] * max(points)
        tf.config.set_logical_device_configuration(cpu, logical)
    # What TensorFlow takes once, at its first function, is no point's.
    tf.function(lambda x: tf.nn.relu(x @ x))(tf.ones([64, 64]))
    predicted, arithmetic = 0.0, CURVES[name].arithmetic
    for number, point in enumerate(points):
        if number:
            predicted *= arithmetic(point) / arithmetic(points[number - 1])
        found = {"left_out": f"some {predicted:.0f} s a call"}
        if predicted < most:
            found = measure(name, point, seconds)
            predicted = max(found[cell]["wall_ms"] for cell in CELLS) / 1e3
        print(json.dumps({"point": point, **found}), flush=True)
        gc.collect()


# --- The report. ---


def run(name, points, args, keep):
    """Runs a curve in a process, and hands each of its points to `keep`."""
    env = environment()
    command = [sys.executable, __file__, "--child", name, "--seconds", str(args.seconds)]
    command += ["--points", *map(str, points)]
    log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed below
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True)
    deadline = time.monotonic() + 60 * args.minutes
    try:
        for point in points:
            rest = max(0.0, deadline - time.monotonic())
            if not select.select([process.stdout], [], [], rest)[0]:
                keep({"point": point, "left_out": f"more than {args.minutes:g} minutes"})
                return
            line = process.stdout.readline()
            if not line:
                keep({"point": point, "left_out": f"the process ended with {process.wait()}"})
                log.seek(0)
                print(log.read()[-2000:], file=sys.stderr)
                return
            keep(json.loads(line))
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        log.close()


def growths(values, arithmetic):
    """The growth of each value over that of the arithmetic; `None` for the first, and from 0."""
    pairs = list(zip(values, arithmetic, strict=True))
    return [None] + [
        (value / before) / (work / least) if before else None
        for (before, least), (value, work) in zip(pairs, pairs[1:], strict=False)
    ]


def show(name, found):
    """Prints the table of a curve; returns the names of what grows worse than the arithmetic."""
    curve, worse = CURVES[name], []
    print(f"\n{name}: {curve.title}; CPU ms (growth over the arithmetic)")
    head = "".join(f" {cell} |" for cell in (*CELLS, "step, MB", "first step, s"))
    print(f"| {curve.group} |{head}\n|---|" + "---|" * (len(CELLS) + 2))
    there = [p for p in found if "left_out" not in p]
    work = [curve.arithmetic(p["point"]) for p in there]
    columns = {cell: [p[cell]["cpu_ms"] for p in there] for cell in CELLS}
    columns["step, MB"] = [p["step"]["memory_mb"] for p in there]
    growth = {cell: growths(values, work) for cell, values in columns.items()}
    for n, p in enumerate(there):
        cells = []
        for cell, values in columns.items():
            text, factor = f"{values[n]:.3g}", growth[cell][n]
            if factor is not None:
                text += f" ({factor:.2f})"
            if factor is not None and factor > WORSE:
                text += " *"
                worse.append(f"{cell} at {p['point']}")
            cells.append(text)
        print(f"| {p['point']:,} |", " | ".join(cells), f"| {p['first_step_s']:.1f} |")
    for p in found:
        if "left_out" in p:
            print(f"| {p['point']:,} | left out: {p['left_out']} |")
    return worse


def draw(results, path):
    """A picture: time and memory against what grows, on logarithmic axes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    groups = list(dict.fromkeys(CURVES[name].group for name in results))
    figure, axes = plt.subplots(
        2, len(groups), figsize=(3.6 * len(groups), 6.4), squeeze=False, layout="constrained"
    )
    for column, group in enumerate(groups):
        time_axis, memory_axis = axes[:, column]
        for number, name in enumerate(n for n in results if CURVES[n].group == group):
            there = [p for p in results[name] if "left_out" not in p]
            x, color = [p["point"] for p in there], f"C{number}"
            for cell, style in zip(CELLS, ("-", "--", ":"), strict=True):
                y = [p[cell]["cpu_ms"] for p in there]
                label = f"{name}, {cell}"
                time_axis.loglog(x, y, style, color=color, marker=".", label=label)
            memory = [p["step"]["memory_mb"] or math.nan for p in there]  # A logarithmic axis.
            memory_axis.loglog(x, memory, "-", color=color, marker=".", label=f"{name}, step")
            work = [CURVES[name].arithmetic(p) for p in x]
            for axis, y in (
                (time_axis, there[-1]["step"]["cpu_ms"]),
                (memory_axis, memory[-1]),
            ):
                line = [y * w / work[-1] for w in work]
                axis.loglog(x, line, color=color, linewidth=4, alpha=0.2)
            first = [p["first_step_s"] * 1e3 for p in there]
            if group == "steps":
                time_axis.loglog(x, first, "-.", color=color, label=f"{name}, first step")
        memory_axis.set_xlabel(group)
        for axis in (time_axis, memory_axis):
            axis.set_ylim(top=30.0 * axis.get_ylim()[1])  # Room for the legend.
            axis.legend(fontsize=6, loc="upper left")
    axes[0, 0].set_ylabel("CPU ms")
    axes[1, 0].set_ylabel("MB that a step takes")
    figure.suptitle("Cost, and what the arithmetic says (broad lines)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Measures, prints a table a curve, and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--curves", nargs="+", choices=CURVES, default=list(CURVES))
    parser.add_argument("--quick", action="store_true", help="two small points a curve")
    parser.add_argument("--seconds", type=float, default=1.0, help="of measuring a cell")
    parser.add_argument("--minutes", type=float, default=10.0, help="most that a curve may take")
    parser.add_argument("--longest", type=float, default=60.0, help="seconds a call may take")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="kept and added to")
    parser.add_argument("--picture", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--only-show", action="store_true", help="what is in the JSON file")
    parser.add_argument("--child", choices=CURVES, help=argparse.SUPPRESS)
    parser.add_argument("--points", type=int, nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(args.child, args.points, args.seconds, args.longest)
    results = {}
    if args.json and args.json.exists():
        results = json.loads(args.json.read_text())
    for name in [] if args.only_show else args.curves:
        results[name] = []

        def keep(point, name=name):
            results[name].append(point)
            if args.json:
                args.json.write_text(json.dumps(results, indent=1) + "\n")

        points = CURVES[name].quick if args.quick else CURVES[name].points
        # TensorFlow's collectives of one process are of one number of devices.
        for group in [[p] for p in points] if name == "devices" else [points]:
            run(name, group, args, keep)
        show(name, results[name])
    if args.only_show:
        for name in args.curves:
            if name in results:
                show(name, results[name])
    shown = {name: p for name, p in results.items() if any("step" in q for q in p)}
    if args.picture and shown:
        draw(shown, args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
