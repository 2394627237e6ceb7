"""What `fit` warns of: data that are right, and will not train well."""

import warnings

import keras
import numpy as np

# Means and deviations beyond this are not those of standardized data.
_FAR = 20.0


def warn_of_discrete(x, example, rows=1000):
    """Warns of floating data that are whole numbers, or pixels divided by 255.

    A flow's likelihood of them has no bound.

    Looks at some rows of an array; constant entries, which tell nothing, are passed over.
    """
    some = _some_rows(x, rows)
    if some is None or not example.continuous or len(some) < 20:
        return
    some = some.reshape(len(some), -1)
    varies, kind = (some != some[:1]).any(axis=0), "whole numbers"
    entries = np.flatnonzero((some == np.round(some)).all(axis=0) & varies)
    if not len(entries) and some.min() >= 0.0 and some.max() <= 1.0:
        levels, kind = 255.0 * some, "multiples of 1/255"
        entries = np.flatnonzero((abs(levels - np.round(levels)) < 1e-3).all(axis=0) & varies)
    if not len(entries):
        return
    warnings.warn(
        f"{example.title}: {len(entries)} of the {some.shape[1]} entries of a row hold "
        f"{kind} alone (entry {_first(entries)}). A flow can put any density on such values, and "
        "then its likelihood means nothing. Give the integers themselves and build the model with "
        "dequantization=preprocessing.UniformDequantization() and a preprocessing.Logit or scale, "
        "or add uniform noise of their step to these entries.",
        stacklevel=3,
    )


def warn_of_scale(x, road, example, rows=1000):
    """Warns of vectors far from mean 0 and deviation 1 that a network sees as they are.

    Looks at some rows of an array, where the first part that data meet has a network.
    """
    some = _some_rows(x, rows)
    if some is None or some.ndim != 2 or not road.steps:
        return
    if not isinstance(getattr(road.steps[0].bijector, "conditioner", None), keras.layers.Layer):
        return
    with np.errstate(all="ignore"):
        mean, deviation = np.abs(some.mean(axis=0)), some.std(axis=0)
    far = np.flatnonzero((mean > _FAR) | (deviation > _FAR))
    if not len(far):
        return
    warnings.warn(
        f"{example.title}: {len(far)} of the {some.shape[1]} entries of a row are not standardized "
        f"(entry {_first(far)}; entry {far[0]} has the mean {some.mean(axis=0)[far[0]]:.3g} and "
        f"the deviation {deviation[far[0]]:.3g}), and a network sees them as they are: the loss "
        "starts huge and falls slowly. Put a scaling next to the data: "
        "tfd.TransformedDistribution(flow, preprocessing.Standardize.fit(x)).",
        stacklevel=3,
    )


def _some_rows(x, rows):
    """As many rows, spread over the data, where these are a floating array; else `None`."""
    if isinstance(x, dict):
        x = x.get("x")
    if isinstance(x, (tuple, list)) and len(x) == 2:
        x = x[0]
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f":
        return None
    return x[:: max(1, len(x) // rows)][:rows]


def _first(entries):
    """The first of some numbers, for messages."""
    return f"{entries[:5].tolist()}{' and more' if len(entries) > 5 else ''}"
