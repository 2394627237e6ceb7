"""The example server: right answers, refusals, and many clients at once, on the loopback."""

import asyncio
import concurrent.futures
import http.client
import importlib.util
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing

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


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The model and the port of its server, a process without TFP, Keras and tfp_flows."""
    model, path = _model(), str(tmp_path_factory.mktemp("serve") / "model")
    model.export(path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--max-rows", "16", "--max-bytes", "20000", "--max-queue", "64"]
    process = subprocess.Popen(
        [sys.executable, "-c", BLOCK, str(SERVER), path, "--port", str(port), *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"the server ended with {process.returncode}")
            try:
                if get(port, "/healthz")[0] == 200:
                    break
            except OSError:
                time.sleep(0.1)
        yield model, port
    finally:
        process.terminate()
        process.wait(20)


def get(port, path):
    return _request(port, "GET", path, None)


def post(port, path, body):
    return _request(port, "POST", path, body if isinstance(body, bytes) else json.dumps(body))


def _request(port, method, path, body):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body)
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


def test_health_and_manifest(server):
    status, health = get(server[1], "/healthz")
    assert (status, health["status"]) == (200, "ok")
    status, manifest = get(server[1], "/v1/manifest")
    assert status == 200 and manifest["event_shape"] == [4]


X, C = [[0.0] * 4], [[0.0] * 2]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/v1/log_prob", b"{not json", 400, "not JSON"),
        ("/v1/log_prob", [1, 2], 400, "must be a JSON object"),
        ("/v1/log_prob", {"context": C}, 400, "'x' is missing"),
        ("/v1/log_prob", {"x": X}, 400, "'context' is missing"),
        ("/v1/log_prob", {"x": [[0.0] * 5], "context": C}, 400, "shape [rows, 4], got [1, 5]"),
        ("/v1/log_prob", {"x": [], "context": C}, 400, "shape [rows, 4]"),
        ("/v1/log_prob", {"x": [[1.0], [1.0, 2.0]], "context": C}, 400, "ragged"),
        ("/v1/log_prob", {"x": [["a"] * 4], "context": C}, 400, "must hold numbers"),
        ("/v1/log_prob", {"x": [[float("nan")] * 4], "context": C}, 400, "must be finite"),
        ("/v1/log_prob", {"x": X * 3, "context": C * 2}, 400, "expected 1 or 3"),
        ("/v1/log_prob", {"x": X * 17, "context": C}, 413, "at most 16"),
        ("/v1/log_prob", b" " * 30000, 413, ""),
        ("/v1/sample", {"n": 0, "context": C}, 400, "'n' must be an integer from 1 to 16"),
        ("/v1/sample", {"n": 10**9, "context": C}, 400, "'n' must be"),
        ("/v1/sample", {"n": 1, "seed": 3, "context": C}, 400, "'seed' must be a pair"),
        ("/v1/sample", {"n": 1, "temperature": -1, "context": C}, 400, "'temperature'"),
        ("/v2/nothing", {}, 404, "Not Found"),
    ],
)
def test_refusals(server, path, body, status, words):
    found, answer = post(server[1], path, body)
    assert (found, words in answer["error"]) == (status, True), answer


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
        tasks = [asyncio.ensure_future(batcher.log_prob(x, None)) for x in requests]
        await asyncio.sleep(0)  # All of them are in the queue then.
        serving = asyncio.ensure_future(batcher.serve())
        try:
            return await asyncio.gather(*tasks, return_exceptions=True), batcher.batches
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
    monkeypatch.setattr(sys, "argv", ["serve.py", "/nothing"])
    with pytest.raises(SystemExit) as stopped:
        serve.main()
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("serve.py: '/nothing' is no export of FlowModel")
