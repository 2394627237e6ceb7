"""What a user is told who did something that cannot go well."""

import traceback
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows, masks, preprocessing, testing

tfd = tfp.distributions


def maf(**kwargs):
    return flows.maf([3], num_layers=1, hidden_units=(8,), seed=0, **kwargs)


def fitted(flow, x, **kwargs):
    model = FlowModel(flow)
    model.compile("adam", **kwargs)
    model.fit(x, verbose=0)
    return model


@pytest.mark.parametrize("eager", [False, True])
def test_data_outside_the_support_name_the_column_in_one_line(eager):
    x = np.random.default_rng(0).uniform(size=(40, 3)).astype("float32")
    x[5, 1] = 1.5
    with pytest.raises(FloatingPointError) as error:
        fitted(maf(support=(0, 1)), x, run_eagerly=eager)
    message = str(error.value)
    assert "Sigmoid 'support', whose value is not finite in 1 of" in message
    assert "at entry 1 (the largest absolute value it was given is 1.5)" in message
    assert "\n" not in message
    # No way through TensorFlow's inside, and the message once.
    shown = "".join(traceback.format_exception(error.value))
    assert shown.count("whose value is not finite") == 1 and "script_ops" not in shown


def test_data_that_are_not_standardized():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    x[:, 1] = 100.0 + 3.0 * x[:, 1]
    message = (
        r"1 of the 3 entries of a row are not standardized \(entry \[1\]; entry 1 has the mean"
    )
    with pytest.warns(UserWarning, match=message):
        fitted(maf(), x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scaled = preprocessing.Standardize.fit(x)
        fitted(tfd.TransformedDistribution(maf(), scaled), x)
        fitted(maf(), (x - x.mean(axis=0)) / x.std(axis=0))


def test_a_sequential_with_a_context_says_what_to_wrap():
    with pytest.raises(ValueError, match="a Sequential has one input. Make a keras.Model"):
        network = keras.Sequential([keras.layers.Dense(4)])
        bijectors.Coupling(network, masks.halves(4), context_size=2)


def test_in_an_outer_model_actnorm_needs_no_context():
    flow = maf(normalization="actnorm", context_size=2)
    inner, other = FlowModel(flow), FlowModel(maf(normalization="actnorm", context_size=2))
    x = 5.0 + np.random.default_rng(0).normal(size=(200, 3)).astype("float32")
    inner.initialize(x)
    other.initialize((x, np.random.default_rng(1).normal(size=(200, 2)).astype("float32")))
    for a, b in zip(inner.weights, other.weights, strict=True):
        np.testing.assert_array_equal(a, b)
    data, raw = keras.Input([3]), keras.Input([4])
    outer = keras.Model([data, raw], inner((data, keras.layers.Dense(2)(raw))))
    outer.compile("adam", loss=lambda _, log_prob: -log_prob)
    history = outer.fit([x, np.ones([200, 4])], np.zeros(200), epochs=2, verbose=0).history
    assert history["loss"][1] < history["loss"][0] < 6.0


def test_the_harness_does_not_warn_of_retracing(caplog):
    for name in ("a", "b"):
        testing.assert_bijector(
            lambda dtype, name=name: bijectors.Rescale([3], dtype=dtype, name=name),
            np.random.default_rng(0).normal(size=(3, 3)),
            event_ndims=1,
        )
    assert not [r for r in caplog.records if "retracing" in r.getMessage()]
    assert tf.get_logger().propagate


def above_two(x, log_prob):
    return tf.cast(tf.reduce_max(x, axis=-1) > 2.0, tf.float32)


def square(x, log_prob):
    return log_prob**2


@pytest.mark.parametrize("options", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=str)
def test_metrics_of_data_and_their_log_probabilities(options):
    x = 2.0 * np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    model = FlowModel(maf())
    model.compile("adam", metrics=[above_two, square], **options)
    # Uneven batches: a mean of all rows, not of batches.
    history = model.fit(x, batch_size=32, epochs=1, verbose=0, validation_data=(x,)).history
    share = (x.max(axis=1) > 2.0).mean()
    np.testing.assert_allclose(history["above_two"], [share], rtol=1e-6)
    loss, above, squares = model.evaluate(x, verbose=0)
    log_prob = model.log_prob(x).numpy()
    np.testing.assert_allclose([loss, above], [-log_prob.mean(), share], rtol=1e-5)
    np.testing.assert_allclose([squares, history["val_square"][0]], (log_prob**2).mean(), rtol=1e-5)


def test_metrics_do_not_train():
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    models = [FlowModel(maf()) for _ in range(2)]
    for model, metrics in zip(models, ([square], None), strict=True):
        model.compile("adam", metrics=metrics)
        model.fit(x, shuffle=False, verbose=0)
    for a, b in zip(models[0].weights, models[1].weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-8)


def test_what_is_no_metric():
    model = FlowModel(maf())
    with pytest.raises(TypeError, match="a metric must be a function of .x, log_prob."):
        model.compile(metrics=["accuracy"])
    with pytest.raises(ValueError, match="two metrics are named 'square'"):
        model.compile(metrics=[square, square])
    model.compile(metrics=[lambda x, log_prob: tf.reduce_mean(x)])
    with pytest.raises(ValueError, match=r"must give one number for each row, of shape \[batch\]"):
        model.fit(np.zeros([8, 3], "float32"), verbose=0)
