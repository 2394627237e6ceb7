"""Models that the tests of this folder export, small and with moved weights."""

import json
import os

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.export import MANIFEST

tfd = tfp.distributions


def moved(model, *, seed=1):
    """Adds noise to all trainable weights, so that nothing is tested at the identity."""
    rng = np.random.default_rng(seed)
    for variable in model.distribution.trainable_variables:
        noise = rng.normal(size=variable.shape, scale=0.1)
        variable.assign_add(tf.cast(noise, variable.dtype))
    return model


def vector_model(**kwargs):
    kwargs = {"num_couplings": 2, "hidden_units": (8,), "seed": 0, **kwargs}
    return moved(FlowModel(flows.real_nvp([4], **kwargs)))


def image_model(context_size=None):
    """A Glow over 4 x 4 images of 17 levels, which it dequantizes."""
    glow = flows.glow(
        [4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, context_size=context_size, seed=0
    )
    distribution = tfd.TransformedDistribution(glow, preprocessing.Logit(17.0))
    model = FlowModel(distribution, dequantization=preprocessing.UniformDequantization(17))
    x, context = images(32), None if context_size is None else vectors(32, context_size)
    model.initialize(x if context is None else (x, context))
    return moved(model)


def vectors(n, size=4, seed=2):
    return np.random.default_rng(seed).normal(size=(n, size)).astype(np.float32)


def images(n):
    return np.random.default_rng(3).integers(0, 17, size=(n, 4, 4, 1)).astype(np.uint8)


def signatures_of(path):
    # The functions hold their variables weakly: the loaded object must stay alive.
    loaded = tf.saved_model.load(str(path))
    found = dict(loaded.signatures)
    found["loaded"] = loaded
    return found


def manifest_of(path):
    with open(os.path.join(path, MANIFEST), encoding="utf-8") as file:
        return json.load(file)


def arguments(x, *, z=None, context=None, n=5, seed=(1, 2), temperature=1.0):
    """Something for every input that a signature may have."""
    found = {
        "x": x,
        "z": x if z is None else z,
        "n": np.int32(n),
        "seed": np.array(seed, np.int32),
        "temperature": temperature,
    }
    return found if context is None else {**found, "context": context}


def call(signature, values):
    """Calls a signature with what it asks for, in the dtypes that it asks for."""
    specs = signature.structured_input_signature[1]
    return signature(**{name: tf.cast(values[name], s.dtype) for name, s in specs.items()})
