"""What tests draw: points, parameters, and weights away from their start."""

import numpy as np
import tensorflow as tf


def points(*shape, seed=0):
    """Normal points, every second one in the tails."""
    x = np.random.default_rng(seed).normal(size=(4, *shape))
    x[1::2] *= 3.0
    return x


def parameters_of(elementwise, shape, dtype=np.float64, seed=0, scale=1.0):
    """Parameters of an elementwise map for arguments of this shape."""
    rng = np.random.default_rng(seed)
    size = elementwise.num_parameters * shape[-1]
    return rng.normal(size=(*shape[:-1], size), scale=scale).astype(dtype)


def perturbed(part, scale=0.3, seed=0):
    """A bijector or a distribution, noise added to all its weights."""
    rng = np.random.default_rng(seed)
    for variable in part.trainable_variables:
        noise = rng.normal(size=variable.shape, scale=scale)
        variable.assign_add(tf.cast(noise, variable.dtype))
    return part
