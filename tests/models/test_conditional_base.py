"""A distribution that takes a context itself, as a model and as the base of a flow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, conditioners, flows

tfd = tfp.distributions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype("float32")
CONTEXT = RNG.normal(size=(40, 2)).astype("float32")


def made():
    return flows.made([3], output="normal", hidden_units=(16,), context_size=2, seed=0)


def flow():
    coupling = bijectors.AffineCoupling(
        conditioners.MLP(4, hidden_units=(8,), seed=1), np.array([True, False, False])
    )
    return tfd.TransformedDistribution(made(), coupling)


@pytest.mark.parametrize("make", [made, flow])
def test_trains_scores_samples_saves_and_exports(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = FlowModel(make())
    assert model.context_size == 2
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(X, CONTEXT, epochs=2, verbose=0)
    scores = model.log_prob(X, CONTEXT)
    assert not np.allclose(scores, model.log_prob(X, CONTEXT[::-1]))
    samples = model.sample(5, context=CONTEXT[:5], seed=1)
    assert samples.shape == [5, 3]
    assert not np.allclose(samples, model.sample(5, context=CONTEXT[5:10], seed=1))
    model.save(tmp_path / "m.keras")
    restored = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(restored.log_prob(X, CONTEXT), scores, rtol=1e-5)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    np.testing.assert_allclose(served.log_prob(X, CONTEXT)["log_prob"], scores, rtol=1e-5)
    drawn = served.sample(tf.constant(5), tf.constant([0, 1]), CONTEXT[:5])["samples"]
    np.testing.assert_allclose(drawn, samples, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="a context of shape .*2.* is required"):
        model.log_prob(X)


def test_a_temperature_needs_a_mean():
    model = FlowModel(made())
    with pytest.raises(ValueError, match="has no mean, which a temperature other than 1"):
        model.sample(5, context=CONTEXT[:5], temperature=0.5)
