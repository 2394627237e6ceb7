"""Checks for bijectors and for bounds: this package's own, and yours."""

from tfp_flows.testing.bounds import assert_bound
from tfp_flows.testing.harness import CHECKS, assert_bijector

__all__ = ["CHECKS", "assert_bijector", "assert_bound"]
