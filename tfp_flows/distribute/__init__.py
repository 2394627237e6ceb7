"""Which devices and processes train together."""

from tfp_flows.distribute.cluster import Cluster, read_cluster, wait_for_peers
from tfp_flows.distribute.strategy import make_strategy

__all__ = ["Cluster", "make_strategy", "read_cluster", "wait_for_peers"]
