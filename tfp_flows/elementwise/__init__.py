"""Scalar maps with given parameters: what a coupling or an autoregressive bijector applies."""

import inspect

from tfp_flows.elementwise.affine import Affine
from tfp_flows.elementwise.base import ElementwiseMap
from tfp_flows.elementwise.bernstein import Bernstein
from tfp_flows.elementwise.circular_spline import CircularRationalQuadraticSpline
from tfp_flows.elementwise.composed import Composed, affine_rational_quadratic_spline
from tfp_flows.elementwise.linear_spline import LinearSpline
from tfp_flows.elementwise.logistic_mixture import LogisticMixtureCDF
from tfp_flows.elementwise.monotone_network import MonotoneNetwork
from tfp_flows.elementwise.one_way import OneWayMap
from tfp_flows.elementwise.quadratic_spline import QuadraticSpline
from tfp_flows.elementwise.shift import Shift
from tfp_flows.elementwise.spline import RationalQuadraticSpline

__all__ = [
    "Affine",
    "Bernstein",
    "CircularRationalQuadraticSpline",
    "Composed",
    "ElementwiseMap",
    "LinearSpline",
    "LogisticMixtureCDF",
    "MonotoneNetwork",
    "OneWayMap",
    "QuadraticSpline",
    "RationalQuadraticSpline",
    "Shift",
    "get",
]

_MAPS = {
    "shift": Shift,
    "affine": Affine,
    "rational_quadratic_spline": RationalQuadraticSpline,
    "affine_rational_quadratic_spline": affine_rational_quadratic_spline,
    "circular_rational_quadratic_spline": CircularRationalQuadraticSpline,
    "quadratic_spline": QuadraticSpline,
    "linear_spline": LinearSpline,
    "bernstein": Bernstein,
    "logistic_mixture_cdf": LogisticMixtureCDF,
    "monotone_network": MonotoneNetwork,
}


def get(identifier, **kwargs):
    """Returns the elementwise map of the given name, or the given map itself.

    Args:
      identifier: an `ElementwiseMap`, or the name of one: "shift", "affine",
        "rational_quadratic_spline", "affine_rational_quadratic_spline" (it can move as well as
        bend), "circular_rational_quadratic_spline" (angles), "quadratic_spline",
        "linear_spline", "bernstein", "logistic_mixture_cdf" or "monotone_network".
      **kwargs: arguments of the map's constructor, as `num_bins=16`; only with a name.

    Returns:
      An `ElementwiseMap`.

    Raises:
      TypeError: if `identifier` is neither a name nor a map, or the constructor does not know
        an argument.
      ValueError: if the name is not known, or arguments come with a finished map.

    >>> get("affine", cap=2.0)
    Affine(log_scale='tanh', cap=2.0)
    >>> get(Shift())
    Shift()
    """
    if isinstance(identifier, ElementwiseMap):
        if kwargs:
            raise ValueError(
                f"elementwise.get: {identifier!r} is a finished map and takes no arguments, got "
                f"{sorted(kwargs)}. Give them to its constructor."
            )
        return identifier
    known = ", ".join(map(repr, _MAPS))
    if not isinstance(identifier, str):
        hint = " Call the class." if isinstance(identifier, type) else ""
        raise TypeError(
            f"elementwise.get: expected one of {known} or an ElementwiseMap, got "
            f"{identifier!r}.{hint}"
        )
    if identifier not in _MAPS:
        raise ValueError(
            f"elementwise.get: expected one of {known} or an ElementwiseMap, got {identifier!r}."
        )
    unknown = unknown_arguments(identifier, kwargs)
    if unknown:
        own = ", ".join(_arguments_of(identifier)) or "no arguments"
        others = "".join(
            f" {n!r} takes {', '.join(unknown)}."
            for n in _MAPS
            if not unknown_arguments(n, unknown)
        )
        raise TypeError(
            f"elementwise.get: {identifier!r} ({_MAPS[identifier].__name__}) takes {own}, got "
            f"{', '.join(unknown)}.{others}"
        )
    return _MAPS[identifier](**kwargs)


def unknown_arguments(identifier, arguments):
    """Those of the names that the map's constructor does not know; `[]` if there is no such map."""
    if isinstance(identifier, str):
        known = _arguments_of(identifier) if identifier in _MAPS else arguments
        return sorted(set(arguments) - set(known))
    return sorted(arguments) if isinstance(identifier, ElementwiseMap) else []


def _arguments_of(name):
    return list(inspect.signature(_MAPS[name]).parameters)
