"""Tables: a frame in, a frame out."""

from tfp_flows.tables.column import angle, bounded, categorical, count, ordinal, positive, real
from tfp_flows.tables.distribution import TableDistribution
from tfp_flows.tables.schema import Schema
from tfp_flows.tables.table_flow import TableFlow

__all__ = [
    "Schema",
    "TableDistribution",
    "TableFlow",
    "angle",
    "bounded",
    "categorical",
    "count",
    "ordinal",
    "positive",
    "real",
]
