"""No cache answers for weights, contexts, graphs or tapes that were."""

import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks

tfb, tfd = tfp.bijectors, tfp.distributions


class CountingMLP(conditioners.MLP):
    calls = 0

    def call(self, x, context=None):
        type(self).calls += 1
        return super().call(x, context=context)


def coupling(network=conditioners.MLP, context_size=None):
    conditioner = network(
        4, hidden_units=(5,), zero_output=False, context_size=context_size, seed=0
    )
    return bijectors.AffineCoupling(conditioner, masks.halves(4))


def flow(bijector=None):
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [4])
    return tfd.TransformedDistribution(base, bijector or bijectors.Chain([coupling()]))


def move(bijector, step=0.1):
    for variable in bijector.trainable_variables:
        variable.assign_add(step * tf.ones_like(variable))


X = tf.constant(np.random.default_rng(0).normal(size=(3, 4)), tf.float32)


@pytest.mark.parametrize(
    "wrap",
    [lambda b: b, lambda b: bijectors.Chain([b]), tfb.Invert],
    ids=["own", "Chain", "Invert"],
)
def test_assignment_between_calls(wrap):
    bijector, x = wrap(coupling()), tf.identity(X)
    held = [bijector.forward(x), bijector.forward_log_det_jacobian(x, 1)]
    back = bijector.inverse(held[0])
    assert back is x, "TFP's cache answers as long as nothing has changed"
    move(bijector)
    again = [bijector.forward(x), bijector.forward_log_det_jacobian(x, 1)]
    fresh = tf.identity(x)
    wanted = [bijector.forward(fresh), bijector.forward_log_det_jacobian(fresh, 1)]
    for a, b, old in zip(again, wanted, held, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.array_equal(a, old)
    # The old result is an argument like any other now.
    np.testing.assert_array_equal(bijector.inverse(held[0]), bijector.inverse(tf.identity(held[0])))


def test_assignment_of_equal_values_is_no_change():
    bijector = coupling(CountingMLP)
    y = bijector.forward(X)
    for variable in bijector.variables:
        variable.assign(tf.identity(variable))
    assert bijector.inverse(y) is X


@pytest.mark.parametrize("kind", ["numpy", "variable"])
def test_context_changed_in_place(kind):
    bijector, value = coupling(context_size=2), np.ones((3, 2), np.float32)
    context = value if kind == "numpy" else tf.Variable(value)
    held = (
        bijector.forward(X, context=context),
        bijector.forward_log_det_jacobian(X, 1, context=context),
    )
    assert bijector.inverse(held[0], context=context) is X
    if kind == "numpy":
        context[:] = -3.0
    else:
        context.assign(-3.0 * tf.ones([3, 2]))
    wanted = bijector.forward(tf.identity(X), context=tf.fill([3, 2], -3.0))
    np.testing.assert_array_equal(bijector.forward(X, context=context), wanted)
    log_det = bijector.forward_log_det_jacobian(X, 1, context=context)
    assert not np.array_equal(log_det, held[1])


@pytest.mark.parametrize("kind", ["tensor", "numpy", "list", "variable"])
def test_any_context_keeps_to_one_call(kind):
    value = np.ones((3, 2), np.float32)
    context = {
        "tensor": tf.constant(value),
        "numpy": value,
        "list": value.tolist(),
        "variable": tf.Variable(value),
    }[kind]
    distribution = flow(coupling(CountingMLP, context_size=2))
    CountingMLP.calls = 0
    distribution.log_prob(tf.identity(X), bijector_kwargs={"context": context})
    assert CountingMLP.calls == 1


def test_entries_do_not_outlive_their_results():
    bijector = coupling()
    for _ in range(3):
        bijector.forward(tf.identity(X))
    gc.collect()
    assert len(bijector._cache.weak_keys(direction="forward")) == 0


# --- Graphs. ---


def test_tensor_of_one_graph_in_another():
    distribution = flow()

    @tf.function
    def step(x):
        return distribution.log_prob(x)

    first = step(X)
    move(distribution)
    np.testing.assert_array_equal(step(X), distribution.log_prob(tf.identity(X)))
    assert not np.array_equal(step(X), first)


def test_captured_eager_tensor():
    """An eager result must not be frozen into a graph as a constant."""
    bijector = coupling()
    held = bijector.forward(X)
    traced = tf.function(lambda: bijector.forward(X))
    np.testing.assert_allclose(traced(), held, rtol=1e-6)
    move(bijector)
    assert not np.allclose(traced(), held)


def test_branches_of_cond():
    """Each branch is a graph: what one computed is no tensor of the other, nor outside."""
    bijector = coupling()

    @tf.function
    def act(x, flag):
        z = tf.cond(flag, lambda: bijector.forward(x), lambda: bijector.forward(x) + 1.0)
        return z + 0.0 * bijector.forward(x)

    yes, no = tf.constant(True), tf.constant(False)
    np.testing.assert_allclose(act(X, yes), bijector.forward(X), rtol=1e-6)
    np.testing.assert_allclose(act(X, no), bijector.forward(X) + 1.0, rtol=1e-6)


@pytest.mark.parametrize("nested", [False, True])
def test_assignment_within_one_graph(nested):
    distribution = flow()
    assign = tf.function(lambda: move(distribution)) if nested else (lambda: move(distribution))

    @tf.function(autograph=False)
    def twice(x):
        before = distribution.log_prob(x)
        assign()
        return before, distribution.log_prob(x)

    before, after = twice(X)
    assert not np.array_equal(before, after)
    np.testing.assert_allclose(after, distribution.log_prob(X), rtol=1e-6)


def test_unrolled_training_steps_match_eager_ones():
    """Several steps on one batch in one `tf.function`: TFP's cache gives `None` gradients."""

    def train(distribution, x):
        losses = []
        for _ in range(3):
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(distribution.log_prob(x))
            variables = distribution.trainable_variables
            for variable, gradient in zip(variables, tape.gradient(loss, variables), strict=True):
                variable.assign_sub(0.1 * gradient)
            losses.append(loss)
        return losses

    traced = flow()
    losses = tf.function(lambda x: train(traced, x), autograph=False)(X)
    np.testing.assert_allclose(losses, train(flow(), X), rtol=1e-5)
    assert len(set(map(float, losses))) == 3


def test_reading_in_between_is_no_assignment():
    bijector = coupling(CountingMLP)
    scale = tf.Variable(2.0)
    read = tf.function(lambda: 3.0 * scale)

    @tf.function(autograph=False)
    def act(x):
        y = bijector.forward(x)
        extra = read() + scale
        return bijector.forward_log_det_jacobian(x, 1) + extra + y[0, 0]

    CountingMLP.calls = 0
    act(X)
    assert CountingMLP.calls == 1


# --- Tapes. ---


def test_tape_started_after_the_result():
    distribution = flow()
    held = distribution.bijector.inverse(X)
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(distribution.log_prob(X))
    gradients = tape.gradient(loss, distribution.trainable_variables)
    assert all(g is not None and np.abs(g).max() > 0 for g in gradients)
    del held


def test_tape_that_watches_the_argument():
    bijector = bijectors.Squeeze()  # nothing to train: the argument alone is on the tape
    x = tf.random.stateless_normal([2, 2, 2, 1], seed=[0, 0])
    held = bijector.forward(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = bijector.forward(x)
    np.testing.assert_array_equal(tape.gradient(y, x), np.ones_like(x))
    del held


def test_second_order():
    """An inner tape around a result that only the outer one saw."""
    bijector = coupling()
    with tf.GradientTape() as outer:
        outer.watch(X)
        held = bijector.forward(X)
        with tf.GradientTape() as inner:
            inner.watch(X)
            y = tf.reduce_sum(tf.exp(bijector.forward(X)))
        first = inner.gradient(y, X)
    assert first is not None and outer.gradient(first, X) is not None
    del held


def test_one_call_under_a_tape():
    distribution = flow(bijectors.Chain([coupling(CountingMLP)]))
    for traced in (False, True):

        def loss(x):
            with tf.GradientTape() as tape:
                loss = -tf.reduce_mean(distribution.log_prob(x))
            return tape.gradient(loss, distribution.trainable_variables)

        CountingMLP.calls = 0
        (tf.function(loss, autograph=False) if traced else loss)(tf.identity(X))
        assert CountingMLP.calls == 1


def test_compiled_loss_under_an_eager_tape():
    """The tape is outside of the graph, and the loop of many users looks like this."""
    distribution = flow(bijectors.Chain([coupling(CountingMLP)]))
    loss = tf.function(lambda x: -tf.reduce_mean(distribution.log_prob(x)), autograph=False)
    CountingMLP.calls = 0
    with tf.GradientTape() as tape:
        value = loss(X)
    assert None not in tape.gradient(value, distribution.trainable_variables)
    assert CountingMLP.calls == 1


def test_sample_then_log_prob_is_one_pass():
    """Variational inference: the latent of a sample is known, the inverse need not run."""
    distribution = flow(bijectors.Chain([coupling(CountingMLP)]))
    CountingMLP.calls = 0
    with tf.GradientTape():
        x = distribution.sample(3, seed=1)
        distribution.log_prob(x)
    assert CountingMLP.calls == 1


# --- The layer's mode. ---


def test_dropout_acts_in_training_mode_only():
    x, c = keras.Input([2]), keras.Input([2])
    hidden = keras.layers.Concatenate()([x, c])
    hidden = keras.layers.Dropout(0.5, seed=0)(keras.layers.Dense(64)(hidden))
    network = keras.Model([x, c], keras.layers.Dense(2)(hidden))
    bijector = bijectors.AdditiveCoupling(network, masks.halves(4), context_size=2)
    context = tf.ones([3, 2])

    def run():
        return bijector.inverse(tf.identity(X), context=context).numpy()

    np.testing.assert_array_equal(run(), run())
    with bijectors.training_mode():
        assert not np.array_equal(run(), run())
