"""Densities that are no bijection over a base, and flows with their context.

A `FlowModel` takes them as it takes a flow, and they may be the base of one.
"""

from tfp_flows.distributions.conditioned import Conditioned, condition
from tfp_flows.distributions.made import MADEDistribution

__all__ = ["Conditioned", "MADEDistribution", "condition"]
