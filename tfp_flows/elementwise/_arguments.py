"""Checks of the arguments of maps; each error names the map and the argument."""

import math
import numbers
import operator


def number(name, what, value):
    """A checked number as `float`."""
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        raise TypeError(f"{name}: {what} must be a number, got {value!r}.")
    return float(value)


def positive_number(name, what, value):
    """A checked positive and finite number as `float`."""
    found = number(name, what, value)
    if not 0.0 < found < math.inf:
        raise ValueError(f"{name}: {what} must be positive and finite, got {value!r}.")
    return found


def positive_integer(name, what, value, least=1):
    """A checked integer of at least `least`."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: {what} must be an integer, got {value!r}.") from None
    if found < least:
        raise ValueError(f"{name}: {what} must be at least {least}, got {value!r}.")
    return found


def least_slope(name, value):
    """The checked argument `min_slope`, between 0 and 1."""
    found = number(name, "min_slope", value)
    if not 0.0 < found < 1.0:
        raise ValueError(f"{name}: min_slope must lie in (0, 1), got {value!r}.")
    return found
