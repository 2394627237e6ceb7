"""Errors of strategies, clusters and workers: what, expected, got, remedy."""

import json
import re
import socket
import threading

import pytest
from distribute.processes import launch, run

from tfp_flows import distribute

WANTED = {
    "central_storage": "ValueError: .*CentralStorageStrategy.* is not supported: .*Use tf.distr",
    "distribution_outside": "ValueError: .*variable '.*' was made outside the scope .*inside one",
    "model_outside": "ValueError: .*variable '.*' was made outside the scope of the strategy",
    "optimizer_outside": "ValueError: .*optimizer 'sgd.*' was made under no strategy, the model "
    "under MirroredStrategy. Make both inside one",
    "accumulation": "ValueError: .*gradient_accumulation_steps is not supported on 2 replicas",
    "loss_scale": "ValueError: .*LossScaleOptimizer .*not supported on 2 replicas. Use mixed_bf",
    "overwriting_averages": "ValueError: .*ema_overwrite_frequency is not supported on 2 replicas",
    "compiled_elsewhere": "ValueError: FlowModel.compile: the model was made under no strategy, .*"
    "the scope of MirroredStrategy. Build the",
    "fitted_elsewhere": "ValueError: FlowModel.fit: the model was made under no strategy, and",
    "divided_too_late": "RuntimeError: make_strategy: the CPU cannot be divided into 3 .*Call make",
    "batch_norm_under_xla": "ValueError: .*jit_compile=True is not supported on 2 replicas with Ba",
    "batch_of_one": "ValueError: .*global batch of 1 rows is smaller than the number of rep",
    "dataset_of_one": "ValueError: .*global batch of 1 rows is smaller than the number of repl",
    "infinity_on_one_replica": "FloatingPointError: .*loss is not finite at step 2: 1 of 8 rows",
    "infinite_gradient_on_one_replica": "FloatingPointError: .*gradient is not finite at step 2: "
    "that of the variable '.*factor.*' of AffineCoupling 'steep'[.] The weights are those",
    "infinite_gradient_under_xla": "FloatingPointError: .*gradient is not finite at step 2: that",
}


@pytest.fixture(scope="module")
def said():
    (printed,) = run("bad_input.py")
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    return {name: error for line in lines for name, error in line.items()}


def test_samples_differ_between_replicas_and_repeat_with_the_seed(said):
    samples = said["samples"]
    assert samples["first"] == samples["again"]
    assert samples["first"][0] != samples["first"][1]


def test_every_case_is_refused_with_a_remedy(said):
    assert set(said) - {"samples"} == set(WANTED)
    for name, wanted in WANTED.items():
        assert re.match(wanted, said[name] or "nothing", re.DOTALL), f"{name}: {said[name]}"


# --- Clusters. ---


def config(cluster=None, **task):
    cluster = {"worker": ["a:1", "b:2"]} if cluster is None else cluster
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": 0, **task}})


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("{", "no JSON"),
        ("[1]", "holds no cluster"),
        (config({"ps": ["a:1"], "worker": ["b:1"]}), "tasks of the type 'ps'"),
        (config({"worker": "a:1"}), "must be a list"),
        (config({"worker": ["a:1", "b"]}), "host:port.*got 'b'"),
        (config({"worker": ["a:1", "b:99999"]}), "port from 1 to 65535"),
        (config({"worker": ["a:1", "a:1"]}), "'a:1' stands there twice"),
        (config(type="chief"), "a type that the cluster has"),
        (config(index=2), "from 0 to 1"),
        (config(index="0"), "from 0 to 1.*got '0'"),
        (config(index=True), "from 0 to 1.*got True"),
        (config(type=[]), "a type that the cluster has"),
        (config({"chief": ["a:1", "b:1"], "worker": ["c:1"]}), "one chief at most"),
    ],
)
def test_malformed_clusters(text, wanted):
    with pytest.raises(ValueError, match=wanted) as error:
        distribute.read_cluster(text)
    assert "Expected, for worker 0 of two" in str(error.value)


def test_read_cluster():
    assert distribute.read_cluster("") is None
    assert distribute.read_cluster("{}") is None
    assert distribute.read_cluster(config({"worker": ["a:1"]})) is None
    both = {"chief": ["c:1"], "worker": ["a:1", "b:2"]}
    cluster = distribute.read_cluster(config(both, index=1))
    assert cluster.workers == ("c:1", "a:1", "b:2")
    assert cluster.index == 2
    assert distribute.read_cluster(config(both, type="chief")).is_chief


def cluster_of(ports, index):
    return distribute.Cluster(tuple(f"127.0.0.1:{port}" for port in ports), index)


def test_a_missing_peer_is_named_in_bounded_time():
    ports = launch.free_ports(2)
    with pytest.raises(TimeoutError, match=f"did not reach worker 1 .127.0.0.1:{ports[1]}. within"):
        distribute.wait_for_peers(cluster_of(ports, 0), timeout=0.5)


def test_a_port_that_is_taken():
    ports = launch.free_ports(2)
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[0]))
        other.listen()
        with pytest.raises(OSError, match=f"port {ports[0]} of this worker.*cannot be used"):
            distribute.wait_for_peers(cluster_of(ports, 0), timeout=0.5)


def test_peers_find_each_other():
    ports = launch.free_ports(3)
    errors = []

    def wait(index):
        try:
            distribute.wait_for_peers(cluster_of(ports, index), timeout=10.0)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=wait, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_make_strategy_checks_its_arguments():
    for replicas in (0, "x"):
        with pytest.raises(ValueError, match="replicas must be an integer >= 1, got"):
            distribute.make_strategy(replicas=replicas)


def test_replicas_are_not_asked_of_a_worker(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config())
    with pytest.raises(ValueError, match="replicas=2 and several workers in TF_CONFIG"):
        distribute.make_strategy(replicas=2)
