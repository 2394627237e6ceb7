"""What contexts a part takes: one tensor, a vector as a rule, or several of them by name.

A part declares them as `context_size`: the size of a vector, the shape of another tensor (`[T, C]`,
one vector a step; `[H, W, C]`, one a pixel), or a dictionary of such by name. Inside they are
shapes: a tuple, or a dictionary of tuples.
"""

import collections.abc
import numbers

import numpy as np
import tensorflow as tf


def shapes_of(declared, title):
    """The shapes that a `context_size` declares, or `None`.

    Raises:
      ValueError: if it is no size, shape or dictionary of them.
    """
    if declared is None:
        return None
    if isinstance(declared, collections.abc.Mapping) and declared:
        return {name: shapes_of(shape, title) for name, shape in declared.items()}
    sizes = (declared,) if isinstance(declared, numbers.Integral) else declared
    if not isinstance(sizes, (tuple, list, tf.TensorShape)) or not all(map(_is_size, sizes)):
        raise ValueError(
            f"{title}: context_size must be the size of a vector, a shape, or a dictionary of "
            f"them, got {declared!r}."
        )
    return tuple(None if n is None else int(n) for n in sizes)


def _is_size(n):
    whole = isinstance(n, numbers.Integral) and not isinstance(n, bool)
    return n is None or (whole and n >= 1)


def declared(shapes):
    """The `context_size` of shapes: an `int` for a vector, else the shapes themselves."""
    return shapes[0] if isinstance(shapes, tuple) and len(shapes) == 1 else shapes


def given_or_own(context_size, layer):
    """The `context_size` that is given, or else what a layer says of itself; `None` for none."""
    return getattr(layer, "context_size", None) if context_size is None else context_size


def check_vector(context_size, title):
    """Raises a `ValueError` unless a context is a vector."""
    if not isinstance(context_size, int):
        raise ValueError(
            f"{title}: expected a context that is a vector, got context_size={context_size!r}. "
            "Flatten it first."
        )


def text(shapes):
    """Shapes for a message, e.g. `[..., 3]`."""
    if isinstance(shapes, dict):
        return "{" + ", ".join(f"'{name}': {text(shape)}" for name, shape in shapes.items()) + "}"
    return f"[..., {', '.join('?' if n is None else str(n) for n in shapes)}]"


def common(parts, owner):
    """The shapes that several parts take together, or `None`.

    Parts that take tensors by name share those of equal names; else all take the same one.

    Args:
      parts: pairs of a part's name and its shapes, or `None` for a part without a context.
      owner: who asks, for messages.

    Raises:
      ValueError: if two parts take contexts of different sizes.
    """
    parts = [(name, shapes) for name, shapes in parts if shapes is not None]
    found = {}  # Name -> shapes of that tensor in the parts; the only one has the name None.
    for _, shapes in parts:
        for name, shape in (shapes if isinstance(shapes, dict) else {None: shapes}).items():
            found.setdefault(name, set()).add(shape)
    if any(len(shapes) > 1 for shapes in found.values()) or (None in found and len(found) > 1):
        sizes = {name: declared(shapes) for name, shapes in parts}
        raise ValueError(f"{owner}: its parts take contexts of different sizes, {sizes}.")
    together = {name: shapes.pop() for name, shapes in found.items()}
    return together.get(None, together or None)


def take(context, shapes):
    """Of a context what a part with these shapes takes, `None` for one without."""
    if context is None or shapes is None:
        return None
    if isinstance(shapes, dict) and isinstance(context, dict):
        return {name: context[name] for name in shapes if name in context}
    return context


def each(function, context, shapes):
    """`function(tensor, shape)` of every tensor of a context; of `None`, `None`."""
    if context is None:
        return None
    if isinstance(shapes, dict):
        return {name: function(context[name], shape) for name, shape in shapes.items()}
    return function(context, shapes)


def for_part(context, shapes, extra):
    """What a part takes of a context, for events of `extra` axes that it sees as batch."""
    if context is not None:
        context = take(context, shapes)
    if context is None or not extra:
        return context

    def same_everywhere(tensor, shape):
        for _ in range(extra):
            tensor = tf.expand_dims(tensor, -1 - len(shape))
        return tensor

    return each(same_everywhere, context, shapes)


def check(context, shapes, title, *, required, ignored, shapes_too=True):
    """Raises unless a context is there, and of the shapes that a part takes, batch apart.

    Args:
      context: tensors, arrays or specs of them, or `None`.
      shapes: those that the part takes, or `None`.
      title: who asks.
      required, ignored: what to do about a context that is missing, or that nobody takes.
      shapes_too: whether its shapes are compared.
    """
    if context is None and shapes is None:
        return
    if context is None:
        raise ValueError(
            f"{title}: a context of shape {text(shapes)} is required, got none. {required}"
        )
    if shapes is None:
        raise ValueError(f"{title}: got a context{ignored}")
    if not shapes_too:
        return
    if isinstance(context, dict) != isinstance(shapes, dict) or (
        isinstance(shapes, dict) and set(context) != set(shapes)
    ):
        got = sorted(context) if isinstance(context, dict) else "one tensor"
        raise ValueError(f"{title}: expected a context of shape {text(shapes)}, got {got}.")

    def check_one(tensor, shape):
        got = tf.TensorShape(tensor.shape if hasattr(tensor, "shape") else np.shape(tensor))
        if got.rank is None:
            raise ValueError(
                f"{title}: expected a context of shape {text(shape)}, got a tensor of unknown "
                f"rank. State its rank with tf.ensure_shape(context, {[None, *shape]})."
            )
        if got.rank < len(shape) or not got[got.rank - len(shape) :].is_compatible_with(shape):
            remedy = ""
            if tf.as_dtype(getattr(tensor, "dtype", tf.float32)).is_integer:
                remedy = f" One-hot integer labels: tf.one_hot(labels, {shape[-1]})."
            elif len(shape) > 1 and got.rank == 2 and got[-1] == shape[-1]:
                remedy = (
                    " It has one vector an event, where one a place is meant: repeat it, or "
                    "declare both by name, `context_size={'all': n, 'each': [..., m]}`."
                )
            raise ValueError(
                f"{title}: expected a context of shape {text(shape)}, got {got.as_list()}.{remedy}"
            )

    each(check_one, context, shapes)


def check_batch(context, shapes, batch, title):
    """Raises unless the batch shape of a context broadcasts to that of the argument."""

    def check_one(tensor, shape):
        rows = tensor.shape[: tensor.shape.rank - len(shape)].as_list()
        fits = len(rows) <= len(batch) and all(
            m == 1 or None in (m, n) or m == n
            for m, n in zip(reversed(rows), reversed(batch), strict=False)
        )
        if not fits:
            raise ValueError(
                f"{title}: expected a context whose batch shape broadcasts to the argument's, "
                f"{batch}, got {rows} (contexts of shape {tensor.shape.as_list()}). Give one row "
                "for all, or one for each event."
            )

    each(check_one, context, shapes)


def check_null(null_context, shapes, title):
    """What stands for no context, as plain lists, if it broadcasts to a context of these shapes.

    Args:
      null_context: array, or a dictionary of them by name, or `None` for zeros.
      shapes: those that a part takes, or `None` to leave them unchecked.
      title: who asks.

    Raises:
      ValueError: if it does not.
    """
    if null_context is None:
        return None
    found = (
        {n: np.asarray(v) for n, v in null_context.items()}
        if isinstance(null_context, dict)
        else np.asarray(null_context)
    )
    if shapes is not None:
        if isinstance(found, dict) != isinstance(shapes, dict) or (
            isinstance(found, dict) and set(found) != set(shapes)
        ):
            got = sorted(found) if isinstance(found, dict) else "one array"
            raise ValueError(f"{title}: null_context must be of shape {text(shapes)}, got {got}.")

        def check_one(array, shape):
            sizes = (n or 1 for n in shape)
            fits = array.ndim <= len(shape) and all(
                m in (1, n) for m, n in zip(array.shape[::-1], tuple(sizes)[::-1], strict=False)
            )
            if not fits:
                raise ValueError(
                    f"{title}: null_context must broadcast to {text(shape)}, got an array of shape "
                    f"{list(array.shape)}."
                )

        each(check_one, found, shapes)
    if isinstance(found, dict):
        return {name: array.tolist() for name, array in found.items()}
    return found.tolist()


def nothing(null_context, context):
    """What stands for no context, in the shapes of one: zeros, or what is given, broadcast."""
    if null_context is None:
        return tf.nest.map_structure(tf.zeros_like, context)

    def like(tensor, value):
        return tf.broadcast_to(tf.constant(value, tensor.dtype), tf.shape(tensor))

    if isinstance(context, dict):
        return {name: like(tensor, null_context[name]) for name, tensor in context.items()}
    return like(context, null_context)
