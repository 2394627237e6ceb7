"""The estimator inside scikit-learn's own machinery, beside its own densities."""

import importlib
import pickle
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, ShuffleSplit
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tfp_flows import _optional
from tfp_flows.estimators import FlowDensity

tfb, tfd = tfp.bijectors, tfp.distributions

RNG = np.random.default_rng(0)
SPREAD = np.array([[3.0, 0.0, 0.0], [2.0, 1.0, 0.0], [0.0, -1.0, 0.1]])
X, NEW = (RNG.normal(size=[n, 3]) @ SPREAD.T + [100.0, 0.0, -5.0] for n in (1500, 500))


def normal(event_shape, *, seed, scale=1.0):
    """A recipe of the user's own: a normal distribution of its mean alone, quickly traced."""
    del seed
    loc = tf.Variable(tf.ones(event_shape), name="loc")
    base = tfd.Sample(tfd.Normal(0.0, scale), event_shape)
    return tfd.TransformedDistribution(base, tfb.Shift(loc))


@pytest.fixture(scope="module")
def density():
    options = {"num_layers": 1, "hidden_units": (8,)}
    found = FlowDensity(options=options, epochs=30, batch_size=50, learning_rate=0.02)
    return found.set_params(random_state=0).fit(X)


def test_scores_are_those_of_the_gaussian_that_the_rows_have(density):
    best = GaussianMixture(1, random_state=0).fit(X)
    assert abs(density.score(NEW) - best.score(NEW)) < 0.03
    np.testing.assert_allclose(density.score_samples(NEW).mean(), density.score(NEW))
    assert np.corrcoef(density.score_samples(NEW), best.score_samples(NEW))[0, 1] > 0.99
    drawn = density.sample(4000, random_state=1)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(X.T), atol=0.9)
    np.testing.assert_allclose(drawn.mean(axis=0), X.mean(axis=0), atol=0.2)
    np.testing.assert_array_equal(drawn, density.sample(4000, random_state=1))
    assert density.n_features_in_ == 3 and density.n_iter_ == len(density.history_["val_loss"])


def test_it_is_pickled_with_its_weights(density):
    again = pickle.loads(pickle.dumps(density))
    np.testing.assert_allclose(again.score_samples(NEW), density.score_samples(NEW), rtol=1e-5)
    assert again.get_params() == density.get_params()


def test_a_grid_search_over_a_pipeline_finds_the_better_scale():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(X[:300], columns=["a", "b", "c"])
    pipeline = make_pipeline(
        StandardScaler(),
        FlowDensity(normal, epochs=10, learning_rate=0.2, standardize=False, random_state=0),
    )
    grid = {"flowdensity__options": [{"scale": 5.0}, {"scale": 1.0}]}
    split = ShuffleSplit(1, random_state=0)
    search = GridSearchCV(pipeline, grid, cv=split).fit(frame)
    assert search.best_params_["flowdensity__options"] == {"scale": 1.0}
    scores = search.cv_results_["mean_test_score"]
    # Of scaled columns: a normal distribution's mean score, its own scale or five times that.
    train, test = next(split.split(frame))
    scaled = StandardScaler().fit(X[train]).transform(X[test])
    for found, scale in zip(scores, (5.0, 1.0), strict=True):
        wanted = tfd.Normal(0.0, scale).log_prob(scaled).numpy().sum(axis=1).mean()
        assert abs(found - wanted) < 0.05
    assert search.score_samples(frame).shape == (300,)
    assert list(search.best_estimator_[-1].history_) == ["loss", "val_loss"]


def test_fits_repeat():
    density = FlowDensity(normal, epochs=2, batch_size=30, random_state=3)
    first = density.fit(X[:100]).score_samples(NEW)
    np.testing.assert_array_equal(clone(density).fit(X[:100]).score_samples(NEW), first)
    density.set_params(random_state=4, validation_fraction=None).fit(X[:100])
    assert (density.score_samples(NEW) != first).any()
    assert list(density.history_) == ["loss"]


BAD = {
    "nan": ({}, np.full([9, 2], np.nan), "Input X contains NaN"),
    "constant": ({}, np.ones([9, 2]), "constant in the training data"),
    "recipe": ({"recipe": "mav"}, X, "recipe must be one of"),
    "no recipe": ({"recipe": 3}, X, "must be the name of a recipe or a function, got 3"),
    "seed": ({"options": {"seed": 1}}, X, "options must be a dictionary"),
    "epochs": ({"epochs": 0}, X, "FlowDensity.fit: epochs must be an integer >= 1, got 0"),
    "share": ({"validation_fraction": 1.5}, X, "validation_fraction must lie in"),
    "few": ({"validation_fraction": 0.5}, X[:2], "leaves 1 to train on"),
    "options": ({"options": {"layers": 3}}, X, "unexpected argument layers"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments(name):
    arguments, x, message = BAD[name]
    with pytest.raises((TypeError, ValueError), match=message):
        FlowDensity(**arguments).fit(x)


def test_other_rows_than_were_fitted(density):
    with pytest.raises(NotFittedError):
        FlowDensity().score_samples(X)
    with pytest.raises(ValueError, match="X has 2 features, but FlowDensity is expecting 3"):
        density.score(NEW[:, :2])


def test_without_scikit_learn(monkeypatch):
    real = importlib.import_module

    def import_module(name):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return real(name)

    for name in [n for n in sys.modules if n.startswith("tfp_flows.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(_optional.importlib, "import_module", import_module)
    message = r'tfp_flows.estimators needs scikit-learn: pip install "tfp_flows\[sklearn\]"'
    with pytest.raises(ImportError, match=message):
        real("tfp_flows.estimators")


def test_columns_that_float32_cannot_tell_apart_are_refused():
    rows = np.random.default_rng(0).normal(size=(50, 2)) * [1.0, 100.0] + [0.0, 1.7e9]
    with pytest.raises(ValueError, match="column 1 .* deviation 9.* around 1.7e.09.* Subtract its"):
        FlowDensity(epochs=1).fit(rows)
