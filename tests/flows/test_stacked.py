"""Recipes whose layers run in a loop are the same flows."""

import keras
import numpy as np
import pytest

from tfp_flows import FlowModel, bijectors, flows

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
    loops = [p for p in models[True].distribution.submodules if isinstance(p, bijectors.Repeat)]
    assert loops and len(models[True].variables) < len(models[False].variables)
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


@pytest.mark.parametrize("name", RECIPES)
def test_by_default_from_eight_periods_on(name):
    depth = next(k for k in ("num_steps", "num_layers", "num_couplings") if k in RECIPES[name][2])
    period = 1 if name in ("glow", "maf_spline") else 2

    def loops(**kwargs):
        parts = build(name, **kwargs).submodules
        return [part for part in parts if isinstance(part, bijectors.Repeat)]

    assert not loops(**{depth: 8 * period - 1})
    deep = loops(**{depth: 8 * period + period - 1})
    assert deep and all(loop.num in (8, 9) for loop in deep)
    assert not loops(**{depth: 8 * period}, stacked=False)


def test_layers_that_cannot_be_stacked():
    def maf(**kwargs):
        return flows.maf([4], num_layers=16, hidden_units=(8,), seed=0, **kwargs)

    for kwargs, what in (
        ({"order": "random"}, "order='random'"),
        ({"degrees": "random"}, "degrees='random'"),
        ({"normalization": "batch_norm"}, "normalization='batch_norm'"),
    ):
        assert not any(isinstance(p, bijectors.Repeat) for p in maf(**kwargs).submodules)
        with pytest.raises(ValueError, match=f"flows.maf: stacked=True is for equal .*{what}"):
            maf(stacked=True, **kwargs)
    with pytest.raises(TypeError, match="flows.maf: stacked must be True, False or None, got 2"):
        maf(stacked=2)
    with pytest.raises(ValueError, match="flows.real_nvp: stacked=True is for vectors"):
        flows.real_nvp([4, 4, 1], stacked=True)
