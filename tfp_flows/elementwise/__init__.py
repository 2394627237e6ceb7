"""Scalar maps with given parameters: what a coupling or an autoregressive bijector applies."""

from tfp_flows.elementwise.affine import Affine
from tfp_flows.elementwise.base import ElementwiseMap
from tfp_flows.elementwise.shift import Shift
from tfp_flows.elementwise.spline import RationalQuadraticSpline

__all__ = ["Affine", "ElementwiseMap", "RationalQuadraticSpline", "Shift", "get"]

_MAPS = {"shift": Shift, "affine": Affine, "rational_quadratic_spline": RationalQuadraticSpline}


def get(identifier, **kwargs):
    """Returns the elementwise map of the given name, or the given map itself.

    Args:
      identifier: "shift", "affine", "rational_quadratic_spline", or an `ElementwiseMap`.
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
    return _MAPS[identifier](**kwargs)
