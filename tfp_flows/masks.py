"""Masks of couplings and degrees of MADE, in NumPy alone.

A coupling mask is a Boolean array of the event's shape. `True` marks an entry that passes
through unchanged and feeds the conditioner (b = 1 in the RealNVP paper), `False` an entry that
is transformed. The complement of a mask is `~mask`, also had by `flip=True`.

A degree says how much of an ordering a unit of a MADE may see. The input at position k
(from 0) of the ordering has degree k + 1, a hidden unit of degree d may see the inputs of
degree <= d, and the output for an input of degree d may see the inputs of degree < d.

References:
  Laurent Dinh, Jascha Sohl-Dickstein, Samy Bengio. Density estimation using Real NVP, 2016,
    arXiv:1605.08803, section 3.4 and figure 3.
  Mathieu Germain, Karol Gregor, Iain Murray, Hugo Larochelle. MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 8, 9, 12 and 13.
"""

import operator

import numpy as np

__all__ = [
    "alternating",
    "channel",
    "check",
    "checkerboard",
    "explicit",
    "halves",
    "hidden_degrees",
    "input_degrees",
]

_ORDERS = ("left-to-right", "right-to-left", "random")
_SPREADS = ("equal", "random")


def halves(size, *, flip=False):
    """Vector mask that passes the first half through.

    Args:
      size: `int >= 2`, the number of entries. Of an odd number the first `ceil(size / 2)` pass.
      flip: whether to return the complement.

    Returns:
      Boolean array of shape `[size]`.

    Raises:
      TypeError: if `size` is not an integer.
      ValueError: if `size < 2`.

    >>> halves(5).astype(int)
    array([1, 1, 1, 0, 0])
    """
    size = _size(size, "halves", least=2)
    return _flipped(np.arange(size) < (size + 1) // 2, flip)


def alternating(size, *, flip=False):
    """Vector mask that passes the entries 0, 2, 4, ... through.

    Args:
      size: `int >= 2`, the number of entries.
      flip: whether to return the complement.

    Returns:
      Boolean array of shape `[size]`.

    Raises:
      TypeError: if `size` is not an integer.
      ValueError: if `size < 2`.

    >>> alternating(5, flip=True).astype(int)
    array([0, 1, 0, 1, 0])
    """
    size = _size(size, "alternating", least=2)
    return _flipped(np.arange(size) % 2 == 0, flip)


def explicit(indices, size):
    """Vector mask that passes the given entries through.

    Args:
      indices: distinct integers of `0..size - 1`, in any order; at least one, and not all.
      size: `int >= 2`, the number of entries.

    Returns:
      Boolean array of shape `[size]`.

    Raises:
      TypeError: if `size` or an index is not an integer.
      ValueError: if `size < 2`, an index is out of range or repeated, or the indices are none
        or all of the entries.

    >>> explicit([0, 3], 4).astype(int)
    array([1, 0, 0, 1])
    """
    size = _size(size, "explicit", least=2)
    indices = [_integer(i, "explicit: each index") for i in indices]
    outside = [i for i in indices if not 0 <= i < size]
    if outside:
        raise ValueError(f"explicit: indices must lie in 0..{size - 1}, got {outside}.")
    if len(set(indices)) < len(indices):
        raise ValueError(f"explicit: indices must be distinct, got {indices}.")
    mask = np.zeros(size, dtype=bool)
    mask[indices] = True
    return check(mask, "explicit")


def checkerboard(event_shape, *, flip=False):
    """Spatial mask of an image: `(row + column)` even passes, on every channel alike.

    Args:
      event_shape: `[H, W, C]`, positive integers with `H * W >= 2`.
      flip: whether to return the complement.

    Returns:
      Boolean array of shape `[H, W, C]`.

    Raises:
      TypeError: if an entry of `event_shape` is not an integer.
      ValueError: if `event_shape` is not of length 3, an entry is not positive, or
        `H * W < 2`.

    >>> checkerboard([2, 3, 1])[..., 0].astype(int)
    array([[1, 0, 1],
           [0, 1, 0]])
    """
    height, width, channels = _image_shape(event_shape, "checkerboard")
    if height * width < 2:
        raise ValueError(
            "checkerboard: a mask over pixels needs H * W >= 2, got event_shape "
            f"{[height, width, channels]}. Mask the channels instead: masks.channel."
        )
    even = np.add.outer(np.arange(height), np.arange(width)) % 2 == 0
    return _flipped(np.repeat(even[..., np.newaxis], channels, axis=-1), flip)


def channel(event_shape, *, flip=False):
    """Mask of an image that passes the first half of the channels through.

    Args:
      event_shape: `[H, W, C]`, positive integers with `C >= 2`. Of an odd number of channels
        the first `ceil(C / 2)` pass.
      flip: whether to return the complement.

    Returns:
      Boolean array of shape `[H, W, C]`.

    Raises:
      TypeError: if an entry of `event_shape` is not an integer.
      ValueError: if `event_shape` is not of length 3, an entry is not positive, or `C < 2`.

    >>> channel([1, 1, 4]).astype(int)
    array([[[1, 1, 0, 0]]])
    """
    height, width, channels = _image_shape(event_shape, "channel")
    if channels < 2:
        raise ValueError(
            "channel: a mask over channels needs C >= 2, got event_shape "
            f"{[height, width, channels]}. Squeeze the image first, or use masks.checkerboard."
        )
    return np.tile(halves(channels, flip=flip), (height, width, 1))


def check(mask, owner="masks.check"):
    """Returns `mask` as a Boolean array, if a coupling can use it.

    Args:
      mask: Boolean array, or numbers that are 0 and 1, of the shape of an event, `[D]`, `[N, D]`
        or `[H, W, C]`, with at least one `True` and one `False`.
      owner: who asks, for messages.

    Returns:
      `mask` as a NumPy array.

    Raises:
      ValueError: if it holds anything else or has another rank, or if all entries are `True`
        (nothing is transformed) or all are `False` (nothing is left to condition on).

    >>> check([True, False])
    array([ True, False])
    """
    mask = np.asarray(mask)
    if mask.dtype != np.bool_ and not np.isin(mask, (0, 1)).all():
        raise ValueError(
            f"{owner}: expected a Boolean mask, got {mask.dtype} with entries that are neither 0 "
            "nor 1. Make it one, as in `np.asarray(mask) == 1`; True marks what passes through."
        )
    mask = mask.astype(bool)
    if mask.all():  # An empty mask is caught here as well.
        raise ValueError(
            f"{owner}: the mask transforms nothing: all {mask.size} entries are True (= passed "
            "through). Make some of them False."
        )
    if not mask.any():
        raise ValueError(
            f"{owner}: the mask passes nothing through: all {mask.size} entries are False (= "
            "transformed), so the conditioner would see nothing. Make some of them True."
        )
    if mask.ndim > 3:
        raise ValueError(
            f"{owner}: expected a mask of the event shape, [D], [N, D] or [H, W, C], got shape "
            f"{list(mask.shape)}. See `tfp_flows.masks`."
        )
    return mask


def input_degrees(size, order="left-to-right", seed=None):
    """Degrees of the inputs of a MADE: one plus the position of each in the ordering.

    Args:
      size: `int >= 1`, the number D of inputs.
      order: "left-to-right", "right-to-left", "random", or a permutation of `0..D - 1` whose
        entry i is the position of input i in the ordering: the input at position 0 comes first
        and depends on no other. Left to right is `[0, 1, ..., D - 1]`. If what you have is the
        list of inputs as they follow each other, pass its `np.argsort`.
      seed: integer for "random"; `None` draws a new ordering at each call.

    Returns:
      Integer array of shape `[D]`, a permutation of `1..D`.

    Raises:
      TypeError: if `size` is not an integer.
      ValueError: if `size < 1`, or `order` is no known name and no permutation.

    >>> input_degrees(4, "right-to-left")
    array([4, 3, 2, 1])
    >>> input_degrees(3, [2, 0, 1])  # input 1 comes first, then input 2, then input 0
    array([3, 1, 2])
    """
    size = _size(size, "input_degrees", least=1)
    if isinstance(order, str):
        if order == "left-to-right":
            return np.arange(1, size + 1)
        if order == "right-to-left":
            return np.arange(size, 0, -1)
        if order == "random":
            return np.random.default_rng(seed).permutation(size) + 1
    else:
        positions = np.asarray(order)
        if (
            positions.shape == (size,)
            and np.issubdtype(positions.dtype, np.integer)
            and np.array_equal(np.sort(positions), np.arange(size))
        ):
            return positions.astype(np.int64) + 1
    raise ValueError(
        f"input_degrees: order must be one of {', '.join(map(repr, _ORDERS))} or a permutation of "
        f"0..{size - 1}, got {order!r}."
    )


def hidden_degrees(units, size, *, how="equal", seed=None, minimum=None):
    """Degrees of one hidden layer of a MADE, in ascending order.

    Degrees run from `minimum` to D - 1: a unit of degree D would see every input and could
    feed no output. They come sorted because the order of hidden units is free, and with sorted
    degrees every weight matrix between hidden layers is block triangular.

    Args:
      units: `int >= 1`, the width of the layer. Fewer units than degrees leave degrees out,
        and with them dependencies between the outputs and the inputs.
      size: `int >= 1`, the number D of inputs.
      how: "equal" gives each degree the same number of units, but for one; "random" draws each
        degree uniformly.
      seed: integer for "random"; `None` draws new degrees at each call.
      minimum: `int` in `0..D - 1`, the least degree. Units of degree 0 see no input: they serve
        the first output of a MADE with a context, and are idle in one without. Deeper layers
        may pass the least degree of the layer before, as the paper does. Default: 1, or 0
        where D = 1.

    Returns:
      Integer array of shape `[units]`, ascending.

    Raises:
      TypeError: if `units`, `size` or `minimum` is not an integer.
      ValueError: if one of them is out of range, or `how` is not known.

    >>> hidden_degrees(6, 4)
    array([1, 1, 2, 2, 3, 3])
    >>> hidden_degrees(6, 3, minimum=0)
    array([0, 0, 1, 1, 2, 2])
    """
    units = _integer(units, "hidden_degrees: units")
    if units < 1:
        raise ValueError(f"hidden_degrees: units must be at least 1, got {units}.")
    size = _size(size, "hidden_degrees", least=1)
    if minimum is None:
        minimum = min(1, size - 1)
    minimum = _integer(minimum, "hidden_degrees: minimum")
    if not 0 <= minimum < size:
        raise ValueError(
            f"hidden_degrees: minimum must lie in 0..{size - 1} for size {size}, got {minimum}."
        )
    if how == "equal":
        return minimum + np.arange(units) * (size - minimum) // units
    if how == "random":
        return np.sort(np.random.default_rng(seed).integers(minimum, size, units))
    raise ValueError(
        f"hidden_degrees: how must be one of {', '.join(map(repr, _SPREADS))}, got {how!r}."
    )


def _flipped(mask, flip):
    return ~mask if flip else mask


def _integer(value, what):
    # bool is an int to Python, and never what is meant here.
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{what} must be an integer, got {value!r}.")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r}.") from None


def _size(size, name, least):
    size = _integer(size, f"{name}: size")
    if size < least:
        why = ": one part must pass through and another be transformed" if least == 2 else ""
        raise ValueError(f"{name}: size must be at least {least}, got {size}{why}.")
    return size


def _image_shape(event_shape, name):
    shape = [_integer(n, f"{name}: each entry of event_shape") for n in event_shape]
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"{name}: event_shape must be [H, W, C], all positive, got {shape}.")
    return shape
