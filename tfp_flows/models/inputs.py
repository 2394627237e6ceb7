"""What a user may hand to `fit`, `evaluate`, `predict` and `initialize`."""

import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

_ARRAYS = np.ndarray, tf.Tensor, tuple, list, dict


def unpack(data, model):
    """Returns `x`, context and sample weight of a batch in any of the accepted forms.

    A context may come as Keras's `y`, as the second of a pair, or under the key "context".
    """
    x, context, weight = keras.utils.unpack_x_y_sample_weight(data)
    if isinstance(x, (tuple, list)) and len(x) == 2:
        x, second = x
        context = second if context is None else context
    if isinstance(x, dict):
        unknown = sorted(set(x) - {"x", "context", "sample_weight"})
        if unknown or "x" not in x:
            raise ValueError(
                f"FlowModel '{model.name}': expected the keys 'x', and perhaps 'context' and "
                f"'sample_weight', got {sorted(x)}."
            )
        context = x.get("context", context)
        weight = x.get("sample_weight", weight)
        x = x["x"]
    if context is not None and model.context_size is None:
        model._check_context(context, "fit")
    if context is not None and tf.is_tensor(context):
        context = tf.cast(context, model.distribution.dtype)
    return x, context, weight


def is_arrays(x):
    """Whether `x` is an array, or a structure of them."""
    return isinstance(x, _ARRAYS)


def with_weights(x, context, weight, model):
    """Returns x, y and sample weight such that Keras, which drops weights without y, keeps them."""
    if weight is None or context is not None or not is_arrays(x):
        return x, context, weight
    x, context, _ = unpack(x, model)
    data = {"x": x, "context": context, "sample_weight": weight}
    return {name: value for name, value in data.items() if value is not None}, None, None


def check_array(x, model, batched=True):
    """Checks dtype, shape and values of data that are an array, a tensor or a `TensorSpec`."""
    title = f"FlowModel '{model.name}'"
    wanted = tf.as_dtype(model.distribution.dtype)
    if x is None:
        raise ValueError(f"{title}: no data: x is None.")
    if not hasattr(x, "dtype"):
        x = np.asarray(x)
    dtype = tf.as_dtype(x.dtype)
    if dtype.is_integer or dtype.is_bool:
        if model.dequantization is None and not is_density(model.distribution):
            raise TypeError(
                f"{title}: expected {wanted.name} data, got {dtype.name}. Cast them: "
                f"x.astype('{wanted.name}')."
            )
        if model.dequantization is None:
            raise TypeError(
                f"{title}: got {dtype.name} data, but a flow is a density of continuous values "
                "and would put infinite density on integers. Build the model with "
                "dequantization=preprocessing.UniformDequantization(), or, for data that are not "
                f"quantized, cast them: x.astype('{wanted.name}')."
            )
    elif dtype != wanted:
        raise TypeError(
            f"{title}: expected {wanted.name} data, got {dtype.name}. Cast them: "
            f"x.astype('{wanted.name}'), or build the flow with dtype='{dtype.name}'."
        )
    event = model.event_shape
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
        )
    check_nan(x, f"{title}: the data hold")


def is_density(distribution):
    """Whether a distribution is one of continuous values; `flows.made`, say, may be of 0 and 1."""
    return distribution.reparameterization_type == tfp.distributions.FULLY_REPARAMETERIZED


def warn_of_discrete(x, model, rows=1000):
    """Warns of floating data that are whole numbers: a flow's likelihood of them has no bound.

    Looks at some rows of an array; constant entries, which tell nothing, are passed over.
    """
    if isinstance(x, dict):
        x = x.get("x")
    if isinstance(x, (tuple, list)) and len(x) == 2:
        x = x[0]
    if not isinstance(x, np.ndarray) or x.dtype.kind != "f" or not is_density(model.distribution):
        return
    some = x[:: max(1, len(x) // rows)][:rows].reshape(min(len(x), rows), -1)
    if len(some) < 20:
        return
    whole = (some == np.round(some)).all(axis=0) & (some != some[:1]).any(axis=0)
    entries = np.flatnonzero(whole)
    if not len(entries):
        return
    numbers = f"{entries[:5].tolist()}{' and more' if len(entries) > 5 else ''}"
    warnings.warn(
        f"FlowModel '{model.name}': {len(entries)} of the {some.shape[1]} entries of a row hold "
        f"whole numbers alone (entry {numbers}). A flow can put any density on such values, and "
        "then its likelihood means nothing. Give integers (x.astype('int32')) and build the model "
        "with dequantization=preprocessing.UniformDequantization(), or add uniform noise of their "
        "step to these entries.",
        stacklevel=3,
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
        raise ValueError(
            f"{what} NaN in {int(rows.sum())} of {rows.size} rows, the first at row "
            f"{int(rows.argmax())}. Drop or fill them."
        )


def first_batch(x, y, batch_size, training=1.0, rows=512):
    """A batch to initialise from: the first of a dataset, or random rows of an array.

    Only the first rows, the fraction `training`, are taken from: `validation_split` keeps the
    last ones for validation.
    """
    if isinstance(x, tf.data.Dataset):
        return next(iter(x))
    if not is_arrays(x):
        if isinstance(x, keras.utils.PyDataset):
            return x[0]
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
