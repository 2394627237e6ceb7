"""The short programs of `examples/idioms.py`, with fewer steps where they are slow."""

import importlib
import math
import pathlib
import sys

import pytest

EXAMPLES = str(pathlib.Path(__file__).parents[2] / "examples")


@pytest.fixture(scope="module")
def idioms():
    sys.path.insert(0, EXAMPLES)
    yield importlib.import_module("idioms")
    sys.path.remove(EXAMPLES)


def test_a_flow_in_a_larger_model_beats_a_gaussian(idioms):
    flow, gaussian = idioms.larger_model(steps=168)
    assert flow > gaussian + 0.3


def test_a_flow_in_a_joint_distribution(idioms):
    difference, on_upper = idioms.joint_distribution(steps=20)
    assert difference < 1e-3
    assert 0.0 <= on_upper <= 1.0


def test_mcmc_through_a_flow(idioms):
    through, without = idioms.neutra(steps=100, samples=100)
    assert all(math.isfinite(n) and n > 0 for n in (through, without))


def test_a_flow_as_surrogate_posterior_beats_mean_field(idioms):
    flow, mean_field = idioms.surrogate_posterior(steps=300)
    assert flow < 0.2 < mean_field


def test_every_program_is_tested(idioms):
    assert list(idioms.PROGRAMS) == [
        "larger_model",
        "joint_distribution",
        "neutra",
        "surrogate_posterior",
    ]
