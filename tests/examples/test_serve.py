"""The example server: answers, refusals, many clients at once, and its end, on the loopback."""

import asyncio
import collections
import concurrent.futures
import contextlib
import http.client
import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.bijectors import context_kwargs

pytest.importorskip("aiohttp")
SERVER = pathlib.Path(__file__).parents[2] / "examples" / "serve.py"
BLOCK = (
    "import runpy, sys; "
    "sys.modules.update(dict.fromkeys(('tensorflow_probability', 'keras', 'tfp_flows'))); "
    "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
)


def _model():
    flow = flows.real_nvp([4], num_couplings=2, hidden_units=(8,), context_size=2, seed=0)
    for variable in flow.trainable_variables:
        variable.assign_add(
            tf.random.stateless_normal(variable.shape, (0, variable.shape[0]), stddev=0.1)
        )
    return FlowModel(flow)


@contextlib.contextmanager
def running(path, *options):
    """A server as a process without TFP, Keras and tfp_flows, and its port."""
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCK, str(SERVER), path, "--port", "0", *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = process.stdout.readline()
        if not said.startswith("serving "):
            raise RuntimeError(f"the server ended with {process.wait(20)}")
        yield process, int(said.rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The model and the port of its server."""
    model, path = _model(), str(tmp_path_factory.mktemp("serve") / "model")
    model.export(path)
    options = "--max-rows 16 --max-bytes 20000 --max-queue 64 --max-connections 24 --timeout 2"
    with running(path, *options.split()) as (_, port):
        yield model, port


def get(port, path):
    return _request(port, "GET", path, None)


def post(port, path, body):
    return _request(port, "POST", path, body if isinstance(body, bytes) else json.dumps(body))


def _request(port, method, path, body, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def rows(n, size, seed):
    return np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)


def test_answers_are_the_models(server):
    model, port = server
    x, context = rows(5, 4, 0), rows(5, 2, 1)
    status, answer = post(port, "/v1/log_prob", {"x": x.tolist(), "context": context.tolist()})
    assert status == 200
    np.testing.assert_allclose(answer["log_prob"], model.log_prob(x, context), rtol=1e-6)
    one = {"x": x.tolist(), "context": context[:1].tolist()}
    status, answer = post(port, "/v1/log_prob", one)
    np.testing.assert_allclose(answer["log_prob"], model.log_prob(x, context[:1]), rtol=1e-6)
    request = {"n": 3, "seed": [4, 5], "temperature": 0.5, "context": context[:1].tolist()}
    status, answer = post(port, "/v1/sample", request)
    wanted = model.sample(3, seed=(4, 5), temperature=0.5, context=context[:1])
    np.testing.assert_allclose(answer["samples"], wanted, rtol=1e-5, atol=1e-6)
    status, answer = post(port, "/v1/inverse", {"x": x.tolist(), "context": context.tolist()})
    base = model.distribution.distribution
    jacobian = np.asarray(model.log_prob(x, context)) - base.log_prob(answer["z"])
    wanted = model.distribution.bijector.inverse_log_det_jacobian(
        x, 1, **context_kwargs(model.distribution.bijector, context)
    )
    np.testing.assert_allclose(jacobian, wanted, rtol=1e-4, atol=1e-5)


def test_health_and_manifest(server):
    status, health = get(server[1], "/healthz")
    assert (status, health["status"]) == (200, "ok")
    status, manifest = get(server[1], "/v1/manifest")
    assert status == 200 and manifest["event_shape"] == [4]


X, C = [[0.0] * 4], [[0.0] * 2]


def _x(entry):
    return f'{{"x": [[{entry}, 0, 0, 0]], "context": [[0, 0]]}}'.encode()


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("log_prob", b"{not json", 400, "not JSON"),
        ("log_prob", b"", 400, "not JSON"),
        ("log_prob", b"\xff\xfe\x00", 400, "not JSON"),
        ("log_prob", b"[" * 19000, 400, "not JSON"),
        ("log_prob", b'{"x":' + b"[" * 900 + b"]" * 900 + b',"context":[[0,0]]}', 400, "[rows, 4]"),
        ("log_prob", _x("1" * 5000), 400, "thousands of digits"),
        ("log_prob", _x("1" * 400), 400, "must be finite"),
        ("log_prob", _x("1e999"), 400, "must be finite"),
        ("log_prob", _x("1e300"), 400, "must be finite"),
        ("log_prob", _x("NaN"), 400, "must be finite"),
        ("log_prob", _x("-Infinity"), 400, "must be finite"),
        ("log_prob", _x("true"), 400, "must hold numbers"),
        ("log_prob", _x("null"), 400, "must hold numbers"),
        ("log_prob", _x('"1"'), 400, "must hold numbers"),
        ("log_prob", _x("[1]"), 400, "ragged"),
        ("log_prob", [1, 2], 400, "must be a JSON object"),
        ("log_prob", {"context": C}, 400, "'x' is missing"),
        ("log_prob", {"x": X}, 400, "'context' is missing"),
        ("log_prob", {"x": X, "context": C, "seed": [0, 0]}, 400, "'seed' is unknown: expected x"),
        ("log_prob", {"x": [[0.0] * 5], "context": C}, 400, "shape [rows, 4], got [1, 5]"),
        ("log_prob", {"x": [], "context": C}, 400, "shape [rows, 4]"),
        ("log_prob", {"x": [[1.0], [1.0, 2.0]], "context": C}, 400, "ragged"),
        ("log_prob", {"x": {}, "context": C}, 400, "shape [rows, 4], got []"),
        ("log_prob", {"x": X, "context": "ab"}, 400, "shape [rows, 2], got []"),
        # As an array of NumPy these strings would take 150 MB, and terabytes at the usual limits.
        ("log_prob", {"x": X, "context": [["a" * 6000], *[[""]] * 6000]}, 413, ""),
        ("log_prob", {"x": X * 3, "context": C * 2}, 400, "expected 1 or 3"),
        ("log_prob", {"x": X * 17, "context": C}, 413, "at most 16"),
        ("log_prob", {"x": [[]] * 300, "context": C}, 413, "more than the 16 rows"),
        ("log_prob", b" " * 30000, 413, "larger than 20000 bytes"),
        ("bits_per_dim", {"x": X, "context": C}, 404, "this export has no 'bits_per_dim'"),
        ("inverse", {"x": X}, 400, "'context' is missing"),
        ("sample", {"n": 0, "context": C}, 400, "'n' must be an integer from 1 to 16"),
        ("sample", {"n": 10**9, "context": C}, 400, "'n' must be"),
        ("sample", {"n": True, "context": C}, 400, "'n' must be"),
        ("sample", {"n": 1, "seed": 3, "context": C}, 400, "'seed' must be a pair"),
        ("sample", {"n": 1, "seed": [2**40, 0], "context": C}, 400, "'seed' must be a pair of 32"),
        ("sample", {"n": 1, "temperature": -1, "context": C}, 400, "'temperature'"),
        ("sample", {"n": 1, "temperature": 1e-300, "context": C}, 400, "'temperature'"),
        ("sample", {"n": 1, "temperature": 1e-40, "context": C}, 400, "'temperature'"),
        ("sample", {"n": 1, "temperature": 10**400, "context": C}, 400, "'temperature'"),
        ("sample", {"n": 1, "temperature": None, "context": C}, 400, "'temperature'"),
        ("nothing", {}, 404, "Not Found"),
    ],
)
def test_refusals(server, path, body, status, words):
    found, answer = post(server[1], f"/v1/{path}", body)
    assert (found, words in answer["error"]) == (status, True), answer


def test_headers_do_not_matter_or_are_refused(server):
    port, body = server[1], json.dumps({"x": X, "context": C})
    for kind in ("application/json; charset=nonsense", "text/plain; charset=utf-7", ";;="):
        found = _request(port, "POST", "/v1/log_prob", body, {"Content-Type": kind})
        assert found == post(port, "/v1/log_prob", {"x": X, "context": C})
    for coding in ("gzip", "br", "nonsense"):
        headers = {"Content-Encoding": coding}
        status, answer = _request(port, "POST", "/v1/log_prob", body, headers)
        assert (status, "compressed" in answer["error"]) == (415, True)
    assert _request(port, "PUT", "/v1/log_prob", body)[0] == 405


HEAD = b"POST /v1/log_prob HTTP/1.1\r\nHost: a\r\n"
CHUNK = b"1000\r\n" + b" " * 4096 + b"\r\n"


def _status(port, data):
    """The status that the server answers to these bytes, if any."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        client.sendall(data)
        answer = client.recv(4096)
    return int(answer.split()[1]) if answer else None


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"garbage\r\n\r\n", 400),
        (HEAD + b"Content-Length: -5\r\n\r\n", 400),
        (HEAD + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", 400),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        # Refused by what the head says, though nothing else ever comes.
        (HEAD + b"Content-Length: 99999999999\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + 6 * CHUNK, 413),
    ],
)
def test_what_is_hardly_http(server, data, status):
    assert _status(server[1], data) == status


def test_slow_clients_make_room(server):
    """Half a body is told so, half a head is cut, and idle ones do not lock the others out."""
    port = server[1]
    with concurrent.futures.ThreadPoolExecutor(2) as pool, contextlib.ExitStack() as stack:
        body = pool.submit(_status, port, HEAD + b"Content-Length: 50\r\n\r\n{")
        head = pool.submit(_status, port, HEAD[:30])
        time.sleep(0.2)
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            for _ in range(30)
        ]
        assert metrics(port)["flow_connections"] <= 24  # Answered when the first have been cut.
        assert (body.result(), head.result()) == (408, None)
        assert idle[0].recv(1) == b""


def metrics(port):
    """All samples of `/metrics`, by name and labels; their format is checked."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    assert response.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    found, kinds = {}, {}
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            kinds[name] = kind
            continue
        sample = re.fullmatch(r"((\w+)(\{(\w+=\"[^\"\\]*\",?)+\})?) (\S+)", line)
        name = re.sub("_(bucket|sum|count)$", "", sample[2])
        assert kinds[name if kinds.get(name) == "histogram" else sample[2]]
        assert sample[1] not in found
        found[sample[1]] = float(sample[5])
    return found


def test_metrics_count(server):
    port = server[1]
    before = metrics(port)
    post(port, "/v1/log_prob", {"x": X * 3, "context": C})
    post(port, "/v1/log_prob", {"x": X * 17, "context": C})
    post(port, "/v1/sample", {"n": 5, "context": C})
    after = metrics(port)

    def more(name, **labels):
        labels = ",".join(f'{key}="{value}"' for key, value in labels.items())
        return after[f"{name}{{{labels}}}"] - before.get(f"{name}{{{labels}}}", 0)

    scored, drawn = "/v1/log_prob", "/v1/sample"
    assert more("flow_requests_total", endpoint=scored, status=200) == 1
    assert more("flow_requests_total", endpoint=scored, status=413) == 1
    assert more("flow_rows_total", endpoint=scored) == 3
    assert more("flow_rows_total", endpoint=drawn) == 5
    assert more("flow_request_seconds_count", endpoint=scored) == 2
    assert more("flow_request_seconds_bucket", endpoint=scored, le="+Inf") == 2
    assert more("flow_batch_rows_sum", endpoint=scored) == 3
    buckets = [more("flow_batch_rows_bucket", endpoint=scored, le=bound) for bound in (2, 4, 8)]
    assert buckets == [0, 1, 1]
    assert (after["flow_queue_depth"], after["flow_body_bytes"]) == (0, 0)


def test_many_clients_at_once(server):
    """Every client gets its own answer, requests share batches, and none is slow."""
    model, port = server
    requests = 400
    before = get(port, "/healthz")[1]

    def ask(number):
        x, context = rows(1 + number % 3, 4, number), rows(1, 2, number + 1000)
        start = time.perf_counter()
        body = {"x": x.tolist(), "context": context.tolist()}
        status, answer = post(port, "/v1/log_prob", body)
        return x, context, status, answer, time.perf_counter() - start

    start = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(requests)))
    took = time.perf_counter() - start
    for x, context, status, answer, _ in answers:
        assert status == 200
        np.testing.assert_allclose(answer["log_prob"], model.log_prob(x, context), rtol=1e-5)
    after = get(port, "/healthz")[1]
    assert after["requests"] - before["requests"] == requests
    assert after["batches"] - before["batches"] < requests
    times = np.sort([t for *_, t in answers])
    print(
        f"{requests / took:.0f} requests/s, median {1e3 * times[requests // 2]:.1f} ms, "
        f"99% {1e3 * times[int(0.99 * requests)]:.1f} ms, "
        f"{after['batches'] - before['batches']} batches"
    )
    assert times[-1] < 20.0


def test_of_a_model_that_dequantizes_and_then_is_told_to_stop(digits):
    """Bits per dimension and latents, and SIGTERM under load, which costs nobody an answer."""
    model, path = digits
    x = np.random.default_rng(2).integers(0, 17, size=(8, 4, 4, 1))
    bits = preprocessing.bits_per_dim(model.log_prob(x.astype(np.uint8)), [4, 4, 1])
    counts, told = collections.Counter(), threading.Event()

    def client(number):
        """Asks until it is refused; every other one keeps its connection."""
        connection = None
        while True:
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                try:
                    connection.connect()
                except ConnectionRefusedError:
                    return
            connection.request("POST", "/v1/bits_per_dim", body)
            response = connection.getresponse()
            np.testing.assert_allclose(json.load(response)["bits_per_dim"], bits, rtol=1e-5)
            counts[told.is_set()] += 1
            if response.will_close or number % 2:
                connection.close()
                connection = None

    with running(path, "--max-connections", "8") as (process, port):
        dequantized = x.astype(np.float32) + 0.5
        status, answer = post(port, "/v1/inverse", {"x": dequantized.tolist()})
        assert status == 200
        latents = model.distribution.bijector.inverse(dequantized)
        latents = model.distribution.distribution.bijector.inverse(latents)
        np.testing.assert_allclose(answer["z"], latents, rtol=1e-4, atol=1e-5)
        body = json.dumps({"x": x.tolist()})
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            clients = [pool.submit(client, number) for number in range(24)]
            while sum(counts.values()) < 50:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            told.set()
            for each in clients:
                each.result()  # Raises what the client has met.
        assert process.wait(20) == 0
    assert counts[True] > 0


# --- Its parts, in this process. ---


@pytest.fixture(scope="module")
def serve():
    spec = importlib.util.spec_from_file_location("serve", SERVER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model that dequantizes, and its export."""
    glow = flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    model = FlowModel(
        tfp.distributions.TransformedDistribution(glow, preprocessing.Logit(17.0)),
        dequantization=preprocessing.UniformDequantization(17),
    )
    model.initialize(np.random.default_rng(0).integers(0, 17, size=(32, 4, 4, 1)).astype(np.uint8))
    path = str(tmp_path_factory.mktemp("digits") / "model")
    model.export(path)
    return model, path


def _answers(serve, model, requests, **limits):
    """Puts requests into the queue before anybody serves it; answers, and how many batches."""

    async def run():
        batcher = serve.Batcher(model, **{"max_batch": 64, "max_queue": 64, **limits})
        tasks = [asyncio.ensure_future(batcher.run("log_prob", len(x), x=x)) for x in requests]
        await asyncio.sleep(0)  # All of them are in the queue then.
        serving = asyncio.ensure_future(batcher.serve())
        try:
            # A request that is never answered would hold up the suite.
            found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 60)
            return found, batcher.batches
        finally:
            serving.cancel()

    return asyncio.run(run())


def test_requests_of_a_model_that_dequantizes_share_a_batch(serve, digits):
    """And each has the score that the row has alone, whoever else asks."""
    model, path = digits
    served = serve.Model(path)
    x = np.random.default_rng(1).integers(0, 17, size=(6, 4, 4, 1)).astype(np.int32)
    requests = [x[:1], x[1:4], x[4:]]
    wanted = [model.log_prob(r) for r in requests]
    for limits, batches in [({}, 1), ({"max_batch": 4}, 2), ({"max_batch": 1}, 3)]:
        answers, count = _answers(serve, served, requests, **limits)
        assert count == batches
        for found, expected in zip(answers, wanted, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_full_queue_and_a_failing_model_are_told(serve):
    class Broken:
        def run(self, signature, **inputs):
            raise OSError("out of order")

    answers, _ = _answers(serve, Broken(), [np.zeros([1, 4])] * 5, max_queue=3)
    assert [answer.status for answer in answers] == [500, 500, 500, 503, 503]
    assert "out of order" in str(answers[0]) and "waiting" in str(answers[4])


def test_only_the_one_to_blame_is_told(serve):
    class Picky:
        def run(self, signature, x):
            if np.any(x < 0):
                raise tf.errors.InvalidArgumentError(None, None, "x is below 0\nat some node")
            return x[:, 0]

    requests = [np.full([n, 1], n - 3.0) for n in (3, 1, 4)]
    (first, second, third), batches = _answers(serve, Picky(), requests)
    assert (first.tolist(), third.tolist(), batches) == ([0.0] * 3, [1.0] * 4, 3)
    assert (str(second), second.status) == ("the model refused: x is below 0", 400)


def test_requests_for_different_things_do_not_share_a_batch(serve):
    """But those for one thing do, past others that wait; what is drawn is drawn alone."""
    ran = []

    class Listing:
        def run(self, signature, x):
            ran.append((signature, x.tolist()))
            return x

    async def run():
        batcher = serve.Batcher(Listing(), max_batch=64, max_queue=64)
        kinds = ["log_prob", "inverse", "log_prob", "sample", "inverse", "sample"]
        tasks = [
            asyncio.ensure_future(batcher.run(kind, 1, x=np.array([n])))
            for n, kind in enumerate(kinds)
        ]
        await asyncio.sleep(0)
        tasks[4].cancel()  # As when a client goes away.
        await asyncio.sleep(0)
        serving = asyncio.ensure_future(batcher.serve())
        found = await asyncio.gather(*tasks, return_exceptions=True)
        serving.cancel()
        return found

    found = asyncio.run(run())
    assert ran == [("log_prob", [0, 2]), ("inverse", [1]), ("sample", [3]), ("sample", [5])]
    assert [a.tolist() for a in (*found[:4], found[5])] == [[0], [1], [2], [3], [5]]
    assert isinstance(found[4], asyncio.CancelledError)


def test_draining_has_an_end(serve):
    """Idle connections are closed after the grace, and what never ends is cut off."""
    web = pytest.importorskip("aiohttp.web")

    async def run():
        async def handler(request):
            await asyncio.sleep(60)

        app = web.Application()
        app.router.add_get("/", handler)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        address = listener.getsockname()
        gate = serve.Gate(listener, max_connections=2, timeout=60.0)
        gate.start(runner.server)
        # The third is accepted by the kernel alone: there is no room.
        streams = [await asyncio.open_connection(*address) for _ in range(3)]
        (idle, _), (busy, writer), (queued, _) = streams
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0.1)
        counts = [gate.connections]
        draining = asyncio.ensure_future(gate.drain(1.0, grace=0.2))
        await asyncio.sleep(0.1)
        counts.append(gate.connections)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        ends = [await idle.read(), await queued.read()]
        counts.append(gate.connections)
        assert await draining == 1
        ends.append(await busy.read())
        await runner.cleanup()
        return counts, ends

    counts, ends = asyncio.run(run())
    assert counts == [2, 3, 1]
    assert ends == [b"", b"", b""]


def _cut(path):
    path.write_bytes(path.read_bytes()[:300])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda path: (path / "assets.extra/manifest.json").unlink(), "is no export of FlowModel"),
        (lambda path: _cut(path / "assets.extra/manifest.json"), "manifest.json is damaged"),
        (lambda path: _cut(path / "saved_model.pb"), "the export in .* is damaged"),
        (lambda path: _cut(next(path.glob("variables/*.data-*"))), "the export in .* is damaged"),
        ({"format_version": 2}, "has format version 2, this server reads 1"),
        ({"format": "another program's"}, "was not written by FlowModel.export"),
        ({"signatures": {"log_prob": {}, "train": {}}}, r"it lacks \['train'\]"),
    ],
)
def test_what_it_does_not_serve(serve, digits, tmp_path, change, words):
    path = tmp_path / "model"
    shutil.copytree(digits[1], path)
    if isinstance(change, dict):
        manifest = path / "assets.extra" / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **change}))
    else:
        change(path)
    with pytest.raises(serve.NoExport, match=words):
        serve.Model(str(path))


def test_the_command_line_says_so_in_one_line(serve, capsys, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, code, words in [
            (["--port", "0"], 1, "serve.py: '/nothing' is no export of FlowModel"),
            (["--port", port], 1, f"serve.py: cannot listen on 127.0.0.1:{port}: "),
            (["--drain", "0"], 2, "--drain must be above 0, got 0.0"),
        ]:
            monkeypatch.setattr(sys, "argv", ["serve.py", "/nothing", *arguments])
            with pytest.raises(SystemExit) as stopped:
                serve.main()
            assert stopped.value.code == code
            assert words in capsys.readouterr().err
