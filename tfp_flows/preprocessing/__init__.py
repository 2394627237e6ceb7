"""Between raw data and a density: dequantization, logit, standardization, bits/dim."""

from tfp_flows.preprocessing.argmax import Argmax
from tfp_flows.preprocessing.dequantization import UniformDequantization
from tfp_flows.preprocessing.likelihood import bits_per_dim
from tfp_flows.preprocessing.logit import Logit
from tfp_flows.preprocessing.scaling import Standardize, center
from tfp_flows.preprocessing.variational import VariationalDequantization

__all__ = [
    "Argmax",
    "Logit",
    "Standardize",
    "UniformDequantization",
    "VariationalDequantization",
    "bits_per_dim",
    "center",
]
