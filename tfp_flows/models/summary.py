"""The table that `FlowModel.summary()` prints."""

import numpy as np

from tfp_flows.bijectors import Repeat
from tfp_flows.bijectors.composition import steps_of
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions import Surjected


def summary_lines(model, line_length=None):
    """The lines of the summary: one row per part, from the data to the latent."""
    road = model._road
    rows = list(_rows_of(road))
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
    if model.likelihood != "exact":
        draws = f", of {model.num_samples} samples" if model.num_samples else ""
        yield f"log_prob: {model.likelihood}{draws}"
    yield f"parameters: {total:,}, of which trainable: {trainable:,}"


def _rows_of(road):
    yield from _rows(road.steps, "")
    if isinstance(road.base, Surjected):
        transform = road.base.transform
        yield transform.name, type(transform).__name__, _count(transform)
        yield from _rows_of(Road(road.base.distribution))
    else:
        yield road.base.name, type(road.base).__name__, _count(road.base)


def _rows(steps, indent, times=1):
    for step in steps:
        insides, inner_times = [inside for _, inside in step.branches], 1
        kind = type(step.bijector).__name__.lstrip("_")
        if isinstance(step.bijector, Repeat):
            inner_times = step.bijector.num
            insides = [tuple(steps_of(step.bijector.step, step.inverse))]
            kind = f"{kind} of {inner_times}"
        own = _count(step.bijector)
        own -= inner_times * sum(_count(inner.bijector) for inside in insides for inner in inside)
        # Data that pass a bijector by its forward direction, as a squeeze's, see its inverse here.
        kind = kind if step.inverse else f"Invert({kind})"
        solved = getattr(step.bijector, "solved_direction", None)
        if solved is not None:
            kind += (
                ", log_prob solves" if (solved == "inverse") == step.inverse else ", sample solves"
            )
        yield indent + step.bijector.name, kind, times * own
        for inside in insides:
            yield from _rows(inside, indent + "  ", times * inner_times)


def _count(part):
    return sum(int(np.prod(v.shape)) for v in part.variables)
