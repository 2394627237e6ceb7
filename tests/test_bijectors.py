"""Every public bijector through the harness."""

import pytest
from cases import CASES as MOST
from cases_autoregressive import CASES as AUTOREGRESSIVE
from cases_one_way import CASES as ONE_WAY
from cases_stepwise import CASES as STEPWISE

from tfp_flows import bijectors
from tfp_flows.testing import assert_bijector

CASES = {**MOST, **AUTOREGRESSIVE, **STEPWISE, **ONE_WAY}


@pytest.mark.parametrize("name", CASES)
def test_keeps_the_contract(name):
    assert_bijector(**CASES[name])


def test_every_public_bijector_has_a_case():
    covered = set()
    for case in CASES.values():
        bijector = case["make"]("float32")
        covered |= {type(part).__name__ for part in [bijector, *bijector.submodules]}
    public = {
        name
        for name in bijectors.__all__
        if isinstance(getattr(bijectors, name), type)
        and issubclass(getattr(bijectors, name), bijectors.FlowBijector)
        and name != "FlowBijector"
    }
    assert public <= covered, f"no case in tests/cases.py for {sorted(public - covered)}"
