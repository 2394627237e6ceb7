"""Recipes whose layers run in a loop are the same flows."""

import pathlib

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, conditioners, flows, masks, preprocessing
from tfp_flows.saving import weights

tfd = tfp.distributions
RNG = np.random.default_rng(0)
VECTOR = {"hidden_units": (5,), "seed": 3, "dtype": "float64"}

RECIPES = {
    "nice": (flows.nice, [5], {"num_couplings": 5, **VECTOR}),
    "real_nvp": (
        flows.real_nvp,
        [4],
        {"num_couplings": 5, "actnorm": True, "context_size": 2, **VECTOR},
    ),
    "maf": (flows.maf, [4], {"num_layers": 4, **VECTOR}),
    "maf_spline": (
        flows.maf,
        [3],
        {
            "num_layers": 2,
            "order": "same",
            "elementwise": "rational_quadratic_spline",
            "num_bins": 3,
            "normalization": "actnorm",
            **VECTOR,
        },
    ),
    "iaf": (flows.iaf, [4], {"num_layers": 4, **VECTOR}),
    "glow": (
        flows.glow,
        [4, 4, 1],
        {"num_levels": 2, "num_steps": 2, "hidden_filters": 4, "seed": 3, "dtype": "float64"},
    ),
}


def build(name, **kwargs):
    recipe, shape, arguments = RECIPES[name]
    return recipe(shape, **{**arguments, **kwargs})


def data_of(name):
    shape, arguments = RECIPES[name][1:]
    x = 2.0 * RNG.normal(size=(24, *shape)) + 1.0
    size = arguments.get("context_size")
    return x, None if size is None else RNG.normal(size=(24, size))


@pytest.mark.parametrize("name", RECIPES)
def test_it_trains_alike_and_each_reads_the_others_weights(name, tmp_path):
    x, context = data_of(name)
    models, scores = {}, {}
    for stacked in (False, True):
        model = models[stacked] = FlowModel(build(name, stacked=stacked))
        model.compile(keras.optimizers.SGD(1e-2))
        model.fit(x, context, epochs=2, batch_size=12, shuffle=False, verbose=0)
        scores[stacked] = model.log_prob(x, context).numpy()
        model.save_weights(tmp_path / f"{stacked}.weights.h5")
    assert loops(models[True].distribution)
    assert len(models[True].variables) < len(models[False].variables)
    np.testing.assert_allclose(scores[True], scores[False], rtol=1e-9)
    samples = [
        model.sample(4, seed=1, context=None if context is None else context[:4])
        for model in models.values()
    ]
    np.testing.assert_allclose(samples[1], samples[0], rtol=1e-7, atol=1e-9)
    for stacked in (False, True):
        other = FlowModel(build(name, stacked=not stacked, seed=4))
        other.load_weights(tmp_path / f"{stacked}.weights.h5")
        np.testing.assert_allclose(other.log_prob(x, context), scores[stacked], rtol=1e-12)


def loops(flow):
    return [part for part in flow.submodules if isinstance(part, bijectors.Repeat)]


@pytest.mark.parametrize("name", RECIPES)
def test_by_default(name):
    """A Glow from eight steps on; the others never, whose layers are traced fast."""
    depth = next(k for k in ("num_steps", "num_layers", "num_couplings") if k in RECIPES[name][2])
    assert not loops(build(name, **{depth: 7}))
    assert not loops(build(name, **{depth: 16}, stacked=False))
    found = loops(build(name, **{depth: 16}))
    assert [loop.num for loop in found] == ([16, 16] if name == "glow" else [])
    period = 1 if name in ("glow", "maf_spline") else 2
    assert {loop.num for loop in loops(build(name, **{depth: 5}, stacked=True))} == {5 // period}


def test_layers_that_cannot_be_stacked():
    def maf(**kwargs):
        return flows.maf([4], num_layers=16, hidden_units=(8,), seed=0, **kwargs)

    for kwargs, what in (
        ({"order": "random"}, "order='random'"),
        ({"degrees": "random"}, "degrees='random'"),
        ({"normalization": "batch_norm"}, "normalization='batch_norm'"),
    ):
        assert not loops(maf(**kwargs))
        with pytest.raises(ValueError, match=f"flows.maf: stacked=True is for equal .*{what}"):
            maf(stacked=True, **kwargs)
    assert flows.maf([4], num_layers=1, hidden_units=(8,), stacked=True).event_shape == [4]
    with pytest.raises(TypeError, match="flows.maf: stacked must be True, False or None, got 2"):
        maf(stacked=2)
    with pytest.raises(ValueError, match="flows.real_nvp: stacked=True is for vectors"):
        flows.real_nvp([4, 4, 1], stacked=True)


def test_an_export_answers_and_has_gradients(tmp_path):
    x, context = data_of("real_nvp")
    model = FlowModel(build("real_nvp", stacked=True, num_couplings=4, actnorm=False))
    for v in model.trainable_variables:
        v.assign_add(RNG.normal(size=v.shape, scale=0.1))
    model.export(tmp_path / "served")
    served = tf.saved_model.load(str(tmp_path / "served"))
    slopes = []
    for log_prob in (
        lambda x: model.log_prob(x, context),
        lambda x: served.log_prob(x, context)["log_prob"],
    ):
        points = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(points)
            found = log_prob(points)
        np.testing.assert_allclose(found, model.log_prob(x, context), rtol=1e-10)
        slopes.append(tape.gradient(found, points))
    np.testing.assert_allclose(slopes[0], slopes[1], rtol=1e-9)
    n, seed = tf.constant(3), tf.constant([0, 1])
    cold = served.sample(n, seed, context[:3], tf.constant(0.5, tf.float64))["samples"]
    wanted = model.sample(3, seed=[0, 1], context=context[:3], temperature=0.5)
    np.testing.assert_allclose(cold, wanted, rtol=1e-9)


# --- Files. ---

OLD = pathlib.Path(__file__).parent.parent / "fixtures" / "v0.1.0"
OLD_MODELS = {
    "nice.keras": lambda: flows.nice([4], num_couplings=3, hidden_units=(4,), stacked=True),
    "real_nvp.keras": lambda: flows.real_nvp(
        [4], num_couplings=2, hidden_units=(4,), actnorm=True, context_size=2, stacked=True
    ),
    "maf.weights.h5": lambda: flows.maf([4], num_layers=2, hidden_units=(8,), stacked=True),
    "iaf.keras": lambda: flows.iaf(
        [4], num_layers=2, hidden_units=(8,), context_size=2, stacked=True
    ),
    "glow_dequantized.keras": lambda: tfd.TransformedDistribution(
        flows.glow([4, 4, 1], num_levels=2, num_steps=2, hidden_filters=4, stacked=True),
        preprocessing.Logit(scale=17.0),
    ),
}


@pytest.mark.parametrize("name", OLD_MODELS)
@pytest.mark.filterwarnings("ignore:tfp_flows. the weights are unchecked")
def test_weights_of_an_older_version(name):
    noise = preprocessing.UniformDequantization(num_levels=17, seed=0)
    model = FlowModel(OLD_MODELS[name](), dequantization=noise if "dequantized" in name else None)
    model.load_weights(OLD / name)
    with np.load(OLD / "answers.npz") as answers:
        x, context, wanted = (
            answers.get(f"{name.split('.')[0]}/{what}") for what in ("x", "context", "log_prob")
        )
    np.testing.assert_allclose(model.log_prob(x, context), wanted, rtol=1e-5, atol=1e-5)


def test_another_number_of_steps_is_refused(tmp_path):
    def model(num, stacked):
        flow = flows.maf(
            [3], num_layers=num, order="same", hidden_units=(4,), seed=num, stacked=stacked
        )
        return FlowModel(flow)

    for stacked in (True, False):
        model(3, stacked).save_weights(tmp_path / f"{stacked}.weights.h5")
        for other in (model(2, True), model(4, True), model(2, False)):
            before = [v.numpy() for v in other.variables]
            with pytest.raises(ValueError, match="holds the weights of another model"):
                other.load_weights(tmp_path / f"{stacked}.weights.h5")
            for v, value in zip(other.variables, before, strict=True):
                np.testing.assert_array_equal(v.numpy(), value)


def test_files_of_deep_flows(tmp_path, monkeypatch):
    """Of few arrays and of many weights, for which the lines of a file are not too many."""
    monkeypatch.setattr(weights, "_LONGEST_LINE", 512)

    def model(stacked):
        flow = flows.maf([2], num_layers=30, order="same", hidden_units=(), seed=0, stacked=stacked)
        return FlowModel(flow)

    deep, other = model(True), model(False)
    for v in deep.trainable_variables:
        v.assign(RNG.normal(size=v.shape, scale=0.1))
    deep.save_weights(tmp_path / "m.weights.h5")
    other.load_weights(tmp_path / "m.weights.h5")
    kernels = [v for v in deep.variables if v.shape == (30, 2, 4)]
    theirs = [v.numpy() for v in other.variables if v.shape == (2, 4)]
    np.testing.assert_array_equal(kernels[0].numpy(), np.stack(theirs))


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "m.weights.h5"
    model = FlowModel(build("maf", stacked=True))
    model.save_weights(path)
    with h5py.File(path, "r+") as file:
        lines = file["vars/unrolled"][()].tobytes().replace(b" 1 ", b" 7 ")
        file["vars/unrolled"][...] = np.frombuffer(lines, np.uint8)
    other = FlowModel(build("maf", stacked=False))
    with pytest.raises(ValueError, match="'vars/unrolled' is not what was written"):
        other.load_weights(path)
    with h5py.File(path, "r+") as file:
        del file["vars/digests"]
    with (
        pytest.warns(UserWarning, match="unchecked"),
        pytest.raises(ValueError, match="is to be in it"),
    ):
        other.load_weights(path)


def test_a_loop_of_loops_with_a_context_network(tmp_path):
    def step(seed):
        layer = conditioners.MLP(4, hidden_units=(3,), context_size=2, zero_output=False, seed=seed)
        coupling = bijectors.AffineCoupling(layer, masks.halves(4))
        return bijectors.Chain([bijectors.ActNorm(4, initialized=True), coupling])

    def model(loops):
        parts = [step(n) for n in range(5)]
        if loops:
            pairs = [bijectors.Repeat.of(parts[n : n + 2]) for n in (0, 2)]
            parts = [bijectors.Repeat.of(pairs), parts[4]]
        base = tfd.Independent(tfd.Normal(tf.zeros([4]), 1.0), 1)
        flow = tfd.TransformedDistribution(base, bijectors.Chain(parts))
        embedding = keras.layers.Dense(2, kernel_initializer=keras.initializers.GlorotNormal(1))
        return FlowModel(flow, context_network=embedding)

    x, context = (RNG.normal(size=(8, n)).astype("float32") for n in (4, 3))
    for loops in (True, False):
        one, other = model(loops), model(not loops)
        wanted = one.log_prob(x, context)
        np.testing.assert_allclose(other.log_prob(x, context), wanted, rtol=1e-5)
        for v in one.trainable_variables:
            v.assign_add(RNG.normal(size=v.shape, scale=0.1))
        one.save_weights(tmp_path / f"{loops}.weights.h5")
        other.load_weights(tmp_path / f"{loops}.weights.h5")
        np.testing.assert_allclose(
            other.log_prob(x, context), one.log_prob(x, context), rtol=1e-5, atol=1e-5
        )
        assert not np.allclose(one.log_prob(x, context), wanted, rtol=1e-3)


def test_the_optimizer_of_the_other_form_keeps_its_state(tmp_path):
    x, _ = data_of("maf")
    model, other = (FlowModel(build("maf", stacked=stacked)) for stacked in (True, False))
    for m in (model, other):
        m.compile("adam")
    model.fit(x, epochs=1, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    with pytest.warns(UserWarning, match="the optimizer keeps its own state"):
        other.load_weights(tmp_path / "m.weights.h5")
    assert int(other.optimizer.iterations.numpy()) == 0
