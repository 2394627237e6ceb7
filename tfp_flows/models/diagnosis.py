"""Says which part of a flow made a value that is not finite."""

import numpy as np
import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.bijectors import stock
from tfp_flows.bijectors.chain import apply


def explain_nonfinite(distribution, x, context=None):
    """Names the first part, from the data to the latent, whose result is not finite.

    Args:
      distribution: the distribution whose `log_prob(x)` was not finite.
      x: the batch.
      context: its context, or `None`.

    Returns:
      A sentence for an error message.
    """
    x = tf.convert_to_tensor(x)
    bad = _bad_rows(x, x.shape[0])
    if bad:
        return f"{bad} of {x.shape[0]} rows of the data itself hold NaN or infinite values"
    if context is not None and _bad_rows(context, x.shape[0]):
        return "the context holds NaN or infinite values"
    for variable in distribution.variables:
        if variable.dtype.is_floating and not np.isfinite(variable.numpy()).all():
            return f"the variable '{variable.name}' holds values that are not finite"
    value = tf.identity(x)
    while isinstance(distribution, stock.TransformedDistribution):
        ndims = distribution.event_shape.rank
        value, ndims, found = _probe(distribution.bijector, value, context, ndims, True)
        if found:
            return found
        distribution = distribution.distribution
    if not _bad_rows(distribution.log_prob(value), x.shape[0]):
        return (
            "every part of the distribution is finite on these data: look at the sample weights "
            "and at added losses"
        )
    return (
        f"the base distribution '{distribution.name}' gives a log-probability that is not finite; "
        f"the latent's largest absolute value is {float(tf.reduce_max(tf.abs(value))):.3g}"
    )


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
    return result, ndims, found


def _bad_rows(value, rows):
    bad = ~np.isfinite(value.numpy())
    if bad.ndim == 0:
        return rows * int(bad)
    return int(bad.reshape(bad.shape[0], -1).any(axis=1).sum())
