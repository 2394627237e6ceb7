"""How large what a file describes may become, known before any of it is built.

A file of some kilobytes can ask for a layer of 1e6 x 1e6, or a part of parts of parts that doubles
30 times. Everything that a model is made of is in its file, so the file's own size bounds it: a
weight that is described is stored in the weights member, an array in the description. What
remains are the references between parts, which are counted.
"""

import contextlib
import contextvars
import math

import numpy as np
import tensorflow as tf

from tfp_flows import _private
from tfp_flows.saving.messages import shortened

# Of lists in lists, in the description or between its parts. Compositions of a hundred steps are
# a list of a hundred entries, some ten deep.
_DEEPEST = 200
# Parts that a walk through the whole would meet, a shared one each time: 10,000 take TFP a second.
_MOST_VISITS, _VISITS_PER_PART = 10_000, 20
# Masks and permutations are packed to a few bytes.
PACKED_FREE, PACKED_RATIO = 2**25, 16
# An optimizer keeps up to three values a weight; averages and accumulated gradients are more.
_VARIABLES_PER_WEIGHT, _FREE = 8, 2**20
# Sizes without weights: of a pooling's input, or of what is about to be flattened.
_FREE_SIZE = 2**16
_NO_SIZE = frozenset({"seed", "shared_object_id"})

_weights_bytes = contextvars.ContextVar("tfp_flows_weights_bytes", default=None)


@contextlib.contextmanager
def of_weights(size):
    """While it lasts, what is built has to fit the weights of a file.

    Args:
      size: bytes of the weights member.

    Raises:
      ValueError: when a variable is about to be made that is too large.
    """
    left = _VARIABLES_PER_WEIGHT * size + _FREE

    def make(next_creator, **kwargs):
        nonlocal left
        value = kwargs.get("initial_value")
        shape = _private.shape_of_new(value) if callable(value) else getattr(value, "shape", ())
        left -= 4 * math.prod(n or 0 for n in shape or ())
        if left < 0:
            raise ValueError(
                f"a variable of shape {shortened(list(shape), 100)} does not fit weights of "
                f"{size} bytes: the file was changed"
            )
        return next_creator(**kwargs)

    token = _weights_bytes.set(size)
    try:
        with tf.variable_creator_scope(make):
            yield
    finally:
        _weights_bytes.reset(token)


def check(parts, roots):
    """Checks what a description would become.

    Args:
      parts: its parts, as read from JSON.
      roots: its roots, by name.

    Raises:
      ValueError: naming the part that is too large or too deep, refers to none, or is referred to
        by none.
    """
    size = _weights_bytes.get()
    depths, visits, used = [], [], set()
    variables = packed = text = 0
    for number, part in enumerate([*parts, roots]):
        where = f"part {number} of the file" if number < len(parts) else "what the file describes"
        depth, references = _walk(part, where)
        if isinstance(part, dict) and part.get("kind") == "layer":
            references = []  # Those of a FlowModel in a layer's configuration are its own.
        for reference in references:
            if type(reference) is not int or not 0 <= reference < number:
                raise ValueError(
                    f"{where}: there is no part {shortened(repr(reference), 40)} before it"
                )
        used.update(references)
        depths.append(depth + max((depths[r] for r in references), default=0))
        visits.append(1 + sum(visits[r] for r in references))
        if depths[-1] > _DEEPEST:
            raise ValueError(f"{where} is more than {_DEEPEST} levels deep")
        if visits[-1] > _MOST_VISITS + _VISITS_PER_PART * len(parts):
            raise ValueError(
                f"{where} refers to {_MOST_VISITS + _VISITS_PER_PART * len(parts)} parts or more, "
                f"each as often as it is referred to, and the file has {len(parts)}"
            )
        if not isinstance(part, dict):
            continue
        kind = part.get("kind")
        if size is not None and kind in ("object", "layer"):
            _check_sizes(part, size, where)
        for array in (part, part.get("value")):
            if isinstance(array, dict) and "data" in array:
                packed += _bytes_of(array, where)
                text += len(str(array["data"]))
                if packed > PACKED_FREE + PACKED_RATIO * text:
                    raise ValueError(f"{where}: arrays of {packed} bytes do not fit the file")
        if kind == "variable" and "value" not in part:
            variables += _bytes_of(part, where)
            if size is not None and variables > size:
                raise ValueError(
                    f"{where}: variables of {variables} bytes, and the file's weights have {size}"
                )
    unused = sorted(set(range(len(parts))) - used)
    if unused:
        kind = parts[unused[0]]
        kind = (kind.get("class") or kind.get("kind")) if isinstance(kind, dict) else kind
        raise ValueError(
            f"nothing refers to part {unused[0]} of the file, {shortened(repr(kind), 80)}: "
            "the file was changed"
        )


def _walk(part, where):
    """How deep a part of JSON is nested, and the parts that it refers to, as often as it does."""
    deepest, references, rest = 1, [], [(part, 1)]
    while rest:
        value, depth = rest.pop()
        deepest = max(deepest, depth)
        if depth > _DEEPEST:
            raise ValueError(f"{where} is more than {_DEEPEST} levels deep")
        if isinstance(value, dict):
            if set(value) == {"$part"}:
                references.append(value["$part"])
            else:
                rest += [(v, depth + 1) for v in value.values()]
        elif isinstance(value, list):
            rest += [(v, depth + 1) for v in value]
    return deepest, references


def _bytes_of(array, where):
    shape = array.get("shape")
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{where}: {shortened(repr(shape), 80)} is no shape")
    name = str(array.get("dtype"))
    try:
        return math.prod(shape) * (4 if name == "bfloat16" else np.dtype(name).itemsize)
    except TypeError as error:
        raise ValueError(
            f"{where}: arrays of dtype {shortened(repr(name), 40)} are not allowed"
        ) from error


def _check_sizes(part, size, where):
    """Refuses what would be large before its first variable is made, such as a network's masks."""
    if part["kind"] == "layer":
        content = part.get("config")
    elif str(part.get("class")).startswith("tfp_flows."):
        content = part.get("arguments")
    else:
        return  # TFP computes with its numbers; it makes nothing of that size.
    if not isinstance(content, dict):
        return
    square = content.get("size")
    if part.get("class") == "tfp_flows.InvertibleConv1x1" and isinstance(square, int):
        _check_entries(square**2, size, where)
    rest = [content]
    while rest:
        value = rest.pop()
        if isinstance(value, dict):
            rest += [v for k, v in value.items() if k not in _NO_SIZE]
            units = value.get("hidden_units")
            if isinstance(units, list) and all(type(n) is int for n in units):
                pairs = zip(units, units[1:], strict=False)
                _check_entries(sum(a * b for a, b in pairs), size, where)
        elif isinstance(value, list):
            rest += value
        elif type(value) is int and value > max(size, _FREE_SIZE):
            raise ValueError(
                f"{where} is of size {shortened(value, 40)}, and the file's weights have {size} "
                "bytes: the file was changed"
            )


def _check_entries(entries, size, where):
    # In half precision a weight has two bytes.
    if 2 * entries > max(size, _FREE_SIZE):
        raise ValueError(
            f"{where} has {shortened(entries, 40)} weights, and the file's have {size} bytes: "
            "the file was changed"
        )
