"""Checks of arguments that many parts take; each returns the value, or says what to write.

`title` names the object in the message (`"MLP 'net'"`, `"flows.maf"`), `name` the argument.
"""

import math
import numbers
import operator


def integer(value, name, title, *, least):
    """`value` as an `int`, if it is an integer of at least `least`.

    NumPy's integers and integer tensors of no axes are; neither `True` nor `2.0` is, for who
    writes them mostly means something else.

    Raises:
      TypeError: if it is no integer.
      ValueError: if it is below `least`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        found = operator.index(value)
    except TypeError:
        raise TypeError(
            f"{title}: {name} must be an integer >= {least}, got {value!r} of type "
            f"{type(value).__name__}. Give an int."
        ) from None
    if found < least:
        raise ValueError(f"{title}: {name} must be an integer >= {least}, got {found}.")
    return found


def positive_integer(value, name, title):
    """`value` as an `int`, if it is an integer of at least 1; raises as `integer`."""
    return integer(value, name, title, least=1)


def vector_size(value, name, title):
    """`value` as an `int`, the size of a vector; raises as `integer`, and of shapes says more."""
    if isinstance(value, (dict, list, tuple)):
        raise TypeError(
            f"{title}: {name} must be the size of a vector, an integer >= 1, got {value!r}. Join "
            "what it is made of to one vector; contexts a step or a pixel, or several by name, are "
            "taken by flows.wavenet, pixel_cnn, pixel_rnn and tarflow."
        )
    return positive_integer(value, name, title)


def positive_integers(values, name, title):
    """A tuple of positive integers, such as the widths of hidden layers; raises as `integer`."""
    if isinstance(values, (str, bytes)) or not hasattr(values, "__iter__"):
        remedy = f"write ({values},)" if isinstance(values, int) else "give a tuple"
        raise TypeError(
            f"{title}: {name} must be a sequence of integers >= 1, got {values!r}. For a single "
            f"one {remedy}."
        )
    return tuple(integer(value, name, title, least=1) for value in values)


def number(value, name, title):
    """`value` as a `float`, if it is a real number, and neither `True` nor `False`.

    Raises:
      TypeError: if it is not.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{title}: {name} must be a number, got {value!r} of type {type(value).__name__}. "
            "Give a float."
        )
    return float(value)


def positive_number(value, name, title):
    """`value` as a `float`, if it is a finite number above 0.

    Raises:
      TypeError: if it is no real number, or is `True` or `False`.
      ValueError: if it is not above 0, or not finite.
    """
    found = number(value, name, title)
    if not 0.0 < found < math.inf:
        raise ValueError(f"{title}: {name} must be positive and finite, got {value!r}.")
    return found


def fraction(value, name, title):
    """`value` as a `float`, if it lies between 0 and 1.

    Raises:
      TypeError: if it is no real number.
      ValueError: if it lies elsewhere.
    """
    found = number(value, name, title)
    if not 0.0 < found < 1.0:
        raise ValueError(f"{title}: {name} must lie in (0, 1), got {value!r}.")
    return found


def optional_seed(value, title):
    """`value` as an `int`, if it is a seed, or `None`; raises as `integer`."""
    return None if value is None else integer(value, "seed", title, least=0)


def forms_of(ranks):
    """The shapes of events of these ranks, for messages."""
    return " or ".join({1: "[D]", 2: "[T, C]", 3: "[H, W, C]"}[rank] for rank in ranks)


def known_shape(value, name, title, *, ranks=None):
    """`value` as a tuple of the sizes of an event, if all are known and there is one.

    Raises:
      ValueError: if it is no shape, is empty, has another rank than those of `ranks`, or a size is
        `None` or below 1.
    """
    try:
        shape = tuple(None if n is None else operator.index(n) for n in value)
    except (TypeError, ValueError):  # A number, or a TensorShape of unknown rank.
        shape = ()
    wrong_rank = ranks is not None and len(shape) not in ranks
    if not shape or wrong_rank or any(n is None or n < 1 for n in shape):
        form = "" if ranks is None else f"{forms_of(ranks)}, "
        raise ValueError(
            f"{title}: {name} must be {form}known and not empty, got {list(shape) or value!r}."
        )
    return shape


def one_of(value, choices, name, title):
    """`value`, if it is one of the names (or `None`) in `choices`.

    Raises:
      ValueError: if it is not.
    """
    choices = tuple(choices)
    # An array is compared with a name entry by entry.
    if not isinstance(value, (str, type(None))) or value not in choices:
        raise ValueError(f"{title}: {name} must be one of {choices}, got {value!r}.")
    return value
