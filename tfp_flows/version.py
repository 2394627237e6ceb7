"""The version of tfp_flows, importable without TensorFlow."""

__version__ = "0.2.0"
