"""Objectives: what they are, what they reach, and what a model and its files make of them."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, flows, objectives, preprocessing

tfb, tfd = tfp.bijectors, tfp.distributions


def gaussian(n=512, seed=0):
    """A skewed normal cloud and its entropy in nats."""
    rng = np.random.default_rng(seed)
    mixing = np.array([[0.5, 0.3], [0.0, 0.8]])
    x = rng.normal(size=(n, 2)) @ mixing + [1.0, -2.0]
    entropy = np.log(2 * np.pi * np.e) + np.log(abs(np.linalg.det(mixing)))
    return x.astype("float32"), entropy


def matching_flow(**kwargs):
    return flows.continuous([2], hidden_units=(32, 32), seed=0, **kwargs)


def affine_flow():
    """x = exp(a) z + b with two variables."""
    scale = tfp.util.TransformedVariable(tf.ones([2]), tfb.Exp(), name="scale")
    shift = tf.Variable(tf.zeros([2]), name="shift")
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    return tfd.TransformedDistribution(base, tfb.Chain([tfb.Shift(shift), tfb.Scale(scale)]))


TARGET = tfd.MultivariateNormalDiag([1.0, -1.0], [0.5, 2.0])
LOG_Z = 1.7


@keras.saving.register_keras_serializable(package="test_objectives")
def unnormalised(x):
    return TARGET.log_prob(x) + LOG_Z


# --- Flow matching. ---


def test_flow_matching_of_a_still_velocity_is_the_squared_distance():
    """Of a fresh flow, v = 0: E |x_1 - x_0|^2 = |x_1|^2 + D, for x_0 standard normal."""
    x = tf.constant([[1.0, 2.0]] * 20000)
    loss = objectives.FlowMatching().loss(matching_flow(), (x, None), [1, 2]).numpy()
    assert abs(loss.mean() - 7.0) < 5 * loss.std() / len(loss) ** 0.5


def test_flow_matching_is_the_formula():
    """With the noise and the times that its seeds give, through a preprocessing of the data."""
    scale = tfb.Scale(4.0)
    flow = tfd.TransformedDistribution(matching_flow(context_size=1), scale)
    for v in flow.trainable_variables:
        v.assign_add(tf.random.stateless_normal(v.shape, [7, 7]) * 0.3)
    x, context = tf.random.stateless_normal([5, 2], [3, 4]), tf.ones([5, 1]) * 0.2
    seeds = tf.random.experimental.stateless_split([1, 2], 2)
    start = flow.distribution.distribution.sample(5, seed=seeds[0])
    t = tf.random.stateless_uniform([5], seeds[1])[:, None]
    end = x / 4.0
    layer = flow.distribution.bijector.submodules[0].layer
    velocity = layer((1 - t) * start + t * end, context=tf.concat([t, context], axis=1))
    wanted = tf.reduce_sum((velocity - (end - start)) ** 2, axis=1)
    loss = objectives.FlowMatching().loss(flow, (x, context), [1, 2])
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)


def test_flow_matching_reaches_the_entropy():
    x, entropy = gaussian()
    model = FlowModel(matching_flow(), objective=objectives.FlowMatching())
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = model.fit(x, epochs=40, batch_size=128, verbose=0).history
    assert set(history) == {"loss"} and history["loss"][-1] < history["loss"][0]
    held_out, _ = gaussian(256, seed=1)
    loss, nats = model.evaluate(held_out, batch_size=256, verbose=0)
    np.testing.assert_allclose(nats, -np.mean(model.log_prob(held_out)), rtol=1e-5)
    assert entropy - 0.1 < nats < entropy + 0.15 and loss > 0.0


def test_optimal_transport_is_the_best_of_all_pairings():
    rng = np.random.default_rng(0)
    start, end = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    order = objectives.flow_matching._assignment(start, end)
    costs = [np.sum((start[list(p)] - end) ** 2) for p in itertools.permutations(range(6))]
    np.testing.assert_allclose(np.sum((start[order] - end) ** 2), min(costs))


def test_optimal_transport_shortens_the_paths():
    x, _ = gaussian(64)
    batch = tf.constant(x), None
    losses = [
        tf.reduce_mean(objectives.FlowMatching(c).loss(matching_flow(), batch, [1, 2]))
        for c in ("independent", "optimal_transport")
    ]
    assert losses[1] < 0.9 * losses[0]
    model = FlowModel(matching_flow(), objective=objectives.FlowMatching("optimal_transport"))
    model.compile()
    assert np.isfinite(model.fit(x, verbose=0).history["loss"][0])
    with pytest.raises(ValueError, match="XLA cannot compile this FlowMatching"):
        model.compile(jit_compile=True)


def test_flow_matching_under_xla():
    """Which draws other noise from a seed: the means of many rows are close."""
    x, _ = gaussian(4096)
    found = []
    for compiled in (False, True):
        model = FlowModel(matching_flow(), objective=objectives.FlowMatching())
        model.compile(optimizer="sgd", jit_compile=compiled)
        found.append(model.fit(x, batch_size=4096, verbose=0).history["loss"][0])
    assert abs(found[1] / found[0] - 1.0) < 0.1


# --- Reverse KL. ---


def test_reverse_kl_is_minus_log_z_where_the_flow_is_the_target():
    flow = affine_flow()
    flow.bijector.bijectors[0].shift.assign([1.0, -1.0])
    flow.bijector.bijectors[1].scale.assign([0.5, 2.0])
    loss = objectives.ReverseKL(unnormalised).loss(flow, tf.constant(50), [0, 1])
    np.testing.assert_allclose(loss, np.full(50, -LOG_Z), atol=1e-5)


def test_reverse_kl_needs_no_data_and_reaches_log_z():
    model = FlowModel(affine_flow(), objective=objectives.ReverseKL(unnormalised, num_samples=64))
    model.compile(optimizer=keras.optimizers.Adam(0.05))
    history = model.fit(steps_per_epoch=40, epochs=8, verbose=0)
    assert len(history.history["loss"]) == 8
    loss = model.evaluate(steps=20, verbose=0)
    assert -LOG_Z - 0.02 < loss < -LOG_Z + 0.02
    np.testing.assert_allclose(
        model.distribution.sample(20000, seed=1).numpy().std(0), [0.5, 2], rtol=0.1
    )


def test_the_same_training_twice_has_the_same_weights():
    """Seeds come from the step: also when the second half is another `fit`."""
    found = []
    for epochs in ([4], [2, 4]):
        model = FlowModel(affine_flow(), objective=objectives.ReverseKL(TARGET, num_samples=8))
        model.compile(optimizer="sgd")
        for first, last in zip([0, *epochs], epochs, strict=False):
            model.fit(steps_per_epoch=3, initial_epoch=first, epochs=last, verbose=0)
        found.append([v.numpy() for v in model.trainable_variables])
    for a, b in zip(*found, strict=True):
        np.testing.assert_array_equal(a, b)


# --- Models and files. ---


def test_maximum_likelihood_is_the_default():
    x, _ = gaussian(64)
    found = []
    for kwargs in ({}, {"objective": objectives.MaximumLikelihood()}):
        model = FlowModel(flows.real_nvp([2], num_couplings=2, hidden_units=(4,), seed=0), **kwargs)
        model.compile(optimizer="sgd")
        model.fit(x, shuffle=False, verbose=0)
        found.append(model.evaluate(x, verbose=0))
        loss = model.objective.loss(model.distribution, (tf.constant(x), None), [0, 1])
        np.testing.assert_allclose(found[-1], np.mean(loss), rtol=1e-5)
    assert found[0] == found[1]


@pytest.mark.parametrize("target", [TARGET, unnormalised])
def test_a_file_keeps_the_objective(tmp_path, target):
    model = FlowModel(affine_flow(), objective=objectives.ReverseKL(target, num_samples=8, seed=3))
    model.compile(optimizer="sgd")
    model.fit(steps_per_epoch=2, verbose=0)
    model.save(tmp_path / "model.keras")
    again = tfp_flows.load(tmp_path / "model.keras")
    assert (again.objective.num_samples, again.objective.seed) == (8, 3)
    for each in (model, again):
        each.fit(steps_per_epoch=2, verbose=0)
    for a, b in zip(model.variables, again.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_file_says_that_it_lacks_the_target(tmp_path):
    model = FlowModel(affine_flow(), objective=objectives.ReverseKL(lambda x: x[:, 0]))
    model.save(tmp_path / "model.keras")
    again = tfp_flows.load(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.log_prob(tf.ones([2, 2])), model.log_prob(tf.ones([2, 2])))
    again.compile()
    with pytest.raises(ValueError, match="the target is not in the file.*<lambda>"):
        again.fit(steps_per_epoch=1, verbose=0)


def test_flow_matching_in_a_file(tmp_path):
    model = FlowModel(matching_flow(), objective=objectives.FlowMatching("optimal_transport"))
    model.save(tmp_path / "model.keras")
    again = tfp_flows.load(tmp_path / "model.keras")
    assert again.objective.coupling == "optimal_transport"


def test_a_loss_that_is_not_finite_stops():
    model = FlowModel(
        affine_flow(), objective=objectives.ReverseKL(lambda x: tf.math.log(-x[:, 0]))
    )
    model.compile()
    with pytest.raises(FloatingPointError, match="some rows of ReverseKL are not finite"):
        model.fit(steps_per_epoch=1, verbose=0)


def test_an_objective_of_ones_own():
    class Square(objectives.Objective):
        def loss(self, distribution, batch, seed):
            x, context = batch
            return tf.reduce_sum(distribution.bijector.inverse(x) ** 2, axis=-1)

    x, _ = gaussian(8)
    model = FlowModel(affine_flow(), objective=Square())
    model.compile()
    loss, nats = model.evaluate(x, verbose=0)
    np.testing.assert_allclose(loss, np.mean(np.sum(x**2, axis=1)), rtol=1e-5)
    np.testing.assert_allclose(nats, -np.mean(model.log_prob(x)), rtol=1e-5)


def fit(objective, *args, **kwargs):
    model = FlowModel(affine_flow(), objective=objective)
    model.compile()
    model.fit(*args, verbose=0, **kwargs)


REVERSE = objectives.ReverseKL(TARGET)
MATCHING = objectives.FlowMatching()
X = np.ones([4, 2], "float32")


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: FlowModel(affine_flow(), objective=objectives.FlowMatching()),
            "one bijectors.Con",
        ),
        (
            lambda: FlowModel(
                matching_flow(trainable_base=True), objective=objectives.FlowMatching()
            ),
            "trains the velocity alone, but 'base' has 2 variables",
        ),
        (
            lambda: FlowModel(
                matching_flow(context_size=2),
                objective=objectives.FlowMatching("optimal_transport"),
            ),
            "of other contexts",
        ),
        (lambda: objectives.FlowMatching("sorted"), "coupling must be one of"),
        (lambda: FlowModel(matching_flow(context_size=2), objective=REVERSE), "takes a context"),
        (
            lambda: FlowModel(
                tfd.TransformedDistribution(
                    tfd.Sample(tfd.Gamma(1.0, 1.0), 2), bijectors.ActNorm(2)
                ),
                objective=REVERSE,
            ),
            "ActNorm 'actnorm' is initialised from data",
        ),
        (
            lambda: FlowModel(
                flows.real_nvp([4, 4, 1], num_scales=1, num_blocks=1, filters=2),
                objective=REVERSE,
                dequantization=preprocessing.UniformDequantization(),
            ),
            "nothing to dequantize",
        ),
        (lambda: fit(REVERSE, X, steps_per_epoch=1), "needs no data.*got x"),
        (lambda: fit(REVERSE), "got no steps_per_epoch"),
        (lambda: fit(REVERSE, steps_per_epoch=1, validation_data=X), "got validation_data"),
        (
            lambda: fit(objectives.ReverseKL(lambda x: x), steps_per_epoch=1),
            r"one log-density a row, of shape \[n\] for x of shape \[n, 2\], got shape",
        ),
    ],
)
def test_bad_input(act, message):
    with pytest.raises(ValueError, match=message):
        act()


def test_wrong_types():
    with pytest.raises(TypeError, match="objective must be an Objective"):
        FlowModel(affine_flow(), objective="flow_matching")
    with pytest.raises(TypeError, match="target must be a function"):
        objectives.ReverseKL(3.0)
