"""What goes wrong under a strategy of two replicas, and what is said; run by test_bad_input.py.

Prints a line of JSON a case: its name, and the type and the text of the error.
"""

import json

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, distribute, flows, masks

tfd = tfp.distributions

STRATEGY = distribute.make_strategy(replicas=2)
X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def real_nvp(**kwargs):
    return flows.real_nvp([4], num_couplings=1, hidden_units=(4,), seed=0, **kwargs)


def model(flow=real_nvp, **kwargs):
    with STRATEGY.scope():
        found = FlowModel(flow())
        found.compile(**kwargs)
    return found


def central_storage():
    with tf.distribute.experimental.CentralStorageStrategy().scope():
        FlowModel(real_nvp())


def distribution_outside():
    flow = real_nvp()
    with STRATEGY.scope():
        FlowModel(flow)


def model_outside():
    with STRATEGY.scope():
        flow = real_nvp()
    FlowModel(flow)


def optimizer_outside():
    with STRATEGY.scope():
        found = FlowModel(real_nvp())
    found.compile(keras.optimizers.SGD(0.1))


def accumulation():
    with STRATEGY.scope():
        model(optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2))


def overwriting_averages():
    with STRATEGY.scope():
        model(optimizer=keras.optimizers.SGD(0.1, use_ema=True, ema_overwrite_frequency=2))


def compiled_elsewhere():
    found = FlowModel(real_nvp())
    with STRATEGY.scope():
        found.compile("sgd")


def fitted_elsewhere():
    found = FlowModel(real_nvp())
    found.compile("sgd")
    with STRATEGY.scope():
        found.fit(X, verbose=0)


def divided_too_late():
    distribute.make_strategy(replicas=3)


def loss_scale():
    with STRATEGY.scope():
        model(optimizer=keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1)))


def batch_norm_under_xla():
    model(lambda: flows.maf([4], hidden_units=(8,), normalization="batch_norm"), jit_compile=True)


def batch_of_one():
    model().fit(X, batch_size=1, verbose=0)


def dataset_of_one():
    model().fit(tf.data.Dataset.from_tensor_slices(X).batch(1, drop_remainder=True), verbose=0)


def copies(found):
    """All variables of a model and its optimizer, on every replica."""
    variables = [*found.variables, *found.optimizer.variables]
    local = STRATEGY.experimental_local_results
    return [copy.numpy() for v in variables for copy in local(v.value)]


def bad_row_of_the_second_replica(found, value, entry=slice(None)):
    found.fit(X, batch_size=16, epochs=1, verbose=0)
    before = copies(found)
    bad = X[:16].copy()
    bad[12, entry] = value
    try:
        found.fit(bad, batch_size=16, shuffle=False, verbose=0)
    finally:
        for old, new in zip(before, copies(found), strict=True):
            np.testing.assert_array_equal(old, new)


def infinity_on_one_replica():
    bad_row_of_the_second_replica(model(optimizer="sgd"), np.inf)


class Root(keras.layers.Layer):
    """An infinite slope at 0."""

    def build(self, input_shape):
        self.factor = self.add_weight(name="factor", shape=(), initializer="ones")

    def call(self, x):
        return 0.1 * tf.sqrt(tf.abs(self.factor * tf.concat([x, x], -1)))


def infinite_gradient_on_one_replica(**kwargs):
    def flow():
        coupling = bijectors.AffineCoupling(Root(), masks.halves(4), name="steep")
        base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
        return tfd.TransformedDistribution(base, coupling)

    bad_row_of_the_second_replica(model(flow, optimizer="adam", **kwargs), 0.0, 0)


def infinite_gradient_under_xla():
    infinite_gradient_on_one_replica(jit_compile=True)


CASES = [
    central_storage,
    distribution_outside,
    model_outside,
    optimizer_outside,
    accumulation,
    loss_scale,
    overwriting_averages,
    compiled_elsewhere,
    fitted_elsewhere,
    divided_too_late,
    batch_norm_under_xla,
    batch_of_one,
    dataset_of_one,
    infinity_on_one_replica,
    infinite_gradient_on_one_replica,
    infinite_gradient_under_xla,
]


def works_by_name():
    """An optimizer that is given by its name may be given outside the scope."""
    with STRATEGY.scope():
        found = FlowModel(real_nvp())
    found.compile("sgd")
    found.fit(X, batch_size=16, verbose=0)


def samples_of_replicas():
    """Samples drawn in the replicas with one seed, twice."""
    found = model()

    def draw():
        drawn = STRATEGY.run(lambda: found.sample(3, seed=1))
        return [v.numpy().tolist() for v in STRATEGY.experimental_local_results(drawn)]

    return {"first": draw(), "again": draw()}


if __name__ == "__main__":
    works_by_name()
    print(json.dumps({"samples": samples_of_replicas()}), flush=True)
    for case in CASES:
        error = None
        try:
            case()
        except Exception as found:
            error = f"{type(found).__name__}: {found}"
        print(json.dumps({case.__name__: error}), flush=True)
