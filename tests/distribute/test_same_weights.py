"""`fit` gives the same weights, losses and scores on any number of replicas and workers."""

import numpy as np
import pytest
from distribute.processes import once, run
from distribute.strategy_cases import CASES, ON_WORKERS

# On OneDeviceStrategy there is nothing to get wrong but the plumbing.
ON_ONE_DEVICE = ["uneven", "steps_per_execution", "xla"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A function that trains all cases under a strategy, once for all processes of pytest."""

    def trained(strategy):
        def train(folder):
            names = ON_ONE_DEVICE if strategy == "device" else []
            workers = 2 if strategy == "workers" else 1
            run("strategy_cases.py", strategy, folder, *names, workers=workers)

        return once(tmp_path_factory, f"trained-{strategy}", train)

    return trained


def check(one, other):
    assert set(one.files) == set(other.files)
    assert len(one.files) >= 3
    for key in one.files:
        # Scores sum up the differences of all weights.
        rtol = 1e-5 if key.startswith("weight") else 3e-5
        np.testing.assert_allclose(other[key], one[key], rtol=rtol, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_two_replicas(trained, name):
    check(*(np.load(trained(s) / f"{name}.npz") for s in ("one", "mirrored")))


@pytest.mark.parametrize("name", [*ON_WORKERS, "different_data"])
def test_two_workers(trained, name):
    one, chief = (np.load(trained(s) / f"{name}.npz") for s in ("one", "workers"))
    check(one, chief)
    check(one, np.load(trained("workers") / f"{name}.second.npz"))


@pytest.mark.parametrize("name", ON_ONE_DEVICE)
def test_one_device_by_name(trained, name):
    check(*(np.load(trained(s) / f"{name}.npz") for s in ("one", "device")))


def test_the_trainings_take_20_steps():
    for case in CASES.values():
        assert case.epochs * -(-case.rows // case.batch) >= 20
