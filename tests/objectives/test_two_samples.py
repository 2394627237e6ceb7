"""Objectives that compare samples with data, and the sampler that has nothing else."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from scipy import stats

import tfp_flows
from tfp_flows import FlowModel, distributions, flows, metrics, objectives

tfd = tfp.distributions
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(40, 3)) * 1.3 + 5.0, RNG.normal(size=(40, 3)) + [5.5, 5.0, 5.0]


@pytest.mark.parametrize("bandwidth", [None, 0.7])
def test_mmd_is_that_of_the_metrics(bandwidth):
    objective = objectives.MMD(scales=(0.5, 2.0), bandwidth=bandwidth)
    found = objective.compare(tf.constant(X), tf.constant(Y), None)
    if bandwidth is None:  # Of the data alone.
        distances = np.linalg.norm(Y[:, None] - Y, axis=-1)
        bandwidth = np.percentile(distances[distances > 0], 50.0, method="nearest")
    common = {"scales": (0.5, 2.0), "bandwidth": float(bandwidth)}
    wanted = metrics.mmd(X, Y, **common).value
    np.testing.assert_allclose(np.mean(found), wanted, rtol=1e-10)
    root = objectives.MMD(scales=(0.5, 2.0), bandwidth=bandwidth, root=True)
    biased = metrics.mmd(X, Y, estimator="biased", **common).value
    found = root.compare(tf.constant(X), tf.constant(Y), None)
    np.testing.assert_allclose(found, np.full(40, biased**0.5), rtol=1e-10)


@pytest.mark.parametrize("p", [1, 2])
def test_sliced_wasserstein_is_the_mean_over_directions(p):
    seed = [3, 4]
    found = objectives.SlicedWasserstein(num_projections=7, p=p).compare(
        tf.constant(X), tf.constant(Y), seed
    )
    directions = tf.random.stateless_normal([3, 7], seed, dtype=tf.float64).numpy()
    directions /= np.linalg.norm(directions, axis=0)
    wanted = [metrics.wasserstein(X @ u, Y @ u, p=p) ** p for u in directions.T]
    np.testing.assert_allclose(np.mean(found), np.mean(wanted), rtol=1e-10)
    assert found.shape == (40,)
    if p == 1:
        wanted = [stats.wasserstein_distance(X @ u, Y @ u) for u in directions.T]
        np.testing.assert_allclose(np.mean(found), np.mean(wanted), rtol=1e-10)


def sampler():
    network = keras.Sequential([keras.Input([2]), keras.layers.Dense(3)])
    return distributions.Sampler(network, tfd.Sample(tfd.Normal(0.0, 1.0), 2))


def test_a_sampler_reaches_mean_and_covariance(tmp_path):
    """Noise of two entries, data on a plane: a linear network can make them."""
    rng = np.random.default_rng(1)
    mixing = np.array([[1.0, 0.5, 0.0], [0.0, 0.7, -0.6]])
    x = (rng.normal(size=(1024, 2)) @ mixing + [1.0, -1.0, 0.5]).astype("float32")
    model = FlowModel(sampler(), objective=objectives.MMD())
    model.compile(optimizer=keras.optimizers.Adam(0.03))
    history = model.fit(x, epochs=15, batch_size=128, verbose=0).history
    assert set(history) == {"loss"}
    samples = model.sample(4000, seed=1).numpy()
    np.testing.assert_allclose(samples.mean(axis=0), x.mean(axis=0), atol=0.15)
    np.testing.assert_allclose(np.cov(samples.T), mixing.T @ mixing, atol=0.2)
    assert set(model.evaluate(x, return_dict=True, verbose=0)) == {"loss"}
    with pytest.raises(NotImplementedError, match="it has no density.*score its samples"):
        model.log_prob(x)
    model.save(str(tmp_path / "model.keras"))
    again = tfp_flows.load(str(tmp_path / "model.keras"))
    wanted = model.sample(5, seed=(0, 1))
    np.testing.assert_array_equal(again.sample(5, seed=(0, 1)), wanted)
    model.export(str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    assert "log_prob" not in served.signatures
    found = served.sample(tf.constant(5), tf.constant([0, 1]))["samples"]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_moments_of_a_flow():
    """Any flow, too: then `evaluate` has the likelihood beside the distance."""
    x = (RNG.normal(size=(256, 2)) * [2.0, 0.5] + [1.0, 3.0]).astype("float32")
    model = FlowModel(
        flows.real_nvp([2], num_couplings=2, hidden_units=(8,), seed=0),
        objective=objectives.SlicedWasserstein(num_projections=20),
    )
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    before = model.evaluate(x, return_dict=True, verbose=0)
    model.fit(x, epochs=10, batch_size=64, verbose=0)
    after = model.evaluate(x, return_dict=True, verbose=0)
    assert after["loss"] < 0.2 * before["loss"] and after["nats"] < before["nats"]


@pytest.mark.parametrize("objective", [objectives.MMD(), objectives.SlicedWasserstein()])
def test_weights_of_rows_are_refused(objective):
    flow = flows.real_nvp([3], num_couplings=1, hidden_units=(4,))
    model = FlowModel(flow, objective=objective)
    model.compile(run_eagerly=True)
    x = X.astype("float32")
    for run in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match="no sample_weight.*weighs none of them"):
            run(x, sample_weight=np.ones(40), verbose=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: objectives.MMD(scales=()), TypeError, "scales must be a sequence"),
        (lambda: objectives.MMD(scales=(0.0,)), ValueError, "scales must be positive"),
        (lambda: objectives.MMD(bandwidth=-1.0), ValueError, "bandwidth must be positive"),
        (lambda: objectives.SlicedWasserstein(p=3), ValueError, "p must be 1 or 2, got 3"),
        (lambda: objectives.SlicedWasserstein(0), ValueError, "num_projections"),
        (
            lambda: FlowModel(
                flows.maf([2], num_layers=1, hidden_units=(4,), context_size=1),
                objective=objectives.MMD(),
            ),
            ValueError,
            "takes a context. Build it without",
        ),
        (
            lambda: FlowModel(
                flows.made([2], output="normal", hidden_units=(2,)), objective=objectives.MMD()
            ),
            ValueError,
            "differentiates through samples",
        ),
        (
            lambda: FlowModel(sampler()),
            ValueError,
            "has no density.*Give it an objective of samples",
        ),
        (
            lambda: distributions.Sampler(abs, tfd.Sample(tfd.Normal(0.0, 1.0), 2)),
            TypeError,
            "must be a keras.layers.Layer",
        ),
        (
            lambda: distributions.Sampler(keras.layers.Dense(2), tfd.Normal([0.0], 1.0)),
            ValueError,
            "one distribution of vectors or images",
        ),
        (
            lambda: distributions.Sampler(keras.layers.Dense(2), 1.0),
            TypeError,
            "must be a tfd.Distribution, got float",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message) as found:
        make()
    assert "\n" not in str(found.value)
