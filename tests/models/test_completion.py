"""Draws of hidden entries given the others, against closed forms and the joint samples."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from drawn import perturbed

from tfp_flows import (
    FlowModel,
    bijectors,
    conditioners,
    distributions,
    flows,
    masks,
    preprocessing,
    tables,
)
from tfp_flows.models import completion

tfb, tfd = tfp.bijectors, tfp.distributions


COVARIANCE = np.array([[2.0, 0.9, -0.5], [0.9, 1.0, 0.3], [-0.5, 0.3, 1.5]])


def gaussian():
    """A normal distribution as a flow: the conditionals are known."""
    root = tf.Variable(np.linalg.cholesky(COVARIANCE))
    bijector = tfb.Chain(
        [tfb.Shift(tf.constant([1.0, 0.0, -2.0], tf.float64)), tfb.ScaleMatvecTriL(root)]
    )
    base = tfd.Independent(tfd.Normal(tf.zeros(3, tf.float64), 1.0), 1)
    return tfd.TransformedDistribution(base, bijector)


def moments_given(mask, x):
    mean = np.array([1.0, 0.0, -2.0])
    k, h = np.flatnonzero(mask), np.flatnonzero(~mask)
    gain = COVARIANCE[np.ix_(h, k)] @ np.linalg.inv(COVARIANCE[np.ix_(k, k)])
    covariance = COVARIANCE[np.ix_(h, h)] - gain @ COVARIANCE[np.ix_(k, h)]
    return mean[h] + gain @ (x[k] - mean[k]), covariance


def test_of_a_normal_distribution_any_entries():
    model = FlowModel(gaussian())
    x = np.array([[2.0, -1.0, 0.5], [0.0, 0.7, -4.0]])
    mask = np.array([[False, True, False], [True, False, True]])
    draws, effective = model.complete(x, mask, 2000, seed=1, num_steps=30)
    assert draws.shape == (2000, 2, 3) and effective.shape == (2,)
    assert (effective.numpy() > 1500).all() and (effective.numpy() <= 8000).all()
    for row in range(2):
        mean, covariance = moments_given(mask[row], x[row])
        drawn = draws.numpy()[:, row]
        np.testing.assert_array_equal(drawn[:, mask[row]], np.tile(x[row, mask[row]], [2000, 1]))
        hidden = drawn[:, ~mask[row]]
        error = np.sqrt(np.diag(covariance) / effective.numpy()[row])
        assert (np.abs(hidden.mean(axis=0) - mean) < 5.0 * error).all()
        np.testing.assert_allclose(np.cov(hidden.T), covariance.squeeze(), atol=0.15)
    # What is hidden is not looked at.
    same = model.complete(np.where(mask, x, np.nan), mask, 2000, seed=1, num_steps=30)
    np.testing.assert_allclose(same.draws, draws, rtol=1e-9)


def test_the_weights_are_right_where_the_first_particles_are_wrong():
    """Two narrow peaks of unequal weight, neither where a normal distribution has its mass."""
    width = tf.Variable([[0.4, 0.4]] * 2, dtype=tf.float64)
    parts = tfd.MixtureSameFamily(
        tfd.Categorical(probs=np.array([0.8, 0.2])),
        tfd.MultivariateNormalDiag(np.array([[-2.0, -2.0], [2.0, 2.0]]), width),
        reparameterize=True,
    )
    draws, effective = FlowModel(parts).complete(
        np.zeros([1, 2]), np.array([False, False]), 1000, seed=0, num_steps=200
    )
    share = (draws.numpy()[:, 0, 0] < 0.0).mean()
    assert abs(share - 0.8) < 5.0 * np.sqrt(0.16 / float(effective[0]))
    np.testing.assert_allclose(draws.numpy().std(axis=(0, 1)), np.sqrt(0.16 + 0.64 * 4.0), rtol=0.1)


def triangular():
    shared = {"num_layers": 2, "hidden_units": (8, 8), "seed": 0, "dtype": "float64"}
    coupling = bijectors.AffineCoupling(
        conditioners.MLP(4, hidden_units=(8,), seed=0, dtype="float64"),
        masks.halves(4),
        dtype="float64",
    )
    base = tfd.Independent(tfd.Normal(tf.zeros(4, tf.float64), 1.0), 1)
    return {
        "maf": flows.maf([4], order="same", **shared),
        "scaled": tfd.TransformedDistribution(
            flows.maf([4], order="same", **shared), tfb.Sigmoid(np.float64(-8.0), np.float64(8.0))
        ),
        "coupling": tfd.TransformedDistribution(base, coupling),
    }


@pytest.mark.parametrize("name", ["maf", "scaled", "coupling"])
def test_exact_draws_are_those_of_the_conditional_density(name):
    model = FlowModel(perturbed(triangular()[name]))
    mask = np.array([True, True, False, False])
    x = model.sample(3, seed=4).numpy()
    draws, effective = model.complete(np.where(mask, x, np.nan), mask, 4000, seed=0)
    np.testing.assert_array_equal(effective, [4000.0] * 3)
    np.testing.assert_array_equal(draws[..., :2], np.broadcast_to(x[:, :2], (4000, 3, 2)))
    # Against annealed draws of the same, which use the density alone.
    shuffled = FlowModel(tfd.TransformedDistribution(model.distribution, tfb.Permute([3, 2, 1, 0])))
    found = shuffled.complete(x[:, ::-1], mask[::-1], 500, seed=0, num_steps=30)
    spread = draws.numpy().std(axis=0)
    error = 5.0 * spread * np.sqrt(1.0 / 4000 + 1.0 / found.effective_sample_size.numpy()[:, None])
    off = np.abs(draws.numpy().mean(axis=0) - found.draws.numpy()[..., ::-1].mean(axis=0))
    assert (off <= error + 1e-12).all()
    np.testing.assert_allclose(found.draws.numpy().std(axis=0)[:, :2], spread[:, :1:-1], rtol=0.15)


def test_exact_draws_of_an_inverse_autoregressive_flow():
    flow = flows.iaf([3], num_layers=2, hidden_units=(8,), order="same", seed=0, dtype="float64")
    model = FlowModel(perturbed(flow))
    mask = np.array([True, False, False])
    x = model.sample(2, seed=4)
    draws, _ = model.complete(x, mask, 500, seed=0)
    z = model.inverse(draws).numpy()
    np.testing.assert_allclose(z[..., 0], np.tile(model.inverse(x)[:, 0], [500, 1]), rtol=1e-6)
    np.testing.assert_allclose(z[..., 1:].mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose(z[..., 1:].std(axis=0), 1.0, atol=0.15)


def densities():
    """Pixels from left to right, top to bottom; the last are of 3 channels each, drawn as one."""
    shared = {"filters": 4, "num_layers": 1, "seed": 0}
    coupled = distributions.get_output(
        "discretized_logistic_mixture", num_levels=2, num_components=2, coupled=True
    )
    return {
        "levels": flows.pixel_cnn([2, 2, 1], output="categorical", num_levels=3, **shared),
        "given a class": flows.pixel_cnn([2, 2, 1], output="bernoulli", context_size=1, **shared),
        "whole pixels": distributions.AutoregressiveDistribution(Triples(), [2, 3], output=coupled),
    }


@keras.saving.register_keras_serializable(package="tests")
class Triples(keras.layers.Layer):
    """Parameters of a step's three entries from the sum of those before."""

    num_steps, step_entries = 2, np.arange(6).reshape(2, 3)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(3, 24), name="kernel")
        self.bias = self.add_weight(shape=(24,), name="bias")

    def init_cache(self, n, context, dtype):
        return tf.zeros([n, 3], dtype)

    def step(self, cache, s, previous):
        cache = cache + previous
        out = tf.matmul(cache, tf.convert_to_tensor(self.kernel)) + tf.convert_to_tensor(self.bias)
        return tf.reshape(out, [-1, 8, 3]), cache

    def call(self, x):
        before = tf.cumsum(x, axis=1, exclusive=True)
        return tf.matmul(before, tf.convert_to_tensor(self.kernel)) + self.bias


@pytest.mark.parametrize("name, first", [("levels", 3), ("given a class", 2), ("whole pixels", 3)])
def test_entries_of_a_discrete_density_are_drawn_in_its_order(name, first):
    model = FlowModel(perturbed(densities()[name], 1.0))
    event, levels = model.event_shape.as_list(), model.distribution.num_levels
    mask = (np.arange(np.prod(event)) < first).reshape(event)
    x = np.random.default_rng(3).integers(levels, size=(2, *event))
    rest = {"context": np.float32([[0.5], [-2.0]])} if "class" in name else {}
    n = 4000
    # What is hidden is not looked at, be it no level.
    draws, effective = model.complete(np.where(mask, x, -7), mask, n, seed=1, **rest)
    assert draws.dtype == tf.int32 and draws.shape == (n, 2, *event)
    np.testing.assert_array_equal(effective, [n, n])
    # Against the joint probabilities of all that the hidden entries may be.
    every = np.array(list(itertools.product(range(levels), repeat=int((~mask).sum()))))
    for row in range(2):
        filled = np.tile(x[row], [len(every), *[1] * len(event)])
        filled[:, ~mask] = every
        own = {"context": rest["context"][row]} if rest else {}
        p = tf.nn.softmax(model.log_prob(filled, **own)).numpy()
        drawn = draws.numpy()[:, row]
        np.testing.assert_array_equal(drawn[:, mask], np.tile(x[row][mask], [n, 1]))
        places = drawn[:, ~mask] @ (levels ** np.arange(every.shape[1])[::-1])
        share = np.bincount(places, minlength=len(every)) / n
        assert (np.abs(share - p) < 5.0 * np.sqrt(p * (1.0 - p) / n) + 1e-3).all()
    for refused in (~mask, np.eye(len(mask.reshape(-1)), dtype=bool)[1].reshape(event)):
        with pytest.raises(ValueError, match="all given entries must come before the hidden"):
            model.complete(x, refused, **rest)


def test_masks_of_their_own_and_a_density_under_a_bijector():
    model = FlowModel(perturbed(densities()["levels"]))
    x = np.random.default_rng(3).integers(3, size=(2, 2, 2, 1))
    masks_of_rows = np.arange(4).reshape(2, 2, 1) < np.array([1, 3]).reshape(2, 1, 1, 1)
    draws, _ = model.complete(x, masks_of_rows, 50, seed=1)
    assert (draws.numpy()[:, masks_of_rows] == x[masks_of_rows]).all()
    assert (draws.numpy()[:, 1, 1, 1] != draws.numpy()[0, 1, 1, 1]).any()
    mixture = flows.wavenet(
        [4, 1], output="gaussian_mixture", num_components=2, filters=4, dilations=(1, 2), seed=0
    )
    scaled = FlowModel(tfd.TransformedDistribution(perturbed(mixture), tfb.Scale(100.0)))
    x = np.float32([[[50.0], [-80.0], [0.0], [0.0]]])
    mask = np.arange(4)[:, np.newaxis] < 2
    draws = scaled.complete(np.where(mask, x, np.nan), mask, 3000, seed=0).draws.numpy()
    assert (draws[:, 0, :2] == x[0, :2]).all()
    # The next entry by quadrature of the joint density, whatever the last one is.
    grid = np.linspace(-2500.0, 2500.0, 2001)
    rows = np.tile(x, [len(grid), 1, 1])
    rows[:, 2, 0] = grid
    rows = rows.astype("float32")
    unscaled = perturbed(
        flows.wavenet(
            [3, 1], output="gaussian_mixture", num_components=2, filters=4, dilations=(1, 2), seed=0
        )
    )
    p = np.exp(unscaled.log_prob(rows[:, :3] / np.float32(100.0)).numpy().astype("float64"))
    mean = (grid * p).sum() / p.sum()
    sd = np.sqrt(((grid - mean) ** 2 * p).sum() / p.sum())
    assert abs(draws[:, 0, 2, 0].mean() - mean) < 5.0 * sd / np.sqrt(3000)
    np.testing.assert_allclose(draws[:, 0, 2, 0].std(), sd, rtol=0.1)


def test_images_of_a_flow_in_its_order():
    flow = flows.pixel_cnn([3, 2, 1], filters=4, num_layers=1, seed=0, dtype="float64")
    model = FlowModel(
        tfd.TransformedDistribution(perturbed(flow), preprocessing.Logit(8.0, dtype="float64"))
    )
    mask = np.zeros([3, 2, 1], bool)
    mask[:2] = True
    x = tf.constant(np.random.default_rng(4).uniform(1.0, 7.0, size=(2, 3, 2, 1)))
    draws, effective = model.complete(x, mask, 500, seed=0)
    np.testing.assert_array_equal(effective, [500.0] * 2)
    z = model.inverse(draws).numpy()
    np.testing.assert_allclose(
        z[:, :, :2], np.tile(model.inverse(x)[:, :2], [500, 1, 1, 1, 1]), rtol=1e-6
    )
    np.testing.assert_allclose(z[:, :, 2].mean(axis=0), 0.0, atol=0.2)
    np.testing.assert_allclose(z[:, :, 2].std(axis=0), 1.0, atol=0.15)
    several = FlowModel(flows.pixel_cnn([3, 2, 1], num_blocks=2, filters=4, num_layers=1, seed=0))
    assert completion.is_triangular(model._road, mask)
    assert not completion.is_triangular(model._road, ~mask)
    assert not completion.is_triangular(several._road, mask)


def test_what_is_not_in_the_order_is_not_taken_for_exact():
    model = FlowModel(perturbed(triangular()["maf"]))
    x = model.sample(1, seed=0)
    for given in itertools.product([True, False], repeat=4):
        _, effective = model.complete(
            x, np.array(given), 8, seed=0, num_particles=64, num_steps=4, least=0.0
        )
        in_order = list(given) == sorted(given, reverse=True)
        assert (effective.numpy()[0] == 8.0) == in_order


def test_with_contexts_images_and_tables():
    flow = perturbed(
        flows.real_nvp([3], num_couplings=2, hidden_units=(8,), context_size=2, seed=0)
    )
    context = np.array([[0.5, 1.0], [2.0, -1.0]], "float32")
    x = np.ones([2, 3], "float32")
    model = FlowModel(flow)
    mask = np.array([False, True, False])
    draws, effective = model.complete(x, mask, 5, context=context, seed=0, num_steps=40)
    assert draws.shape == (5, 2, 3) and (effective.numpy() > 25.0).all()
    assert (draws.numpy()[..., 1] == 1.0).all() and np.isfinite(draws).all()

    images = FlowModel(
        perturbed(flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0), 0.05)
    )
    images.initialize(np.random.default_rng(0).normal(size=(64, 4, 4, 1)).astype("float32"))
    top = np.zeros([4, 4, 1], bool)
    top[:2] = True
    draws, effective = images.complete(
        np.zeros([2, 4, 4, 1], "float32"), top, 3, seed=0, num_steps=40
    )
    assert draws.shape == (3, 2, 4, 4, 1) and (effective.numpy() > 12.0).all()
    assert (draws.numpy()[:, :, :2] == 0.0).all() and draws.numpy()[:, :, 2:].std() > 0.1

    schema = tables.Schema({"a": tables.real(), "b": tables.categorical(["x", "y"])})
    inputs, outputs = tables.TableDistribution.sizes(schema)
    rows = tables.TableDistribution(schema, conditioners.MLP(outputs, hidden_units=(4,), seed=0))
    draws, effective = FlowModel(rows).complete(
        [[0.3, np.nan], [np.nan, 1.0]], [[True, False], [False, True]], 6, seed=0
    )
    assert draws.shape == (6, 2, 2) and effective.numpy().tolist() == [6.0, 6.0]
    assert set(draws.numpy()[:, 0, 1]) == {0.0, 1.0} and (draws.numpy()[:, 1, 1] == 1.0).all()


def test_too_few_effective_draws_are_refused():
    model = FlowModel(gaussian())
    mask = np.array([False, True, False])
    with pytest.raises(
        RuntimeError, match=r"complete: the 256 particles of a row are worth"
    ) as error:
        model.complete(np.ones([1, 3]), mask, 10, seed=0, num_steps=1, least=0.9)
    assert "num_steps=10" in str(error.value)


def test_bad_input():
    model = FlowModel(gaussian())
    x = np.zeros([2, 3])
    with pytest.raises(TypeError, match="mask must be Boolean, True where an entry is given"):
        model.complete(x, [1, 0, 1])
    with pytest.raises(ValueError, match=r"mask must have the shape of one event, \[3\], or that"):
        model.complete(x, np.array([True, False]))
    with pytest.raises(ValueError, match="num_particles must be an integer >= 10, got 5"):
        model.complete(x, np.array([True, False, True]), 10, num_particles=5)
    with pytest.raises(ValueError, match="the data hold NaN"):
        model.complete(np.full([2, 3], np.nan), np.array([True, False, True]))
    made = FlowModel(flows.made([4], hidden_units=(8,), seed=0))
    with pytest.raises(ValueError, match="complete: the distribution 'made' is discrete"):
        made.complete(np.zeros([1, 4], "float32"), np.array([True, False, True, True]))
