"""Densities that are no bijection over a base: `tfd.Distribution`s with Keras networks.

A `FlowModel` takes them as it takes a flow, and they may be the base of one.
"""

from tfp_flows.distributions.made import MADEDistribution

__all__ = ["MADEDistribution"]
