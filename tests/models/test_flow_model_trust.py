"""What `FlowModel` refuses, so that a training is never another one than was meant."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from models.fitting import X, compiled, gaussian, real_nvp, same, weights

from tfp_flows import FlowModel, bijectors, conditioners, masks

tfb, tfd = tfp.bijectors, tfp.distributions


def test_models_of_different_dtypes_fit_in_threads():
    """Keras casts arrays to a floatx that all threads share: nobody may set it."""
    found, errors = {}, []

    def fit(dtype):
        try:
            model = compiled(gaussian(tf.as_dtype(dtype)))
            x = X.astype(dtype)
            model.fit(x, epochs=3, batch_size=10, validation_data=(x,), shuffle=False, verbose=0)
            model.evaluate(x, verbose=0)
            assert model.predict(x, verbose=0).dtype == dtype
            found[dtype] = weights(model)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=fit, args=[dtype]) for dtype in ("float32", "float64")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors and keras.config.floatx() == "float32"
    same(found["float32"], found["float64"], rtol=1e-5)


def empty_datasets():
    data = tf.data.Dataset.from_tensor_slices(X[:0]).batch(4)
    return {"known": data, "unknown": data.filter(lambda x: True)}


@pytest.mark.parametrize("kind", ["known", "unknown"])
@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_an_empty_dataset_is_an_error(kind, method):
    model = compiled(gaussian())
    before = weights(model)
    with pytest.raises(ValueError, match="no data: the dataset is empty. Look at its filters"):
        getattr(model, method)(empty_datasets()[kind], verbose=0)
    same(weights(model), before)


class OwnLoss(FlowModel):
    def compute_loss(self, *args, **kwargs):
        return 0.0


class OwnCall(FlowModel):
    def call(self, inputs, training=False):
        self.add_loss(tf.constant(1.0))
        return super().call(inputs, training)


@pytest.mark.parametrize("kind, method", [(OwnLoss, "compute_loss"), (OwnCall, "call")])
def test_methods_that_training_does_not_call(kind, method):
    with pytest.raises(TypeError, match=f"{kind.__name__}.compile: it overrides `{method}`, which"):
        kind(gaussian()).compile("adam")


class AddsLoss(keras.layers.Dense):
    def call(self, x, training=False):
        self.add_loss(tf.constant(0.5))
        return super().call(x)


def test_added_losses_are_in_the_reported_loss():
    """A layer's `add_loss` and regularizers train, so `fit` and `evaluate` report them."""
    layer = AddsLoss(2, kernel_regularizer=keras.regularizers.L2(0.1))
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    flow = tfd.TransformedDistribution(base, bijectors.AffineCoupling(layer, masks.halves(2)))
    model = FlowModel(flow, bits_per_dim=True)
    model.compile(keras.optimizers.SGD(0.0))
    nats = -np.mean(model.log_prob(X))
    wanted = nats + 0.5 + 0.1 * np.sum(np.square(layer.kernel))
    history = model.fit(X, batch_size=15, epochs=1, verbose=0)  # the last batch is smaller
    np.testing.assert_allclose(history.history["loss"][0], wanted, rtol=1e-5)
    loss, bits = model.evaluate(X, batch_size=15, verbose=0)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(bits, nats / 2 / np.log(2), rtol=1e-5)  # the density's own


def test_stateless_call_with_raw_variables_is_refused():
    model = FlowModel(real_nvp(actnorm=True))
    x = tf.constant(X)
    model.initialize(x)
    values = [v.value for v in model.trainable_variables]
    rest = [v.value for v in model.non_trainable_variables]
    with pytest.raises(NotImplementedError, match="given values would be ignored. Assign the"):
        model.stateless_call(values, rest, x)
    coupling = bijectors.AffineCoupling(
        conditioners.MLP(2, hidden_units=(4,), zero_output=False, seed=0), masks.halves(2)
    )
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    model = FlowModel(tfd.TransformedDistribution(base, coupling))
    changed = [v.value + 0.1 for v in model.trainable_variables]
    got, _ = model.stateless_call(changed, [], x)
    for v, value in zip(model.trainable_variables, changed, strict=True):
        v.assign(value)
    np.testing.assert_allclose(got, model.log_prob(x), rtol=1e-6)


@keras.saving.register_keras_serializable(package="trust")
class Widths(FlowModel):
    """Builds its flow from numbers of its own."""

    def __init__(self, widths, *, scale=1.0, **kwargs):
        self.scale = scale
        super().__init__(real_nvp(hidden_units=widths), **kwargs)


def test_a_subclass_keeps_its_constructor_arguments(tmp_path):
    model = Widths((3, 5), scale=0.5, name="wide")
    model.compile("adam")
    model.fit(X, epochs=1, verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert type(again) is Widths and again.scale == 0.5 and again.name == "wide"
    same(weights(again), weights(model))
    lost = Widths((3,), scale=object())
    with pytest.raises(ValueError, match="no file can describe this model.*scale"):
        lost.save(tmp_path / "lost.keras")
