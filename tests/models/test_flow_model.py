"""FlowModel: the loss, forms of data, what is trained, and that it learns."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import C, W, X, compiled, fitted, gaussian, gaussian_nll, real_nvp, same, weights

from tfp_flows import FlowModel, bijectors, conditioners, flows, masks

tfb, tfd = tfp.bijectors, tfp.distributions


# --- The loss, by hand. ---


def test_evaluate_and_predict_in_closed_form():
    model, nll = compiled(gaussian()), gaussian_nll(X)
    # 40 rows in batches of 16: the last batch is uneven, and counts by its rows.
    np.testing.assert_allclose(model.evaluate(X, batch_size=16, verbose=0), nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, batch_size=16, verbose=0), -nll, rtol=1e-4)
    np.testing.assert_allclose(model.log_prob(X), -nll, rtol=1e-4)
    assert model.evaluate(X, verbose=0, return_dict=True).keys() == {"loss"}


def test_weighted_loss_by_hand():
    """As Keras has it: the weighted sum over the number of rows."""
    wanted = (W * gaussian_nll(X)).mean()
    model = compiled(gaussian(), keras.optimizers.SGD(0.0))
    data = tf.data.Dataset.from_tensor_slices({"x": X, "sample_weight": W}).batch(16)
    validation = {"validation_data": (X, None, W)}
    for got in (
        model.evaluate(X, sample_weight=W, batch_size=16, verbose=0),
        model.fit(X, batch_size=16, verbose=0, **validation).history["val_loss"][0],
        model.evaluate(data, verbose=0),
        model.fit(X, sample_weight=W, batch_size=16, verbose=0).history["loss"][0],
        model.fit(data, verbose=0).history["loss"][0],
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-5)


@pytest.mark.parametrize("weight", [None, W])
def test_one_step_of_sgd_by_hand(weight):
    model = compiled(gaussian(), keras.optimizers.SGD(0.1))
    model.fit(X, sample_weight=weight, batch_size=40, shuffle=False, verbose=0)
    loc, scale = np.array([0.3, -0.2]), np.array([1.5, 0.7])
    w = np.ones(40) if weight is None else weight
    z = (X - loc) / scale
    d_loc = (w[:, np.newaxis] * -z / scale).mean(axis=0)
    d_scale = (w[:, np.newaxis] * (1.0 - z**2) / scale).mean(axis=0)
    raw = {v.name: v.numpy() for v in model.distribution.trainable_variables}
    np.testing.assert_allclose(raw["loc:0"], loc - 0.1 * d_loc, rtol=1e-4)
    np.testing.assert_allclose(raw["scale:0"], scale - 0.1 * d_scale, rtol=1e-4)


def test_bits_per_dim():
    flow = flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    x = np.random.default_rng(0).normal(size=(20, 4, 4, 1)).astype("float32")
    model = compiled(flow)
    model.initialize(x)
    nats, bits = model.evaluate(x, batch_size=8, verbose=0)
    np.testing.assert_allclose(nats, -np.mean(model.log_prob(x)), rtol=1e-5)
    np.testing.assert_allclose(bits, nats / (16 * np.log(2.0)), rtol=1e-5)
    assert set(model.fit(x, verbose=0).history) == {"bits_per_dim", "loss"}
    without = FlowModel(flow, bits_per_dim=False)
    assert [m.name for m in without.metrics] == ["loss"]
    assert [m.name for m in FlowModel(gaussian(), bits_per_dim=True).metrics][1] == "bits_per_dim"


def test_added_losses_and_regularizers_count():
    class Penalized(conditioners.MLP):
        def call(self, x, context=None):
            self.add_loss(tf.reduce_sum(tf.square(self.weights[0])))
            return super().call(x, context=context)

    def make(network):
        layer = network(2, hidden_units=(4,), seed=0)
        base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
        return tfd.TransformedDistribution(base, bijectors.AffineCoupling(layer, masks.halves(2)))

    plain, penalized = (
        fitted(make(network), X, epochs=1) for network in (conditioners.MLP, Penalized)
    )
    before = conditioners.MLP(2, hidden_units=(4,), seed=0)
    before.build((None, 1))
    shrunk = np.abs(penalized.conditioners[0].weights[0]).sum()
    assert shrunk < 0.9 * np.abs(plain.conditioners[0].weights[0]).sum()
    assert shrunk < 0.9 * np.abs(before.weights[0]).sum()


# --- Forms of data. ---


def test_every_form_of_data_trains_alike():
    wanted = weights(fitted(real_nvp(), X))
    for data in (
        tf.constant(X),
        tf.data.Dataset.from_tensor_slices(X).batch(16),
        {"x": X},
        tf.data.Dataset.from_tensor_slices({"x": X}).batch(16),
    ):
        dataset = isinstance(data, tf.data.Dataset)
        model = compiled(real_nvp())
        options = {} if dataset else {"batch_size": 16, "shuffle": False}
        model.fit(data, epochs=2, verbose=0, **options)
        same(weights(model), wanted, rtol=1e-4, atol=1e-6)


def test_every_form_of_context_trains_alike():
    def make():
        return real_nvp(context_size=3)

    wanted = weights(fitted(make(), X, C))
    for x, y in (((X, C), None), ({"x": X, "context": C}, None)):
        same(weights(fitted(make(), x, y)), wanted, rtol=1e-4, atol=1e-6)
    for data in ((X, C), {"x": X, "context": C}, ({"x": X, "context": C},)):
        model = compiled(make())
        model.fit(tf.data.Dataset.from_tensor_slices(data).batch(16), epochs=2, verbose=0)
        same(weights(model), wanted, rtol=1e-4, atol=1e-6)
    model = fitted(make(), X, C)
    wanted = model.log_prob(X, C)
    np.testing.assert_allclose(model.evaluate(X, C, verbose=0), -np.mean(wanted), rtol=1e-5)
    for data in ((X, C), {"x": X, "context": C}):
        np.testing.assert_allclose(model.predict(data, verbose=0), wanted, rtol=1e-4, atol=1e-5)
    dataset = tf.data.Dataset.from_tensor_slices((X, C)).batch(16)
    np.testing.assert_allclose(model.predict(dataset, verbose=0), wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(model((X, C)), wanted, rtol=1e-5)


def test_context_with_sample_weights():
    data = tf.data.Dataset.from_tensor_slices((X, C, W)).batch(16)
    model = compiled(real_nvp(context_size=3), keras.optimizers.SGD(0.0))
    wanted = -(W * model.log_prob(X, C)).numpy().mean()
    both = {"x": X, "context": C}
    for got in (
        model.evaluate(X, C, sample_weight=W, verbose=0),
        model.evaluate(data, verbose=0),
        model.fit(X, C, sample_weight=W, verbose=0).history["loss"][0],
        model.fit((X, C), sample_weight=W, verbose=0).history["loss"][0],
        model.evaluate(both, sample_weight=W, verbose=0),
        model.fit(X, C, validation_data=(X, C, W), verbose=0).history["val_loss"][0],
    ):
        np.testing.assert_allclose(got, wanted, rtol=1e-4)


def test_scalar_events():
    scale = tf.Variable(2.0)
    model = compiled(tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfb.Scale(scale)))
    model.fit(X[:, 0], verbose=0)
    assert model.log_prob(X[:, 0]).shape == (40,) and model.sample(3, seed=0).shape == (3,)


def test_validation():
    model = compiled(gaussian(), keras.optimizers.SGD(0.0))
    history = model.fit(X, validation_data=(X[:7],), verbose=0).history
    np.testing.assert_allclose(history["val_loss"][0], gaussian_nll(X[:7]).mean(), rtol=1e-5)
    history = model.fit(X, validation_split=0.25, verbose=0).history
    np.testing.assert_allclose(history["val_loss"][0], gaussian_nll(X[30:]).mean(), rtol=1e-5)
    np.testing.assert_allclose(history["loss"][0], gaussian_nll(X[:30]).mean(), rtol=1e-5)
    conditional = compiled(real_nvp(context_size=3), keras.optimizers.SGD(0.0))
    wanted = -np.mean(conditional.log_prob(X[:7], C[:7]))
    for data in (
        (X[:7], C[:7]),
        tf.data.Dataset.from_tensor_slices((X[:7], C[:7])).batch(4),
    ):
        history = conditional.fit(X, C, validation_data=data, verbose=0).history
        np.testing.assert_allclose(history["val_loss"][0], wanted, rtol=1e-5)
    history = conditional.fit((X, C), validation_split=0.25, verbose=0).history
    wanted = -np.mean(conditional.log_prob(X[30:], C[30:]))
    np.testing.assert_allclose(history["val_loss"][0], wanted, rtol=1e-5)


@pytest.mark.parametrize("bad", ["NaN", "float64", "shape"])
def test_validation_data_are_checked(bad):
    x, error, message = {
        "NaN": (np.where(np.eye(40, 2) > 0, np.nan, X).astype("float32"), ValueError, "hold NaN"),
        "float64": (X.astype("float64"), TypeError, "expected float32 data, got float64"),
        "shape": (X[:, :1], ValueError, r"\[batch, 2\], got \[40, 1\]"),
    }[bad]
    model = compiled(gaussian())
    before = weights(model)
    with pytest.raises(error, match=message):
        model.fit(X, validation_data=(x,), verbose=0)
    same(before, weights(model))


# --- What is trained. ---


def test_raw_variables_are_trained():
    flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), trainable_base=True, seed=0)
    distribution = tfd.TransformedDistribution(flow, tfb.Scale(tf.Variable([2.0, 2.0])))
    model = compiled(distribution)
    assert len(model.trainable_variables) == 4 + 2 + 1
    before = [v.numpy().copy() for v in distribution.trainable_variables]
    model.fit(X, verbose=0)
    for old, variable in zip(before, distribution.trainable_variables, strict=True):
        moved = not np.array_equal(old, variable.numpy())
        # Behind a zero last layer no gradient reaches the first layer in the first steps.
        assert moved or "0" in variable.name, variable.name


def test_frozen_layer():
    model = compiled(real_nvp())
    model.conditioners[0].trainable = False
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    frozen, free = ([v.numpy().copy() for v in c.variables] for c in model.conditioners)
    model.fit(X, verbose=0)
    same(frozen, [v.numpy() for v in model.conditioners[0].variables], rtol=0)
    assert any(
        not np.array_equal(a, b) for a, b in zip(free, model.conditioners[1].variables, strict=True)
    )


def test_nothing_to_train():
    fixed = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), tfb.Scale(2.0))
    model = FlowModel(fixed)
    np.testing.assert_allclose(model.log_prob(X), fixed.log_prob(X), rtol=1e-6)
    for act in (model.compile, lambda: model.fit(X)):
        with pytest.raises(ValueError, match="has nothing to train: no tf.Variable and no Keras"):
            act()
    model = FlowModel(real_nvp())
    for layer in model.conditioners:
        layer.trainable = False
    model.compile()
    assert np.isfinite(model.evaluate(X, verbose=0))
    with pytest.raises(ValueError, match="has nothing to train: all its variables are frozen"):
        model.fit(X)


def test_each_variable_once():
    model = compiled(real_nvp())
    assert len({v.path for v in model.variables}) <= len(model.variables)
    raw = [id(v.value) for v in model.variables if "mean" not in v.path]
    wanted = {id(v) for v in model.distribution.variables}
    assert wanted <= set(raw) and sum(i in wanted for i in raw) == len(wanted)


# --- What it prints. ---


def test_summary():
    flow = flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0)
    lines = []
    model = FlowModel(flow, name="my_flow")
    model.summary(print_fn=lines.append)
    text = "\n".join(lines)
    assert lines[0] == "FlowModel 'my_flow', event shape [4, 4, 1]"
    rows = [line.split() for line in lines if line.startswith((" ", "a", "c", "f", "i", "s", "b"))]
    names = [row[0] for row in rows]
    for name in ("actnorm_1_0", "conv1x1_1_0", "coupling_1_0", "factor_out_1", "actnorm_2_0"):
        assert name in names
    assert names.index("actnorm_1_0") < names.index("coupling_1_0") < names.index("actnorm_2_0")
    total = sum(int(np.prod(v.shape)) for v in flow.variables)
    counted = [int(r[-1].replace(",", "")) for r in rows if r[-1].replace(",", "").isdigit()]
    assert sum(counted) == total
    assert f"parameters: {total:,}, of which trainable: " in text
    assert "  actnorm_2_0" in text, "what is inside of a part is indented"


# --- It learns. ---


def test_recovers_a_gaussian():
    """x = A e with A known: the NLL reaches the entropy of the sample's Gaussian."""
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(512, 2)) @ [[1.0, 0.8], [0.0, 0.6]]).astype("float32")
    best = 0.5 * np.linalg.slogdet(np.cov(x.T, bias=True))[1] + np.log(2 * np.pi) + 1.0
    model = compiled(real_nvp(), keras.optimizers.Adam(0.02))
    assert model.evaluate(x, verbose=0) > best + 0.2
    model.fit(x, batch_size=128, epochs=25, verbose=0)
    assert abs(model.evaluate(x, verbose=0) - best) < 0.05


def test_learns_a_conditional_density():
    """x | c ~ N(2 c, 0.5^2): the learned conditional mean follows c."""
    rng = np.random.default_rng(0)
    c = rng.uniform(-1.0, 1.0, size=(512, 1)).astype("float32")
    x = (2.0 * c + 0.5 * rng.normal(size=(512, 2))).astype("float32")
    best = 2 * (0.5 * np.log(2 * np.pi * np.e) + np.log(0.5))
    flow = flows.real_nvp([2], num_couplings=2, hidden_units=(16,), context_size=1, seed=0)
    model = compiled(flow, keras.optimizers.Adam(0.02))
    model.fit(x, c, batch_size=128, epochs=25, verbose=0)
    assert abs(model.evaluate(x, c, verbose=0) - best) < 0.15
    for value in (-0.8, 0.8):
        mean = np.mean(model.sample(500, seed=0, context=[[value]]), axis=0)
        np.testing.assert_allclose(mean, 2.0 * value, atol=0.2)
