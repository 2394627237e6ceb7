"""Says which part of a flow made a value that is not finite."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.road import title_of, visit

_KEPT = "The weights are those of the last good step."
_DIVERGED = (
    f"{_KEPT} Lower the learning rate, clip the gradients (`clipnorm`), or use bounded log-scales."
)
_OUTSIDE = (
    f"{_KEPT} This part is not trained, so the data lie outside of what it maps: look at their "
    "range and at the preprocessing."
)
SPOILT = (
    "A gradient of an earlier step was not finite though the loss was, or the weights were so "
    "before: load sound ones. Look for a function with an infinite slope in the networks (a norm "
    "or a root at 0), or lower the learning rate."
)


def explain_nonfinite(distribution, road, x, context=None):
    """Names the first part, from the data to the latent, whose result is not finite.

    Args:
      distribution: the distribution whose `log_prob(x)` was not finite.
      road: its steps.
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
    found = spoilt_variable(distribution, distribution.variables)
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


def spoilt_variable(distribution, variables):
    """Names the first of the variables that holds NaN or infinite values, or returns `None`."""
    for variable in variables:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            owner = next(
                part
                for part in reversed([distribution, *distribution.submodules])
                if isinstance(part, (tfp.bijectors.Bijector, tfp.distributions.Distribution))
                and any(v is variable for v in part.variables)
            )
            return (
                f"the variable '{variable.name}' of {title_of(owner)} holds values that are not "
                "finite"
            )
    return None


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
        f"{rows} rows (the largest absolute value it was given is {largest:.3g})"
    )


def _bad_rows(value, rows):
    bad = ~np.isfinite(value.numpy())
    if bad.ndim == 0:
        return rows * int(bad)
    return int(bad.reshape(bad.shape[0], -1).any(axis=1).sum())
