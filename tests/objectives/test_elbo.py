"""The weighted bound of a VAE: its formula, its schedule, and what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, flows, objectives
from tfp_flows.distributions import VAE, VampPrior, get_output

tfd = tfp.distributions
X = (np.random.default_rng(0).random([64, 2, 2, 1]) < 0.3).astype("int32")


def vae():
    """Bits of a small image, an IAF in the posterior, a VampPrior."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    encoder = keras.Sequential([layers.Flatten(), layers.Dense(3, activation="tanh")])
    decoder = keras.Sequential([layers.Dense(4), layers.Reshape([2, 2, 1])])
    base = flows.gaussian([2], context_size=3, seed=0)
    prior = VampPrior(base, encoder, X[:4])
    posterior = flows.iaf([2], num_layers=1, hidden_units=(8,), context_size=3, base=base, seed=0)
    for n, v in enumerate(posterior.trainable_variables):  # No fresh one is told from its prior.
        v.assign_add(0.3 * tf.random.stateless_normal(v.shape, [n, 7]))
    return VAE(prior, encoder, decoder, posterior)


@pytest.fixture(scope="module")
def built():
    return vae()


@pytest.mark.parametrize("beta", [1.0, 0.25])
def test_free_bits_are_the_formula(built, beta):
    """Equation 15, one group: the larger of the number and the batch's mean divergence."""
    noise = built.draw_noise([64], seed=[0, 1])
    output, prior, posterior = built.terms(X, noise=noise)
    divergence = np.mean(posterior - prior)
    assert divergence > 0.1
    for free in (0.0, 0.5 * divergence, 1.5 * divergence):
        free = float(free)
        objective = objectives.ELBO(beta=beta, free_bits=free)
        variables = built.trainable_variables
        with tf.GradientTape(persistent=True) as tape:
            loss = tf.reduce_mean(objective.loss(built, (tf.constant(X), None), noise))
            terms = [tf.reduce_mean(term) for term in built.terms(X, noise=noise)]
            wanted = beta * tf.maximum(free, terms[2] - terms[1]) - terms[0]
        np.testing.assert_allclose(loss, wanted, rtol=1e-5)
        for v in variables:
            found, of_formula = tape.gradient(loss, v), tape.gradient(wanted, v)
            zero = tf.zeros_like(v)
            np.testing.assert_allclose(
                zero if found is None else found,
                zero if of_formula is None else of_formula,
                rtol=1e-4,
                atol=1e-6,
            )


def test_fit_files_and_exports(tmp_path, built):
    """Warm-up by the optimizer's steps; the nats that are reported are the bound all the same."""
    model = FlowModel(built, objective=objectives.ELBO(beta=0.0, free_bits=0.1))
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    start = model.evaluate(X, return_dict=True, verbose=0)
    warm_up = objectives.WarmUp(num_steps=8, start=0.2)
    model.fit(X, batch_size=16, epochs=1, callbacks=[warm_up], verbose=0)
    # Set before the fourth step, the third one having been taken.
    np.testing.assert_allclose(model.objective.beta.numpy(), 0.2 + 0.8 * 3 / 8, rtol=1e-6)
    model.fit(X, batch_size=16, epochs=10, callbacks=[warm_up], verbose=0)
    assert float(model.objective.beta) == 1.0
    end = model.evaluate(X, return_dict=True, verbose=0)
    assert end["nats"] < start["nats"] and set(end) == {"loss", "nats", "bits_per_dim"}
    estimate = model.estimate_log_prob(X[:5], num_samples=320)
    bound = np.mean([built.log_prob(X[:5], seed=[0, n]) for n in range(40)], axis=0)
    assert (bound - 0.05 < estimate.log_prob.numpy()).all()
    assert (estimate.standard_error.numpy() < 0.1).all()

    scores = model.log_prob(X[:5]).numpy()
    alone = model.log_prob(X[4:5])  # The same draw, wherever a row stands.
    np.testing.assert_allclose(alone, scores[4:], rtol=1e-6)
    path = str(tmp_path / "vae.keras")
    model.save(path)
    again = tfp_flows.load(path)
    np.testing.assert_array_equal(again.log_prob(X[:5]), scores)
    assert isinstance(again.objective, objectives.ELBO) and again.objective.free_bits == 0.1
    assert len(again.trainable_variables) == len(model.trainable_variables)
    model.export(str(tmp_path / "served"))
    served = tf.saved_model.load(str(tmp_path / "served"))
    found = served.log_prob(tf.constant(X[:5]))["log_prob"]
    np.testing.assert_allclose(found, scores, rtol=1e-5)
    drawn = served.sample(tf.constant(3), tf.constant([0, 1]))["samples"]
    np.testing.assert_array_equal(drawn, model.sample(3, seed=(0, 1)))
    checkpoint = tf.train.Checkpoint(built)
    saved = checkpoint.write(str(tmp_path / "checkpoint"))
    other = vae()
    tf.train.Checkpoint(other).read(saved).assert_consumed()
    np.testing.assert_array_equal(FlowModel(other).log_prob(X[:5]), scores)


def test_without_an_objective_the_loss_is_the_bound():
    output = get_output("discretized_logistic_mixture", num_levels=4, num_components=2)
    prior = flows.maf([2], num_layers=1, hidden_units=(4,), seed=0)
    layers = keras.layers
    decoder = keras.Sequential([layers.Dense(3 * 6), layers.Reshape([3, 6])])
    encoder = keras.Sequential([layers.Flatten(), layers.Dense(4)])
    model = FlowModel(VAE(prior, encoder, decoder, output=output, num_samples=2))
    model.compile(optimizer=keras.optimizers.Adam(0.02))
    x = np.random.default_rng(0).integers(0, 2, size=[48, 3, 1])
    losses = model.fit(x, batch_size=16, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 0.5
    samples = model.sample(5, seed=0)
    assert samples.dtype == tf.int32 and samples.shape == (5, 3, 1)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: objectives.ELBO(beta=-1.0), ValueError, "beta must be a finite number >= 0"),
        (lambda: objectives.ELBO(free_bits="2"), TypeError, "free_bits must be a number"),
        (lambda: objectives.WarmUp(0), ValueError, "num_steps"),
        (lambda: objectives.WarmUp(5, start=2.0), ValueError, "start must be a number from 0 to 1"),
        (
            lambda: FlowModel(flows.real_nvp([2], num_couplings=1), objective=objectives.ELBO()),
            ValueError,
            "is for a distributions.VAE or LadderVAE, got",
        ),
        (
            lambda: FlowModel(vae().copy(num_samples=2), objective=objectives.ELBO()),
            ValueError,
            "weighs the terms of one draw, got a VAE of num_samples=2",
        ),
    ],
)
def test_bad_input(make, error, message):
    with pytest.raises(error, match=message) as found:
        make()
    assert "\n" not in str(found.value)


def test_warm_up_needs_its_objective():
    model = FlowModel(flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0))
    model.compile()
    with pytest.raises(ValueError, match="sets the beta of objectives.ELBO, but .*Maximum"):
        model.fit(np.zeros([4, 2], "float32"), callbacks=[objectives.WarmUp(5)], verbose=0)
