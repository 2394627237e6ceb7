"""Normalizing flows for TensorFlow Probability, trained with Keras 3."""

from tfp_flows import _requirements

_requirements.check()

from tfp_flows import (  # noqa: E402  (the check comes first, so that it can explain)
    bijectors,
    conditioners,
    distribute,
    distributions,
    elementwise,
    flows,
    masks,
    metrics,
    objectives,
    plots,
    preprocessing,
    pretrained,
    tables,
    testing,
)
from tfp_flows.distributions import condition  # noqa: E402
from tfp_flows.models import FlowModel  # noqa: E402
from tfp_flows.saving import load  # noqa: E402
from tfp_flows.version import __version__  # noqa: E402

__all__ = [
    "FlowModel",
    "__version__",
    "bijectors",
    "condition",
    "conditioners",
    "distribute",
    "distributions",
    "elementwise",
    "flows",
    "load",
    "masks",
    "metrics",
    "objectives",
    "plots",
    "preprocessing",
    "pretrained",
    "tables",
    "testing",
]
