"""Flows as scikit-learn's estimators; to import this room needs scikit-learn."""

from tfp_flows._optional import optional

optional("sklearn", "tfp_flows.estimators", "sklearn")

from tfp_flows.estimators.density import FlowDensity  # noqa: E402  (the check comes first)

__all__ = ["FlowDensity"]
