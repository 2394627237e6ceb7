"""MMD, Wasserstein, the classifier test, precision and recall: closed forms and other programs."""

import functools
import importlib
import itertools
import math

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf
from scipy.spatial.distance import cdist, pdist
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics.pairwise import rbf_kernel

from tfp_flows import _optional, metrics
from tfp_flows.metrics import _samples

FUNCTIONS = {
    "mmd": metrics.mmd,
    "wasserstein": metrics.wasserstein,
    "sliced_wasserstein": metrics.sliced_wasserstein,
    # The protocol's network takes its time, and is no part of what is tried on all.
    "c2st": functools.partial(metrics.c2st, classifier=LogisticRegression()),
    "precision_recall": metrics.precision_recall,
}


def samples(n, m, d=2, seed=0, shift=0.3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), 1.2 * rng.normal(size=(m, d)) + shift


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of three rows or so, the last one shorter."""

    def slices(num_rows, num_columns, entries=None):
        return [slice(n, min(n + 3, num_rows)) for n in range(0, num_rows, 3)]

    for name in ("mmd", "manifold", "wasserstein"):
        monkeypatch.setattr(importlib.import_module(f"tfp_flows.metrics.{name}"), "slices", slices)


# --- MMD. ---


def plain_mmd(x, y, widths, biased):
    """By scikit-learn's kernel matrices."""

    def kernel(a, b):
        return np.mean([rbf_kernel(a, b, gamma=0.5 / w**2) for w in widths], axis=0)

    xx, yy = kernel(x, x), kernel(y, y)
    n, m = len(x), len(y)
    if biased:
        return xx.mean() + yy.mean() - 2.0 * kernel(x, y).mean()
    off = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return off - 2.0 * kernel(x, y).mean()


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_mmd_beside_kernel_matrices(estimator, small_blocks):
    x, y = samples(17, 11)
    widths = np.median(pdist(np.concatenate([x, y]))) * np.array([0.5, 2.0])
    found = metrics.mmd(x, y, scales=(0.5, 2.0), estimator=estimator)
    biased = estimator == "biased"
    np.testing.assert_allclose(found.value, plain_mmd(x, y, widths, biased), rtol=1e-12)
    # The jackknife, by leaving each row out and starting anew.
    variance = 0.0
    for without in (
        [plain_mmd(np.delete(x, i, 0), y, widths, biased) for i in range(len(x))],
        [plain_mmd(x, np.delete(y, j, 0), widths, biased) for j in range(len(y))],
    ):
        variance += (len(without) - 1) * np.var(without)
    np.testing.assert_allclose(found.standard_error, math.sqrt(variance), rtol=1e-10)


def test_mmd_of_gaussians():
    """E k(x, y) = (h^2 / (h^2 + 2))^(d/2) exp(-|mu|^2 / (2 (h^2 + 2))) for unit Gaussians."""
    rng = np.random.default_rng(1)
    shift, h, d = 0.8, 1.3, 3
    truth = 2.0 * (h**2 / (h**2 + 2.0)) ** (d / 2) * -math.expm1(-d * shift**2 / 2 / (h**2 + 2.0))
    x, y = rng.normal(size=(1500, d)), rng.normal(size=(1200, d)) + shift
    for estimator in ("unbiased", "linear"):
        found = metrics.mmd(
            x,
            y[:1500] if estimator == "unbiased" else np.concatenate([y, y[:300]]),
            scales=(1.0,),
            bandwidth=h,
            estimator=estimator,
        )
        assert abs(found.value - truth) < 3.0 * found.standard_error < 0.4 * truth


def test_mmd_standard_error_is_what_other_samples_give():
    found = [metrics.mmd(*samples(40, 30, seed=s, shift=1.0), bandwidth=1.0) for s in range(150)]
    errors = np.array([f.standard_error for f in found])
    spread = np.std([f.value for f in found], ddof=1)
    assert 0.85 < np.sqrt(np.mean(errors**2)) / spread < 1.15


def test_linear_mmd_beside_its_sum():
    x, y = samples(9, 9)  # The ninth has no partner.

    def kernel(a, b):
        return math.exp(-((a - b) ** 2).sum() / (2.0 * 0.7**2))

    terms = [
        kernel(x[i], x[i + 1])
        + kernel(y[i], y[i + 1])
        - kernel(x[i], y[i + 1])
        - kernel(x[i + 1], y[i])
        for i in range(0, 8, 2)
    ]
    found = metrics.mmd(x, y, scales=(1.0,), bandwidth=0.7, estimator="linear")
    np.testing.assert_allclose(found.value, np.mean(terms), rtol=1e-12)
    np.testing.assert_allclose(found.standard_error, scipy.stats.sem(terms), rtol=1e-12)
    z = found.value / found.standard_error
    np.testing.assert_allclose(found.p_value, scipy.stats.norm.sf(z), rtol=1e-12)


@pytest.mark.parametrize(
    "arguments", [{"num_permutations": 39}, {"estimator": "linear", "bandwidth": 1.0}]
)
def test_p_values_are_uniform_when_equal_and_small_when_not(arguments):
    n = 24 if "num_permutations" in arguments else 400
    rng = np.random.default_rng(3)
    equal = [
        metrics.mmd(*rng.normal(size=(2, n, 2)), seed=s, **arguments).p_value for s in range(80)
    ]
    # Steps of 1/40 in the permutations' case: spread over each.
    equal = np.array(equal) - rng.uniform(0.0, 1.0 / 40.0, 80) * ("num_permutations" in arguments)
    assert scipy.stats.kstest(equal, "uniform").pvalue > 0.05
    x, y = samples(n, n, shift=1.5)
    assert metrics.mmd(x, y, **arguments).p_value <= 1 / 40


def test_equal_figures_count_for_equality():
    """Whoever is dealt, of two equal samples none is less apart than as they came."""
    x, _ = samples(8, 1)
    assert metrics.mmd(x, x, estimator="biased", num_permutations=50).p_value == 1.0
    bits = np.repeat([[0.0], [1.0]], 6, axis=0)  # Most deals are as even, or less.
    found = metrics.mmd(bits[::2], bits[1::2], num_permutations=99)
    assert found.p_value == 1.0


def test_mmd_seed_and_order():
    x, y = samples(30, 30)
    first = metrics.mmd(x, y, num_permutations=19, seed=4)
    assert first == metrics.mmd(x, y, num_permutations=19, seed=4)
    np.testing.assert_allclose(first.value, metrics.mmd(y, x).value, rtol=1e-12)
    other = metrics.mmd(x, y, num_permutations=3, seed=5).value  # The seed deals, and no more.
    np.testing.assert_allclose(first.value, other, rtol=1e-12)


# --- Wasserstein. ---


def test_wasserstein_in_one_dimension_beside_scipy():
    rng = np.random.default_rng(0)
    for n, m in ((7, 7), (12, 5), (9, 100)):
        x, y = rng.normal(size=n), rng.exponential(size=m)
        truth = scipy.stats.wasserstein_distance(x, y)
        np.testing.assert_allclose(metrics.wasserstein(x, y), truth, rtol=1e-12)


def test_wasserstein_of_gaussians():
    """W_2^2 = (difference of means)^2 + (difference of deviations)^2."""
    levels = (np.arange(200_000) + 0.5) / 200_000
    x, y = scipy.stats.norm.ppf(levels), scipy.stats.norm.ppf(levels, loc=2.0, scale=2.5)
    np.testing.assert_allclose(metrics.wasserstein(x, y, p=2), 2.5, rtol=1e-4)


@pytest.mark.parametrize("p", [1, 2, 3.5])
def test_assignment_is_the_best_of_all(p):
    x, y = samples(6, 6, d=3)
    cost = cdist(x, y) ** p
    best = min(cost[range(6), list(q)].mean() for q in itertools.permutations(range(6)))
    np.testing.assert_allclose(metrics.wasserstein(x, y, p=p), best ** (1 / p), rtol=1e-12)


def test_assignment_of_unequal_numbers_beside_a_linear_program():
    x, y = samples(4, 6)
    truth = scipy.stats.wasserstein_distance_nd(x, y)
    np.testing.assert_allclose(metrics.wasserstein(x, y), truth, rtol=1e-9)


def test_sliced_wasserstein_of_a_shift(small_blocks):
    """Every direction u sees the shift u.v, and E (u.v)^2 = |v|^2 / d."""
    x, _ = samples(40, 1, d=5)
    found = metrics.sliced_wasserstein(x, x + 2.0, num_projections=1000)
    assert abs(found.value - 2.0) < 3.0 * found.standard_error < 0.3
    spread = [metrics.sliced_wasserstein(x, x + 2.0, num_projections=50, seed=s) for s in range(60)]
    ratio = np.mean([f.standard_error for f in spread]) / np.std([f.value for f in spread])
    assert 0.75 < ratio < 1.3


def test_sliced_wasserstein_in_one_dimension_is_exact():
    x, y = samples(20, 33, d=1)
    found = metrics.sliced_wasserstein(x, y, p=3, num_projections=5)
    np.testing.assert_allclose(found.value, metrics.wasserstein(x, y, p=3), rtol=1e-12)
    assert found.standard_error < 1e-12
    assert metrics.sliced_wasserstein(x, x).standard_error == 0.0


# --- The classifier two-sample test. ---


def test_c2st_of_gaussians():
    """The best classifier of N(0, 1) and N(mu, 1) is right with probability Phi(mu / 2)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 600, 1))
    found = metrics.c2st(x, y + 2.0)
    assert abs(found.value - scipy.stats.norm.cdf(1.0)) < 3.0 * found.standard_error < 0.05
    equal = metrics.c2st(x, y)
    assert abs(equal.value - 0.5) < 3.0 * equal.standard_error
    variance = found.value * (1.0 - found.value) / 1200
    np.testing.assert_allclose(found.standard_error, math.sqrt(variance), rtol=1e-12)


def test_c2st_protocol():
    seen = []

    class Recorder(DummyClassifier):
        def fit(self, rows, labels):
            seen.append((rows, labels))
            return super().fit(rows, labels)

    x, y = samples(50, 50)
    metrics.c2st(100.0 * x + 7.0, 100.0 * y + 7.0, classifier=Recorder())
    assert len(seen) == 5 and all(len(rows) == 80 for rows, _ in seen)
    # Each row is in four of five folds, scaled by the moments of x.
    reference = np.concatenate([rows[labels == 0] for rows, labels in seen])
    np.testing.assert_allclose(reference.mean(0), 0.0, atol=1e-12)
    np.testing.assert_allclose((reference**2).mean(0), 49 / 50, rtol=1e-12)
    chosen = importlib.import_module("tfp_flows.metrics.classifier")._classifier("mlp", 3, 1, "")
    assert chosen.hidden_layer_sizes == (30, 30) and chosen.random_state == 1
    assert chosen.solver == "adam" and chosen.activation == "relu" and chosen.max_iter == 10_000


def test_c2st_sees_what_is_constant_in_the_reference():
    x, y = np.zeros((30, 1)), np.ones((30, 1))
    assert metrics.c2st(x, y, classifier=LogisticRegression()).value == 1.0


# --- Precision and recall. ---


@pytest.mark.parametrize("whole", [False, True])
def test_precision_recall_beside_loops(small_blocks, whole):
    samples_, data = samples(23, 31)
    if whole:  # Many rows are at the radius itself.
        samples_, data = np.round(samples_), np.round(data)
    k = 3

    def radius(rows, i):
        return sorted(np.linalg.norm(rows - rows[i], axis=1))[k]

    def inside(point, rows):
        return [np.linalg.norm(point - rows[i]) <= radius(rows, i) for i in range(len(rows))]

    in_data = np.array([inside(s, data) for s in samples_])
    in_samples = np.array([inside(d, samples_) for d in data])
    found = metrics.precision_recall(samples_, data, num_neighbors=k)
    assert found == metrics.PrecisionRecall(
        precision=in_data.any(1).mean(),
        recall=in_samples.any(1).mean(),
        density=in_data.sum() / len(samples_) / k,
        coverage=in_data.any(0).mean(),
    )
    assert 0.0 < found.recall < 1.0 and (0.0 < found.precision < 1.0 or whole)


def test_dropped_modes_and_bad_samples_show():
    rng = np.random.default_rng(0)
    modes = 20.0 * rng.integers(0, 4, size=(300, 1))
    data = rng.normal(size=(300, 2)) + modes
    dropped = metrics.precision_recall(rng.normal(size=(300, 2)), data)
    assert dropped.precision > 0.9 and dropped.recall < 0.4 and dropped.coverage < 0.4
    wild = metrics.precision_recall(data + 300.0 * rng.normal(size=(300, 2)), data)
    assert wild.precision < 0.1 and wild.density < 0.1
    equal = [
        metrics.precision_recall(*np.random.default_rng(s).normal(size=(2, 300, 2)))
        for s in range(10)
    ]
    assert abs(np.mean([f.coverage for f in equal]) - (1 - 2**-5)) < 0.01
    assert abs(np.mean([f.density for f in equal]) - 1.0) < 0.03


def test_equal_rows_are_in_each_others_balls():
    rows = np.repeat(np.random.default_rng(0).normal(size=(4, 37)) * 1e3, 10, axis=0)
    zero = _samples.squared_distances(rows, rows).numpy() == 0.0
    np.testing.assert_array_equal(zero, np.kron(np.eye(4), np.ones([10, 10])) > 0.0)
    assert metrics.precision_recall(rows, rows) == metrics.PrecisionRecall(1.0, 1.0, 2.0, 1.0)


# --- What all take and refuse. ---


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_tensors_dtypes_and_shapes(name):
    function = FUNCTIONS[name]
    x, y = (s.astype("float32") for s in samples(24, 24, d=4))
    truth = function(x.astype("float64"), y.astype("float64"))
    assert function(x, y) == truth
    assert function(tf.constant(x), tf.constant(y)) == truth
    assert function(x.reshape(24, 2, 1, 2), y.reshape(24, 2, 1, 2)) == truth
    assert function(x.tolist(), y.astype("float64")) == truth
    half = tf.cast(x, tf.bfloat16), tf.cast(y, tf.bfloat16)
    assert function(*half) == function(*(tf.cast(h, tf.float64) for h in half))
    grey = np.random.default_rng(0).integers(0, 255, size=(2, 24, 3, 3)).astype("uint8")
    assert function(*grey) == function(*grey.astype("float64"))


X = np.random.default_rng(0).normal(size=(10, 2))


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("x", "y", "error", "message"),
    [
        (X, X[:, :1], ValueError, r"samples of one space, got events of shape \[2\] and \[1\]"),
        (X, X[:1], ValueError, r"y must have at least \d+ rows, got shape \[1, 2\]. Draw more"),
        (X[0, 0], X, ValueError, "x must hold one event a row"),
        (X, np.where(X > 1.0, np.nan, X), ValueError, r"y holds \d of 20 entries that are NaN"),
        (X * np.inf, X, ValueError, "x holds 20 of 20 entries that are NaN or infinite"),
        (X, X.astype(str), TypeError, "y must hold real numbers, got dtype <U"),
        (X + 1j, X, TypeError, "x must hold real numbers, got dtype complex128"),
        (X[:, :0], X[:, :0], ValueError, r"events of shape \[0\] have no entries"),
    ],
)
def test_bad_samples(name, x, y, error, message):
    with pytest.raises(error, match=message) as caught:
        FUNCTIONS[name](x, y)
    text = str(caught.value)
    assert text.startswith(f"metrics.{name}: ") and "\n" not in text


@pytest.mark.parametrize("name", ["mmd", "c2st", "precision_recall"])
def test_all_rows_equal(name):
    same = np.full([10, 2], 0.1)
    with pytest.raises(ValueError, match=f"metrics.{name}: all rows are equal"):
        FUNCTIONS[name](same, same)
    assert metrics.wasserstein(same, same + 1.0) == pytest.approx(math.sqrt(2.0))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: metrics.mmd(X, X, estimator="u"), ValueError, "mmd: estimator must be one of"),
        (
            lambda: metrics.mmd(X, X, bandwidth=0.0),
            ValueError,
            "bandwidth must be .*, got 0.0",
        ),
        (lambda: metrics.mmd(X, X, scales=2.0), TypeError, "scales must be a sequence of numbers"),
        (lambda: metrics.mmd(X, X, scales=[]), TypeError, "scales must be a sequence of numbers"),
        (lambda: metrics.mmd(X, X, num_permutations=1.5), TypeError, "must be an integer >= 0"),
        (lambda: metrics.mmd(X, X[:9], estimator="linear"), ValueError, "pairs the rows.*10 and 9"),
        (
            lambda: metrics.mmd(X, X, estimator="linear", num_permutations=9),
            ValueError,
            "has its p-value without permutations",
        ),
        (lambda: metrics.wasserstein(X, X, p=0.5), ValueError, "wasserstein: p must be >= 1"),
        (
            lambda: metrics.wasserstein(np.ones([997, 2]), np.ones([1009, 2])),
            ValueError,
            "997 rows against 1009 make an assignment of 1005973.*sliced_wasserstein",
        ),
        (
            lambda: metrics.sliced_wasserstein(X, X, num_projections=1),
            ValueError,
            "num_projections must be an integer >= 2",
        ),
        (lambda: metrics.c2st(X, X[:9]), ValueError, "equally many rows, got 10 and 9"),
        (lambda: metrics.c2st(X, X, classifier="svm"), ValueError, "classifier must be one of"),
        (lambda: metrics.c2st(X, X, classifier=3), TypeError, "a name or a scikit-learn classif"),
        (
            lambda: metrics.precision_recall(X, X, num_neighbors=10),
            ValueError,
            "x must have at least 11 rows",
        ),
    ],
)
def test_bad_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "missing", "package"),
    [("c2st", "sklearn", "scikit-learn"), ("wasserstein", "scipy", "scipy")],
)
def test_missing_package_names_the_extra(name, missing, package, monkeypatch):
    real = importlib.import_module

    def import_module(module):
        if module.split(".")[0] == missing:
            raise ImportError(module)
        return real(module)

    monkeypatch.setattr(_optional.importlib, "import_module", import_module)
    message = rf'metrics.{name} needs {package}: pip install "tfp_flows\[metrics\]"'
    with pytest.raises(ImportError, match=message):
        FUNCTIONS[name](X, X)


def test_estimates_are_numbers():
    found = metrics.mmd(X, X + 1.0)
    assert float(found) == found.value and found.p_value is None
