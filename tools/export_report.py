"""Measures exports: speed against the model itself, latency, reload, size, and the server.

    python tools/export_report.py                  # all three parts, some two minutes
    python tools/export_report.py --parts glow     # one of them

glow    the Glow of examples/digits.py: 2 levels of 6 steps, 64 filters, dequantized 8 x 8 images
maf     an MAF over 43 columns: 5 layers of 2 x 512 units
serve   examples/serve.py with that Glow on the loopback: many clients, then too many

The exported `log_prob` and the model's own traced function take turns, call by call, in one
process; a row gives both medians and the median of the ratios of neighbours. Reload and first call
are those of a fresh process that has imported TensorFlow and nothing else. Weights are moved at
random: what is measured does not depend on training. Run it on an idle machine.
"""

import argparse
import concurrent.futures
import http.client
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import threading
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

ROOT = pathlib.Path(__file__).resolve().parents[1]
BATCHES = (1, 64, 512)
RELOAD = """
import json, sys, time
import numpy as np
import tensorflow as tf
x = tf.constant(np.load(sys.argv[2]))
times = [time.perf_counter()]
loaded = tf.saved_model.load(sys.argv[1])
times.append(time.perf_counter())
for _ in range(2):
    loaded.signatures["log_prob"](x=x)["log_prob"].numpy()
    times.append(time.perf_counter())
print(json.dumps(np.diff(times).tolist()))
"""


def digits_glow():
    """The Glow of examples/digits.py, and 512 images."""
    import tensorflow_probability as tfp

    from tfp_flows import FlowModel, flows, preprocessing

    glow = flows.glow([8, 8, 1], num_levels=2, num_steps=6, hidden_filters=64, seed=0)
    model = FlowModel(
        tfp.distributions.TransformedDistribution(glow, preprocessing.Logit(scale=17.0)),
        dequantization=preprocessing.UniformDequantization(17),
        name="digits_glow",
    )
    x = np.random.default_rng(0).integers(0, 17, size=(512, 8, 8, 1)).astype(np.int32)
    model.initialize(x)
    return moved(model), x


def maf():
    """An MAF over the columns of a table, and 512 rows."""
    from tfp_flows import FlowModel, flows

    model = FlowModel(flows.maf([43], num_layers=5, hidden_units=(512, 512), seed=0), name="maf")
    return moved(model), np.random.default_rng(0).normal(size=(512, 43)).astype(np.float32)


def moved(model):
    """Adds noise to all weights, so that no part is the identity."""
    rng = np.random.default_rng(1)
    for variable in model.distribution.trainable_variables:
        variable.assign_add(tf.cast(rng.normal(size=variable.shape, scale=0.01), variable.dtype))
    return model


def in_turns(first, second, seconds):
    """Medians of two calls in ms, and the median ratio of neighbours, over some seconds."""
    for _ in range(3):
        first(), second()
    times, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 10:
        pair = []
        # The one that comes second in one turn comes first in the next.
        for call in (first, second) if len(times) % 2 else (second, first):
            start = time.perf_counter()
            call().numpy()
            pair.append(1e3 * (time.perf_counter() - start))
        times.append(pair if len(times) % 2 else pair[::-1])
    times = np.array(times)
    ratio = np.median(times[:, 0] / times[:, 1])
    return np.median(times[:, 0]), np.median(times[:, 1]), ratio, len(times)


def report(name, model, x, folder, seconds):
    """Exports a model, measures, and prints a line for each figure."""
    path = str(folder / name)
    start = time.perf_counter()
    model.export(path)
    print(f"{name}: written in {time.perf_counter() - start:.1f} s")

    files = [file for file in pathlib.Path(path).rglob("*") if file.is_file()]
    total = sum(file.stat().st_size for file in files)
    graph = (pathlib.Path(path) / "saved_model.pb").stat().st_size
    variables = sum(v.shape.num_elements() * v.dtype.size for v in model.distribution.variables)
    print(
        f"{name}: size {total:,} bytes: variables {variables:,}, graph {graph:,}, "
        f"{total / (variables + graph):.3f} times their sum"
    )

    np.save(folder / "x.npy", x[:1])
    done = subprocess.run(
        [sys.executable, "-c", RELOAD, path, str(folder / "x.npy")],
        capture_output=True,
        text=True,
        check=True,
    )
    load, first, second = json.loads(done.stdout)
    print(
        f"{name}: reload {load:.2f} s, first call {first:.2f} s, second call {1e3 * second:.1f} ms"
    )

    loaded = tf.saved_model.load(path)
    spec = tf.TensorSpec([None, *x.shape[1:]], x.dtype)
    own = tf.function(model.call, input_signature=[spec]).get_concrete_function()
    for rows in BATCHES:
        batch = tf.constant(x[:rows])
        exported, traced, ratio, calls = in_turns(
            lambda batch=batch: loaded.signatures["log_prob"](x=batch)["log_prob"],
            lambda batch=batch: own(batch),
            seconds,
        )
        print(
            f"{name}: log_prob of {rows:>3}: exported {exported:.2f} ms, the model's own "
            f"{traced:.2f} ms, ratio {ratio:.3f} ({calls} turns)"
        )


class Server:
    """`examples/serve.py` on a free port of the loopback."""

    def __init__(self, path, *options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        script = ROOT / "examples" / "serve.py"
        self._process = subprocess.Popen(
            [sys.executable, script, path, "--port", str(self.port), *options],
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self):
        for _ in range(600):
            if self._process.poll() is not None:
                raise RuntimeError(f"the server ended with {self._process.returncode}")
            try:
                if self.ask(self.connect(), "GET", "/healthz")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("the server is not ready after a minute")

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait(20)

    def connect(self):
        """A connection that many requests may use."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    @staticmethod
    def ask(connection, method, path, body=None):
        """Status and answer of a request."""
        connection.request(method, path, None if body is None else json.dumps(body))
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def load_test(model, x, path, *, clients, requests, options=()):
    """Many clients ask for one row each, again and again; every answer is compared."""
    wanted = model.log_prob(x).numpy()
    local = threading.local()

    def ask(number):
        if not hasattr(local, "connection"):
            local.connection = server.connect()
        row = number % len(x)
        start = time.perf_counter()
        status, answer = server.ask(
            local.connection, "POST", "/v1/log_prob", {"x": x[row : row + 1].tolist()}
        )
        took = 1e3 * (time.perf_counter() - start)
        if status == 200 and not np.allclose(answer["log_prob"], wanted[row], rtol=1e-5):
            raise RuntimeError(f"row {row}: the server answered {answer}, expected {wanted[row]}")
        return status, took

    with Server(path, *options) as server, concurrent.futures.ThreadPoolExecutor(clients) as pool:
        probe = server.connect()
        before = server.ask(probe, "GET", "/healthz")[1]
        start = time.perf_counter()
        answers = pool.map(ask, range(requests))
        health = []
        while not health or len(health) < 20:
            asked = time.perf_counter()
            status = server.ask(probe, "GET", "/healthz")[0]
            health.append((status, 1e3 * (time.perf_counter() - asked)))
            time.sleep(0.02)
        answers = list(answers)
        took = time.perf_counter() - start
        after = server.ask(probe, "GET", "/healthz")[1]
    statuses = [status for status, _ in answers]
    times = np.array([t for status, t in answers if status == 200])
    batches = after["batches"] - before["batches"]
    print(
        f"serve: {clients} clients, {requests} requests of a row: {requests / took:.0f} a second, "
        f"median {np.median(times):.1f} ms, 99% {np.percentile(times, 99):.1f} ms; "
        f"{len(times)} answered, all equal to the model's, in {batches} batches "
        f"({len(times) / batches:.1f} rows each); {statuses.count(503)} told to try again (503), "
        f"{requests - len(times) - statuses.count(503)} other; meanwhile /healthz "
        f"{ {s for s, _ in health} } in {np.median([t for _, t in health]):.1f} ms"
    )


def main():
    """Runs the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = ("glow", "maf", "serve")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--seconds", type=float, default=8, help="for each batch size: %(default)s")
    parser.add_argument("--clients", type=int, default=16, help="of the server: %(default)s")
    parser.add_argument("--requests", type=int, default=2000, help="in all: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        if {"glow", "serve"} & set(args.parts):
            model, x = digits_glow()
        if "glow" in args.parts:
            report("glow", model, x, folder, args.seconds)
        if "maf" in args.parts:
            report("maf", *maf(), folder, args.seconds)
        if "serve" in args.parts:
            path = str(folder / "served")
            model.export(path)
            requests = {"clients": args.clients, "requests": args.requests}
            load_test(model, x, path, **requests)
            load_test(model, x, path, **requests, options=("--max-batch", "1"))
            load_test(model, x, path, **requests, options=("--max-queue", "4", "--max-batch", "1"))


if __name__ == "__main__":
    main()
