"""Checks of arguments that many parts take."""

import numbers


def positive_integer(value, name, title):
    """`value` as an `int`; raises a `ValueError` unless it is an integer of 1 or more.

    Neither `True` nor `2.0` is one: who writes them means something else.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(f"{title}: {name} must be an integer >= 1, got {value!r}.")
    return int(value)
