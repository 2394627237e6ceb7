"""Augmented flows: of a linear Gaussian one everything is known."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows
from tfp_flows.distributions import Augmented, Slice, Surjected

tfb, tfd = tfp.bijectors, tfp.distributions


class Regression(bijectors.FlowBijector):
    """u = z * scale + <slope, c> of a vector c."""

    def __init__(self, slope, scale, name="regression", **kwargs):
        super().__init__(event_shape=[1], context_size=len(slope), name=name, **kwargs)
        self._slope, self._scale = tf.constant(slope), tf.constant(scale)

    def _mean(self, context):
        return tf.reduce_sum(context * self._slope, axis=-1, keepdims=True)

    def _forward_and_log_det(self, x, context):
        log_det = tf.math.log(self._scale) * tf.ones_like(x[..., 0])
        return x * self._scale + self._mean(context), log_det

    def _inverse_and_log_det(self, y, context):
        log_det = -tf.math.log(self._scale) * tf.ones_like(y[..., 0])
        return (y - self._mean(context)) / self._scale, log_det


# z = L e of three entries, the last of which is forgotten.
L = np.array([[1.0, 0.0, 0.0], [0.5, 0.8, 0.0], [0.7, -0.4, 0.6]])
COVARIANCE = L @ L.T
JOINT = tfd.MultivariateNormalTriL(np.zeros(3, "float32"), tf.constant(L, tf.float32))
EXACT = tfd.MultivariateNormalTriL(
    np.zeros(2, "float32"), tf.constant(np.linalg.cholesky(COVARIANCE[:2, :2]), tf.float32)
)
X = EXACT.sample(7, seed=[0, 1])


def gaussian(slope, scale):
    base = tfd.MultivariateNormalDiag([0.0])
    flow = tfd.TransformedDistribution(
        base, Regression(np.float32(slope), np.float32(scale)), name="proposal"
    )
    return Augmented(JOINT, flow)


def posterior():
    """Slope and deviation of u given x."""
    slope = np.linalg.solve(COVARIANCE[:2, :2], COVARIANCE[:2, 2])
    return slope, (COVARIANCE[2, 2] - slope @ COVARIANCE[:2, 2]) ** 0.5


def test_tight_at_the_posterior_and_below_by_the_divergence_elsewhere():
    slope, scale = posterior()
    exact = EXACT.log_prob(X)
    for seed in range(3):
        np.testing.assert_allclose(gaussian(slope, scale).log_prob(X, seed=seed), exact, rtol=1e-5)
    wrong = gaussian(slope, 0.8 * scale)
    draws = wrong.log_prob(tf.repeat(X[None], 4000, 0), seed=[0, 1])
    divergence = tfd.kl_divergence(tfd.Normal(0.0, 0.8 * scale), tfd.Normal(0.0, scale))
    gap = exact - tf.reduce_mean(draws, axis=0)
    error = tf.math.reduce_std(draws, axis=0) / 4000**0.5
    assert divergence > 0.02
    np.testing.assert_array_less(np.abs(gap - tf.cast(divergence, tf.float32)), 4.0 * error)
    found = FlowModel(wrong).estimate_log_prob(X, num_samples=3000)
    assert np.all(found.standard_error < 0.02)
    np.testing.assert_array_less(np.abs(found.log_prob - exact), 4.0 * found.standard_error)


def test_samples_are_the_first_channels():
    density = gaussian(*posterior())
    assert density.log_prob(X[0], seed=0).shape == density.sample(seed=0).shape[:-1] == []
    samples = density.sample(4000, seed=[0, 1])
    assert samples.shape == [4000, 2]
    np.testing.assert_allclose(np.cov(samples.numpy().T), COVARIANCE[:2, :2], atol=0.1)


def test_trains_saves_and_composes(tmp_path):
    joint = flows.real_nvp([3], num_couplings=2, hidden_units=(8,), actnorm=True, seed=0)
    proposal = flows.maf([1], num_layers=1, hidden_units=(4,), context_size=4, seed=1)
    network = keras.layers.Dense(4, activation="tanh")
    density = Augmented(joint, proposal, network=network, num_samples=3)
    model = FlowModel(tfd.TransformedDistribution(density, tfb.Scale(2.0)))
    assert (model.likelihood, model.num_samples) == ("estimate", 3)
    model.compile(keras.optimizers.Adam(0.02))
    x, kernel = 2.0 * EXACT.sample(128, seed=[0, 2]).numpy(), network.kernel.numpy()
    losses = model.fit(x, epochs=20, batch_size=64, shuffle=False, verbose=0).history["loss"]
    entropy = -tf.reduce_mean(EXACT.log_prob(x / 2.0)) + 2.0 * np.log(2.0)  # of these rows
    # An average of bounds of a density that nearly is the exact one from its first step on.
    assert entropy - 0.1 < losses[-1] < entropy + 0.3
    assert np.abs(network.kernel - kernel).max() > 1e-3
    scores = model.log_prob(x)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.log_prob(x), scores)
    assert len(loaded.trainable_variables) == len(model.trainable_variables)


def test_refusals():
    flow = flows.maf([1], num_layers=1, hidden_units=(4,), context_size=2)
    with pytest.raises(TypeError, match="proposal must be a tfd.Distribution, got int"):
        Augmented(JOINT, 3)
    for joint in (tfd.MultivariateNormalDiag([0.0]), tfd.Sample(tfd.Normal(0.0, 1.0), [2, 2])):
        with pytest.raises(ValueError, match="expected a proposal over some of the distribution's"):
            Augmented(joint, flow)
    with pytest.raises(ValueError, match=r"contexts of shape \[\.\.\., 2\], which data of shape"):
        Augmented(tfd.MultivariateNormalDiag(np.zeros(4, "float32")), flow)
    with pytest.raises(ValueError, match=r"expected a distribution of events \[3\]"):
        Surjected(tfd.MultivariateNormalDiag(np.zeros(4, "float32")), Slice(flow, 2))
    with pytest.raises(ValueError, match="which is not one of continuous values"):
        Slice(tfd.Sample(tfd.Bernoulli(0.5), [1]), 2)
    with pytest.raises(ValueError, match="takes no context, and `network` would make it one"):
        Slice(tfd.MultivariateNormalDiag([0.0]), 2, network=keras.layers.Dense(1))
