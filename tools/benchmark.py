"""Measures tfp_flows beside TensorFlow Probability, plain TensorFlow and other flow libraries.

    python tools/benchmark.py                                  # every work
    python tools/benchmark.py --work glow realnvp --contenders ours tfp plain
    python tools/benchmark.py --work spline --contenders ours:xla tfp:xla --json out.json
    python tools/benchmark.py --contenders ours nflows flowjax --peers-python ~/peers/bin/python
    python tools/benchmark.py --gpu --batch 1024 --contenders ours ours_mirrored ours_bf16

Each contender lives in a child process of its own; the children take turns, a few
hundred milliseconds each, so that whatever else the machine does falls on all of
them alike. Only one computes at a time. Read the ratios: absolute figures move by
some 15% between runs. `best turn` is the smallest median of a turn and `cpu` the
processor time: both move less on a busy machine. If `cpu` is no more than the
median, the contender had one core only. A `fit` is timed as a whole, start included.

Contenders, each with an optional mode (`tfp:xla`, `ours:graph`):
  ours      tfp_flows as a Keras user has it: FlowModel, fit, sample, log_prob
  ours_tf   the same distribution in a hand-written tf.function training step
  tfp       TFP's own bijectors with its tf_keras networks
  plain     a hand-written TensorFlow program of the same work, no library
  ours_mirrored  `ours` under MirroredStrategy on all devices that are there
  ours_bf16      `ours` with Keras's policy mixed_bfloat16 for the networks
  nflows, normflows, zuko, freia   PyTorch libraries, eager as their users run them
  flowjax, distrax                 JAX libraries, jitted
The last two lines run in the interpreter `--peers-python`, an environment that has them:
`pip install torch nflows normflows zuko FrEIA jax flowjax distrax dm-haiku optax`. What a
library has no model for is said and left out.

Without a mode everything runs as graphs, except that `ours` leaves the choice to
`compile()` and says what it chose. One run at a time on a machine: a second one waits.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import datetime
import importlib
import json
import math
import os
import pathlib
import platform
import select
import statistics
import subprocess
import sys
import tempfile
import time
import traceback

from machine import ROOT, memory_mb, only_one
from peers.works import WORKS, Unsupported

PEERS = {
    **dict.fromkeys(("nflows", "normflows", "zuko", "freia"), "torch_peer"),
    **dict.fromkeys(("flowjax", "distrax"), "jax_peer"),
}
OURS = ("ours", "ours_tf", "ours_mirrored", "ours_bf16")
CONTENDERS = (*OURS, "tfp", "plain", *PEERS)


# --- The child ----------------------------------------------------------------


def make_contender(contender, work, options):
    """Imports the contender's module, its framework with it, and builds its model."""
    name, _, mode = contender.partition(":")
    work = dataclasses.replace(WORKS[work], batch=options["batch"] or WORKS[work].batch)
    if name in PEERS:
        return importlib.import_module(f"peers.{PEERS[name]}").Contender(name, work, None, options)
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options["threads"])
    tf.config.experimental.enable_tensor_float_32_execution(options["tf32"])
    options = {**options, "variant": name}
    if name == "tfp":
        from peers.tfp_peer import Contender as Peer
    elif name == "plain":
        from peers.plain_peer import Contender as Peer
    elif name == "ours_tf":
        from peers.ours_peer import FunctionContender as Peer
    else:
        from peers.ours_peer import FitContender as Peer
    return Peer(work, {"xla": True, "graph": False}.get(mode), options)


def child_main(spec):
    """Answers one JSON line on stdout to each JSON line on stdin."""
    # Whatever libraries print goes to stderr, which the parent keeps in a file.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    peer = None

    def build(first_step):
        nonlocal peer
        peer = make_contender(spec["contender"], spec["work"], spec["options"])
        if first_step:
            peer.first_step()
        return {"notes": peer.notes, "cpu": time.process_time()}

    def run(cell, num):
        cpu = time.process_time()
        start = time.perf_counter()
        times = peer.time_calls(cell, num)
        share = (time.process_time() - cpu) / (time.perf_counter() - start)
        return {"ms": times, "cpu_ms": statistics.median(times) * share}

    def warm_up():
        # What TensorFlow takes once, at its first function, is not the cell's.
        if "tensorflow" not in sys.modules:
            return {}
        import tensorflow as tf

        square = tf.function(lambda x: tf.nn.relu(x @ x), jit_compile=peer.xla or None)
        square(tf.ones([64, 64]))
        return {}

    def memory():
        return {
            "peak_mb": memory_mb("VmHWM"),
            "now_mb": memory_mb("VmRSS"),
            "device_mb": peer.device_memory_mb(),
        }

    commands = {"build": build, "run": run, "warm_up": warm_up, "memory": memory}
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = commands[request.pop("do")](**request)
        except Exception as error:
            text = traceback.format_exc()
            answer = {"error": text, "unsupported": isinstance(error, Unsupported)}
        print(json.dumps(answer), file=answers, flush=True)


# --- The parent ---------------------------------------------------------------


class ChildError(Exception):
    """A child answered with an error, died or took too long."""

    # A library that lacks a model is no failure of the benchmark.
    unsupported = False


class Child:
    """One contender in its own process."""

    def __init__(self, contender, work, args):
        self.contender, self.work, self.timeout = contender, work, args.timeout
        self.log = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - closed in close()
        options = {
            "threads": args.threads,
            "glow_steps": args.glow_steps,
            "batch": args.batch,
            "gpu": args.gpu,
            "tf32": not args.no_tf32,
        }
        spec = {"contender": contender, "work": work, "options": options}
        env = dict(os.environ, TF_CPP_MIN_LOG_LEVEL="3", KERAS_BACKEND="tensorflow")
        if not args.gpu:
            env["CUDA_VISIBLE_DEVICES"] = "-1"
        # The children share the device's memory.
        env |= {"TF_FORCE_GPU_ALLOW_GROWTH": "true", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        python = sys.executable
        if contender.partition(":")[0] in PEERS:
            # An environment of its own: nothing of this one's packages goes along.
            python = str(args.peers_python)
            env.pop("PYTHONPATH", None)
        else:
            path = [str(ROOT), env.get("PYTHONPATH", "")]
            env["PYTHONPATH"] = os.pathsep.join(p for p in path if p)
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [python, __file__, "--child", json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=env,
            text=True,
        )

    def ask(self, do, **request):
        """Sends one request and returns its answer."""
        try:
            print(json.dumps({"do": do, **request}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None
        if not select.select([self.process.stdout], [], [], self.timeout)[0]:
            self.process.kill()
            raise ChildError(f"no answer to {do!r} within {self.timeout:g} s")
        line = self.process.stdout.readline()
        if not line:
            raise ChildError(self._last_words())
        answer = json.loads(line)
        if "error" in answer:
            error = ChildError(answer["error"].strip())
            error.unsupported = answer["unsupported"]
            raise error
        return answer

    def age(self):
        """Returns the seconds since the process was started."""
        return time.perf_counter() - self.started

    def _last_words(self):
        code = self.process.wait()
        self.log.seek(0)
        return f"the process ended with code {code}\n{self.log.read()[-2000:]}"

    def close(self):
        """Ends the process, kindly first."""
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


class Bench:
    """Runs one work and collects its figures."""

    def __init__(self, work, args):
        self.work, self.args = work, args
        # figures[contender][measurement] = {"value": ..., "unit": ..., ...}
        self.figures = collections.defaultdict(dict)
        self.errors = []

    def put(self, contender, measurement, value, unit, **more):
        """Notes one figure."""
        if value is not None:
            self.figures[contender][measurement] = {"value": value, "unit": unit, **more}

    @contextlib.contextmanager
    def reporting(self, contender, where):
        """Notes an error of one contender and goes on with the others."""
        try:
            yield
        except ChildError as error:
            if error.unsupported:
                say(f"  {contender}: left out: {str(error).splitlines()[-1]}")
                return
            self.errors.append({"contender": contender, "where": where, "error": str(error)})
            say(f"  {contender}: {where} failed: {str(error).splitlines()[-1]}")

    def run(self, contenders):
        """Measures every cell of the work."""
        children = {}
        try:
            self.start_all(contenders, children)
            for cell in self.work.cells:
                self.measure(cell, children)
                if cell == "train":
                    for contender, child in children.items():
                        with self.reporting(contender, "memory"):
                            memory = child.ask("memory")
                            self.put(contender, "peak memory, training", memory["peak_mb"], "MB")
                            device = memory["device_mb"]
                            self.put(contender, "peak GPU memory, training", device, "MB")
        finally:
            for child in children.values():
                child.close()
        for cell in self.work.memory_cells:
            for contender in children:
                self.measure_memory(contender, cell)

    def start_all(self, contenders, children):
        """Starts the children, to the end of the first training step where there is one.

        Of several starts the last child stays.
        """
        train = "train" in self.work.cells
        starts = collections.defaultdict(list)

        def start(contender):
            child = Child(contender, self.work.name, self.args)
            with self.reporting(contender, "start"):
                try:
                    built = child.ask("build", first_step=train)
                except ChildError:
                    child.close()
                    raise
                starts[contender].append((child.age(), built["cpu"], built["notes"]))
                children[contender] = child

        # On a GPU machine with cores to spare, minutes are dearer than this one figure.
        with concurrent.futures.ThreadPoolExecutor(self.args.starts_at_once) as pool:
            for turn in range(self.args.starts if train else 1):
                for contender in [c for c in contenders if not turn or c in children]:
                    say(f"  {contender}: starting")
                    if contender in children:
                        children.pop(contender).close()
                    started = pool.submit(start, contender)
                    if self.args.starts_at_once == 1:
                        started.result()
        for contender in contenders:
            if contender in children:
                children[contender] = children.pop(contender)
        for contender, values in ((c, starts[c]) for c in contenders if c in starts):
            if train:
                seconds, cpu, notes = zip(*values, strict=True)
                more = {"best": min(seconds), "cpu": statistics.median(cpu), "notes": notes[-1]}
                if len(seconds) > 1:
                    more |= {"low": min(seconds), "high": max(seconds)}
                self.put(contender, "first_step", statistics.median(seconds), "s", **more)

    def measure(self, cell, children):
        """Measures one cell, the children taking turns."""
        num, turns, cpu = {}, collections.defaultdict(list), collections.defaultdict(list)
        for contender, child in children.items():
            with self.reporting(contender, cell):
                # Traces, warms up, and says how many calls fill a turn.
                first = child.ask("run", cell=cell, num=1)["ms"][0]
                if cell != "train":
                    self.put(contender, f"first {cell} call", first / 1e3, "s")
                warm = min(child.ask("run", cell=cell, num=3)["ms"])
                num[contender] = max(3, math.ceil(self.args.seconds * 1e3 / warm))
        for turn in range(self.args.repeats):
            order = list(num)
            # Another one goes first each time.
            order = order[turn % len(order) :] + order[: turn % len(order)] if order else []
            for contender in order:
                with self.reporting(contender, cell):
                    answer = children[contender].ask("run", cell=cell, num=num[contender])
                    turns[contender].append(answer["ms"])
                    cpu[contender].append(answer["cpu_ms"])
        for contender, values in turns.items():
            low, middle, high = quartiles([ms for turn in values for ms in turn])
            more = {
                "low": low,
                "high": high,
                # Medians of turns, as `fit` gives one figure a turn.
                "best": min(statistics.median(turn) for turn in values),
                "cpu": statistics.median(cpu[contender]),
            }
            self.put(contender, cell, middle, "ms", turns=values, **more)

    def measure_memory(self, contender, cell):
        """Notes the peak memory of one cell in a fresh process."""
        child = Child(contender, self.work.name, self.args)
        try:
            with self.reporting(contender, f"memory of {cell}"):
                child.ask("build", first_step=False)
                child.ask("warm_up")
                before = child.ask("memory")["now_mb"]
                child.ask("run", cell=cell, num=3)
                peak = child.ask("memory")["peak_mb"]
                if peak is not None:
                    self.put(
                        contender, f"peak memory, {cell}", peak, "MB", above_model=peak - before
                    )
        finally:
            child.close()

    def derive(self):
        """Adds the sampling of the sequential works as a multiple of the density pass."""
        if not self.work.memory_cells:
            return
        for contender, row in self.figures.items():
            for first, second in (
                ("sample", "log_prob"),
                ("peak memory, sample", "peak memory, log_prob"),
            ):
                if first in row and second in row:
                    ratio = row[first]["value"] / row[second]["value"]
                    self.put(contender, f"{first} / log_prob", ratio, "x")

    def rows(self, baseline):
        """Yields the lines of the table."""
        measurements = list(dict.fromkeys(m for row in self.figures.values() for m in row))
        for measurement in measurements:
            for contender, row in self.figures.items():
                if measurement not in row:
                    continue
                figure = row[measurement]
                base = self.base_row(contender, baseline).get(measurement)
                if base is None or figure["unit"] == "x":
                    ratio = best = None
                else:
                    ratio = figure["value"] / base["value"]
                    best = figure["best"] / base["best"] if "best" in figure else None
                target = self.work.targets.get(measurement)
                if baseline != "tfp" or contender.partition(":")[0] not in OURS:
                    target = None
                yield format_row(contender, measurement, figure, ratio, best, target)

    def show(self, baseline):
        """Prints all figures, a line each, then notes and errors."""
        lines = [tuple(title.format(baseline) for title in HEADER), *self.rows(baseline)]
        widths = [max(len(line[i]) for line in lines) for i in range(len(HEADER))]
        print(f"\n{title_of(self.work, self.args)}")
        previous = None
        for line in lines:
            if previous and line[0] != previous:
                print()
            cells = [
                c.rjust(w) if i in RIGHT_ALIGNED else c.ljust(w)
                for i, (c, w) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
            previous = line[0]
        for contender, row in self.figures.items():
            if row.get("first_step", {}).get("notes"):
                print(f"{contender}: {row['first_step']['notes']}")
        for error in self.errors:
            # The last frame and the message; the whole of it goes to the JSON file.
            tail = "\n".join(error["error"].splitlines()[-4:])
            print(f"\n{error['contender']}, {error['where']}:\n{tail}")
        sys.stdout.flush()

    def results(self):
        """Returns everything measured, for JSON."""
        return {"figures": self.figures, "errors": self.errors}

    def base_row(self, contender, baseline):
        """Returns the baseline's figures, in the contender's mode where that was run."""
        _, colon, mode = contender.partition(":")
        return self.figures.get(baseline + colon + mode) or self.figures.get(baseline) or {}


def quartiles(values):
    """Returns the lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    return statistics.quantiles(values, n=4, method="inclusive")


def say(text):
    """Prints progress, not results."""
    print(text, file=sys.stderr, flush=True)


HEADER = (
    *("measured", "contender", "median", "", "quartiles", "best turn", "cpu"),
    *("/ {0}", "best / {0}", "target", ""),
)
RIGHT_ALIGNED = {2, 4, 5, 6, 7, 8}


def format_row(contender, measurement, figure, ratio, best, target):
    """Returns one line of the table as strings."""
    unit = figure["unit"]
    digits = {"ms": 2, "s": 1, "MB": 0, "x": 2}[unit]

    def number(key, form):
        return format(figure[key], form) if key in figure else ""

    spread = f"{figure['low']:.{digits}f}-{figure['high']:.{digits}f}" if "low" in figure else ""
    if "above_model" in figure:
        spread = f"+{figure['above_model']:.0f} over model"
    verdict = ""
    if target is not None and ratio is not None:
        verdict = "ok" if ratio <= target else "MISSED"
    names = {"train": "training step", "first_step": "start to first step"}
    return (
        names.get(measurement, measurement),
        contender,
        f"{figure['value']:.{digits}f}",
        unit,
        spread,
        number("best", f".{digits}f"),
        number("cpu", ".1f"),
        "" if ratio is None else f"{ratio:.2f}",
        "" if best is None else f"{best:.2f}",
        "" if target is None else f"<= {target:.2f}",
        verdict,
    )


def title_of(work, args):
    """Says what is measured."""
    title = work.title.format(glow_steps=args.glow_steps)
    if args.batch:
        title = f"{title.rpartition(',')[0]}, batch {args.batch}"
    return title + (", TF32 off" if args.gpu and args.no_tf32 else "")


def machine():
    """Says where the figures come from."""
    import importlib.metadata

    def version(package):
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            return None

    model = platform.processor()
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    packages = ("tensorflow", "tensorflow-probability", "keras", "tf_keras", "numpy")
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "cpu": model,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def contender_name(text):
    """Checks `name` or `name:mode`."""
    name, _, mode = text.partition(":")
    modes = ("",) if name in PEERS else ("", "graph", "xla")
    if name not in CONTENDERS or mode not in modes:
        choices = ", ".join(CONTENDERS)
        raise argparse.ArgumentTypeError(
            f"{text!r} is none of {choices}, nor one of TensorFlow's with :graph or :xla"
        )
    return text


def parse(argv):
    """Reads the command line."""
    description, _, rest = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=f"{description}\n\n{rest}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    works = "\n".join(f"  {w.name:<10}{w.title.format(glow_steps=8)}" for w in WORKS.values())
    parser.epilog = f"works:\n{works}"
    parser.add_argument("--work", nargs="+", choices=WORKS, default=list(WORKS), metavar="WORK")
    parser.add_argument(
        "--contenders",
        nargs="+",
        type=contender_name,
        default=["ours", "tfp", "plain"],
        metavar="NAME",
        help="default: ours tfp plain",
    )
    parser.add_argument("--xla", action="store_true", help="all contenders in XLA mode")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each (default 5)")
    parser.add_argument("--starts", type=int, default=1, help="process starts of each (default 1)")
    parser.add_argument(
        "--starts-at-once", type=int, default=1, help="processes started side by side (default 1)"
    )
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a turn (default 1)")
    parser.add_argument("--threads", type=int, default=2, help="intra-op threads (default 2)")
    parser.add_argument("--glow-steps", type=int, default=8, help="steps a level (default 8)")
    parser.add_argument("--baseline", choices=CONTENDERS, default="tfp", help="ratios to it")
    parser.add_argument("--batch", type=int, help="another batch size than the work's")
    parser.add_argument("--gpu", action="store_true", help="leave the GPU visible")
    parser.add_argument(
        "--no-tf32", action="store_true", help="full float32 products on a GPU, for everyone"
    )
    parser.add_argument(
        "--peers-python",
        type=pathlib.Path,
        default=pathlib.Path(sys.executable),
        metavar="FILE",
        help="the interpreter of the PyTorch and JAX libraries (default: this one)",
    )
    parser.add_argument("--timeout", type=float, default=900, help="seconds an answer may take")
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write all figures")
    return parser.parse_args(argv)


def main(argv=None):
    """Runs the benchmark; returns 1 if a contender failed."""
    args = parse(argv)
    benches = []
    with only_one():
        where = machine()
        say(", ".join(f"{key} {value}" for key, value in where.items()))
        if where["load"] > 0.5:
            say("other processes are busy: trust the ratios, and `best` more than the median")
        for name in args.work:
            work = WORKS[name]
            say(f"{name}: {title_of(work, args)}")
            contenders = args.contenders
            if args.xla:
                contenders = [c.partition(":")[0] for c in contenders]
                contenders = [c if c in PEERS else c + ":xla" for c in contenders]
            elif work.both_modes:
                contenders = [
                    c + mode
                    for c in contenders
                    for mode in ([""] if ":" in c or c in PEERS else [":graph", ":xla"])
                ]
            bench = Bench(work, args)
            benches.append(bench)
            bench.run(list(dict.fromkeys(contenders)))
            bench.derive()
            bench.show(args.baseline)
            if args.json:
                results = {b.work.name: b.results() for b in benches}
                text = json.dumps({"machine": where, "results": results}, indent=1)
                args.json.write_text(text + "\n")
    return int(any(bench.errors for bench in benches))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child_main(json.loads(sys.argv[2]))
    else:
        sys.exit(main())
