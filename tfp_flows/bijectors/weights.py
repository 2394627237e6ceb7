"""Making the variables of a bijector."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

# Of a count of steps: every replica counts its own, all alike.
COUNTER = {
    "trainable": False,
    "synchronization": tf.VariableSynchronization.ON_READ,
    "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA,
}


def make_weight(value, *, shape, start, name, title, dtype, trainable, **kwargs):
    """A variable from what a constructor was given: nothing, an array, or the variable itself."""
    which = name.rpartition("/")[-1]
    if isinstance(value, keras.Variable):
        raise TypeError(
            f"{title}: {which} must be an array, a tf.Variable or a tfp.util.TransformedVariable, "
            "got a keras.Variable. Give its `value`."
        )
    given = isinstance(value, (tf.Variable, tfp.util.DeferredTensor))
    if given and value.dtype != dtype:
        raise TypeError(
            f"{title}: {which} must be {dtype.name}, got {tf.as_dtype(value.dtype).name}. Make "
            "the variable with dtype, or give `dtype=`."
        )
    if value is None:
        value = np.broadcast_to(start, shape)
    elif not given:
        value = np.asarray(value)
    if tuple(value.shape) != tuple(shape):
        # It would broadcast, and a log-det miss what it scales.
        raise ValueError(
            f"{title}: {which} must have the shape {list(shape)}, got {list(value.shape)}. Use "
            "tf.broadcast_to."
        )
    return (
        value
        if given
        else tf.Variable(value, dtype=dtype, trainable=trainable, name=name, **kwargs)
    )
