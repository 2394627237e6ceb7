"""Measures the sequential direction of an autoregressive flow beside its one-pass direction.

    python tools/sequential_report.py
    python tools/sequential_report.py --size 43 --hidden 512 512 --samples 256 --bijector iaf
    python tools/sequential_report.py --networks

A MAF of one layer (or an IAF, whose sequential direction is the density): the time to trace and
compile at the first call, the time of later calls, the memory that the calls take, the gradient
through the sequential direction, and the number of operations of its graph at growing sizes.

Every row of the table is a process of its own, for peaks of memory can't be taken back. `first
call` is tracing, compiling and running; a small function was compiled before, so that what
TensorFlow takes once a process isn't counted. `working memory` is what a call takes while it runs,
weights and masks apart: the peak of TensorFlow's allocator above what it holds between the calls.
`peak` is the largest resident memory of the process, TensorFlow, tracing and the compiler included.
Times of the two directions are taken in turns in one process. Ends with code 1 if an aim is missed;
the aims are for the default work, 64 samples of 784 entries on two cores.

`--networks` measures the networks that run step by step instead, 16 rows of each: sampling in
passes of the density, beside what a loop of one pass a step would take (`naive`: some passes of
such a loop, and from them as many as there are steps), and the largest resident memory of processes
that sample a WaveNet of 2,048 and one of 16,384 steps.
"""

import argparse
import functools
import json
import statistics
import subprocess
import sys
import time

from machine import environment, memory_mb

ROWS = ("one pass", "sequential", "gradient of one pass", "gradient of sequential")
AIMS = {"first call, s": 3.0, "memory over one pass": 1.5, "time over one pass": 15.0}
# Network -> its event, its arguments, and the most passes that sampling may take, graph and XLA.
NETWORKS = {
    "WaveNet": ([2048, 1], {"filters": 32}, (10.0, 3.0)),
    "PixelCNN": ([28, 28, 1], {"filters": 32, "num_layers": 6}, (8.0, None)),
    "PixelCNN in colour": ([32, 32, 3], {"filters": 32, "num_layers": 6}, (12.0, None)),
    "DiagonalBiLSTM": ([28, 28, 1], {"filters": 32, "num_layers": 7}, (6.0, None)),
    "RowLSTM": ([28, 28, 1], {"filters": 32, "num_layers": 7}, (6.0, None)),
    "CausalTransformer": ([28, 28, 1], {"width": 128, "num_layers": 4}, (6.0, 4.0)),
}
NAIVE_PASSES = 8


def working_mb(call):
    """Returns the most that TensorFlow's allocator hands out during a call, in MB."""
    import tensorflow as tf

    memory = tf.config.experimental
    before = memory.get_memory_info("CPU:0")["current"]
    memory.reset_memory_stats("CPU:0")
    wait_for(call())
    return (memory.get_memory_info("CPU:0")["peak"] - before) / 2**20


def make_calls(args, size):
    """Returns a function of no arguments for each row of the table."""
    import numpy as np
    import tensorflow as tf

    from tfp_flows import flows

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    square = tf.function(lambda x: tf.nn.relu(x @ x), jit_compile=args.xla or None)
    square(tf.ones([64, 64]))
    recipe = {"maf": flows.maf, "iaf": flows.iaf}[args.bijector]
    flow = recipe(
        [size], num_layers=1, hidden_units=args.hidden, elementwise=args.elementwise, seed=0
    )
    bijector = flow.bijector
    rng = np.random.default_rng(0)
    for variable in flow.trainable_variables:  # Away from the identity.
        variable.assign_add(rng.normal(size=variable.shape, scale=0.01).astype("float32"))
    x = tf.constant(rng.normal(size=(args.samples, size)), tf.float32)
    compiled = functools.partial(tf.function, jit_compile=args.xla or None)
    one_pass, sequential = bijector.inverse_and_log_det, bijector.forward_and_log_det
    if args.bijector == "iaf":
        one_pass, sequential = sequential, one_pass

    def gradient(run, x):
        with tf.GradientTape() as tape:
            y, log_det = run(x, None)
            target = tf.reduce_sum(y * y) + tf.reduce_sum(log_det)
        return tape.gradient(target, flow.trainable_variables)

    def calls(run):
        value = compiled(lambda x: run(x, None))
        return value, compiled(lambda x: gradient(run, x))

    (a, c), (b, d) = calls(one_pass), calls(sequential)
    return {row: functools.partial(f, x) for row, f in zip(ROWS, (a, b, c, d), strict=True)}


def make_network_calls(name, args, steps=None):
    """Returns one pass, sampling, some naive passes, and the number of steps of a network."""
    import numpy as np
    import tensorflow as tf

    from tfp_flows import bijectors, conditioners

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    shape, kwargs, _ = NETWORKS[name]
    shape = shape if steps is None else [steps, *shape[1:]]
    layer = getattr(conditioners, name.split()[0])(shape, seed=0, **kwargs)
    bijector = bijectors.MaskedAutoregressive(layer)
    rng = np.random.default_rng(0)
    for variable in bijector.trainable_variables:  # Away from the identity.
        variable.assign_add(rng.normal(size=variable.shape, scale=0.02).astype("float32"))
    x = tf.constant(rng.normal(size=(16, *shape)), tf.float32)

    def naive(x):
        return tf.while_loop(
            lambda y: True,
            lambda y: bijector.elementwise.forward(x, layer(y))[:1],
            [tf.zeros_like(x)],
            maximum_iterations=NAIVE_PASSES,
        )

    run = (bijector.inverse_and_log_det, bijector.forward_and_log_det, naive)
    calls = [tf.function(f, jit_compile=args.xla or None, autograph=False) for f in run]
    return [functools.partial(f, x) for f in calls], layer.num_steps


def network_child(args):
    """Prints one JSON object: times of a network, or the memory of sampling a long sequence."""
    if args.network_steps:
        calls, _ = make_network_calls(args.do, args, args.network_steps)
        wait_for(calls[1]())
        print(json.dumps({"peak, MB": memory_mb("VmHWM")}))
        return
    calls, steps = make_network_calls(args.do, args)
    answer, times = {"steps": steps}, [[], [], []]
    for number, call in enumerate(calls):
        start = time.perf_counter()
        wait_for(call())
        if number == 1:
            answer["first call, s"] = time.perf_counter() - start
    for _ in range(args.repeats):
        for found, call in zip(times, calls, strict=True):
            start = time.perf_counter()
            wait_for(call())
            found.append(1e3 * (time.perf_counter() - start))
    one, sampling, naive = (statistics.median(found) for found in times)
    answer |= {"pass, ms": one, "sampling, ms": sampling, "naive, ms": naive / NAIVE_PASSES * steps}
    print(json.dumps(answer))


def networks(args):
    """Runs the networks, each in a process of its own; returns how many aims are missed."""
    missed = 0
    print(f"16 rows, float32, {args.threads} threads; sampling in passes of the density")
    titles = f"{'network':<20}{'steps':>6}{'':>7}{'first call':>12}{'pass':>11}{'sampling':>20}"
    print(f"{titles}{'naive':>9}")
    for name, (_, _, aims) in NETWORKS.items():
        for xla, aim in zip((False, True), aims, strict=True):
            found = run_child(name, args, xla)
            one = found["pass, ms"]
            passes, naive = found["sampling, ms"] / one, found["naive, ms"] / one
            ok = "" if aim is None else f" of {aim:g}" if passes <= aim else f" MISSED {aim:g}"
            missed += "MISSED" in ok
            first = found["first call, s"]
            late = not xla and first > AIMS["first call, s"]
            missed += late
            row = f"{name:<20}{found['steps']:>6}{'XLA' if xla else 'graph':>7}"
            row += f"{first:>10.2f} s{' MISSED' * late}{one:>8.1f} ms"
            print(f"{row}{passes:>10.2f}{ok:<10}{naive:>9.0f}", flush=True)
    for steps in (2048, 16384):
        found = run_child("WaveNet", args, False, network_steps=steps)
        print(f"WaveNet, {steps} steps, 16 rows: peak of the process {found['peak, MB']:.0f} MB")
    return missed


def wait_for(result):
    """Blocks until tensors are computed."""
    import tensorflow as tf

    for tensor in tf.nest.flatten(result):
        tensor.numpy()


def child(args):
    """Prints one JSON object: a row, the interleaved times, or the sizes of graphs."""
    answer = {}
    if args.do == "ops":
        for size in args.sizes:
            call = make_calls(args, size)["sequential"]
            graph = call.func.get_concrete_function(*call.args).graph.as_graph_def()
            count = len(graph.node) + sum(len(f.node_def) for f in graph.library.function)
            answer[size] = {"operations": count, "bytes": graph.ByteSize()}
    elif args.do == "times":
        calls = make_calls(args, args.size)
        times = {row: [] for row in calls}
        for call in calls.values():
            wait_for(call())
        for _ in range(args.repeats):
            for row, call in calls.items():
                start = time.perf_counter()
                wait_for(call())
                times[row].append(1e3 * (time.perf_counter() - start))
        answer = {row: statistics.median(found) for row, found in times.items()}
    else:
        call = make_calls(args, args.size)[args.do]
        start = time.perf_counter()
        wait_for(call())
        answer["first call, s"] = time.perf_counter() - start
        answer["peak, MB"] = memory_mb("VmHWM")
        answer["working, MB"] = statistics.median(working_mb(call) for _ in range(5))
    print(json.dumps(answer))


def run_child(do, args, xla, network_steps=0):
    """Runs `child` or `network_child` in a new process."""
    command = [sys.executable, __file__, "--do", do, "--bijector", args.bijector]
    command += ["--elementwise", args.elementwise]
    command += ["--size", args.size, "--samples", args.samples, "--repeats", args.repeats]
    command += ["--threads", args.threads, "--hidden", *args.hidden, "--sizes", *args.sizes]
    command += ["--network-steps", network_steps]
    command += ["--xla"] if xla else []
    done = subprocess.run([*map(str, command)], env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"'{do}' ended with code {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def parent(args):
    """Runs the children and prints the table; returns how many aims are missed."""
    print(
        f"{args.bijector}, {args.elementwise}, one layer, D = {args.size}, hidden {args.hidden}, "
        f"{args.samples} rows, float32, {args.threads} threads"
    )
    missed = []
    for xla in (False, True):
        mode = "XLA" if xla else "graph"
        rows = {row: run_child(row, args, xla) for row in ROWS}
        times = run_child("times", args, xla)
        print(f"\n{mode:<24}{'first call':>12}{'call':>12}{'working memory':>16}{'peak':>10}")
        for row, found in rows.items():
            print(
                f"  {row:<22}{found['first call, s']:>10.2f} s{times[row]:>9.1f} ms"
                f"{found['working, MB']:>13.1f} MB{found['peak, MB']:>7.0f} MB"
            )
        figures = {
            "first call, s": rows["sequential"]["first call, s"],
            "memory over one pass": max(
                rows["sequential"][k] / rows["one pass"][k] for k in ("working, MB", "peak, MB")
            ),
            "time over one pass": times["sequential"] / times["one pass"],
        }
        for what, figure in figures.items():
            ok = figure < AIMS[what]
            missed += [] if ok else [what]
            print(
                f"  {what}: {figure:.2f}, below {AIMS[what]:g} wanted: {'ok' if ok else 'MISSED'}"
            )
        gradients = [times[row] / times["one pass"] for row in ROWS[2:]]
        memory = rows[ROWS[3]]["working, MB"] / rows[ROWS[0]]["working, MB"]
        print(
            f"  gradients: {gradients[0]:.1f} and {gradients[1]:.1f} passes; the sequential one "
            f"takes {memory:.1f} times the working memory of one pass"
        )
    found = run_child("ops", args, False)
    sizes = ", ".join(f"{d['operations']} at D = {size}" for size, d in found.items())
    counts = [d["operations"] for d in found.values()]
    grows = max(counts) > 1.5 * counts[-1] or counts[-1] > 1.1 * max(counts[:-1])
    missed += ["graph"] if grows else []
    print(f"\noperations of the sequential graph: {sizes}: {'MISSED' if grows else 'ok'}")
    return len(missed)


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bijector", choices=("maf", "iaf"), default="maf")
    parser.add_argument("--elementwise", default="affine", help="map (default: %(default)s)")
    parser.add_argument("--size", type=int, default=784, help="D (default: %(default)s)")
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 1024])
    parser.add_argument("--samples", type=int, default=64, help="rows (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="of timed calls: %(default)s")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="+", default=[98, 196, 392, 784])
    parser.add_argument("--networks", action="store_true", help="those that run step by step")
    parser.add_argument("--network-steps", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--do", help=argparse.SUPPRESS)
    parser.add_argument("--xla", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.do:
        return network_child(args) if args.do in NETWORKS else child(args)
    return min(1, networks(args) if args.networks else parent(args))


if __name__ == "__main__":
    sys.exit(main())
