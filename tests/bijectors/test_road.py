"""The road from the data to the base, and what reads it."""

import functools
import pathlib
import re

import drawn
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, conditioners, flows, masks
from tfp_flows.bijectors.composition import title_of
from tfp_flows.bijectors.modes import reading
from tfp_flows.bijectors.road import Road

perturbed = functools.partial(drawn.perturbed, scale=0.1, seed=1)

tfb, tfd = tfp.bijectors, tfp.distributions

RNG = np.random.default_rng(0)
X = tf.constant(RNG.normal(size=(3, 4)).astype("float32"))


def base(*shape):
    return tfd.Sample(tfd.Normal(0.0, 1.0), shape or [4])


def coupling(size=4, **kwargs):
    conditioner = conditioners.MLP(
        2 * (size // 2), hidden_units=(5,), zero_output=False, seed=0, **kwargs
    )
    return bijectors.AffineCoupling(conditioner, masks.halves(size))


def test_two_files_unwrap_compositions():
    """Whoever else looks into a container by itself will do it a little differently."""
    root = pathlib.Path(tfp_flows.__file__).parent
    names = re.compile(r"\bimport .*\bstock\b|import _(Chain|Invert|Blockwise|Transformed\w+)\b")
    found = {str(p.relative_to(root)) for p in root.rglob("*.py") if names.search(p.read_text())}
    assert found == {f"bijectors/{name}.py" for name in ("composition", "road", "stock")}


def compositions():
    a, b, norm = coupling(), coupling(), bijectors.Rescale([4], log_scale=[0.1, -0.2, 0.3, 0.0])
    blocks = tfb.Blockwise([coupling(2), tfb.Scale(2.0)], block_sizes=[2, 2])
    inside = bijectors.FactorOut(coupling(2), [4])
    yield "stock chain", base(), tfb.Chain([a, tfb.Invert(norm), tfb.Permute([3, 1, 0, 2]), b])
    yield "own chain", base(), bijectors.Chain([a, tfb.Invert(tfb.Chain([norm, b])), blocks])
    yield "inverted", base(), tfb.Invert(bijectors.Chain([tfb.Exp(), tfb.Invert(blocks), inside]))
    yield "rank changes", base(4), tfb.Chain([tfb.Reshape([2, 2]), tfb.Exp(), a])
    sizes = tfb.Blockwise([tfb.SoftmaxCentered(), tfb.Exp()], block_sizes=[2, 2])
    yield "size changes", base(4), tfb.Chain([sizes, a])


@pytest.mark.parametrize("name, latent, bijector", compositions())
def test_it_is_what_tfp_says(name, latent, bijector):
    distribution = perturbed(tfd.TransformedDistribution(latent, bijector))
    road, samples = Road(distribution), distribution.sample(3, seed=[0, 1])
    wanted = distribution.log_prob(tf.identity(samples))
    np.testing.assert_allclose(road.log_prob(samples), wanted, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(road.sample([3], [0, 1]), samples)
    again, log_prob = road.sample_and_log_prob([3], [0, 1])
    np.testing.assert_array_equal(again, samples)
    np.testing.assert_allclose(log_prob, wanted, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(road.forward(road.inverse(samples)), samples, rtol=2e-4, atol=1e-5)


def test_several_ways_back_are_no_road():
    folded = tfd.TransformedDistribution(tfd.Normal(0.0, 1.0), tfb.AbsoluteValue())
    road = Road(folded)
    assert not road.steps and road.base is folded
    np.testing.assert_allclose(road.log_prob(tf.constant(0.5)), folded.log_prob(0.5))


# --- Its readers. ---


def outside_of(*bijectors_before, event=(4,)):
    flow = flows.real_nvp(list(event), num_couplings=2, hidden_units=(4,), seed=0)
    return FlowModel(tfd.TransformedDistribution(flow, tfb.Chain(list(bijectors_before))))


@pytest.mark.parametrize(
    "before",
    [
        tfb.Blockwise([tfb.Exp(), tfb.Sigmoid()], block_sizes=[2, 2]),
        tfb.Blockwise([tfb.Exp(), tfb.Chain([tfb.Sigmoid(), tfb.Scale(tf.Variable(1.0))])], [2, 2]),
        bijectors.FactorOut(tfb.Exp(), [4]),
        bijectors.FactorOut(tfb.Chain([tfb.Exp(), coupling(2)]), [4]),
        tfb.Invert(tfb.Blockwise([tfb.Log(), tfb.Scale(2.0)], block_sizes=[2, 2])),
    ],
)
def test_minus_infinity_outside_the_support_of_a_branch(before, tmp_path):
    model = outside_of(before)
    good = model.sample(3, seed=0).numpy()
    bad = good.copy()
    bad[1, 0] = -1.0
    for scores in (model.log_prob(bad).numpy(), model.predict(bad, verbose=0)):
        assert scores[1] == -np.inf
        np.testing.assert_allclose(scores[[0, 2]], model.log_prob(good).numpy()[[0, 2]], rtol=1e-5)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    np.testing.assert_allclose(served.log_prob(bad)["log_prob"], model.log_prob(bad), rtol=1e-5)


def test_summary_of_an_inverted_chain_has_a_row_for_every_part():
    parts = [coupling(), bijectors.ActNorm(4, name="norm"), tfb.Permute([1, 0, 3, 2], name="mix")]
    model = FlowModel(tfd.TransformedDistribution(base(), tfb.Invert(bijectors.Chain(parts))))
    lines = []
    model.summary(print_fn=lines.append)
    rows = [line.split()[:2] for line in lines[4:-2]]
    assert rows[:3] == [["mix", "Invert(Permute)"], ["norm", "Invert(ActNorm)"]] + [
        ["affine_coupling", "Invert(AffineCoupling)"]
    ]


def test_temperature_of_a_base_without_a_mean(tmp_path):
    heavy = tfd.Independent(tfd.Cauchy(tf.zeros(4), 1.0), 1)
    model = FlowModel(tfd.TransformedDistribution(heavy, coupling()))
    with pytest.raises(ValueError, match="Independent 'IndependentCauchy' has no mean"):
        model.sample(3, temperature=0.5)
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    n, seed = tf.constant(3), tf.constant([0, 1])
    assert np.isfinite(served.sample(n, seed)["samples"]).all()
    with pytest.raises(tf.errors.InvalidArgumentError, match="has no mean"):
        served.sample(n, seed, tf.constant(0.5))


def test_temperature_is_of_the_flows_dtype():
    flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0, dtype="float64")
    model = FlowModel(flow)
    cold, warm = (model.sample(5, seed=1, temperature=t).numpy() for t in (0.1, 1.0))
    np.testing.assert_allclose(cold, 0.1 * warm, rtol=1e-14)  # a fresh flow is the identity


def test_sample_and_log_prob_of_iaf_calls_each_network_once(monkeypatch):
    model = FlowModel(perturbed(flows.iaf([4], num_layers=2, hidden_units=(8,), seed=0)))
    calls = []
    original = conditioners.MADE.call
    monkeypatch.setattr(
        conditioners.MADE, "call", lambda self, *a, **k: calls.append(1) or original(self, *a, **k)
    )
    samples, log_prob = model.sample_and_log_prob(5, seed=3)
    assert len(calls) == 2
    np.testing.assert_array_equal(samples, model.sample(5, seed=3))
    np.testing.assert_allclose(log_prob, model.log_prob(samples), rtol=1e-5)
    assert model.sample_and_log_prob(seed=1)[1].shape == []


def test_titles_are_short():
    chain = tfb.Chain([coupling() for _ in range(40)])
    assert title_of(chain) == "Chain of 40 parts"
    with pytest.raises(ValueError, match="^Chain of 40 parts: got a context"):
        bijectors.context_kwargs(chain, X)


def test_shapes_of_unknown_rank():
    assert bijectors.Squeeze().forward_event_shape(tf.TensorShape(None)).as_list() == [None] * 3
    assert bijectors.Squeeze().inverse_event_shape(tf.TensorShape(None)).as_list() == [None] * 3
    chain = bijectors.Chain([tfb.Invert(bijectors.Squeeze()), tfb.Scale(2.0)])
    assert chain.forward_event_shape(tf.TensorShape(None)).as_list() == [None] * 3


# --- Contexts of other kinds. ---


@keras.saving.register_keras_serializable(package="test_road")
class Aware(keras.layers.Layer):
    """Parameters of a coupling of `[2, 2, 2]` from a label and a field."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = self.add_weight(shape=[], initializer="ones")

    def call(self, x, context):
        label = tf.reduce_sum(context["label"], -1)[:, None, None, None]
        parts = [x + label, context["field"]]
        return 0.1 * self.scale * tf.concat(parts, axis=-1)


def aware(**kwargs):
    context_size = {"label": 3, "field": [2, 2, 1]}
    coupling = bijectors.AffineCoupling(
        Aware(), masks.channel((2, 2, 2)), context_size=context_size, **kwargs
    )
    return bijectors.Chain([tfb.Invert(coupling), bijectors.ActNorm(2, initialized=True)])


CONTEXTS = {
    "label": RNG.normal(size=(5, 3)).astype("float32"),
    "field": RNG.normal(size=(5, 2, 2, 1)).astype("float32"),
}
IMAGES = RNG.normal(size=(5, 2, 2, 2)).astype("float32")


def test_contexts_by_name(tmp_path):
    model = FlowModel(tfd.TransformedDistribution(base(2, 2, 2), aware()))
    assert model.context_size == {"label": (3,), "field": (2, 2, 1)}
    scores = model.log_prob(IMAGES, CONTEXTS)
    one_by_one = [
        model.log_prob(IMAGES[n : n + 1], {k: v[n : n + 1] for k, v in CONTEXTS.items()})[0]
        for n in range(5)
    ]
    np.testing.assert_allclose(scores, one_by_one, rtol=1e-5)
    changed = {**CONTEXTS, "field": CONTEXTS["field"] + 1.0}
    assert (abs(model.log_prob(IMAGES, changed) - scores) > 1e-4).numpy().all()
    # In bare TFP, with other batch shapes, one row for all.
    one = {name: value[0] for name, value in CONTEXTS.items()}
    values, log_det = model.distribution.bijector.inverse_and_log_det(IMAGES[None], one)
    assert values.shape == (1, 5, 2, 2, 2) and log_det.shape == (1, 5)
    by_tfp = model.distribution.log_prob(IMAGES, bijector_kwargs={"context": CONTEXTS})
    np.testing.assert_allclose(by_tfp, scores, rtol=1e-5)
    # Training, files, exports.
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(IMAGES, CONTEXTS, epochs=1, batch_size=2, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = tfp_flows.load(tmp_path / "m.keras")
    np.testing.assert_allclose(
        loaded.log_prob(IMAGES, CONTEXTS), model.log_prob(IMAGES, CONTEXTS), rtol=1e-6
    )
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    tensors = {name: tf.constant(value) for name, value in CONTEXTS.items()}
    got = served.signatures["log_prob"](x=tf.constant(IMAGES), **tensors)["log_prob"]
    np.testing.assert_allclose(got, model.log_prob(IMAGES, CONTEXTS), rtol=1e-5)


@pytest.mark.parametrize(
    "context, message",
    [
        (CONTEXTS["label"], r"expected a context of shape \{'label': \[\.\.\., 3\], .*one tensor"),
        ({"label": CONTEXTS["label"]}, r"expected a context of shape .*got \['label'\]"),
        (
            {**CONTEXTS, "field": CONTEXTS["label"]},
            r"expected a context of shape \[\.\.\., 2, 2, 1\], got \[5, 3\]",
        ),
        (None, r"a context of shape \{'label': .* is required, got none"),
    ],
)
def test_contexts_that_are_refused(context, message):
    model = FlowModel(tfd.TransformedDistribution(base(2, 2, 2), aware()))
    with pytest.raises(ValueError, match=message):
        model.log_prob(IMAGES, context)


def test_independent_flows_get_the_context_of_their_row():
    parts = tfd.Sample(tfd.Normal(tf.zeros([2]), 1.0), [4])
    flow = tfd.TransformedDistribution(parts, coupling(context_size=3))
    both = perturbed(tfd.Independent(flow, 1))  # two vectors of one context
    x, context = RNG.normal(size=(5, 2, 4)).astype("float32"), CONTEXTS["label"]
    wanted = tf.add_n(
        [flow.log_prob(x, bijector_kwargs={"context": context[:, None]})[:, n] for n in (0, 1)]
    )
    model = FlowModel(both)
    np.testing.assert_allclose(model.log_prob(x, context), wanted, rtol=1e-5)
    assert model.sample(5, context=context, seed=0).shape == (5, 2, 4)


# --- Other values than those of the variables. ---


def test_reading_other_values():
    """What `reading` gives is what an assignment would: weights and networks."""
    flow = flows.real_nvp([4], num_couplings=2, hidden_units=(4,), actnorm=True, seed=0)
    values = [tf.constant(RNG.normal(size=v.shape), v.dtype) for v in flow.trainable_variables]
    road, pairs = Road(flow), list(zip(flow.trainable_variables, values, strict=True))
    before = road.log_prob(X)
    with reading(pairs), tf.GradientTape() as tape:
        tape.watch(values)
        got = road.log_prob(X)
    assert all(g is not None for g in tape.gradient(got, values))
    np.testing.assert_array_equal(road.log_prob(X), before)
    for variable, value in pairs:
        variable.assign(value)
    np.testing.assert_allclose(got, road.log_prob(X), rtol=1e-6)
