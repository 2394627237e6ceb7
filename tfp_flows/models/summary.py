"""The table that `FlowModel.summary()` prints."""

import numpy as np


def summary_lines(model, line_length=None):
    """The lines of the summary: one row per part, from the data to the latent."""
    road = model._road
    rows = [*_rows(road.steps, ""), (road.base.name, type(road.base).__name__, _count(road.base))]
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


def _rows(steps, indent):
    for step in steps:
        branches = step.branches
        own = _count(step.bijector)
        own -= sum(_count(inner.bijector) for _, inside in branches for inner in inside)
        kind = type(step.bijector).__name__.lstrip("_")
        # Data that pass a bijector by its forward direction, as a squeeze's, see its inverse here.
        kind = kind if step.inverse else f"Invert({kind})"
        solved = getattr(step.bijector, "solved_direction", None)
        if solved is not None:
            kind += (
                ", log_prob solves" if (solved == "inverse") == step.inverse else ", sample solves"
            )
        yield indent + step.bijector.name, kind, own
        for _, inside in branches:
            yield from _rows(inside, indent + "  ")


def _count(part):
    return sum(int(np.prod(v.shape)) for v in part.variables)
