"""Says which part of a flow made a value, or a gradient, that is not finite."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors
from tfp_flows.bijectors import stock
from tfp_flows.bijectors.chain import apply

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


def explain_nonfinite(distribution, x, context=None):
    """Names the first part, from the data to the latent, whose result is not finite.

    Args:
      distribution: the distribution whose `log_prob(x)` was not finite.
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
    if context is not None and _bad_rows(context, x.shape[0]):
        return "the context holds NaN or infinite values", f"{_KEPT} Drop or fill these rows."
    found = spoilt_variable(distribution, distribution.variables)
    if found:
        return found, SPOILT
    value = tf.identity(x)
    while isinstance(distribution, stock.TransformedDistribution):
        ndims = distribution.event_shape.rank
        value, ndims, found = _probe(distribution.bijector, value, context, ndims, True)
        if found:
            return found
        distribution = distribution.distribution
    if not _bad_rows(distribution.log_prob(value), x.shape[0]):
        found = "every part of the distribution is finite on these data"
        return found, f"{_KEPT} Look at the sample weights and at added losses."
    found = (
        f"the base distribution '{distribution.name}' gives a log-probability that is not finite; "
        f"the latent's largest absolute value is {float(tf.reduce_max(tf.abs(value))):.3g}"
    )
    return found, _DIVERGED


def explain_gradients(distribution, variables):
    """Names the part that the gradient, on its way from the latent to the data, came to harm in.

    Args:
      distribution: the distribution whose `log_prob` was differentiated.
      variables: those of its variables whose gradients were not finite.

    Returns:
      As `explain_nonfinite`.
    """
    owners = [_owner(distribution, variable) for variable in variables]
    # A part closer to the data inherits what went wrong in one closer to the latent, and so does
    # an earlier layer of a network.
    n = max(range(len(variables)), key=lambda n: (owners[n][0], n))
    found = f"that of {_named(variables[n], owners[n][1])}"
    if len(variables) > 1:
        found += f" and of {len(variables) - 1} more, which may have it from there"
    return found, _STEEP


def spoilt_variable(distribution, variables):
    """Names the first of the variables that holds NaN or infinite values, or returns `None`."""
    for variable in variables:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            _, owner = _owner(distribution, variable)
            return f"{_named(variable, owner)} holds values that are not finite"
    return None


def _owner(distribution, variable):
    """The innermost part that has a variable, after its place from the data to the latent."""
    parts = [distribution, *_in_order(distribution)]
    found = [n for n, part in enumerate(parts) if any(v is variable for v in part.variables)]
    return found[-1], parts[found[-1]]


def _named(variable, owner):
    return f"the variable '{variable.name}' of {type(owner).__name__} '{owner.name}'"


def _in_order(part, inverse=True):
    """The parts of a distribution from the data to the latent, each before what is inside it."""
    if isinstance(part, stock.TransformedDistribution):
        yield from _in_order(part.bijector)
        yield from _in_order(part.distribution)
    elif isinstance(part, stock.Invert):
        yield from _in_order(part.bijector, not inverse)
    elif isinstance(part, (stock.Chain, bijectors.Chain)):
        for member in part.bijectors if inverse else reversed(part.bijectors):
            yield from _in_order(member, inverse)
    else:
        yield part
        if isinstance(part, bijectors.FactorOut):
            yield from _in_order(part.bijector, inverse)
        else:
            kinds = tfp.bijectors.Bijector, tfp.distributions.Distribution
            yield from (inner for inner in part.submodules if isinstance(inner, kinds))


def _probe(bijector, value, context, ndims, inverse):
    if isinstance(bijector, stock.Invert):
        return _probe(bijector.bijector, value, context, ndims, not inverse)
    if isinstance(bijector, (stock.Chain, bijectors.Chain)):
        for member in bijector.bijectors if inverse else reversed(bijector.bijectors):
            value, ndims, found = _probe(member, value, context, ndims, inverse)
            if found:
                return value, ndims, found
        return value, ndims, None
    if isinstance(bijector, bijectors.FactorOut) and inverse:
        kept, _ = bijector.split(value)
        _, _, found = _probe(bijector.bijector, kept, context, ndims, inverse)
        if found:
            return value, ndims, found
    result, log_det, ndims = apply(bijector, value, context, ndims, inverse=inverse)
    rows = value.shape[0]
    bad = max(_bad_rows(result, rows), _bad_rows(log_det, rows))
    if not bad:
        return result, ndims, None
    what = "value" if _bad_rows(result, rows) else "log-det"
    largest = float(tf.reduce_max(tf.abs(value)))
    found = (
        f"the first part to go wrong is {type(bijector).__name__} '{bijector.name}', whose {what} "
        f"is not finite in {bad} of {rows} rows (the largest absolute value it was given is "
        f"{largest:.3g})"
    )
    return result, ndims, (found, _DIVERGED if bijector.variables else _OUTSIDE)


def _bad_rows(value, rows):
    bad = ~np.isfinite(value.numpy())
    if bad.ndim == 0:
        return rows * int(bad)
    return int(bad.reshape(bad.shape[0], -1).any(axis=1).sum())
