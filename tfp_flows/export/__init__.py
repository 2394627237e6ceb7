"""SavedModels that TensorFlow alone can load and call."""

from tfp_flows.export.saved_model import MANIFEST, export

__all__ = ["MANIFEST", "export"]
