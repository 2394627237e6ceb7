"""What a user may hand to `fit`, `evaluate`, `predict` and `initialize`."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._private import caches_of
from tfp_flows.bijectors import context as contexts

_ARRAYS = np.ndarray, tf.Tensor, tuple, list, dict


def unpack(data, example):
    """Returns `x`, context and sample weight of a batch in any of the accepted forms.

    A context may come as Keras's `y`, as the second of a pair, or under the key "context".
    """
    x, context, weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(x, (tuple, list)) and len(x) == 1:
        x = x[0]
    if isinstance(x, (tuple, list)) and len(x) == 2:
        x, second = x
        context = _only_one(context, second, example)
    if isinstance(x, dict):
        unknown = sorted(set(x) - {"x", "context", "sample_weight"})
        if unknown or "x" not in x:
            raise ValueError(
                f"{example.title}: expected the keys 'x', and perhaps 'context' and "
                f"'sample_weight', got {sorted(x)}."
            )
        context = _only_one(context, x.get("context"), example)
        weight = x.get("sample_weight", weight)
        x = x["x"]
    if context is not None:
        tensors = tf.nest.flatten(context)
        if not any(tf.is_tensor(c) and c.shape.rank is None for c in tensors):
            check_context(context, example)
        if all(map(tf.is_tensor, tensors)):
            context = as_context(context, example)
    return x, context, weight


def _only_one(context, other, example):
    if context is not None and other is not None:
        raise ValueError(
            f"{example.title}: got two contexts, one with the data and one as `y`. Give "
            "one of them."
        )
    return other if context is None else context


def as_array(x, dtype):
    """`x` with tables of pandas and tensors of torch as arrays, and nested lists of numbers too.

    Python's floats, which have no dtype that anybody chose, take the given one.
    """
    if isinstance(x, range):
        return np.asarray(x)
    if isinstance(x, list) and not any(hasattr(member, "__array__") for member in x):
        x = np.asarray(x)
        return x.astype(dtype.as_numpy_dtype) if x.dtype.kind == "f" else x
    if isinstance(x, (tuple, list)):
        members = tuple(as_array(member, dtype) for member in x)
        return members[0] if len(members) == 1 else members
    if isinstance(x, dict):
        return {name: as_array(member, dtype) for name, member in x.items()}
    if hasattr(x, "__array__") and not isinstance(x, (np.ndarray, tf.Tensor)):
        return np.asarray(x)
    return x


def is_arrays(x):
    """Whether `x` is an array, or a structure of them."""
    return isinstance(x, _ARRAYS)


def with_weights(x, context, weight, example):
    """Returns x, y and sample weight such that Keras, which drops weights without y, keeps them."""
    if weight is None or not is_arrays(x):
        return x, context, weight
    data, second, _ = unpack(x, example)
    rows = len(data)
    weight = weight if tf.is_tensor(weight) else np.asarray(weight)
    if tuple(weight.shape) not in ((rows,), (rows, 1)):
        raise ValueError(
            f"{example.title}: expected a sample weight for each of the {rows} rows, of "
            f"shape [{rows}], got shape {list(weight.shape)}."
        )
    if context is not None:
        return x, context, weight
    data = {"x": data, "context": second, "sample_weight": weight}
    return {name: value for name, value in data.items() if value is not None}, None, None


def check_array(x, example, batched=True):
    """Checks dtype, shape and values of data that are an array, a tensor or a `TensorSpec`."""
    title, wanted = example.title, example.dtype
    if x is None:
        raise ValueError(f"{title}: no data: x is None.")
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    dtype = tf.as_dtype(x.dtype)
    if dtype == tf.string:
        raise TypeError(
            f"{title}: expected {wanted.name} data, got an array of {x.dtype}, text or mixed "
            f"columns. Columns of numbers: x.astype('{wanted.name}'). A table with categories or "
            "holes: tables.TableFlow, which takes the frame as it is."
        )
    if not example.event_dtype.is_floating and dtype.is_floating:
        raise TypeError(
            f"{title}: expected integers (of any dtype), got {dtype.name}: a fraction would be cut "
            "off without a word. Cast them: x.astype('int32')."
        )
    if (dtype.is_integer or dtype.is_bool) and not example.discrete:
        if example.lift is None and not example.continuous:
            raise TypeError(
                f"{title}: expected {wanted.name} data, got {dtype.name}. Cast them: "
                f"x.astype('{wanted.name}')."
            )
        if example.lift is None:
            raise TypeError(
                f"{title}: got {dtype.name} data, but a flow is a density of continuous values "
                "and would put infinite density on integers. Build the model with "
                "dequantization=preprocessing.UniformDequantization(), or, for data that are not "
                f"quantized, cast them: x.astype('{wanted.name}')."
            )
    elif dtype != wanted and dtype.is_floating:
        other = dtype in (tf.float32, tf.float64)
        raise TypeError(
            f"{title}: expected {wanted.name} data, got {dtype.name}. Cast them: "
            f"x.astype('{wanted.name}')"
            + (f", or build the flow with dtype='{dtype.name}'." if other else ".")
        )
    event = example.event_shape
    shape = tf.TensorShape(x.shape)
    wanted_shape = ", ".join(["batch" if batched else "...", *map(str, event)])
    if batched and shape.rank == event.rank and shape.is_compatible_with(event):
        raise ValueError(
            f"{title}: expected data of shape [{wanted_shape}], got a single example of shape "
            f"{shape.as_list()}. Add a batch axis; of a tf.data.Dataset make batches: "
            "`dataset.batch(n)`."
        )
    if shape.rank is not None and (
        shape.rank < event.rank
        or (batched and shape.rank != event.rank + 1)
        or (event.rank and not shape[shape.rank - event.rank :].is_compatible_with(event))
    ):
        raise ValueError(
            f"{title}: expected data of shape [{wanted_shape}], got {shape.as_list()}."
            + (_reshaping(tuple(shape.as_list()[1:]), tuple(event)) if batched else "")
        )
    if batched and shape.rank and shape[0] == 0:
        raise ValueError(f"{title}: no data: got {shape.as_list()}, which has no rows.")
    if not example.missing:
        check_nan(x, f"{title}: the data hold")
    if example.num_levels is not None:
        check_levels(x, example)


def _reshaping(given, wanted):
    """What makes rows of one shape those of another, if that is plain to see."""
    if wanted == (*given, 1):
        return " Add the axis of the one channel: x[..., None]."
    if len(given) == len(wanted) == 3 and (*given[1:], given[0]) == wanted:
        return " Channels come last: np.moveaxis(x, 1, -1)."
    if len(given) != len(wanted) and None not in given and np.prod(given) == np.prod(wanted):
        return f" Reshape them: x.reshape({', '.join(map(str, (-1, *wanted)))})."
    return " Or build the flow for these rows: its event_shape is x.shape[1:]."


def check_levels(x, example):
    """Refuses integers that the model does not know, where there are values to look at.

    Of a distribution of levels whose dtype is a floating one, fractions too.
    """
    if not isinstance(x, (np.ndarray, tf.Tensor)) or tf.as_dtype(x.dtype).is_bool:
        return
    if tf.as_dtype(x.dtype).is_floating and (not example.discrete or example.num_levels == 2):
        return  # What was lifted already, and cross-entropies.
    if not np.size(x) or (isinstance(x, tf.Tensor) and not hasattr(x, "numpy")):
        return
    values = np.asarray(x)
    least, most = values.min(), values.max()
    if least < 0 or most >= example.num_levels:
        raise ValueError(_wrong_levels(example, least, most))
    if values.dtype.kind == "f" and (values != np.round(values)).any():
        raise ValueError(_wrong_levels(example, least, most, "fractions among them"))


def checks_of_batch(x, example, nan):
    """Checks of what is only known of a batch when a step runs.

    The shape, where it is not static; the range of integers; NaN, if `nan`.

    Returns:
      Triples for `Steps._require`: a Boolean tensor, a function that returns the message, and
      its arguments.
    """
    title, event = example.title, example.event_shape
    wanted = ", ".join(["batch", *map(str, event)])
    if not x.shape.is_compatible_with([None, *event]):
        raise ValueError(f"{title}: expected data of shape [{wanted}], got {x.shape.as_list()}.")
    if x.shape.rank is None or not x.shape[1:].is_fully_defined():

        def shape(sizes):
            return f"{title}: expected data of shape [{wanted}], got {sizes.numpy().tolist()}."

        sizes = tf.shape(x)
        # False, too, if there are more or fewer of them.
        same = tf.raw_ops.Equal(x=sizes[1:], y=list(event), incompatible_shape_error=False)
        yield tf.reduce_all(same), shape, [sizes]
    levels = example.num_levels
    if levels is not None and x.dtype.is_integer and (x.dtype.min < 0 or x.dtype.max >= levels):
        least, most = tf.reduce_min(x), tf.reduce_max(x)
        fits = (least >= 0) & (tf.cast(most, tf.int64) < levels) | tf.equal(tf.size(x), 0)

        def integers(least, most):
            return _wrong_levels(example, int(least), int(most))

        yield fits, integers, [least, most]
    if nan and x.dtype.is_floating and not example.missing:

        def values(x):
            rows = np.isnan(x.numpy()).reshape(len(x), -1).any(axis=1)
            return _holds_nan(f"{title}: a batch of the data holds", rows)

        yield ~tf.reduce_any(tf.math.is_nan(x)), values, [x]


def _wrong_levels(example, least, most, what=""):
    whose = "distribution" if example.lift is None else type(example.lift).__name__
    levels = example.num_levels
    return (
        f"{example.title}: expected integers from 0 to {levels - 1}, the {levels} levels of the "
        f"{whose}, got values from {least:g} to {most:g}{what and ', '}{what}. Give it the data's "
        "num_levels, or shift them to start at 0."
    )


def _holds_nan(what, rows):
    return (
        f"{what} NaN in {int(rows.sum())} of {rows.size} rows, the first at row "
        f"{int(rows.argmax())}. Drop or fill them."
    )


def check_nan(x, what):
    """Refuses NaN, where there are values to look at."""
    if isinstance(x, (list, tuple)):
        x = np.asarray(x)
    if not isinstance(x, (np.ndarray, tf.Tensor)) or not tf.as_dtype(x.dtype).is_floating:
        return
    if isinstance(x, tf.Tensor) and not hasattr(x, "numpy"):
        return  # Inside a tf.function.
    # One sum finds any NaN without a temporary array of the data's size.
    total = np.sum(x) if isinstance(x, np.ndarray) else tf.reduce_sum(x).numpy()
    if np.isnan(total) and np.isnan(x).any():
        x = np.atleast_1d(x)
        rows = np.isnan(x).reshape(len(x), -1).any(axis=1)
        raise ValueError(_holds_nan(what, rows))


def check_data(x, context, example, batched=True):
    """Checks what can be seen of the data without running it."""
    if isinstance(x, tf.data.Dataset):
        if int(x.cardinality()) == 0:
            raise_empty(example)
        x = x.element_spec
    elif x is not None and not is_arrays(x):
        return  # A generator, a loader, a distributed dataset: Keras draws from them.
    x, context, _ = unpack(x if context is None else (x, context), example)
    check_array(x, example, batched)
    check_context(context, example)


def raise_empty(example):
    """Says that there was nothing to go through."""
    raise ValueError(
        f"{example.title}: no data: the dataset is empty. Look at its filters, and at `take`, "
        "`skip` and `batch(drop_remainder=True)`."
    )


def check_context(context, example):
    """Raises unless a context, of any batch shape, is what the distribution takes."""
    if context is None and example.context_shapes is None:
        return
    contexts.check(
        context,
        example.context_shapes,
        example.title,
        shapes_too=not example.raw or context is None,
        required="Give it to log_prob and sample as `context=`, to fit and evaluate as `y=`, to "
        "predict as `(x, context)`.",
        ignored=" (or `y`), but no part of the distribution takes one: it would be ignored. Leave "
        "it out, or build the flow with `context_size`.",
    )
    for tensor in tf.nest.flatten(context):
        check_nan(tensor, f"{example.title}: the context holds")


def zeros_of(example, rows):
    """A context of zeros for rows of data, or `None` for a distribution without one."""
    shapes = example.context_shapes
    return contexts.each(
        lambda shape, _: tf.zeros([rows, *(n or 1 for n in shape)], example.dtype), shapes, shapes
    )


def as_context(context, example):
    """A context as tensors of the distribution's dtype."""
    if context is None:
        return None
    if example.raw:
        return tf.nest.map_structure(lambda c: _as_raw(c, example), context)

    def as_tensor(tensor, shape):
        tensor = tf.cast(tensor, example.dtype)
        rank = tensor.shape.rank
        batch = [None] * (1 if rank is None else rank - len(shape))
        return tf.ensure_shape(tensor, [*batch, *shape])

    return contexts.each(as_tensor, context, example.context_shapes)


def _as_raw(tensor, example):
    tensor = tf.convert_to_tensor(tensor)
    return tf.cast(tensor, example.dtype) if tensor.dtype.is_floating else tensor


def arrays(x, context, weight, example, batched=True):
    """Data as Keras takes them, checked: x, y and sample weights."""
    for given, whole in ((x, True), (context, not example.raw)):
        # Of up to three it may be data, context and weights.
        if whole and isinstance(given, list) and len(given) > 3 and hasattr(given[0], "__array__"):
            raise TypeError(
                f"{example.title}: expected one array, got a list of {len(given)}. Stack them: "
                "np.stack(x)."
            )
    x, context, weight = (as_array(a, example.dtype) for a in (x, context, weight))
    check_data(x, context, example, batched)
    return with_weights(x, context, weight, example)


def first_of(dataset, count):
    """The first elements of a dataset, as a list; its caches are full then.

    What is read of an unfinished cache is thrown away, with a warning, and with a file there is
    another: so it is read to its end first, as the first epoch would. An unknown size is taken to
    be finite, as a cache has to hold it.
    """
    for cache in caches_of(dataset):
        if int(cache.cardinality()) != tf.data.INFINITE_CARDINALITY:
            for _ in cache:
                pass
    # By `take`: what TensorFlow reads ahead of a bare iterator differs from run to run, and every
    # epoch of `shuffle(seed=...)` that it begins moves on the seeds.
    return list(dataset.take(count))


def first_batch(x, y, example, batch_size=None, training=1.0, rows=512):
    """Rows to initialise from: the first of a dataset, 128 or more, or random ones of an array.

    Of an array only the first rows, the fraction `training`, are taken from: `validation_split`
    keeps the last ones for validation.
    """
    if isinstance(x, tf.data.Dataset):
        batches = first_of(x, 1)
        if not batches:
            raise_empty(example)
        found = len(tf.nest.flatten(batches[0])[0])
        if 0 < found < 128:
            batches = first_of(x, -(-128 // found))
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *batches)
    if not is_arrays(x):
        if isinstance(x, keras.utils.PyDataset):
            return x[0]
        distributed = isinstance(x, tf.distribute.DistributedDataset)
        if hasattr(x, "__iter__") and not distributed:
            batches = iter(x)
            if batches is not x:  # A loader, that starts anew each time.
                return next(batches)
        raise TypeError(
            f"FlowModel.fit: cannot take a first batch from a {type(x).__name__}. Call "
            "`initialize(batch)` before `fit`."
        )
    # Random rows, not the first ones: arrays are often sorted by class.
    return take_rows((x,) if y is None else (x, y), max(batch_size or 32, rows), training)


def take_rows(data, count, fraction=1.0):
    """The same random rows of every array in a structure, from the first `fraction` of them."""
    arrays = [a for a in tf.nest.flatten(data) if a is not None]
    total = max(1, int(len(arrays[0]) * fraction))
    rows = np.sort(np.random.default_rng(0).permutation(total)[:count])
    return tf.nest.map_structure(
        lambda a: a if a is None else tf.gather(a, rows) if tf.is_tensor(a) else a[rows], data
    )
