"""The processes that train together, as `TF_CONFIG` describes them."""

import contextlib
import dataclasses
import json
import os
import socket
import time

_HINT = (
    "Expected, for worker 0 of two: "
    '{"cluster": {"worker": ["host1:12345", "host2:12345"]}, "task": {"type": "worker", '
    '"index": 0}}. On one machine `tools/launch.py --workers 2` sets it.'
)


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Workers and the place of this process among them.

    Args:
      workers: addresses `host:port`, the chief's first.
      index: `int`, the number of this process; 0 is the chief.

    >>> Cluster(("host1:12345", "host2:12345"), 0).is_chief
    True
    """

    workers: tuple
    index: int

    @property
    def is_chief(self):
        """Whether this process prints and writes for all."""
        return self.index == 0


def read_cluster(text=None):
    """Reads and checks the description of a cluster.

    Args:
      text: JSON as in `TF_CONFIG`. Default: the environment's.

    Returns:
      `Cluster`, or `None` where there is no description, or one of a single process.

    Raises:
      ValueError: if the description is malformed; the message says where.

    >>> cluster = read_cluster(
    ...     '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    ... )
    >>> cluster.workers, cluster.index, cluster.is_chief
    (('a:1', 'b:1'), 1, False)
    """
    text = os.environ.get("TF_CONFIG", "") if text is None else text
    if not text.strip():
        return None
    try:
        config = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"TF_CONFIG is no JSON: {error}. {_HINT}") from None
    if not isinstance(config, dict) or not isinstance(config.get("cluster", {}), dict):
        raise ValueError(f"TF_CONFIG holds no cluster, got {text[:200]!r}. {_HINT}")
    jobs = config.get("cluster", {})
    if not jobs:
        return None
    unknown = sorted(set(jobs) - {"chief", "worker"})
    if unknown:
        raise ValueError(
            f"TF_CONFIG: the cluster has tasks of the type '{unknown[0]}'; flows train on workers "
            f"that are all alike (and a chief). {_HINT}"
        )
    if len(jobs.get("chief", ())) > 1:
        raise ValueError(f"TF_CONFIG: there is one chief at most, got {jobs['chief']!r}. {_HINT}")
    workers = [address for job in ("chief", "worker") for address in _addresses(jobs, job)]
    task = config.get("task")
    if not isinstance(task, dict) or task.get("type") not in list(jobs):
        raise ValueError(
            f"TF_CONFIG: the task must be of a type that the cluster has, {sorted(jobs)}, got "
            f"{task!r}. {_HINT}"
        )
    index, count = task.get("index"), len(jobs[task["type"]])
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < count:
        raise ValueError(
            f"TF_CONFIG: the task's index must be from 0 to {count - 1}, for there are {count} of "
            f"the type '{task['type']}', got {index!r}. {_HINT}"
        )
    if task["type"] == "worker":
        index += len(jobs.get("chief", ()))
    return Cluster(tuple(workers), index) if len(workers) > 1 else None


def _addresses(jobs, job):
    addresses = jobs.get(job, [])
    if not isinstance(addresses, list):
        raise ValueError(f"TF_CONFIG: '{job}' must be a list, got {addresses!r}. {_HINT}")
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(
                f"TF_CONFIG: expected addresses 'host:port' with a port from 1 to 65535, got "
                f"{address!r}. {_HINT}"
            )
        if sum(address in other for other in jobs.values()) > 1 or addresses.count(address) > 1:
            raise ValueError(
                f"TF_CONFIG: the address {address!r} stands there twice: every process needs one "
                f"of its own. {_HINT}"
            )
    return addresses


def wait_for_peers(cluster, timeout=60.0):
    """Returns when every worker of a cluster can be reached, or raises when the time is up.

    TensorFlow itself waits for missing workers for an hour, without a word. While it waits, a
    process listens at its own port, so that the others find it; it stops before it returns, so
    that TensorFlow can take the port over.

    Args:
      cluster: `Cluster`.
      timeout: `> 0`, seconds. Default 60: workers may start one after another.

    Raises:
      TimeoutError: naming the workers that were not reached.
      OSError: if this worker's own port is taken.

    ```python
    cluster = read_cluster()  # of TF_CONFIG
    if cluster is not None:
        wait_for_peers(cluster, timeout=30.0)
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    ```
    """
    host, _, port = cluster.workers[cluster.index].rpartition(":")
    end = time.monotonic() + timeout
    missing = {n: a for n, a in enumerate(cluster.workers) if n != cluster.index}
    with _listening(int(port)):
        while missing:
            for number, address in list(missing.items()):
                if _answers(address):
                    del missing[number]
            if missing and time.monotonic() > end:
                names = ", ".join(f"{n} ({address})" for n, address in missing.items())
                raise TimeoutError(
                    f"worker {cluster.index} ({host}:{port}) did not reach worker {names} within "
                    f"{timeout:g} s. Start all workers within that time, with the same cluster in "
                    "TF_CONFIG, and let their ports through the firewall."
                )
            if missing:
                time.sleep(min(0.2, timeout / 10))
        # The others may be a look behind.
        time.sleep(0.3)


@contextlib.contextmanager
def _listening(port):
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            server.bind(("", port))
        except OSError as error:
            raise OSError(
                error.errno,
                f"port {port} of this worker, by TF_CONFIG, cannot be used: {error.strerror}. End "
                "the process that has it, or choose another port.",
            ) from error
        server.listen(64)
        yield


def _answers(address):
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
