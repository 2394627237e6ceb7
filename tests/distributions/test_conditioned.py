"""A conditional flow with its context, wherever TFP takes a distribution."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, flows, preprocessing

tfb, tfd = tfp.bijectors, tfp.distributions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 2)).astype("float32")
C = RNG.normal(size=(5, 3)).astype("float32")


@pytest.fixture(scope="module")
def flow():
    found = flows.real_nvp([2], num_couplings=2, hidden_units=(8,), context_size=3, seed=0)
    for v in found.trainable_variables:
        v.assign_add(RNG.normal(size=v.shape, scale=0.3).astype("float32"))
    return found


def by_tfp(flow, x, context):
    return flow.log_prob(tf.identity(x), bijector_kwargs={"context": tf.constant(context)})


def test_one_point_under_many_contexts(flow):
    classes = tfp_flows.condition(flow, np.eye(3, dtype="float32"))
    assert classes.batch_shape == [3] and classes.event_shape == [2]
    table = classes.log_prob(X[:, None])  # every point under every class
    for n, context in enumerate(np.eye(3, dtype="float32")):
        np.testing.assert_allclose(table[:, n], by_tfp(flow, X, context[None]), rtol=1e-5)
    np.testing.assert_allclose(classes.log_prob(X[0]), table[0], rtol=1e-5)


def test_samples_of_every_context(flow):
    posteriors = tfp_flows.condition(flow, C)
    samples, log_prob = posteriors.experimental_sample_and_log_prob([4, 6], seed=[0, 1])
    assert samples.shape == (4, 6, 5, 2) and log_prob.shape == (4, 6, 5)
    np.testing.assert_allclose(log_prob, posteriors.log_prob(samples), rtol=1e-5)
    np.testing.assert_array_equal(posteriors.sample([4, 6], seed=[0, 1]), samples)
    one = tfp_flows.condition(flow, C[0])
    assert one.batch_shape == [] and one.sample(7).shape == (7, 2) and one.sample().shape == (2,)
    traced = tf.function(lambda n: posteriors.sample(n, seed=[0, 1]))(tf.constant(3))
    assert traced.shape == (3, 5, 2)


def test_slices_are_those_of_the_context(flow):
    grid = tfp_flows.condition(flow, np.stack([C, C[::-1], 0.0 * C]))  # batch shape [3, 5]
    whole = grid.log_prob(X[0]).numpy()
    for index in (0, -1, slice(1, None), (1, 2), (..., 2), (slice(None), 4), (tf.newaxis, 1)):
        part = grid[index]
        assert part.batch_shape == whole[index].shape
        np.testing.assert_allclose(part.log_prob(X[0]), whole[index], rtol=1e-5)
    assert grid[1, 2].sample(7).shape == (7, 2)
    with pytest.raises(IndexError, match="too many indices, 3, for the batch shape"):
        grid[0, 0, 0]


def test_variables_are_seen_once_and_train(flow):
    context = tf.Variable(C)
    posteriors = tfp_flows.condition(flow, context)
    assert len(posteriors.trainable_variables) == len(flow.trainable_variables) + 1
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(posteriors.log_prob(X))
    assert all(g is not None for g in tape.gradient(loss, posteriors.trainable_variables))
    assert posteriors.copy(name="again").trainable_variables[0] is not None


def test_as_components_of_a_mixture(flow):
    mixture = tfd.MixtureSameFamily(
        tfd.Categorical(probs=[0.2, 0.3, 0.5]), tfp_flows.condition(flow, tf.eye(3))
    )
    each = [by_tfp(flow, X, row[None]) for row in np.eye(3, dtype="float32")]
    wanted = tf.reduce_logsumexp(tf.stack(each, -1) + np.log([0.2, 0.3, 0.5]), -1)
    np.testing.assert_allclose(mixture.log_prob(X), wanted, rtol=1e-5)
    model = FlowModel(mixture)
    np.testing.assert_allclose(model.log_prob(X), wanted, rtol=1e-5)
    assert model.sample(4, seed=0).shape == (4, 2)


def test_in_a_joint_distribution_and_mcmc(flow):
    joint = tfd.JointDistributionNamed(
        {"z": tfd.Sample(tfd.Normal(0.0, 1.0), 3), "x": lambda z: tfp_flows.condition(flow, z)}
    )
    draws = joint.sample(4, seed=1)
    assert draws["x"].shape == (4, 2)
    wanted = by_tfp(flow, draws["x"], draws["z"]) + joint.model["z"].log_prob(draws["z"])
    np.testing.assert_allclose(joint.log_prob(draws), wanted, rtol=1e-5)
    chain = tfp.mcmc.sample_chain(
        3,
        current_state=tf.zeros([5, 2]),
        kernel=tfp.mcmc.HamiltonianMonteCarlo(tfp_flows.condition(flow, C).log_prob, 0.1, 2),
        trace_fn=None,
        seed=[0, 1],
    )
    assert np.isfinite(chain).all() and chain.shape == (3, 5, 2)


def test_the_whole_space_is_said_where_it_is_the_support(flow):
    def support(distribution):
        return tfp_flows.condition(distribution, C).experimental_default_event_space_bijector()

    rows = flows.wavenet([2, 1], filters=2, context_size=3)
    assert isinstance(support(flow), tfb.Identity) and isinstance(support(rows), tfb.Identity)
    bits = flows.made([2], output="bernoulli", hidden_units=(4,), context_size=3)
    assert support(bits) is None
    base = tfd.Independent(tfd.Uniform(tf.zeros([2]), 1.0), 1)
    for bounded in (
        tfd.TransformedDistribution(flow, preprocessing.Logit(1.0)),
        flows.maf([2], num_layers=1, hidden_units=(4,), context_size=3, base=base),
    ):
        with pytest.raises(NotImplementedError, match="not known to be all real values"):
            support(bounded)


def test_what_is_refused(flow):
    plain = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    with pytest.raises(ValueError, match=r"condition\(.*'real_nvp'\): got a context, but no part"):
        tfp_flows.condition(plain, C)
    with pytest.raises(ValueError, match=r"of shape \[\.\.\., 3\], got \[5, 2\]"):
        tfp_flows.condition(flow, C[:, :2])
    with pytest.raises(TypeError, match="the distribution must be a tfd.Distribution, got Chain"):
        tfp_flows.condition(flow.bijector, C)


# --- Mixtures and independent flows in a FlowModel. ---


def test_a_mixture_of_conditional_flows_takes_the_context(flow):
    other = flows.maf([2], num_layers=1, hidden_units=(8,), context_size=3, seed=1)
    mixture = tfd.Mixture(tfd.Categorical(logits=tf.Variable([0.0, 1.0])), [flow, other])
    model = FlowModel(mixture)
    assert model.context_size == 3
    log_weights = tf.math.log_softmax([0.0, 1.0])
    each = tf.stack([by_tfp(flow, X, C), by_tfp(other, X, C)], -1) + log_weights
    np.testing.assert_allclose(model.log_prob(X, C), tf.reduce_logsumexp(each, -1), rtol=1e-5)
    samples, log_prob = model.sample_and_log_prob(5, context=C, seed=0)
    np.testing.assert_allclose(log_prob, model.log_prob(samples, C), rtol=1e-5)
    model.compile("adam")
    history = model.fit(X, C, epochs=2, batch_size=5, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert any(v.value is mixture.cat.logits for v in model.trainable_variables)


def test_a_mixture_of_the_rows_of_a_base(flow):
    base = tfd.MultivariateNormalDiag(tf.constant([[0.0, 1.0], [2.0, -1.0]]), tf.ones([2, 2]))
    components = tfd.TransformedDistribution(base, flow.bijector)
    mixture = tfd.MixtureSameFamily(tfd.Categorical(logits=[0.0, 1.0]), components)
    model = FlowModel(mixture)
    each = [by_tfp(tfd.TransformedDistribution(base[n], flow.bijector), X, C) for n in range(2)]
    wanted = tf.reduce_logsumexp(tf.stack(each, -1) + tf.math.log_softmax([0.0, 1.0]), -1)
    np.testing.assert_allclose(model.log_prob(X, C), wanted, rtol=1e-5)
    samples = model.sample(2000, context=C[:1], seed=0)
    assert samples.shape == (2000, 2)
    # The share of a component is its weight.
    z = flow.bijector.inverse(samples, context=tf.constant(C[:1]))
    near = tf.norm(z - [0.0, 1.0], axis=-1) < tf.norm(z - [2.0, -1.0], axis=-1)
    overlap = tfd.Normal(0.0, 1.0).cdf(np.sqrt(8.0) / 2.0)
    share = 0.269 * overlap + 0.731 * (1.0 - overlap)
    np.testing.assert_allclose(tf.reduce_mean(tf.cast(near, tf.float32)), share, atol=0.04)


def test_samples_of_a_mixture_have_its_density():
    bijector = bijectors.Rescale([1])
    parts = [
        tfd.TransformedDistribution(tfd.Sample(tfd.Normal(m, 0.5), 1), bijector)
        for m in (-2.0, 2.0)
    ]
    model = FlowModel(tfd.Mixture(tfd.Categorical(probs=[0.25, 0.75]), parts))
    samples = model.sample(4000, seed=0).numpy()
    np.testing.assert_allclose((samples > 0).mean(), 0.75, atol=0.03)
    assert model.sample([2, 3], seed=0, temperature=0.1).shape == (2, 3, 1)


def test_recipes_take_the_context_by_itself(flow, tmp_path):
    wanted = by_tfp(flow, X, C)
    np.testing.assert_allclose(flow.log_prob(X, context=C), wanted, rtol=1e-6)
    samples, log_prob = flow.experimental_sample_and_log_prob(5, seed=[0, 1], context=C)
    np.testing.assert_allclose(flow.log_prob(tf.identity(samples), context=C), log_prob, rtol=1e-5)
    with pytest.raises(TypeError, match="unexpected keyword contxt; the only one is `context`"):
        flow.log_prob(X, contxt=C)
    FlowModel(flow).save(tmp_path / "m.keras")
    again = tfp_flows.load(tmp_path / "m.keras").distribution
    np.testing.assert_allclose(again.log_prob(X, context=C), wanted, rtol=1e-6)


def test_a_context_reaches_the_base_too_and_is_never_dropped(tmp_path):
    base = flows.gaussian([2], context_size=3, seed=0)
    base.trainable_variables[0].assign_add(RNG.normal(size=[3, 4]).astype("float32"))
    for size in (None, 3):
        found = flows.maf([2], num_layers=1, hidden_units=(4,), base=base, context_size=size)
        wanted = FlowModel(found).log_prob(X, C)
        np.testing.assert_allclose(found.log_prob(X, context=C), wanted, rtol=1e-5)
        FlowModel(found).save(tmp_path / "flow.keras")
        loaded = tfp_flows.load(tmp_path / "flow.keras").distribution
        np.testing.assert_allclose(loaded.log_prob(X, context=C), wanted, rtol=1e-5)
    plain = flows.maf([2], num_layers=1, hidden_units=(4,))
    for act in (lambda: plain.log_prob(X, context=C), lambda: plain.sample(5, context=C)):
        with pytest.raises(ValueError, match="got a context, which this bijector would ignore"):
            act()
    with pytest.raises(TypeError, match="unexpected keyword label; the only one is `context`"):
        plain.log_prob(X, label=C)


def test_labels_that_are_no_vectors(flow):
    model = FlowModel(flow)
    labels = np.array([0, 1, 2, 1, 0])
    with pytest.raises(ValueError, match="One-hot integer labels: tf.one_hot.labels, 3"):
        model.log_prob(X, labels)
    with pytest.raises(ValueError, match=r"got \[5\].*n=\[2, 5\] gives 2 samples of each"):
        model.sample(2, context=C)
    assert model.sample([2, 5], context=C, seed=0).shape == (2, 5, 2)
