"""Densities drawn with noise: bounds below the exact value, estimates that reach it."""

import itertools
import math

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows, objectives, preprocessing
from tfp_flows.distributions import StochasticDistribution, Surjected, condition

tfb, tfd = tfp.bijectors, tfp.distributions

X = np.random.default_rng(0).integers(0, 3, (23, 2)).astype("uint8")
LEVELS = preprocessing.UniformDequantization(3)


class Blurred(StochasticDistribution):
    """x = m + z + e of a standard normal z and e: N(m, 2), bounded by draws of e from N(0, 1)."""

    def __init__(self, mean, num_samples=None, name="blurred"):
        parameters = dict(locals())
        self.mean_of = mean
        super().__init__(
            num_samples=num_samples,
            dtype=tf.float32,
            reparameterization_type=tfd.FULLY_REPARAMETERIZED,
            parameters=parameters,
            name=name,
        )

    def _event_shape(self):
        return tf.TensorShape([2])

    def _draw_noise(self, shape, seed):
        return tf.random.stateless_normal([*shape, 2], seed)

    def _log_weight(self, x, noise, context=None):
        assert x.shape == noise.shape
        return tfd.Independent(tfd.Normal(self.mean_of + noise, 1.0), 1).log_prob(x)

    def _draw(self, shape, seed, context=None):
        shape = tf.concat([shape, [2]], 0)
        return self.mean_of + 2.0**0.5 * tf.random.stateless_normal(shape, seed)


def blurred(**kwargs):
    return Blurred(tf.Variable([1.0, -1.0]), **kwargs)


EXACT = tfd.MultivariateNormalDiag([1.0, -1.0], [2.0**0.5] * 2)
Y = EXACT.sample(5, seed=[0, 1])


def moved(distribution):
    """Behind a bijector of TFP, and its exact density: what composes on the road."""
    return tfd.TransformedDistribution(distribution, tfb.Scale(3.0))


def test_a_bound_is_below_and_its_estimate_reaches_the_exact_value():
    distribution = moved(blurred())
    model, x = FlowModel(distribution), 3.0 * Y
    exact = moved(EXACT).log_prob(x)
    assert model.likelihood == "bound" and model.num_samples is None
    draws = model.distribution.distribution.log_prob(tf.repeat(Y[None], 500, 0), seed=[0, 1])
    assert np.all(tf.reduce_mean(draws, 0) < exact + 2.0 * math.log(3.0) - 0.1)
    found = model.estimate_log_prob(x, num_samples=2000, batch_size=2)
    assert np.all(found.standard_error < 0.15) and np.all(found.standard_error > 0.001)
    np.testing.assert_array_less(np.abs(found.log_prob - exact), 4.0 * found.standard_error)
    # A row's is its own, wherever it stands, and the draws are those of the seed.
    again = model.estimate_log_prob(x[::-1][:3], num_samples=2000, batch_size=3)
    np.testing.assert_allclose(again.log_prob, found.log_prob[::-1][:3], rtol=1e-5)
    other = model.estimate_log_prob(x, num_samples=2000, batch_size=2, seed=1)
    assert np.all(np.abs(other.log_prob - found.log_prob) > 1e-6)
    np.testing.assert_array_less(
        np.abs(other.log_prob - found.log_prob), 5.0 * found.standard_error
    )


def test_standard_error_is_the_deviation_over_seeds():
    model = FlowModel(blurred())
    found = [model.estimate_log_prob(Y[:1], num_samples=96, seed=k) for k in range(40)]
    scatter = np.std([f.log_prob for f in found])
    np.testing.assert_allclose(np.mean([f.standard_error for f in found]), scatter, rtol=0.4)


def test_an_estimate_says_so_and_lies_between():
    distribution = blurred(num_samples=50)
    model = FlowModel(distribution)
    assert (model.likelihood, model.num_samples) == ("estimate", 50)
    one, many = (
        tf.reduce_mean(d.log_prob(tf.repeat(Y[None], 200, 0), seed=[1, 2]), axis=0)
        for d in (blurred(), distribution)
    )
    exact = EXACT.log_prob(Y)
    assert np.all(one < many) and np.all(many < exact + 0.02) and np.all(exact - many < 0.1)
    lines = []
    model.summary(print_fn=lines.append)
    assert "log_prob: estimate, of 50 samples" in lines
    # Its own draws are inside those of the model.
    found = model.estimate_log_prob(Y, num_samples=64)
    np.testing.assert_allclose(found.log_prob, exact, atol=0.1)


def test_scores_are_fixed_and_of_the_row_alone():
    model = FlowModel(blurred())
    scores = model.log_prob(Y)
    np.testing.assert_array_equal(scores, model.log_prob(Y))
    np.testing.assert_allclose(model.log_prob(Y[::-1][1:3]), scores[::-1][1:3], rtol=1e-6)
    np.testing.assert_allclose(model.log_prob(Y[2]), scores[2], rtol=1e-6)
    model.compile()
    np.testing.assert_allclose(model.predict(Y, batch_size=2, verbose=0), scores, rtol=1e-6)


def test_gradients_are_those_of_the_mean():
    """By pathwise draws against finite differences of the mean, on the same draws."""
    distribution = blurred()
    mean, noise = distribution.mean_of, distribution.draw_noise([1000, 5], [0, 1])
    x = tf.repeat(Y[tf.newaxis], 1000, axis=0)
    with tf.GradientTape() as tape:
        value = tf.reduce_mean(distribution.log_prob(x, noise=noise))
    found = tape.gradient(value, mean)
    for i in range(2):
        step, values = 0.5 * np.eye(2, dtype="float32")[i], []
        for sign in (1.0, -1.0):
            mean.assign_add(sign * step)
            values.append(float(tf.reduce_mean(distribution.log_prob(x, noise=noise))))
            mean.assign_sub(sign * step)
        np.testing.assert_allclose(found[i], values[0] - values[1], rtol=1e-3)


def test_training_draws_by_step():
    """Fresh noise every step, the same in every run, compiled or not."""

    def trained(**kwargs):
        model = FlowModel(blurred())
        model.compile(keras.optimizers.SGD(0.1), **kwargs)
        history = model.fit(Y, epochs=3, batch_size=2, shuffle=False, verbose=0)
        return model, history.history["loss"]

    model, losses = trained()
    again, same = trained(jit_compile=True)
    assert len(set(losses)) == 3
    np.testing.assert_allclose(losses, same, rtol=1e-5)
    np.testing.assert_allclose(
        model.distribution.mean_of, again.distribution.mean_of, rtol=1e-4, atol=1e-6
    )
    assert model.evaluate(Y, verbose=0) == model.evaluate(Y, verbose=0)


# --- Dequantization as the first guest. ---


def test_dequantized_uniform_is_exact_and_flows_are_bounded():
    die = Surjected(tfd.Sample(tfd.Uniform(0.0, 6.0), 2), preprocessing.UniformDequantization(6))
    draws = [die.log_prob(X, seed=k) for k in range(3)]
    assert die.log_prob(X[0], seed=0).shape == []
    np.testing.assert_allclose(draws, np.full([3, 23], -2.0 * math.log(6.0)), rtol=1e-6)
    flow = flows.maf([2], num_layers=1, hidden_units=(4,), seed=0)
    model = FlowModel(flow, dequantization=LEVELS)
    every = np.array(list(itertools.product(range(3), repeat=2)), "int32")
    found = model.estimate_log_prob(every, num_samples=400)
    # By the rule of midpoints over every cell, of 40 x 40 points.
    points = (np.arange(40) + 0.5) / 40.0
    grid = np.stack(np.meshgrid(points, points), axis=-1).reshape(-1, 2).astype("float32")
    cells = model.log_prob(every[:, None].astype("float32") + grid)
    exact = tf.reduce_logsumexp(cells, axis=1) - math.log(1600)
    np.testing.assert_array_less(np.abs(found.log_prob - exact), 4.0 * found.standard_error)
    assert model.likelihood == "bound"


def test_surjected_in_a_model_is_a_distribution_of_integers(tmp_path):
    flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), context_size=1, seed=0)
    distribution = tfd.TransformedDistribution(flow, tfb.Scale(3.0))
    model = FlowModel(Surjected(distribution, LEVELS))
    context = np.ones([23, 1], "float32")
    model.compile("sgd")
    model.fit(X, context, epochs=1, verbose=0)
    samples = model.sample(4, context=context[:1], seed=0)
    assert samples.dtype == tf.int32 and samples.shape == [4, 2]
    lines = []
    model.summary(print_fn=lines.append)
    names = [line.split()[0] for line in lines]
    wanted = ["uniform_dequantization", "scale", "coupling_0", "base", "log_prob:"]
    assert [name for name in names if name in wanted] == wanted
    cold = model.sample(100, context=context[:1], seed=0, temperature=1e-3)
    warm = model.sample(100, context=context[:1], seed=0)
    assert len(np.unique(cold, axis=0)) == 1 < len(np.unique(warm, axis=0))
    assert model._example.num_levels == 3
    scores = model.log_prob(X, context)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.log_prob(X, context), scores)
    model.export(tmp_path / "export")
    served = tf.saved_model.load(tmp_path / "export")
    np.testing.assert_allclose(
        served.log_prob(X.astype("int32"), context)["log_prob"], scores, rtol=1e-5
    )
    given = condition(model.distribution, context[:1])
    assert given.likelihood == "bound" and given.log_prob(X, seed=[0, 1]).shape == [23]
    manifest = (tmp_path / "export/assets.extra/manifest.json").read_text()
    assert '"likelihood": "bound"' in manifest
    with pytest.raises(ValueError, match="expected integers from 0 to 2"):
        model.log_prob(X + 1, context)


# --- Bad input. ---


def test_refusals():
    with pytest.raises(TypeError, match="distribution must be a tfd.Distribution, got int"):
        Surjected(1, LEVELS)
    with pytest.raises(TypeError, match="expected a StochasticTransform, got a Scale"):
        Surjected(EXACT, tfb.Scale(2.0))
    with pytest.raises(ValueError, match="num_samples must be an integer >= 1|num_samples must"):
        Surjected(EXACT, LEVELS, num_samples=0)
    with pytest.raises(ValueError, match="num_samples"):
        FlowModel(blurred()).estimate_log_prob(Y, num_samples=1)
    with pytest.raises(ValueError, match="'blurred' is a bound, drawn with noise, by which"):
        FlowModel(blurred()).complete(Y, np.array([True, False]))
    with pytest.raises(ValueError, match="'blurred' has a bound from below"):
        FlowModel(blurred(), objective=objectives.ReverseKL(EXACT, num_samples=4))
    mixture = tfd.Mixture(tfd.Categorical(probs=[0.5, 0.5]), [EXACT, blurred()])
    with pytest.raises(ValueError, match="its part 'blurred' is drawn with noise"):
        FlowModel(mixture)
    with pytest.raises(ValueError, match="must be one of exact, estimate, bound, got 'perhaps'"):
        bijectors.likelihood_of(type("Part", (), {"likelihood": "perhaps"})())


def test_an_exact_density_has_no_error():
    found = FlowModel(flows.maf([2], num_layers=1, hidden_units=(4,))).estimate_log_prob(Y)
    np.testing.assert_array_equal(found.standard_error, np.zeros(5))
