"""Models, data and closed forms that the tests of FlowModel share."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows

tfb, tfd = tfp.bijectors, tfp.distributions

X = np.random.default_rng(0).normal(size=(40, 2)).astype("float32") * [1.0, 2.0] + [0.5, -1.0]
X = X.astype("float32")
C = np.random.default_rng(1).normal(size=(40, 3)).astype("float32")
W = np.random.default_rng(2).uniform(0.0, 2.0, size=40).astype("float32")


def real_nvp(**kwargs):
    kwargs = {"num_couplings": 2, "hidden_units": (4,), "activation": "tanh", "seed": 0, **kwargs}
    return flows.real_nvp([2], **kwargs)


def gaussian(dtype=tf.float32):
    """N(loc, scale) of raw variables: everything about it is known in closed form."""
    loc = tf.Variable([0.3, -0.2], dtype=dtype, name="loc")
    scale = tf.Variable([1.5, 0.7], dtype=dtype, name="scale")
    base = tfd.Sample(tfd.Normal(tf.zeros([], dtype), tf.ones([], dtype)), [2])
    return tfd.TransformedDistribution(base, tfb.Chain([tfb.Shift(loc), tfb.Scale(scale)]))


def gaussian_nll(x, loc=(0.3, -0.2), scale=(1.5, 0.7)):
    z = (np.asarray(x, np.float64) - loc) / scale
    return (0.5 * z**2 + np.log(scale) + 0.5 * np.log(2 * np.pi)).sum(axis=1)


def compiled(distribution, optimizer=None, **kwargs):
    model = FlowModel(distribution)
    model.compile(optimizer=optimizer or keras.optimizers.SGD(0.05), **kwargs)
    return model


def weights(model):
    return [v.numpy().copy() for v in model.variables]


def same(a, b, **kwargs):
    for u, v in zip(a, b, strict=True):
        np.testing.assert_allclose(u, v, **kwargs)


def fitted(distribution, x, y=None, epochs=2, **kwargs):
    model = compiled(distribution)
    model.fit(x, y, epochs=epochs, shuffle=False, batch_size=16, verbose=0, **kwargs)
    return model
