"""One context for the whole flow: every member gets it, and nothing ignores it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks
from tfp_flows.bijectors.road import Road

tfb, tfd = tfp.bijectors, tfp.distributions

X = tf.constant(np.random.default_rng(0).normal(size=(3, 4)))
C = tf.constant(np.random.default_rng(1).normal(size=(3, 2)))


def coupling(size=4, *, context_size=2, name="conditional", seed=0):
    conditioner = conditioners.MLP(
        2 * (size // 2),
        hidden_units=(5,),
        activation="tanh",
        context_size=context_size,
        zero_output=False,
        seed=seed,
        dtype="float64",
    )
    return bijectors.AffineCoupling(conditioner, masks.halves(size), dtype=tf.float64, name=name)


def plain(name="plain"):
    return coupling(context_size=None, name=name, seed=7)


def by_hand(chain, direction, value):
    """A walk through the leaves, each called by itself; lists stand for chains."""
    total = 0.0
    for part in chain if direction == "inverse" else reversed(chain):
        there = direction
        if isinstance(part, tfb.Invert) or type(part).__name__ == "_Invert":
            part = part.bijector
            there = {"forward": "inverse", "inverse": "forward"}[direction]
        takes = getattr(part, "context_size", None) is not None
        kwargs = {"context": C} if takes else {}
        value = tf.identity(value)
        log_det = getattr(part, f"{there}_log_det_jacobian")(value, event_ndims=1, **kwargs)
        value = getattr(part, there)(value, **kwargs)
        total = total + log_det
    return value, total


def containers():
    a, b, p = coupling(name="a"), coupling(name="b", seed=3), plain()
    scale = tfb.Scale(tf.constant(2.0, tf.float64))
    flip = tfb.Permute([3, 2, 1, 0])
    inverted = tfb.Invert(b)
    flat = [a, flip, p, inverted, scale]
    return {
        "own Chain": (bijectors.Chain(flat), flat),
        "tfb.Chain": (tfb.Chain(flat), flat),
        "own in own": (bijectors.Chain([a, bijectors.Chain([flip, p, inverted]), scale]), flat),
        "stock in stock": (
            tfb.Chain([tfb.Chain([a, flip]), tfb.Chain([p, inverted, scale])]),
            flat,
        ),
        "stock in own": (bijectors.Chain([tfb.Chain([a, flip]), p, inverted, scale]), flat),
        "own in stock": (tfb.Chain([a, flip, bijectors.Chain([p, inverted]), scale]), flat),
        "Invert of Invert": (tfb.Invert(tfb.Invert(a)), [a]),
    }


@pytest.mark.parametrize("name", containers())
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_every_member_gets_it(name, direction):
    container, leaves = containers()[name]
    kwargs = bijectors.context_kwargs(container, C)
    wanted, wanted_log_det = by_hand(leaves, direction, X)
    got = getattr(container, direction)(tf.identity(X), **kwargs)
    log_det = getattr(container, f"{direction}_log_det_jacobian")(
        tf.identity(X), event_ndims=1, **kwargs
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-12)
    np.testing.assert_allclose(log_det, wanted_log_det, rtol=1e-12)


def test_through_invert_of_a_chain():
    leaves = [coupling(name="a"), plain(), coupling(name="b", seed=3)]
    for chain in (bijectors.Chain(leaves), tfb.Chain(leaves)):
        for container in (tfb.Invert(chain), bijectors.Chain([tfb.Invert(chain)])):
            kwargs = bijectors.context_kwargs(container, C)
            got = container.forward(tf.identity(X), **kwargs)
            np.testing.assert_allclose(got, by_hand(leaves, "inverse", X)[0], rtol=1e-12)


def test_through_blockwise():
    one, two = coupling(2, name="one"), coupling(2, name="two", context_size=None)
    blocks = tfb.Blockwise([one, two], block_sizes=[2, 2])
    wanted = tf.concat(
        [one.forward(tf.identity(X[:, :2]), context=C), two.forward(tf.identity(X[:, 2:]))], -1
    )
    for container in (blocks, bijectors.Chain([blocks]), tfb.Invert(tfb.Invert(blocks))):
        kwargs = bijectors.context_kwargs(container, C)
        np.testing.assert_allclose(container.forward(X, **kwargs), wanted, rtol=1e-12)
    assert bijectors.Chain([blocks]).context_size == 2


def test_through_factor_out():
    below = coupling(2, name="below")
    prior = conditioners.MLP(
        4, hidden_units=(), context_size=2, zero_output=False, seed=2, dtype="float64"
    )
    for conditioner in (None, prior):
        factor_out = bijectors.FactorOut(below, [4], conditioner=conditioner)
        assert factor_out.context_size == 2
        got = tfb.Chain([factor_out]).forward(X, factor_out={"context": C})
        kept = below.forward(tf.identity(X[:, :2]), context=C)
        out = X[:, 2:]
        if conditioner is not None:
            shift, raw = tf.split(prior(kept, context=C), 2, axis=-1)
            out = out * tf.exp(3.0 * tf.tanh(raw / 3.0)) + shift
        np.testing.assert_allclose(got, tf.concat([kept, out], -1), rtol=1e-12)


def test_factor_out_whose_prior_takes_none():
    below = coupling(2, name="below")
    prior = keras.layers.Dense(4, dtype="float64")
    factor_out = bijectors.FactorOut(below, [4], conditioner=prior)
    there = factor_out.forward(X, context=C)
    np.testing.assert_allclose(factor_out.inverse(tf.identity(there), context=C), X, rtol=1e-10)


def test_distribution_takes_bijector_kwargs():
    base = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), [4])
    chain = bijectors.Chain([coupling(), plain()])
    distribution = tfd.TransformedDistribution(base, chain)
    kwargs = {"bijector_kwargs": {"context": C}}
    z = chain.inverse(tf.identity(X), context=C)
    wanted = base.log_prob(z) + chain.inverse_log_det_jacobian(tf.identity(X), 1, context=C)
    np.testing.assert_allclose(distribution.log_prob(X, **kwargs), wanted, rtol=1e-12)
    np.testing.assert_allclose(Road(distribution).log_prob(X, C), wanted, rtol=1e-12)
    assert distribution.sample(3, seed=1, **kwargs).shape == (3, 4)
    x, log_prob = distribution.experimental_sample_and_log_prob(3, seed=1, **kwargs)
    np.testing.assert_allclose(log_prob, distribution.log_prob(tf.identity(x), **kwargs))


def test_nested_distributions():
    base = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), [4])
    inner = tfd.TransformedDistribution(base, coupling(name="inner"))
    outer = tfd.TransformedDistribution(inner, tfb.Chain([plain(), coupling(name="outer", seed=5)]))
    kwargs = {
        "bijector_kwargs": bijectors.context_kwargs(outer.bijector, C),
        "distribution_kwargs": {"bijector_kwargs": {"context": C}},
    }
    flat = bijectors.Chain([outer.bijector, inner.bijector])
    wanted = tfd.TransformedDistribution(base, flat).log_prob(X, bijector_kwargs={"context": C})
    np.testing.assert_allclose(outer.log_prob(X, **kwargs), wanted, rtol=1e-12)
    np.testing.assert_allclose(Road(outer).log_prob(X, C), wanted, rtol=1e-12)
    assert Road(outer).context_shapes == (2,)


# --- What is refused. ---


@pytest.mark.parametrize("name", containers())
def test_missing(name):
    container, _ = containers()[name]
    with pytest.raises(ValueError, match=r"a context of shape \[\.\.\., 2\] is required, got none"):
        container.forward(X)
    with pytest.raises(ValueError, match="is required, got none"):
        container.inverse_log_det_jacobian(X, 1)


def test_ignored():
    with pytest.raises(ValueError, match="AffineCoupling 'plain'.forward: got a context, which"):
        plain().forward(X, context=C)
    with pytest.raises(ValueError, match="Chain 'chain'.inverse: got a context, which this"):
        bijectors.Chain([plain(), tfb.Exp()]).inverse(X, context=C)
    with pytest.raises(ValueError, match="no part of it takes one: it would be ignored"):
        bijectors.context_kwargs(tfb.Chain([plain(), tfb.Exp()]), C)
    assert bijectors.context_kwargs(plain(), None) == {}


def test_misspelt_keyword():
    with pytest.raises(TypeError, match="unexpected keyword contxt; the only one is `context`"):
        coupling().forward(X, contxt=C)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (tf.zeros([3, 3], tf.float64), r"expected a context of shape \[\.\.\., 2\], got \[3, 3\]"),
        (tf.zeros([], tf.float64), r"expected a context of shape \[\.\.\., 2\], got \[\]"),
        (tf.zeros([5, 2], tf.float64), r"broadcasts to the argument's, \[3\], got \[5\]"),
        (tf.zeros([2, 3, 2], tf.float64), r"broadcasts to the argument's, \[3\], got \[2, 3\]"),
    ],
)
def test_wrong_shape(context, message):
    for bijector in (coupling(), bijectors.Chain([coupling(), tfb.Exp()])):
        with pytest.raises(ValueError, match=message):
            bijector.forward(X, context=context)


def test_different_sizes():
    with pytest.raises(ValueError, match=r"different sizes, \{'a': 2, 'b': 3\}"):
        bijectors.Chain([coupling(name="a"), coupling(name="b", context_size=3)])
    with pytest.raises(ValueError, match=r"different sizes, \{'conditioner': 3, 'below': 2\}"):
        bijectors.FactorOut(
            coupling(2, name="below"),
            [4],
            conditioner=conditioners.MLP(4, context_size=3, dtype="float64"),
        )


def test_same_name_in_a_stock_chain():
    """TFP routes by name: it would hand a context to the member that takes none."""
    chain = tfb.Chain([coupling(name="same"), plain(name="same")])
    with pytest.raises(ValueError, match="two members named 'same' of which only one takes"):
        bijectors.context_kwargs(chain, C)
    chain = tfb.Chain([coupling(name="same"), coupling(name="same", seed=3)])
    wanted = by_hand(chain.bijectors, "forward", X)[0]
    got = chain.forward(X, **bijectors.context_kwargs(chain, C))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


# --- Forms of a context. ---


@pytest.mark.parametrize("form", ["row", "vector", "list", "numpy", "float32", "int", "variable"])
def test_one_row_serves_the_batch(form):
    row = np.array([[1.0, -2.0]])
    context = {
        "row": tf.constant(row),
        "vector": tf.constant(row[0]),
        "list": row.tolist(),
        "numpy": row,
        "float32": tf.constant(row, tf.float32),
        "int": tf.constant(row, tf.int32),
        "variable": tf.Variable(row),
    }[form]
    chain = bijectors.Chain([coupling(), plain()])
    got = chain.forward(X, context=context)
    wanted = chain.forward(tf.identity(X), context=tf.constant(np.tile(row, (3, 1))))
    np.testing.assert_allclose(got, wanted, rtol=1e-12)


def test_rows_are_not_mixed():
    """Two batch axes of contexts and of points: each point meets its own context."""
    bijector = coupling()
    x = tf.random.stateless_normal([5, 3, 4], seed=[0, 1], dtype=tf.float64)
    c = tf.random.stateless_normal([5, 3, 2], seed=[0, 2], dtype=tf.float64)
    for context in (c, c[:, :1], c[:1], c[0], c[:, :1][0]):
        full = tf.broadcast_to(context, [5, 3, 2])
        got = bijector.forward(x, context=context)
        for i in range(5):
            for j in range(3):
                one = bijector.forward(tf.identity(x[i, j]), context=full[i, j])
                np.testing.assert_allclose(got[i, j], one, rtol=1e-10)


@pytest.mark.parametrize("width", [3, 6])
def test_rows_are_not_mixed_where_a_member_acts_on_part_of_the_event(width):
    """A vector coupling in a chain over images: width 3 equals the batch size."""
    vector = coupling()
    image = tfb.Chain(
        [bijectors.Squeeze(dtype=tf.float64), tfb.Invert(bijectors.Squeeze(dtype=tf.float64))]
    )
    chain = bijectors.Chain([image, vector])
    x = tf.random.stateless_normal([3, 2, 2 * width, 4], seed=[0, 1], dtype=tf.float64)
    got = chain.forward(x, context=C)
    log_det = chain.forward_log_det_jacobian(tf.identity(x), 3, context=C)
    for n in range(3):
        one = vector.forward(tf.identity(x[n]), context=C[n])
        np.testing.assert_allclose(got[n], one, rtol=1e-10)
        one = vector.forward_log_det_jacobian(tf.identity(x[n]), 1, context=C[n])
        np.testing.assert_allclose(log_det[n], tf.reduce_sum(one), rtol=1e-10)


def test_unknown_batch_size():
    chain = bijectors.Chain([coupling(), plain()])
    spec = tf.TensorSpec([None, 4], tf.float64), tf.TensorSpec([None, 2], tf.float64)
    forward = tf.function(lambda x, c: chain.forward(x, context=c), input_signature=spec)
    wanted = chain.forward(X, context=C)
    np.testing.assert_allclose(forward(X, C), wanted, rtol=1e-12)
    np.testing.assert_allclose(forward(X, C[:1])[0], wanted[0], rtol=1e-12)
    with pytest.raises(tf.errors.InvalidArgumentError):
        forward(X, C[:2])
