"""The recipes maf, iaf and made."""

import functools
import itertools

import drawn
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows

perturb = functools.partial(drawn.perturbed, seed=1)

tfd = tfp.distributions


@pytest.mark.parametrize("recipe", [flows.maf, flows.iaf])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"elementwise": "rational_quadratic_spline", "num_bins": 3},
        {"order": "random", "residual": True, "normalization": "actnorm"},
    ],
)
def test_integrates_to_one_and_samples_follow_the_density(recipe, kwargs):
    flow = perturb(recipe([2], num_layers=2, hidden_units=(8,), seed=0, **kwargs), scale=0.2)
    edges = np.linspace(-18.0, 18.0, 481)
    centres = 0.5 * (edges[1:] + edges[:-1])
    grid = np.stack(np.meshgrid(centres, centres, indexing="ij"), -1).reshape(-1, 2)
    density = np.exp(flow.log_prob(tf.constant(grid, tf.float32)).numpy()).reshape(480, 480)
    cell = (edges[1] - edges[0]) ** 2
    np.testing.assert_allclose(density.sum() * cell, 1.0, atol=3e-3)
    samples = flow.sample(20000, seed=[0, 1]).numpy()
    histogram = np.histogram2d(*samples.T, bins=edges)[0] / len(samples)
    # Pooled to cells of 1.8: the counts differ from the density by their own noise alone.
    pooled = [m.reshape(20, 24, 20, 24).sum((1, 3)) for m in (histogram, density * cell)]
    noise = np.sqrt(pooled[1] * (1 - pooled[1]) / len(samples)) + 1e-3
    assert (np.abs(pooled[0] - pooled[1]) / noise).max() < 5.0


@pytest.mark.parametrize("recipe", [flows.maf, flows.iaf])
def test_orders_between_layers(recipe):
    def orders(order):
        parts = recipe([5], num_layers=3, hidden_units=(8,), order=order, seed=4).bijector.bijectors
        return [part.conditioner.input_degrees.tolist() for part in parts]

    up, down = [1, 2, 3, 4, 5], [5, 4, 3, 2, 1]
    assert orders("reversed") == [up, down, up]
    assert orders("same") == [up, up, up]
    random = orders("random")
    assert random[0] == up and random[1] not in (up, random[2])
    assert random == orders("random")


def test_seed_fixes_the_weights_and_layers_differ():
    flow, same, other = (flows.maf([4], num_layers=2, hidden_units=(8,), seed=s) for s in (0, 0, 1))
    for a, b in zip(flow.variables, same.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (flow.trainable_variables[0].numpy() != other.trainable_variables[0].numpy()).any()
    first, second = (p.conditioner.trainable_variables[0] for p in flow.bijector.bijectors)
    assert (first.numpy() != second.numpy()).any()


def test_normalizations_and_images():
    flow = flows.maf((2, 3, 1), num_layers=2, hidden_units=(8,), normalization="actnorm", seed=0)
    kinds = [type(p).__name__ for p in flow.bijector.bijectors]
    assert kinds == ["Reshape"] + ["ActNorm", "MaskedAutoregressive"] * 2
    assert flow.event_shape == (2, 3, 1)
    assert flow.sample(4, seed=[0, 1]).shape == (4, 2, 3, 1)
    flow = flows.iaf([3], num_layers=1, hidden_units=(8,), normalization="batch_norm", seed=0)
    assert [type(p) for p in flow.bijector.bijectors] == [
        bijectors.BatchNorm,
        bijectors.InverseAutoregressive,
    ]


def test_iaf_posterior_samples_with_its_density_and_gradients():
    posterior = perturb(flows.iaf([3], num_layers=2, hidden_units=(8,), context_size=2, seed=0))
    context = tf.constant(np.random.default_rng(0).normal(size=(5, 2)), tf.float32)
    kwargs = {"bijector_kwargs": {"context": context}}
    with tf.GradientTape() as tape:
        tape.watch(context)
        z, log_q = posterior.experimental_sample_and_log_prob(
            5, seed=[0, 1], bijector_kwargs={"context": context}
        )
        elbo = tf.reduce_mean(-tf.reduce_sum(z**2, -1) - log_q)
    np.testing.assert_allclose(
        log_q, posterior.log_prob(tf.identity(z), **kwargs), rtol=1e-4, atol=1e-4
    )
    gradients = tape.gradient(elbo, [context, *posterior.trainable_variables])
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_maf_fits_a_density():
    keras.utils.set_random_seed(0)  # The order of the rows moves the result by 0.03.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(600, 2)).astype("float32")
    x[:, 1] = x[:, 0] ** 2 + 0.3 * x[:, 1]
    entropy = np.log(2 * np.pi * np.e) + np.log(0.3)  # of the density that made x
    model = FlowModel(
        flows.maf([2], num_layers=2, hidden_units=(32,), normalization="batch_norm", seed=0)
    )
    model.compile(optimizer="adam")
    model.optimizer.learning_rate = 0.01
    model.fit(x, batch_size=100, epochs=40, verbose=0)
    assert model.evaluate(x, verbose=0) < entropy + 0.15


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"order": "sorted"}, "order must be one of"),
        ({"normalization": "layer"}, "normalization must be one of"),
        ({"num_layers": 0}, "num_layers"),
        ({"elementwise": "cubic"}, "affine"),
        ({"event_shape": [2, 2]}, "event_shape"),
    ],
)
@pytest.mark.parametrize("recipe", [flows.maf, flows.iaf])
def test_wrong_arguments(recipe, kwargs, message):
    with pytest.raises(ValueError, match=message):
        recipe(**{"event_shape": [3], "hidden_units": (4,), **kwargs})


@pytest.mark.parametrize("recipe", [flows.maf, flows.iaf])
def test_narrow_layers_warn_and_integers_are_refused(recipe):
    with pytest.warns(UserWarning, match="dependency"):
        flow = recipe([9], num_layers=1, hidden_units=(4,), seed=0)
    model = FlowModel(flow)
    with pytest.raises(TypeError, match="[Dd]equantiz"):
        model.log_prob(np.zeros((2, 9), np.int32))
    with pytest.raises(TypeError, match="int32.*Discrete ones.*UniformDequantization"):
        flow.log_prob(tf.zeros([2, 9], tf.int32))


# --- MADE as a density. ---

ALL = np.array(list(itertools.product([0, 1], repeat=5)), np.float32)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"order": [4, 2, 0, 1, 3], "residual": True},
        {"num_masks": 3, "order": "random", "degrees": "random"},
        {"num_masks": 2, "order": "random", "context_size": 2},
    ],
)
def test_bernoulli_sums_to_one_and_samples_follow_it(kwargs):
    density = perturb(flows.made([5], hidden_units=(24,), seed=0, **kwargs), scale=1.0)
    context = {"context": tf.constant([0.5, -1.0])} if "context_size" in kwargs else {}
    p = np.exp(density.log_prob(ALL, **context).numpy())
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    assert p.max() > 0.1  # no longer uniform
    n = 20000
    samples = density.sample(n, seed=[1, 2], **context).numpy()
    assert set(np.unique(samples)) == {0.0, 1.0}
    counts = np.bincount((samples @ 2 ** np.arange(4, -1, -1)).astype(int), minlength=32)
    assert (np.abs(counts / n - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


@pytest.mark.parametrize("output", ["normal", "gaussian_mixture"])
def test_made_of_real_numbers_is_a_density(output):
    kwargs = {"num_components": 3, "cap": 1.0} if output == "gaussian_mixture" else {}
    masks = {"num_masks": 2, "order": "random"}
    density = perturb(flows.made([2], output=output, hidden_units=(8,), seed=1, **masks, **kwargs))
    line = np.linspace(-15, 15, 301)
    grid = np.stack(np.meshgrid(line, line), -1).astype(np.float32)
    p = np.exp(density.log_prob(grid).numpy())
    np.testing.assert_allclose(p.sum() * 0.1**2, 1.0, atol=1e-3)
    samples = density.sample(20000, seed=[0, 1]).numpy()
    mean = (p[..., None] * grid).sum((0, 1)) * 0.1**2
    np.testing.assert_allclose(samples.mean(0), mean, atol=0.05)
    variance = (p[..., None] * (grid - mean) ** 2).sum((0, 1)) * 0.1**2
    np.testing.assert_allclose(samples.var(0), variance, rtol=0.05)


@pytest.mark.parametrize("output", ["categorical", "discretized_logistic_mixture"])
def test_made_of_levels_sums_to_one_and_samples_follow_it(output):
    density = perturb(
        flows.made(
            [3],
            output=output,
            num_levels=3,
            hidden_units=(24,),
            num_masks=2,
            order="random",
            context_size=2,
            seed=0,
        )
    )
    context = tf.constant([0.5, -1.0])
    everything = np.array(list(itertools.product(range(3), repeat=3)), np.int32)
    p = np.exp(density.log_prob(everything, context=context))
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    n = 20000
    samples = density.sample(n, seed=[1, 2], context=context).numpy()
    counts = np.bincount((samples @ [9, 3, 1]).astype(int), minlength=27)
    assert (np.abs(counts / n - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


def test_training_takes_one_set_of_masks_a_step_in_turn():
    density = perturb(
        flows.made([5], hidden_units=(24,), num_masks=3, order="random", degrees="random", seed=0)
    )
    each = []
    for _ in range(4):
        with bijectors.training_mode():
            each.append(density.log_prob(ALL).numpy())
    np.testing.assert_array_equal(each[0], each[3])
    assert all((each[i] != each[j]).any() for i, j in [(0, 1), (0, 2), (1, 2)])
    mixture = np.log(np.mean(np.exp(each[:3]), axis=0))
    np.testing.assert_allclose(density.log_prob(ALL), mixture, rtol=1e-4, atol=1e-5)


def test_an_ensemble_trains_by_fit():
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = (rng.random((400, 5)) < 0.5).astype("float32")
    x[:, 3] = x[:, 0]  # what one entry says about another
    density = flows.made([5], hidden_units=(32,), num_masks=4, order="random", seed=0)
    model = FlowModel(density)
    model.compile(optimizer="adam")
    model.optimizer.learning_rate = 0.01
    model.fit(x, batch_size=100, epochs=60, verbose=0)
    assert model.evaluate(x, verbose=0) < 4 * np.log(2) + 0.15  # four free bits
    samples = model.sample(500, seed=0).numpy()
    assert (samples[:, 3] == samples[:, 0]).mean() > 0.9


def test_binary_data_of_any_type_and_what_is_impossible():
    density = perturb(flows.made([5], hidden_units=(8,), seed=0))
    wanted = density.log_prob(ALL).numpy()
    np.testing.assert_array_equal(density.log_prob(ALL.astype(np.int32)), wanted)
    np.testing.assert_array_equal(density.log_prob(ALL > 0), wanted)
    grey = ALL[:3].copy()
    grey[0, 0], grey[1, 0] = 2.0, -0.1
    assert np.isneginf(density.log_prob(grey).numpy()).tolist() == [True, True, False]


def test_made_refuses():
    with pytest.raises(ValueError, match="output must be one of"):
        flows.made([3], output="poisson")
    density = flows.made([3], hidden_units=(8,), validate_args=True)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Binarize"):
        density.log_prob(tf.constant([[0.0, 1.0, 0.3]]))
    with pytest.raises(ValueError, match="context"):
        density.log_prob(tf.zeros([1, 3]), context=tf.zeros([1, 2]))
    with pytest.raises(TypeError, match="expected float32, got float64.*Cast"):
        density.log_prob(tf.zeros([1, 3], tf.float64))
    density = flows.made([3], output="normal", hidden_units=(8,))
    with pytest.raises(TypeError, match="int32.*Discrete values have no density"):
        density.log_prob(tf.zeros([1, 3], tf.int32))
    with pytest.raises(ValueError, match="context"):
        flows.made([3], hidden_units=(8,), context_size=2).sample(3, seed=[0, 1])
