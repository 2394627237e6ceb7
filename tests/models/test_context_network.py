"""A Keras network between raw conditions and the context, trained with the flow."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from models.fitting import X, gaussian, real_nvp, same, weights

import tfp_flows
from tfp_flows import FlowModel

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 5, size=len(X))
IMAGES = RNG.normal(size=(len(X), 4, 4, 1)).astype("float32")


def of_labels():
    return keras.Sequential([keras.layers.Embedding(5, 3), keras.layers.Dense(3, "tanh")])


def of_images():
    return keras.Sequential(
        [keras.layers.Conv2D(2, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


def of_both():
    label, image = (
        keras.Input([], dtype="int64", name="label"),
        keras.Input([4, 4, 1], name="image"),
    )
    joined = keras.layers.Concatenate()(
        [keras.layers.Embedding(5, 2)(label), keras.layers.Flatten()(image)]
    )
    return keras.Model({"label": label, "image": image}, keras.layers.Dense(3)(joined))


KINDS = {
    "labels": (of_labels, LABELS),
    "images": (of_images, IMAGES),
    "both": (of_both, {"label": LABELS, "image": IMAGES}),
}


def some(raw, rows):
    return tf.nest.map_structure(lambda a: a[rows], raw)


@pytest.mark.parametrize("kind", KINDS)
def test_raw_conditions_everywhere(kind, tmp_path):
    make, raw = KINDS[kind]
    keras.utils.set_random_seed(0)
    model = FlowModel(real_nvp(context_size=3, actnorm=True), context_network=make())
    model.compile(keras.optimizers.Adam(0.01))
    history = model.fit(X, raw, epochs=3, batch_size=10, verbose=0)
    assert history.history["loss"][-1] < history.history["loss"][0]
    assert len(model.trainable_variables) > len(model.distribution.trainable_variables)
    # As by hand, with the context that the network gives.
    context = model.context_network(raw)
    plain = FlowModel(model.distribution)
    np.testing.assert_allclose(model.log_prob(X, raw), plain.log_prob(X, context), rtol=1e-5)
    np.testing.assert_allclose(
        model.predict((X, raw), verbose=0), plain.log_prob(X, context), rtol=1e-5
    )
    loss = model.evaluate(X, raw, verbose=0)
    np.testing.assert_allclose(loss, -np.mean(plain.log_prob(X, context)), rtol=1e-5)
    samples, log_prob = model.sample_and_log_prob(len(X), context=raw, seed=0)
    np.testing.assert_allclose(log_prob, plain.log_prob(samples, context), rtol=1e-4)
    assert model.sample([3, len(X)], context=raw).shape == (3, len(X), 2)
    if kind == "labels":
        for own in (raw.tolist(), range(5)):
            drawn = model.sample(len(own), context=own, seed=0)
            wanted = model.sample(len(own), context=np.asarray(own), seed=0)
            np.testing.assert_array_equal(drawn, wanted)
    back = model.forward(model.inverse(X, raw), raw)
    np.testing.assert_allclose(back, X, rtol=1e-4, atol=1e-4)
    # Files and exports.
    model.save(tmp_path / "m.keras")
    again = tfp_flows.load(tmp_path / "m.keras")
    same(weights(again), weights(model))
    for one in (model, again):
        one.fit(X, raw, epochs=1, batch_size=10, shuffle=False, verbose=0)
    same(weights(again), weights(model), rtol=1e-5, atol=1e-6)
    again.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served")).signatures["log_prob"]
    rows = slice(0, 3)
    contexts = some(raw, rows) if isinstance(raw, dict) else {"context": some(raw, rows)}
    contexts = {name: tf.constant(value) for name, value in contexts.items()}
    got = served(x=tf.constant(X[rows]), **contexts)["log_prob"]
    np.testing.assert_allclose(got, again.log_prob(X[rows], some(raw, rows)), rtol=1e-5)


def test_of_a_dataset_with_a_backup(tmp_path):
    data = tf.data.Dataset.from_tensor_slices((X, LABELS)).batch(8)

    def fit(epochs, folder):
        keras.utils.set_random_seed(0)
        model = FlowModel(real_nvp(context_size=3), context_network=of_labels())
        model.compile(keras.optimizers.SGD(0.1))
        backup = keras.callbacks.BackupAndRestore(tmp_path / folder, delete_checkpoint=False)
        model.fit(data, epochs=epochs, callbacks=[backup], verbose=0)
        return model

    fit(1, "cut")
    same(weights(fit(3, "cut")), weights(fit(3, "whole")), rtol=1e-5, atol=1e-6)


def test_what_is_refused():
    with pytest.raises(ValueError, match="got a context_network, but no part of the distribution"):
        FlowModel(gaussian(), context_network=of_labels())
    with pytest.raises(TypeError, match="context_network must be a keras.layers.Layer"):
        FlowModel(real_nvp(context_size=3), context_network=lambda c: c)
    wrong = keras.Sequential([keras.layers.Embedding(5, 4)], name="wide")
    model = FlowModel(real_nvp(context_size=3), context_network=wrong)
    message = r"its context_network 'wide': expected a context of shape \[\.\.\., 3\], got \[1, 4\]"
    with pytest.raises(ValueError, match=message):
        model.log_prob(X, LABELS)
    model = FlowModel(real_nvp(context_size=3), context_network=of_labels())
    with pytest.raises(ValueError, match="export: the shapes of its raw contexts are not known"):
        model.export("nowhere")
    with pytest.raises(ValueError, match=r"a context of shape \[\.\.\., 3\] is required, got none"):
        model.log_prob(X)
    model.compile(run_eagerly=True)
    for label, others in ((-1, LABELS), (5, LABELS), (2.5, LABELS.astype("float32"))):
        wrong = np.where(np.arange(len(X)) == 3, label, others)
        message = rf"labels from 0 to 4, .* got {label}. Number them so, or give the Embedding a"
        for use in (model.log_prob, model.fit, model.evaluate):
            with pytest.raises(ValueError, match=message):
                use(X, wrong)
    in_graph = tf.function(lambda c: model.log_prob(X, c))
    with pytest.raises(tf.errors.InvalidArgumentError, match="expected labels from 0 to 4"):
        in_graph(tf.where(tf.range(len(X)) == 3, -1, tf.cast(LABELS, tf.int32)))
