"""The table that `FlowModel.summary()` prints."""

import numpy as np

from tfp_flows import bijectors
from tfp_flows.bijectors import stock


def summary_lines(model, line_length=None):
    """The lines of the summary: one row per part, from the data to the latent."""
    rows = []
    distribution = model.distribution
    while isinstance(distribution, stock.TransformedDistribution):
        rows += _rows(distribution.bijector, "")
        distribution = distribution.distribution
    rows.append((distribution.name, type(distribution).__name__, _count(distribution)))
    title = "part, from the data to the latent"
    width = line_length or max(len(name) for name in [title, *(row[0] for row in rows)]) + 2
    kinds = max(len(kind) for _, kind, _ in rows) + 2
    rule = "-" * (width + kinds + 12)
    total = _count(model.distribution)
    trainable = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    yield f"{type(model).__name__} '{model.name}', event shape {model.event_shape.as_list()}"
    yield rule
    yield f"{title:<{width}}{'type':<{kinds}}{'parameters':>12}"
    yield rule
    for name, kind, count in rows:
        yield f"{name:<{width}}{kind:<{kinds}}{count:>12,}"
    yield rule
    yield f"parameters: {total:,}, of which trainable: {trainable:,}"


def _rows(bijector, indent):
    if isinstance(bijector, stock.Invert) and not _count(bijector):
        return [(indent + bijector.name, f"Invert({type(bijector.bijector).__name__})", 0)]
    if isinstance(bijector, (stock.Chain, bijectors.Chain)):
        return [row for member in bijector.bijectors for row in _rows(member, indent)]
    if isinstance(bijector, bijectors.FactorOut):
        own = _count(bijector) - _count(bijector.bijector)
        inside = _rows(bijector.bijector, indent + "  ")
        return [(indent + bijector.name, type(bijector).__name__, own), *inside]
    return [(indent + bijector.name, type(bijector).__name__, _count(bijector))]


def _count(part):
    return sum(int(np.prod(v.shape)) for v in part.variables)
