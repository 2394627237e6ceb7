"""The classifier two-sample test."""

import math
import warnings

import numpy as np

from tfp_flows import _checks
from tfp_flows._optional import optional
from tfp_flows.metrics._samples import Estimate, two_samples


def c2st(x, y, *, classifier="mlp", num_folds=5, seed=1):
    """The classifier two-sample test: how often a classifier tells x from y on rows new to it.

    0.5: it cannot tell them apart; 1: always. The protocol of the benchmark of simulation-based
    inference (`sbibm`): both samples shifted and scaled by the mean and deviation of the entries of
    x, one network of two layers of 10 d rectified units trained by Adam, accuracy over 5 shuffled
    folds, mean. Its published figures have 10,000 samples of the reference posterior as x and
    10,000 of the estimate as y; with fewer rows the network learns less and the figure comes out
    closer to 0.5: compare it at equal numbers only.

    Args:
      x, y: arrays or tensors `[n, *event]`, the reference and what is compared with it, events
        flattened; equally many rows, at least `num_folds`. Computed in float64.
      classifier: `"mlp"`, the protocol's; `"gradient_boosting"`, scikit-learn's
        `HistGradientBoostingClassifier`: faster with many rows, and better at axis-aligned
        differences (grids, categories); or any scikit-learn classifier.
      num_folds: `int >= 2`. Default: 5.
      seed: `int >= 0`, of the folds and of the classifier. 1 is the protocol's.

    Returns:
      An `Estimate`: the accuracy, and its binomial standard error, which does not know that
      another sample would have trained another classifier.

    Raises:
      ImportError: if scikit-learn is missing.
      TypeError, ValueError: for samples of other spaces, unequal numbers of rows, too few, all rows
        equal, entries that are not finite, or arguments out of range.

    References:
      Jan-Matthis Lueckmann, Jan Boelts, David Greenberg, Pedro Goncalves, Jakob Macke. Benchmarking
        Simulation-Based Inference, 2021, arXiv:2101.04653; its package's settings.
      David Lopez-Paz, Maxime Oquab. Revisiting Classifier Two-Sample Tests, 2017, arXiv:1610.06545.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(100, 2)), rng.normal(size=(100, 2))
    >>> c2st(x, y + 6.0).value > 0.98
    True
    """
    title = "metrics.c2st"
    num_folds = _checks.integer(num_folds, "num_folds", title, least=2)
    seed = _checks.integer(seed, "seed", title, least=0)
    x, y = two_samples(x, y, title, least=num_folds)
    if len(x) != len(y):
        raise ValueError(
            f"{title}: x and y must have equally many rows, got {len(x)} and {len(y)}: else "
            "to name the larger always would pass for skill. Cut the longer sample."
        )
    selection = optional("sklearn.model_selection", title, "metrics")
    chosen = _classifier(classifier, x.shape[1], seed, title)
    constant = (x == x[0]).all(axis=0)
    if constant.all() and (y == x[0]).all():
        raise ValueError(
            f"{title}: all rows are equal: there is nothing to classify. Look at the samples."
        )
    # What is constant in x has no scale, or one of rounding: it tells x from y without.
    scale = np.where(constant, 1.0, x.std(axis=0, ddof=1))
    rows = (np.concatenate([x, y]) - x.mean(axis=0)) / scale
    labels = np.repeat([0, 1], len(x))
    folds = selection.KFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of the network's iterations, which the protocol bounds.
        accuracy = selection.cross_val_score(chosen, rows, labels, cv=folds, scoring="accuracy")
    mean = float(accuracy.mean())
    return Estimate(mean, math.sqrt(mean * (1.0 - mean) / len(rows)))


def _classifier(classifier, size, seed, title):
    if not isinstance(classifier, str):
        if hasattr(classifier, "fit") and hasattr(classifier, "predict"):
            return classifier
        raise TypeError(
            f"{title}: classifier must be a name or a scikit-learn classifier, got "
            f"{type(classifier).__name__}."
        )
    _checks.one_of(classifier, ("mlp", "gradient_boosting"), "classifier", title)
    if classifier == "mlp":
        return optional("sklearn.neural_network", title, "metrics").MLPClassifier(
            hidden_layer_sizes=(10 * size, 10 * size), max_iter=10_000, random_state=seed
        )
    return optional("sklearn.ensemble", title, "metrics").HistGradientBoostingClassifier(
        random_state=seed
    )
