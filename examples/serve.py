"""Serves an exported flow over HTTP, with TensorFlow and aiohttp alone.

    pip install tensorflow aiohttp
    python examples/serve.py EXPORT [--port 8080]

EXPORT is the directory that `FlowModel.export` wrote. The server needs none of TFP, Keras and
tfp_flows, and listens on 127.0.0.1 unless told otherwise: put a proxy with TLS and authentication
in front of it before anybody else can reach it.

    GET  /healthz         {"status": "ok"} once the model has answered a first request
    GET  /v1/manifest     the export's description of itself
    POST /v1/log_prob     {"x": [row, ...]}                         -> {"log_prob": [...]}
    POST /v1/sample       {"n": 3, "seed": [0, 1], "temperature": 1} -> {"samples": [...]}

A conditional model takes "context" as well, one row or as many as "x" (or "n"). A log-density that
is not finite, such as that of a row outside of the support, is null. Errors are {"error": why} with
status 400, 413 (body or batch too large) or 503 (too much waiting: try again).

Requests for log-densities that come in while the model is busy run as one batch, the next; nobody
waits for a batch to fill. A row's answer does not depend on who else asks, but for rounding.

    curl -s localhost:8080/v1/log_prob -d '{"x": [[0.1, 0.2]]}'
"""

import argparse
import asyncio
import concurrent.futures
import json
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from aiohttp import web

# Of the manifest.
FORMAT_VERSION = 1


class Refused(Exception):
    """A request that is not answered, with the HTTP status that says why."""

    def __init__(self, message, status=400):
        super().__init__(message)
        self.status = status


class NoExport(Exception):
    """A folder that cannot be served."""


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

    def array(self, request, key, signature, max_rows):
        """An input of a request as an array of the dtype and shape that the signature takes."""
        wanted = self.manifest["signatures"][signature]["inputs"][key]
        if key not in request:
            raise Refused(f"'{key}' is missing")
        dtype, shape = np.dtype(wanted["dtype"]), wanted["shape"][1:]
        try:
            value = np.asarray(request[key])
        except ValueError:
            raise Refused(f"'{key}' is ragged") from None
        kinds = "iu" if dtype.kind == "i" else "iuf"
        if value.dtype.kind not in kinds:
            raise Refused(f"'{key}' must hold {'integers' if kinds == 'iu' else 'numbers'}")
        if value.ndim != len(shape) + 1 or list(value.shape[1:]) != shape or not len(value):
            wanted = ", ".join(map(str, ["rows", *shape]))
            raise Refused(f"'{key}' must have the shape [{wanted}], got {list(value.shape)}")
        if len(value) > max_rows:
            raise Refused(f"'{key}' has {len(value)} rows, at most {max_rows} are allowed", 413)
        levels = self.manifest["num_levels"]
        if dtype.kind == "i" and not (value.min() >= 0 and value.max() < levels):
            raise Refused(f"'{key}' must hold integers from 0 to {levels - 1}")
        with np.errstate(over="ignore"):
            value = value.astype(dtype)
        if dtype.kind == "f" and not np.isfinite(value).all():
            raise Refused(f"'{key}' must be finite")
        return value

    def context(self, request, signature, rows, max_rows):
        """The context of a request, a row for each of `rows`, or `None`."""
        if self.manifest["context_size"] is None:
            if "context" in request:
                raise Refused("'context': this model takes none")
            return None
        context = self.array(request, "context", signature, max_rows)
        if len(context) not in (1, rows):
            raise Refused(f"'context' has {len(context)} rows, expected 1 or {rows}")
        return np.broadcast_to(context, (rows, context.shape[1]))

    def run(self, signature, **inputs):
        """Runs a signature; the first of its outputs as an array."""
        inputs = {key: tf.constant(value) for key, value in inputs.items() if value is not None}
        (output,) = self._signatures[signature](**inputs).values()
        return output.numpy()


class Batcher:
    """Runs requests in one worker thread, those for log-densities several at a time.

    Args:
      model: the `Model`.
      max_batch: `int`, rows in a batch.
      max_queue: `int`, requests that may wait.
    """

    def __init__(self, model, *, max_batch, max_queue):
        self._model, self._max_batch = model, max_batch
        self._queue = asyncio.Queue(max_queue)
        self._worker = concurrent.futures.ThreadPoolExecutor(1)
        self.batches = self.requests = 0

    async def log_prob(self, x, context):
        """Log-densities of the rows of one request."""
        answer = asyncio.get_running_loop().create_future()
        self._put((x, context, answer))
        return await answer

    async def sample(self, **inputs):
        """Samples, between two batches."""
        answer = asyncio.get_running_loop().create_future()
        self._put((None, inputs, answer))
        return await answer

    def _put(self, item):
        try:
            self._queue.put_nowait(item)
        except asyncio.QueueFull:
            raise Refused("too many requests are waiting", 503) from None

    async def serve(self):
        """Takes requests from the queue, for ever."""
        held = None
        while True:
            x, context, answer = held or await self._queue.get()
            held = None
            if x is None:
                await self._answer([answer], [1], "sample", **context)
                continue
            batch, rows = [(x, context, answer)], len(x)
            while not self._queue.empty():
                item = self._queue.get_nowait()
                if item[0] is None or rows + len(item[0]) > self._max_batch:
                    held = item
                    break
                batch.append(item)
                rows += len(item[0])
            x = np.concatenate([item[0] for item in batch])
            context = [item[1] for item in batch]
            context = None if context[0] is None else np.concatenate(context)
            sizes = [len(item[0]) for item in batch]
            await self._answer([item[2] for item in batch], sizes, "log_prob", x=x, context=context)

    async def _answer(self, answers, sizes, signature, **inputs):
        self.batches += 1
        self.requests += len(answers)
        run = asyncio.get_running_loop().run_in_executor
        try:
            result = await run(self._worker, lambda: self._model.run(signature, **inputs))
        except Exception as error:  # Whatever it is, those who wait must hear of it.
            for answer in answers:
                if not answer.done():  # A client may have gone away.
                    answer.set_exception(Refused(f"the model failed: {error}", 500))
            return
        parts = [result] if signature == "sample" else np.split(result, np.cumsum(sizes)[:-1])
        for answer, part in zip(answers, parts, strict=True):
            if not answer.done():
                answer.set_result(part)


def make_app(model, options):
    """The aiohttp application."""

    @web.middleware
    async def errors_as_json(request, handler):
        try:
            return await handler(request)
        except Refused as error:
            return web.json_response({"error": str(error)}, status=error.status)
        except web.HTTPException as error:
            return web.json_response({"error": error.reason}, status=error.status)

    async def body_of(request):
        try:
            body = await request.json()
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
            raise Refused("the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused("the body must be a JSON object")
        return body

    async def log_prob(request):
        body = await body_of(request)
        x = model.array(body, "x", "log_prob", options.max_rows)
        context = model.context(body, "log_prob", len(x), options.max_rows)
        values = await app["batcher"].log_prob(x, context)
        finite = [float(v) if np.isfinite(v) else None for v in values]
        return web.json_response({"log_prob": finite})

    async def sample(request):
        body = await body_of(request)
        n, seed = body.get("n", 1), body.get("seed")
        temperature = body.get("temperature", 1)
        if type(n) is not int or not 1 <= n <= options.max_rows:
            raise Refused(f"'n' must be an integer from 1 to {options.max_rows}")
        if seed is None:
            seed = np.random.default_rng().integers(2**31, size=2).tolist()
        if not isinstance(seed, list) or [type(s) for s in seed] != [int, int]:
            raise Refused("'seed' must be a pair of integers")
        if not all(-(2**31) <= s < 2**31 for s in seed):
            raise Refused("'seed' must be a pair of 32-bit integers")
        if type(temperature) not in (int, float) or not 0 < temperature < 100:
            raise Refused("'temperature' must be a number above 0")
        samples = await app["batcher"].sample(
            n=np.int32(n),
            seed=np.array(seed, np.int32),
            temperature=np.asarray(temperature, model.manifest["dtype"]),
            context=model.context(body, "sample", n, options.max_rows),
        )
        return web.json_response({"samples": samples.tolist(), "seed": seed})

    async def healthz(request):
        ready = app["ready"].is_set()
        counts = {"requests": app["batcher"].requests, "batches": app["batcher"].batches}
        return web.json_response(
            {"status": "ok" if ready else "starting", **counts}, status=200 if ready else 503
        )

    async def manifest(request):
        return web.json_response(model.manifest)

    async def start(app):
        app["batcher"] = Batcher(
            model,
            max_batch=options.max_batch,
            max_queue=options.max_queue,
        )
        app["serving"] = asyncio.create_task(app["batcher"].serve())
        # The first call takes longest: before the health check says ok.
        seed, one = np.array([0, 0], np.int32), np.asarray(1, model.manifest["dtype"])
        size = model.manifest["context_size"]
        context = None if size is None else np.zeros([1, size], one.dtype)
        await app["batcher"].sample(n=np.int32(1), seed=seed, temperature=one, context=context)
        spec = model.manifest["signatures"]["log_prob"]["inputs"]["x"]
        await app["batcher"].log_prob(np.zeros([1, *spec["shape"][1:]], spec["dtype"]), context)
        app["ready"].set()

    async def stop(app):
        app["serving"].cancel()

    app = web.Application(middlewares=[errors_as_json], client_max_size=options.max_bytes)
    app["ready"] = asyncio.Event()
    app.on_startup.append(start)
    app.on_cleanup.append(stop)
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/v1/manifest", manifest)
    app.router.add_post("/v1/log_prob", log_prob)
    app.router.add_post("/v1/sample", sample)
    return app


def main():
    """Parses the command line and serves until stopped."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("export", help="directory that FlowModel.export wrote")
    for option, default, what in (
        ("--host", "127.0.0.1", "address to listen on"),
        ("--port", 8080, "port to listen on"),
        ("--max-batch", 64, "rows of merged requests"),
        ("--max-rows", 256, "rows or samples of one request"),
        ("--max-queue", 256, "requests that may wait"),
        ("--max-bytes", 2**22, "size of a request's body"),
    ):
        parser.add_argument(
            option, type=type(default), default=default, help=f"{what}: %(default)s"
        )
    options = parser.parse_args()
    try:
        model = Model(options.export)
    except NoExport as error:
        parser.exit(1, f"serve.py: {error}\n")
    print(f"serving {options.export} on http://{options.host}:{options.port}", flush=True)
    web.run_app(make_app(model, options), host=options.host, port=options.port, print=None)


if __name__ == "__main__":
    main()
