"""Checks for bijectors: this package's own, and yours."""

from tfp_flows.testing.harness import CHECKS, assert_bijector

__all__ = ["CHECKS", "assert_bijector"]
