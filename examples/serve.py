"""Serves an exported flow over HTTP, with TensorFlow and aiohttp alone.

    pip install tensorflow aiohttp
    python examples/serve.py EXPORT [--port 8080]

EXPORT is the directory that `FlowModel.export` wrote. The server needs none of TFP, Keras and
tfp_flows, and listens on 127.0.0.1 unless told otherwise: put a proxy with TLS and authentication
in front of it before anybody else can reach it.

    GET  /healthz           {"status": "ok"}; "draining", with 503, once it was told to stop
    GET  /metrics           counts and histograms, in Prometheus's text format
    GET  /v1/manifest       the export's description of itself
    POST /v1/log_prob       {"x": [row, ...]}                         -> {"log_prob": [...]}
    POST /v1/bits_per_dim   the same                                  -> {"bits_per_dim": [...]}
    POST /v1/inverse        the same                                  -> {"z": [row, ...]}
    POST /v1/sample         {"n": 3, "seed": [0, 1], "temperature": 1} -> {"samples": [...]}

What an export does not have (bits per dimension are those of images, say) is a 404. A conditional
model takes "context" as well, one row or as many as "x" (or "n"). A number that is not finite, such
as the log-density of a row outside of the support, is null. Errors are {"error": why} with status
400, 408 (the body came too slowly), 413 (body or batch too large), 415 (compressed) or 503 (too
much at once: try again).

Requests for one thing that come in while the model is busy run as one batch, the next; nobody
waits for a batch to fill. A row's answer does not depend on who else asks, but for rounding.

It starts to listen when the model has answered a first request, and SIGTERM or SIGINT end it:
connections are refused from then on, and what was accepted before is answered, for --drain seconds
at most. Give whatever stops it (`docker stop --time`, a pod's grace period) more than that.

    curl -s localhost:8080/v1/log_prob -d '{"x": [[0.1, 0.2]]}'
"""

import argparse
import asyncio
import collections
import concurrent.futures
import gc
import itertools
import json
import logging
import math
import os
import signal
import socket
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from aiohttp import web

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # runpy does not.

from _serving import Counter, Gate, Gauge, Histogram

# Of the manifest.
FORMAT_VERSION = 1
# Requests for rows, which may share a batch. The others run alone.
ROWWISE = ("log_prob", "bits_per_dim", "inverse")

_LOG = logging.getLogger("serve")


class Refused(Exception):
    """A request that is not answered, with the HTTP status that says why."""

    def __init__(self, message, status=400):
        super().__init__(message)
        self.status = status


class NoExport(Exception):
    """A folder that cannot be served."""


# --- The model: what a request may hold, and the answer to it. ---


def read_manifest(folder):
    """An export's description of itself."""
    path = os.path.join(folder, "assets.extra", "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
    except OSError as error:
        raise NoExport(
            f"'{folder}' is no export of FlowModel.export: there is no {path} ({error.strerror})"
        ) from error
    except ValueError as error:
        raise NoExport(f"{path} is damaged: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "tfp_flows export":
        raise NoExport(f"{path} was not written by FlowModel.export")
    if manifest.get("format_version") != FORMAT_VERSION:
        raise NoExport(
            f"'{folder}' has format version {manifest.get('format_version')!r}, this server reads "
            f"{FORMAT_VERSION}: take the serve.py that came with tfp_flows "
            f"{manifest.get('versions', {}).get('tfp_flows')}"
        )
    return manifest


class Model:
    """An export and its manifest; checks requests and runs batches."""

    def __init__(self, folder):
        self.manifest = read_manifest(folder)
        try:
            # The functions hold their variables weakly: the object itself must be kept.
            self._loaded = tf.saved_model.load(folder)
        except Exception as error:  # TensorFlow raises all kinds here, IndexError among them.
            raise NoExport(f"the export in '{folder}' is damaged: {error}") from error
        self._signatures = self._loaded.signatures
        missing = set(self.manifest["signatures"]) - set(self._signatures)
        if missing:
            raise NoExport(f"the export in '{folder}' is damaged: it lacks {sorted(missing)}")

    def inputs(self, signature, body, max_rows):
        """The inputs of a signature from the bytes of a request, and how many rows they are."""
        wanted = self.manifest["signatures"][signature]["inputs"]
        # Python parses a megabyte of empty lists for a second, and nothing else runs meanwhile.
        of_a_row = sum(math.prod(spec["shape"][1:]) for spec in wanted.values() if spec["shape"])
        if body.count(b",") > max_rows * of_a_row + 100:
            raise Refused(f"the body holds more than the {max_rows} rows that are allowed", 413)
        request = parse(body)
        if "context" in request and "context" not in wanted:
            raise Refused("'context': this model takes none")
        unknown = sorted(set(request) - set(wanted))
        if unknown:
            raise Refused(f"{unknown[0][:40]!r} is unknown: expected {', '.join(wanted)}")
        if signature == "sample":
            found, rows = self._draw(request, max_rows)
        else:
            found = {"x": self._array(request, "x", signature, max_rows)}
            rows = len(found["x"])
        if "context" in wanted:
            context = self._array(request, "context", signature, max_rows)
            if len(context) not in (1, rows):
                raise Refused(f"'context' has {len(context)} rows, expected 1 or {rows}")
            found["context"] = np.broadcast_to(context, (rows, *context.shape[1:]))
        return found, rows

    def _array(self, request, key, signature, max_rows):
        """An input as an array of the dtype and shape that the signature takes."""
        wanted = self.manifest["signatures"][signature]["inputs"][key]
        if key not in request:
            raise Refused(f"'{key}' is missing")
        dtype, shape = np.dtype(wanted["dtype"]), wanted["shape"][1:]
        value, got = request[key], _shape(request[key])
        if got and got[0] > max_rows:
            raise Refused(f"'{key}' has {got[0]} rows, at most {max_rows} are allowed", 413)
        # Checked as lists: what NumPy makes of a million empty strings and a long one is terabytes.
        if not got or not got[0] or got[1:] != shape:
            if _entries(value, got) is None:
                raise Refused(f"'{key}' is ragged")
            rows = ", ".join(map(str, ["rows", *shape]))
            raise Refused(f"'{key}' must have the shape [{rows}], got {got}")
        entries = _entries(value, got)
        if entries is None:
            raise Refused(f"'{key}' is ragged")
        integers = dtype.kind in "iu"
        if not set(map(type, entries)) <= ({int} if integers else {int, float}):
            raise Refused(f"'{key}' must hold {'integers' if integers else 'numbers'}")
        levels = self.manifest["num_levels"]
        if integers:
            low, high = (0, levels - 1) if levels else (np.iinfo(dtype).min, np.iinfo(dtype).max)
            if not low <= min(entries) <= max(entries) <= high:
                raise Refused(f"'{key}' must hold integers from {low} to {high}")
        try:
            with np.errstate(over="ignore"):
                found = np.array(entries, np.int64 if integers else np.float64).astype(dtype)
        except OverflowError:  # Python's integers have no bound.
            found = np.array(np.inf)
        if not np.isfinite(found).all():
            raise Refused(f"'{key}' must be finite")
        return found.reshape(got)

    def _draw(self, request, max_rows):
        n, seed = request.get("n", 1), request.get("seed")
        temperature, dtype = request.get("temperature", 1), np.dtype(self.manifest["dtype"])
        if type(n) is not int or not 1 <= n <= max_rows:
            raise Refused(f"'n' must be an integer from 1 to {max_rows}")
        if seed is None:
            seed = np.random.default_rng().integers(2**31, size=2).tolist()
        if not isinstance(seed, list) or [type(s) for s in seed] != [int, int]:
            raise Refused("'seed' must be a pair of integers")
        if not all(-(2**31) <= s < 2**31 for s in seed):
            raise Refused("'seed' must be a pair of 32-bit integers")
        # Smaller ones are zero where the processor flushes denormal numbers, as TensorFlow has it.
        smallest = float(np.finfo(dtype).tiny)
        if type(temperature) not in (int, float) or not smallest <= temperature < 100:
            raise Refused(f"'temperature' must be a number from {smallest:.3g} to 100")
        return {
            "n": np.int32(n),
            "seed": np.array(seed, np.int32),
            "temperature": np.asarray(temperature, dtype),
        }, n

    def example(self, signature):
        """The inputs of the smallest request."""
        if signature == "sample":
            found, _ = self._draw({"seed": [0, 0]}, 1)
        else:
            found = {}
        for key, spec in self.manifest["signatures"][signature]["inputs"].items():
            found.setdefault(key, np.zeros([1, *spec["shape"][1:]], spec["dtype"]))
        return found

    def run(self, signature, **inputs):
        """Runs a signature; the first of its outputs as an array."""
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        (output,) = self._signatures[signature](**inputs).values()
        return output.numpy()

    def answer(self, signature, inputs, result):
        """The bytes of the response."""
        (name,) = self.manifest["signatures"][signature]["outputs"]
        if not np.isfinite(result).all():
            result = np.where(np.isfinite(result), result.astype(object), None)
        answer = {name: result.tolist()}
        if signature == "sample":
            answer["seed"] = inputs["seed"].tolist()
        return json.dumps(answer).encode()


def parse(body):
    """A request's JSON object from its bytes."""

    def no_number(name):
        raise Refused(f"'{name}' is not JSON: numbers must be finite")

    try:
        request = json.loads(body, parse_constant=no_number)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise Refused("the body is not JSON") from None
    except ValueError:  # Python's own limit.
        raise Refused("the body holds an integer of thousands of digits") from None
    if not isinstance(request, dict):
        raise Refused("the body must be a JSON object")
    return request


def _shape(value):
    """The shape of nested lists, by their first entries; of too deep ones only its beginning."""
    shape = []
    while type(value) is list and len(shape) < 10:
        shape.append(len(value))
        value = value[0] if value else None
    return shape


def _entries(value, shape):
    """All entries of nested lists of this shape, in order; `None` if they have another."""
    level = [value]
    for size in shape:
        if any(type(part) is not list or len(part) != size for part in level):
            return None
        level = list(itertools.chain.from_iterable(level))
    return level


class Batcher:
    """Runs requests in one worker thread, those for rows several at a time.

    Args:
      model: the `Model`.
      max_batch: `int`, rows in a batch.
      max_queue: `int`, requests that may wait.
      metrics: `Metrics` or `None`.
    """

    def __init__(self, model, *, max_batch, max_queue, metrics=None):
        self._model, self._max_batch, self._max_queue = model, max_batch, max_queue
        self._metrics = metrics
        self._waiting, self._wake = collections.deque(), asyncio.Event()
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self.batches = self.requests = 0

    @property
    def depth(self):
        """How many requests wait."""
        return len(self._waiting)

    async def run(self, signature, rows, **inputs):
        """What a signature answers to the inputs of one request."""
        if len(self._waiting) >= self._max_queue:
            raise Refused("too many requests are waiting", 503)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append((signature, rows, inputs, answer))
        self._wake.set()
        return await answer

    async def serve(self):
        """Takes requests from the queue, for ever."""
        while True:
            await self._wake.wait()
            batch = self._next()
            if batch:
                await self._answer(batch)
            else:
                self._wake.clear()

    def _next(self):
        """The request that waits longest, and those that can go with it."""
        batch, rest, rows = [], collections.deque(), 0
        for request in self._waiting:
            signature, more, _, answer = request
            if answer.done():  # Its client has gone away.
                continue
            together = not batch or (
                signature in ROWWISE and signature == batch[0][0] and rows + more <= self._max_batch
            )
            (batch if together else rest).append(request)
            rows += more if together else 0
        self._waiting = rest
        return batch

    async def _answer(self, batch):
        signature, _, inputs, _ = batch[0]
        sizes = [rows for _, rows, _, _ in batch]

        def work():
            if len(batch) == 1:
                return [self._model.run(signature, **inputs)]
            joined = {key: np.concatenate([one[2][key] for one in batch]) for key in inputs}
            return np.split(self._model.run(signature, **joined), np.cumsum(sizes)[:-1])

        try:
            parts = await asyncio.get_running_loop().run_in_executor(self._worker, work)
        except Exception as error:  # Whatever it is, those who wait must hear of it.
            if len(batch) > 1:  # And only those who are to blame.
                for request in batch:
                    await self._answer([request])
                return
            # InvalidArgumentError comes from the checks that the export makes of its inputs.
            refused = isinstance(error, tf.errors.InvalidArgumentError)
            what, status = ("refused", 400) if refused else ("failed", 500)
            why = (str(error).splitlines() or [type(error).__name__])[0][:200]
            parts = [Refused(f"the model {what}: {why}", status)]
        self.batches += 1
        self.requests += len(batch)
        if self._metrics:
            self._metrics.batch_rows.observe(sum(sizes), endpoint=f"/v1/{signature}")
        for (_, _, _, answer), part in zip(batch, parts, strict=True):
            if answer.done():
                continue
            if isinstance(part, Refused):
                answer.set_exception(part)
            else:
                answer.set_result(part)


# --- The application. ---


class Metrics:
    """What `/metrics` tells."""

    def __init__(self):
        seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
        self.requests = Counter(
            "flow_requests_total",
            "Requests by endpoint and HTTP status; 499: the client went away.",
        )
        self.rows = Counter("flow_rows_total", "Rows scored, or samples drawn.")
        self.seconds = Histogram(
            "flow_request_seconds", "From a request's head to its answer.", seconds
        )
        self.batch_rows = Histogram(
            "flow_batch_rows", "Rows that ran together.", [2**n for n in range(13)]
        )
        self.all = [self.requests, self.rows, self.seconds, self.batch_rows]

    def text(self):
        """All of them in Prometheus's text format."""
        lines = []
        for metric in self.all:
            lines += [f"# HELP {metric.name} {metric.what}", f"# TYPE {metric.name} {metric.kind}"]
            lines += metric.lines()
        return "\n".join(lines) + "\n"


class Server:
    """The endpoints of a model.

    Args:
      model: `Model`.
      gate: `Gate`.
      options: those of the command line.
    """

    def __init__(self, model, gate, options):
        self._model, self._gate, self._options = model, gate, options
        self._metrics = metrics = Metrics()
        self._batcher = Batcher(
            model, max_batch=options.max_batch, max_queue=options.max_queue, metrics=metrics
        )
        # Two, so that a large body does not hold up all the small ones.
        self._parsers = concurrent.futures.ThreadPoolExecutor(2)
        self._held = 0
        metrics.all += [
            Gauge("flow_queue_depth", "Requests that wait.", lambda: self._batcher.depth),
            Gauge("flow_connections", "Open connections.", lambda: gate.connections),
            Gauge(
                "flow_body_bytes", "Bytes of bodies that are read or parsed.", lambda: self._held
            ),
        ]

    def app(self):
        """The aiohttp application."""
        app = web.Application(middlewares=[self._middleware])
        app.cleanup_ctx.append(self._running)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/metrics", self._metrics_text)
        app.router.add_get("/v1/manifest", self._manifest)
        for signature in (*ROWWISE, "sample"):
            app.router.add_post(f"/v1/{signature}", self._endpoint(signature))
        return app

    async def _running(self, app):
        serving = asyncio.create_task(self._batcher.serve())
        # The first call of each takes longest: before anybody is let in.
        for signature in (*ROWWISE, "sample"):
            if signature in self._model.manifest["signatures"]:
                try:
                    await self._batcher.run(signature, 1, **self._model.example(signature))
                except Refused as error:
                    if error.status != 400:  # That is about zeros, not about the model.
                        raise NoExport(f"'{signature}' does not run: {error}") from error
        yield
        serving.cancel()

    @web.middleware
    async def _middleware(self, request, handler):
        """Answers errors in JSON, counts, and stops the client's clock meanwhile."""
        start, status = time.monotonic(), 499
        route = request.match_info.route.resource
        endpoint = route.canonical if route else "other"
        connection = self._gate.of(request)
        if connection:
            connection.stop()
        try:
            try:
                response = await handler(request)
            except Refused as error:
                response = web.json_response({"error": str(error)}, status=error.status)
            except web.HTTPException as error:
                response = web.json_response({"error": error.reason}, status=error.status)
                if "Allow" in error.headers:
                    response.headers["Allow"] = error.headers["Allow"]
            except Exception:
                _LOG.exception("%s %s", request.method, endpoint)
                response = web.json_response({"error": "a mistake of the server's"}, status=500)
            status = response.status
            # A body that was not read to its end would have to be, to find the next request.
            if self._gate.draining or not request.content.is_eof():
                response.force_close()
            return response
        finally:
            self._metrics.requests.add(endpoint=endpoint, status=status)
            self._metrics.seconds.observe(time.monotonic() - start, endpoint=endpoint)
            if connection:
                connection.wait()

    async def _healthz(self, request):
        draining = self._gate.draining
        counts = {"requests": self._batcher.requests, "batches": self._batcher.batches}
        status = {"status": "draining" if draining else "ok"}
        return web.json_response({**status, **counts}, status=503 if draining else 200)

    async def _metrics_text(self, request):
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return web.Response(body=self._metrics.text().encode(), headers={"Content-Type": kind})

    async def _manifest(self, request):
        return web.json_response(self._model.manifest)

    def _endpoint(self, signature):
        async def endpoint(request):
            if signature not in self._model.manifest["signatures"]:
                raise Refused(f"this export has no '{signature}'", 404)
            aside = asyncio.get_running_loop().run_in_executor
            body = bytearray()
            try:
                await self._read(request, body)
                inputs, rows = await aside(
                    self._parsers, self._model.inputs, signature, body, self._options.max_rows
                )
            finally:
                self._held -= len(body)
            result = await self._batcher.run(signature, rows, **inputs)
            self._metrics.rows.add(rows, endpoint=f"/v1/{signature}")
            answer = await aside(self._parsers, self._model.answer, signature, inputs, result)
            return web.Response(body=answer, content_type="application/json")

        return endpoint

    async def _read(self, request, body):
        """Fills in the body of a request, if it is no larger and no slower than allowed."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("compressed bodies are not taken: send the JSON as it is", 415)
        if (request.content_length or 0) > self._options.max_bytes:
            raise self._too_large()
        try:
            await asyncio.wait_for(self._fill(request, body), self._options.timeout)
        except asyncio.TimeoutError:
            raise Refused(f"the body took more than {self._options.timeout:g} s", 408) from None
        except web.RequestPayloadError as error:
            raise Refused(f"the body broke off: {error}") from None

    async def _fill(self, request, body):
        async for chunk in request.content.iter_any():
            body += chunk
            self._held += len(chunk)
            if len(body) > self._options.max_bytes:
                raise self._too_large()
            if self._held > 16 * self._options.max_bytes:
                raise Refused("too many large bodies at once", 503)

    def _too_large(self):
        return Refused(f"the body is larger than {self._options.max_bytes} bytes", 413)


async def serve(model, listener, options):
    """Serves until a signal comes, then drains; how many connections were cut off."""
    gate = Gate(listener, max_connections=options.max_connections, timeout=options.timeout)
    runner = web.AppRunner(
        Server(model, gate, options).app(),
        access_log=None,
        auto_decompress=False,  # A kilobyte may hold a megabyte.
        handler_cancellation=True,  # What nobody waits for any longer is not computed.
        lingering_time=min(2.0, options.timeout),
        shutdown_timeout=1.0,
    )
    await runner.setup()
    # TensorFlow's million objects need not be searched through whenever a body is parsed.
    gc.freeze()
    # It writes a traceback for every request that is not HTTP.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    gate.start(runner.server)
    host, port = listener.getsockname()[:2]
    print(f"serving {options.export} on http://{host}:{port}", flush=True)
    await stopped.wait()
    print(f"draining {gate.connections} connections", flush=True)
    cut = await gate.drain(options.drain)
    await runner.cleanup()
    return cut


def main():
    """Parses the command line and serves until stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", help="directory that FlowModel.export wrote")
    for option, default, what in (
        ("--host", "127.0.0.1", "address to listen on"),
        ("--port", 8080, "port to listen on, 0 for a free one"),
        ("--max-batch", 64, "rows of merged requests"),
        ("--max-rows", 256, "rows or samples of one request"),
        ("--max-queue", 256, "requests that may wait"),
        ("--max-bytes", 2**22, "size of a request's body"),
        ("--max-connections", 512, "connections at a time; more wait"),
        ("--timeout", 30.0, "seconds for a request's head, for its body, for reading the answer"),
        ("--drain", 25.0, "seconds for what is left when it is told to stop"),
    ):
        parser.add_argument(
            option, type=type(default), default=default, help=f"{what}: %(default)s"
        )
    options = parser.parse_args()
    for name, value in vars(options).items():
        if isinstance(value, (int, float)) and not (value > 0 or (name, value) == ("port", 0)):
            parser.error(f"--{name.replace('_', '-')} must be above 0, got {value}")
    try:
        family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((options.host, options.port))
    except (OSError, OverflowError) as error:
        parser.exit(1, f"serve.py: cannot listen on {options.host}:{options.port}: {error}\n")
    try:
        cut = asyncio.run(serve(Model(options.export), listener, options))
    except NoExport as error:
        parser.exit(1, f"serve.py: {error}\n")
    if cut:
        print(f"serve.py: {cut} connections were cut off", file=sys.stderr, flush=True)
        os._exit(1)  # The model's thread cannot be interrupted, and Python would wait for it.


if __name__ == "__main__":
    main()
