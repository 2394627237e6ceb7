"""FlowModel of distributions of integers: TFP's, and this package's."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from causal_networks import Steps

from tfp_flows import FlowModel, distributions, flows, preprocessing

tfd = tfp.distributions

RNG = np.random.default_rng(0)
BITS = (RNG.random((200, 3)) < [0.9, 0.5, 0.2]).astype("uint8")
LEVELS = RNG.choice(5, p=[0.5, 0.2, 0.1, 0.1, 0.1], size=(200, 2, 2, 1)).astype("uint8")


def bernoulli():
    return tfd.Independent(tfd.Bernoulli(logits=tf.Variable(tf.zeros(3))), 1)


def categorical():
    return tfd.Independent(tfd.Categorical(logits=tf.Variable(tf.zeros([2, 2, 1, 5]))), 3)


def network():
    output = distributions.get_output(
        "discretized_logistic_mixture", num_levels=5, num_components=2
    )
    layer = Steps(output.num_parameters, [0, 1, 2, 3])
    return distributions.AutoregressiveDistribution(layer, [2, 2, 1], output=output)


def mades():
    return flows.made([3], hidden_units=(8,), num_masks=2, order="random", seed=0)


def fitted(distribution, x):
    keras.utils.set_random_seed(0)
    model = FlowModel(distribution)
    model.compile(keras.optimizers.Adam(0.1))
    model.fit(x, verbose=0, batch_size=100, epochs=30)
    return model


def entropy(x):
    """Mean nats of rows, if their entries were independent."""
    flat = x.reshape(len(x), -1)
    shares = [np.unique(column, return_counts=True)[1] / len(x) for column in flat.T]
    return -sum((p * np.log(p)).sum() for p in shares)


@pytest.mark.parametrize(
    "make, x", [(bernoulli, BITS), (categorical, LEVELS), (network, LEVELS), (mades, BITS)]
)
def test_trains_scores_samples_saves_and_exports(make, x, tmp_path):
    model = fitted(make(), x)
    nats = model.evaluate(x, verbose=0)
    if x is LEVELS:
        nats, bits = nats
        np.testing.assert_allclose(bits, nats / (4 * np.log(2)), rtol=1e-6)
    assert nats < entropy(x) + 0.1
    # The plain distribution says the same, and any integer dtype does.
    scores = model.log_prob(x)
    assert scores.dtype == tf.float32
    plain = model.distribution.log_prob(tf.cast(x, model.distribution.dtype))
    np.testing.assert_allclose(scores, plain, rtol=1e-6)
    np.testing.assert_array_equal(model.log_prob(x.astype("int64")), scores)
    np.testing.assert_allclose(model.predict(x, verbose=0), scores, rtol=1e-5)
    samples = model.sample(2000, seed=1)
    assert samples.dtype == model.distribution.dtype
    assert np.mean(model.log_prob(samples)) == pytest.approx(-nats, abs=0.2)
    drawn, log_prob = model.sample_and_log_prob(5, seed=1)
    np.testing.assert_allclose(log_prob, model.log_prob(drawn), rtol=1e-5)
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.log_prob(x), scores)
    np.testing.assert_array_equal(again.sample(9, seed=2), model.sample(9, seed=2))
    model.export(tmp_path / "served")
    served = tf.saved_model.load(tmp_path / "served")
    data = tf.cast(x, model.distribution.dtype)
    np.testing.assert_allclose(served.log_prob(data)["log_prob"], scores, rtol=1e-5)
    seed = tf.constant([0, 2])
    np.testing.assert_array_equal(
        served.sample(tf.constant(9), seed)["samples"], model.sample(9, seed=[0, 2])
    )
    if data.dtype.is_integer:
        with pytest.raises(tf.errors.InvalidArgumentError, match="integers from 0 to"):
            served.log_prob(data + 4)
    with pytest.raises(tf.errors.InvalidArgumentError, match="a temperature other than 1"):
        served.sample(tf.constant(9), seed, tf.constant(1.5))


def test_a_dataset_a_context_and_xla():
    x = tf.data.Dataset.from_tensor_slices((LEVELS, LEVELS[:, 0, 0] / np.float32(4))).batch(64)
    made = flows.made(
        [2, 2, 1],
        output="categorical",
        num_levels=5,
        hidden_units=(12,),
        context_size=1,
        seed=0,
    )
    model = FlowModel(made)
    model.compile(keras.optimizers.Adam(0.05), jit_compile=True)
    model.fit(x, epochs=40, verbose=0)
    # The context tells the first entry.
    assert model.evaluate(x, verbose=0)[0] < entropy(LEVELS[:, 0, 1:]) + entropy(LEVELS[:, 1]) + 0.3


@pytest.mark.parametrize(
    "make",
    [
        categorical,
        lambda: flows.made([2, 2, 1], output="categorical", num_levels=5, hidden_units=(8,)),
    ],
)
def test_integers_out_of_the_levels(make):
    model = FlowModel(make())
    model.compile()
    wrong = LEVELS.astype("int32")
    wrong[3] = 5
    message = "expected integers from 0 to 4, the 5 levels of the distribution, got values from"
    for act in (model.fit, model.evaluate, model.log_prob):
        with pytest.raises(ValueError, match=message):
            act(wrong)
        with pytest.raises(ValueError, match=message):
            act(LEVELS.astype("int8") - 1)
    with pytest.raises(ValueError, match=message):
        model.fit(tf.data.Dataset.from_tensor_slices(wrong).batch(50), verbose=0)


def test_floats_are_no_integers():
    model = FlowModel(categorical())
    model.compile()
    message = r"expected integers \(of any dtype\), got float32: a fraction would be cut"
    for x in (LEVELS.astype("float32"), tf.data.Dataset.from_tensors(LEVELS.astype("float32"))):
        with pytest.raises(TypeError, match=message):
            model.fit(x, verbose=0)
    with pytest.raises(TypeError, match=message):
        model.log_prob(LEVELS.astype("float32"))
    # Where events are floating numbers, whole ones are the integers that they say.
    made = FlowModel(flows.made([2, 2, 1], output="categorical", num_levels=5, hidden_units=(8,)))
    whole = LEVELS.astype("float32")
    np.testing.assert_array_equal(made.log_prob(whole), made.log_prob(LEVELS))
    with pytest.raises(ValueError, match="got values from 0.5 to 4.5, fractions among them"):
        made.log_prob(whole + np.float32(0.5))


def test_what_integers_do_not_have():
    model = FlowModel(categorical())
    with pytest.raises(ValueError, match="a temperature other than 1.*integers have none"):
        model.sample(3, temperature=0.5)
    with pytest.raises(ValueError, match="no way between integers"):
        model.interpolate(LEVELS[0], LEVELS[1], 3)
    np.testing.assert_array_equal(model.sample(3, seed=1, quantized=True), model.sample(3, seed=1))
    whole = flows.made([3], hidden_units=(8,), seed=0)
    assert FlowModel(whole).sample(3, seed=1, quantized=True).dtype == tf.int32
    assert model.rareness(LEVELS[:3], num_samples=20).shape == [3]
    with pytest.raises(ValueError, match="no dequantization. Leave it out"):
        FlowModel(categorical(), dequantization=preprocessing.UniformDequantization(5))
    assert model.inverse(LEVELS[:2]).dtype == tf.int32


def test_the_weights_give_the_dtype():
    logits = tf.Variable(tf.zeros(3, tf.float64))
    model = FlowModel(tfd.Independent(tfd.Bernoulli(logits=logits), 1))
    assert model.log_prob(BITS).dtype == tf.float64
    assert FlowModel(bernoulli()).dtype == "float32"
