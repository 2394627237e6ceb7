"""Flows as scikit-learn's estimators; to import this room needs scikit-learn."""

from tfp_flows.estimators.density import FlowDensity

__all__ = ["FlowDensity"]
