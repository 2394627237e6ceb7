"""Sizes that a `tf.function` does not know when it is traced."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, flows

tfb = tfp.bijectors


def normal(*shape):
    return tf.constant(np.random.default_rng(0).normal(size=shape), tf.float32)


def unknown(tensor):
    return tf.TensorSpec([None] * tensor.shape.rank, tensor.dtype)


def called(function, *arguments, **kwargs):
    """Calls it with nothing known of the arguments but their ranks."""
    signature = [unknown(a) for a in arguments]
    return tf.function(function, input_signature=signature, autograph=False, **kwargs)(*arguments)


def real_nvp(**kwargs):
    return flows.real_nvp([4], num_couplings=2, hidden_units=(8,), seed=0, **kwargs)


# The flow, the shape of its events and one that would pass, or be taken for another, unchecked.
CASES = {
    "real_nvp": (real_nvp(), [4], [6]),
    "alternating": (real_nvp(mask="alternating"), [4], [6]),
    "images": (flows.real_nvp([4, 4, 2], num_blocks=1, filters=4, seed=0), [4, 4, 2], [8, 8, 2]),
    "nice": (
        flows.nice([4, 4, 1], num_couplings=2, hidden_units=(8,), seed=0),
        [4, 4, 1],
        [2, 8, 1],
    ),
    "glow": (
        flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0),
        [4, 4, 1],
        [8, 4, 1],
    ),
    "maf": (flows.maf([4], num_layers=2, hidden_units=(8,), seed=0), [4], [5]),
    "iaf": (flows.iaf([4], num_layers=2, hidden_units=(8,), seed=0), [4], [5]),
}


@pytest.mark.parametrize("name", CASES)
def test_right_sizes_are_served(name):
    flow, event, _ = CASES[name]
    x = normal(3, *event)
    np.testing.assert_allclose(called(flow.log_prob, x), flow.log_prob(x), atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_wrong_sizes_are_refused_at_run_time(name):
    flow, event, wrong = CASES[name]
    message = (
        rf"Chain \\'chain\\'.inverse: expected shape \[..., {', '.join(map(str, event))}\], got"
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        called(flow.log_prob, normal(3, *wrong))


@pytest.mark.parametrize("name", CASES)
def test_unknown_rank_is_refused_at_once(name):
    flow, event, _ = CASES[name]
    function = tf.function(flow.log_prob, autograph=False)
    sizes = ", ".join(map(str, event))
    message = rf"expected shape \[..., {sizes}\], got a tensor of unknown rank.*\[None, {sizes}\]"
    with pytest.raises(ValueError, match=message):
        function.get_concrete_function(tf.TensorSpec(None))


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("part", [bijectors.ActNorm(4), bijectors.Rescale([4])])
def test_variables_are_not_broadcast(part, direction, jit):
    function = getattr(part, direction)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"\[3,? ?1\]"):
        called(function, normal(3, 1), jit_compile=jit)
    x = normal(3, 4)
    np.testing.assert_allclose(called(function, x, jit_compile=jit), function(x), atol=1e-6)


@pytest.mark.parametrize("name", ["alternating", "nice", "maf"])
def test_compiled(name):
    flow, event, wrong = CASES[name]
    x = normal(3, *event)
    scores = called(flow.log_prob, x, jit_compile=True)
    np.testing.assert_allclose(scores, flow.log_prob(x), atol=1e-5)
    with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
        called(flow.log_prob, normal(3, *wrong), jit_compile=True)


@pytest.mark.parametrize("recipe", ["real_nvp", "maf"])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_context(recipe, direction):
    if recipe == "real_nvp":
        bijector = real_nvp(context_size=3).bijector
    else:
        maf = flows.maf([4], num_layers=2, hidden_units=(8,), context_size=3, seed=0)
        bijector = maf.bijector

    def function(x, context):
        return getattr(bijector, direction)(x, context=context)

    x, context = normal(5, 4), normal(5, 3)
    np.testing.assert_allclose(called(function, x, context), function(x, context), atol=1e-5)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=r"expected a context of shape \[..., 3\], got"
    ):
        called(function, x, normal(5, 1))
    concrete = tf.function(function, autograph=False).get_concrete_function
    with pytest.raises(ValueError, match=r"context of shape \[..., 3\], got a tensor of unknown"):
        concrete(unknown(x), tf.TensorSpec(None))


def test_gradients():
    flow, x = real_nvp(), normal(5, 4)

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(flow.log_prob(x))
        return tape.gradient(loss, [x, *flow.trainable_variables])

    for a, b in zip(called(gradients, x), gradients(x), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


def operations(function, *shapes):
    specs = [tf.TensorSpec(shape) for shape in shapes]
    graph = tf.function(function, autograph=False).get_concrete_function(*specs).graph
    return [operation.type for operation in graph.get_operations()]


def test_one_check_and_only_where_it_is_needed():
    flow = real_nvp()
    known = operations(flow.log_prob, [None, 4])
    assert not {"Assert", "EnsureShape"} & set(known)
    checked = operations(flow.log_prob, [None, None])
    assert checked.count("Assert") == checked.count("EnsureShape") == 1
    assert checked.count("MatMul") == known.count("MatMul"), "TFP's cache still answers"


def test_cache_answers_for_what_was_checked():
    bijector = real_nvp().bijector

    def function(x):
        y = bijector.forward(x)
        return bijector.inverse(y), bijector.inverse_log_det_jacobian(y)

    assert operations(function, [None, None]).count("MatMul") == 4


# --- A chain knows the shape of its events from its members. ---


@pytest.mark.parametrize(
    "members",
    [
        [bijectors.ActNorm(3), bijectors.ActNorm(4)],
        [bijectors.ActNorm(3), tfb.Exp(), tfb.Invert(bijectors.ActNorm(4))],
        [tfb.Chain([bijectors.ActNorm(3), tfb.Exp()]), bijectors.ActNorm(4)],
        [bijectors.ActNorm(4), bijectors.Chain([tfb.Exp(), bijectors.ActNorm(3)])],
        [bijectors.ActNorm(4), bijectors.Squeeze(), bijectors.ActNorm(4)],
        [tfb.Reshape([2, 2], [4]), bijectors.ActNorm(3)],
    ],
)
def test_members_that_do_not_fit(members):
    with pytest.raises(ValueError, match="Chain 'c': '.*events of shape"):
        bijectors.Chain(members, name="c")


@pytest.mark.parametrize(
    "members, domain, codomain",
    [
        ([tfb.Exp(), tfb.Scale(2.0)], [], []),
        ([tfb.Exp(), bijectors.ActNorm(4)], [4], [4]),
        ([bijectors.ActNorm(4), tfb.Exp()], [4], [4]),
        ([tfb.Reshape([2, 3], [6]), bijectors.ActNorm(6)], [6], [2, 3]),
        ([tfb.SoftmaxCentered(), bijectors.ActNorm(4)], [4], [5]),
        ([bijectors.Squeeze(), bijectors.ActNorm(3)], [None, None, 3], [None, None, 12]),
        ([bijectors.ActNorm(12), bijectors.Squeeze()], [None, None, 3], [None, None, 12]),
    ],
)
def test_what_a_chain_takes(members, domain, codomain):
    chain = bijectors.Chain(members)
    for method, event in [(chain.forward, domain), (chain.inverse, codomain)]:
        value = tf.fill([2, *(4 if n is None else n for n in event)], 0.2)
        assert method(value).shape[0] == 2
        known = [n for n in event if n is not None]
        if known:
            with pytest.raises(ValueError, match=f"Chain 'chain'.*expected shape.* {known[-1]}\\]"):
                method(tf.fill([2, *value.shape[1:-1], value.shape[-1] + 1], 0.2))
