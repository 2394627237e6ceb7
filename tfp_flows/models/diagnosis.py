"""Says which part of a flow made a value, or a gradient, that is not finite."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import title_of, visit

_KEPT = "The weights are those of the last good step."
_DIVERGED = (
    f"{_KEPT} Lower the learning rate, clip the gradients (`clipnorm`), or use bounded log-scales."
)
_OUTSIDE = (
    f"{_KEPT} This part is not trained, so the data lie outside of what it maps: look at their "
    "range and at the preprocessing."
)
_STEEP = (
    f"{_KEPT} The loss is finite: look in this part for a function with an infinite slope (a norm "
    "or a root at 0), lower the learning rate, or use bounded log-scales."
)
SPOILT = (
    "Gradients that are not finite are not applied, so an update by finite ones did this, or the "
    "weights were so before: load sound ones, lower the learning rate, and look at the "
    "optimizer's epsilon."
)


def explain_nonfinite(road, x, context=None):
    """Names the first part, from the data to the latent, whose result is not finite.

    Args:
      road: that of the distribution whose `log_prob(x)` was not finite.
      x: the batch.
      context: its context, or `None`.

    Returns:
      Two sentences for an error message: what went wrong, without its full stop, and what to do.
    """
    x = tf.convert_to_tensor(x)
    bad = _bad_rows(x, x.shape[0])
    if bad:
        found = f"{bad} of {x.shape[0]} rows of the data itself hold NaN or infinite values"
        return found, f"{_KEPT} Drop or fill these rows."
    contexts = [] if context is None else tf.nest.flatten(context)
    if any(_bad_rows(tensor, x.shape[0]) for tensor in contexts):
        return "the context holds NaN or infinite values", f"{_KEPT} Drop or fill these rows."
    found = spoilt_variable(road, road.distribution.variables)
    if found:
        return found, SPOILT
    for step, given, _, (value, log_det, _) in visit(road.steps, x, context, road.event_ndims):
        found = _at_fault(step, given, value, log_det)
        if found:
            return found, _DIVERGED if step.bijector.variables else _OUTSIDE
        x = value
    if not _bad_rows(road.base_log_prob(x, context), x.shape[0]):
        found = "every part of the distribution is finite on these data"
        return found, f"{_KEPT} Look at the sample weights and at added losses."
    found = (
        f"the base distribution '{road.base.name}' gives a log-probability that is not finite; "
        f"the latent's largest absolute value is {float(tf.reduce_max(tf.abs(x))):.3g}"
    )
    return found, _DIVERGED


def explain_objective(road, objective):
    """What is known of an objective whose loss is not finite.

    Args:
      road: that of the distribution.
      objective: an `Objective`.

    Returns:
      As `explain_nonfinite`.
    """
    found = spoilt_variable(road, road.distribution.variables)
    if found:
        return found, SPOILT
    return f"some rows of {type(objective).__name__} are not finite", (
        f"{_KEPT} Look at the range of the data or of the target's log-density, lower the learning "
        "rate, or clip the gradients (`clipnorm`)."
    )


def explain_gradients(road, variables):
    """Names the part that the gradient, on its way from the latent to the data, came to harm in.

    Args:
      road: that of the distribution whose `log_prob` was differentiated.
      variables: those of its variables whose gradients were not finite.

    Returns:
      As `explain_nonfinite`.
    """
    owners = [_owner(road, variable) for variable in variables]
    # A part closer to the data inherits what went wrong in one closer to the latent, and so does
    # an earlier layer of a network.
    n = max(range(len(variables)), key=lambda n: (owners[n][0], n))
    found = f"that of {_named(variables[n], owners[n][1])}"
    if len(variables) > 1:
        found += f" and of {len(variables) - 1} more, which may have it from there"
    return found, _STEEP


def spoilt_variable(road, variables):
    """Names the first of the variables that holds NaN or infinite values, or returns `None`."""
    for variable in variables:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            _, owner = _owner(road, variable)
            return f"{_named(variable, owner)} holds values that are not finite"
    return None


def _owner(road, variable):
    """The innermost part that has a variable, after its place from the data to the latent."""
    parts = [road.distribution, *_in_order(road.steps), road.base, *_modules(road.base)]
    found = [n for n, part in enumerate(parts) if any(v is variable for v in part.variables)]
    # What is none of the distribution's is the context network's, which comes before all of it.
    return (found[-1], parts[found[-1]]) if found else (-1, None)


def _in_order(steps):
    """The parts from the data to the latent, each before what is inside it."""
    for step in steps:
        yield step.bijector
        if step.branches:
            for _, below in step.branches:
                yield from _in_order(below)
        else:
            yield from _modules(step.bijector)


def _modules(part):
    kinds = tfp.bijectors.Bijector, tfp.distributions.Distribution
    return (inner for inner in part.submodules if isinstance(inner, kinds))


def _named(variable, owner):
    whose = "the context network" if owner is None else title_of(owner)
    return f"the variable '{variable.name}' of {whose}"


def _at_fault(step, given, value, log_det):
    """Says that a step made something that is not finite, or returns `None`."""
    rows = given.shape[0]
    bad = max(_bad_rows(value, rows), _bad_rows(log_det, rows))
    if not bad:
        return None
    what = "value" if _bad_rows(value, rows) else "log-det"
    largest = float(tf.reduce_max(tf.abs(given)))
    return (
        f"the first part to go wrong is {step.title}, whose {what} is not finite in {bad} of "
        f"{rows} rows{_where(value)} (the largest absolute value it was given is {largest:.3g})"
    )


def _where(value):
    """Which entries of vectors are not finite, where it is not all of them."""
    bad = ~np.isfinite(value.numpy())
    if bad.ndim != 2 or not bad.any() or bad.any(axis=0).all():
        return ""
    entries = np.flatnonzero(bad.any(axis=0))
    shown = ", ".join(map(str, entries[:5])) + (", ..." if len(entries) > 5 else "")
    return f", at {'entry' if len(entries) == 1 else 'entries'} {shown}"


def _bad_rows(value, rows):
    bad = ~np.isfinite(value.numpy())
    if bad.ndim == 0:
        return rows * int(bad)
    return int(bad.reshape(bad.shape[0], -1).any(axis=1).sum())
