"""A density as a scikit-learn estimator."""

import keras
import numpy as np
import tensorflow_probability as tfp
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from tfp_flows import _checks, flows, preprocessing
from tfp_flows.models import FlowModel, datasets

_ROWS = 4096  # that are scored at a time
_SEEDS = 2**31 - 1
_COARSEST = 1e-3  # steps of float32, as a share of a column's deviation


class FlowDensity(DensityMixin, BaseEstimator):
    """A density of rows, learned by a flow, as an estimator of scikit-learn.

    It has what scikit-learn's own densities have (`KernelDensity`, `GaussianMixture`), so that
    `cross_val_score`, `GridSearchCV` and `Pipeline` take it. The columns are standardized inside of
    it: scores are log-densities of the rows as they are given, in nats. As the last step of a
    `Pipeline` it scores what it is given there: behind a `StandardScaler`, scaled rows.

    Rows are numbers `[n, D]`; they are computed with in float32. A density of integers, rounded
    numbers, or columns that depend on each other exactly has no upper bound, and training finds
    that out: `tables.TableFlow` is for those.

    Args:
      recipe: name of a recipe of `tfp_flows.flows` for vectors (`"maf"`, `"real_nvp"`, ...), or a
        function `(event_shape, *, seed, **options)` that returns a `tfd.Distribution` with
        variables.
      options: dictionary, what else the recipe takes, or `None`. A grid has several:
        `{"options": [{"num_layers": 3}, {"num_layers": 6}]}`.
      epochs: `int >= 1`, at most. Default: 100.
      batch_size: `int >= 1`, rows of a step. Default: 100.
      learning_rate: number `> 0`, of Adam's first step; it falls to zero as a cosine. Default:
        0.001.
      validation_fraction: share of the rows, in (0, 1), that is held out: training ends `patience`
        epochs after the one that scored best on them, and has its weights. `None`: all rows are
        trained on, for `epochs` epochs. Default: 0.1.
      patience: `int >= 1`. Default: 10.
      standardize: whether the columns are. If not, they should be already.
      random_state: `int`, `np.random.RandomState` or `None`, of the initial weights, the rows held
        out, and the order of training. With an `int` two fits are equal, while TensorFlow's
        global seed (`tf.random.set_seed`) is.
      verbose: as of `keras.Model.fit`.

    Attributes:
      model_: the fitted `FlowModel`: for files, exports, latents, `complete`.
      history_: dictionary, what `fit` measured in each epoch.
      n_iter_: `int`, number of epochs.
      n_features_in_, feature_names_in_: as of every estimator.

    Raises:
      ImportError: on import, if scikit-learn is not installed (extra `sklearn`).
      TypeError, ValueError: by `fit`, for arguments out of range, or rows that are not finite,
        constant in a column, or fewer than 2.

    >>> x = np.random.default_rng(0).normal(size=(200, 2))
    >>> density = FlowDensity("maf", options={"num_layers": 1, "hidden_units": (8,)}, epochs=2)
    >>> density.fit(x).score_samples(x[:5]).shape
    (5,)
    >>> density.sample(3, random_state=0).shape
    (3, 2)

    ```python
    from sklearn.model_selection import GridSearchCV

    grid = {"options": [{"num_layers": 3}, {"num_layers": 6}], "learning_rate": [1e-3, 3e-3]}
    best = GridSearchCV(FlowDensity("maf", random_state=0), grid, cv=3).fit(x).best_estimator_
    ```
    """

    def __init__(
        self,
        recipe="maf",
        *,
        options=None,
        epochs=100,
        batch_size=100,
        learning_rate=1e-3,
        validation_fraction=0.1,
        patience=10,
        standardize=True,
        random_state=None,
        verbose=0,
    ):
        # As they come: scikit-learn's `clone` compares them, and `set_params` sets them unseen.
        self.recipe = recipe
        self.options = options
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.standardize = standardize
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X, y=None):
        """Trains afresh.

        Args:
          X: rows `[n, D]`, an array or a frame.
          y: not used; there for scikit-learn.

        Returns:
          The estimator itself.
        """
        title = "FlowDensity.fit"
        epochs = _checks.positive_integer(self.epochs, "epochs", title)
        batch_size = _checks.positive_integer(self.batch_size, "batch_size", title)
        rate = _checks.positive_number(self.learning_rate, "learning_rate", title)
        patience = _checks.positive_integer(self.patience, "patience", title)
        x = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        _check_digits(x, title)
        rng = check_random_state(self.random_state)
        seed, order = rng.randint(_SEEDS), rng.permutation(len(x))
        held_out = 0
        if self.validation_fraction is not None:
            share = _checks.fraction(self.validation_fraction, "validation_fraction", title)
            held_out = max(1, round(share * len(x)))
            if len(x) - held_out < 2:
                raise ValueError(
                    f"{title}: validation_fraction={share} of {len(x)} rows leaves "
                    f"{len(x) - held_out} to train on. Give more rows, or None."
                )
        rows, rest = x[order[held_out:]].astype(np.float32), x[order[:held_out]].astype(np.float32)
        distribution = self._distribution(x.shape[1], seed)
        if self.standardize:
            scaling = preprocessing.Standardize.fit(rows)
            distribution = tfp.distributions.TransformedDistribution(distribution, scaling)
        model = FlowModel(distribution)
        steps = epochs * -(-len(rows) // batch_size)
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        model.compile(keras.optimizers.Adam(schedule, global_clipnorm=10.0))
        watch = {}
        if held_out:
            stop = keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)
            watch = {"validation_data": (rest,), "callbacks": [stop]}
        # An order by the seed: that of Keras's own would go on from fit to fit.
        data = datasets.of_arrays(rows, batch_size, shuffle=True, seed=seed)
        history = model.fit(data, epochs=epochs, verbose=self.verbose, **watch)
        self.model_, self.history_ = model, history.history
        self.n_iter_ = len(history.epoch)
        return self

    def _distribution(self, size, seed):
        title = "FlowDensity.fit"
        recipe, options = self.recipe, self.options or {}
        if isinstance(recipe, str):
            _checks.one_of(recipe, flows.__all__, "recipe", title)
            recipe = getattr(flows, recipe)
        elif not callable(recipe):
            raise TypeError(
                f"{title}: recipe must be the name of a recipe or a function, got {recipe!r}."
            )
        if not isinstance(options, dict) or "seed" in options:
            raise ValueError(
                f"{title}: options must be a dictionary of the recipe's arguments, without its "
                f"seed, which `random_state` gives; got {options!r}."
            )
        return recipe([size], seed=seed, **options)

    def score_samples(self, X):
        """Log-density of each row in nats.

        Args:
          X: rows `[n, D]`.

        Returns:
          NumPy array `[n]`.
        """
        check_is_fitted(self, "model_")
        x = validate_data(self, X, dtype=np.float64, reset=False).astype(np.float32)
        parts = [self.model_.log_prob(x[i : i + _ROWS]) for i in range(0, len(x), _ROWS)]
        return np.concatenate(parts).astype(np.float64)

    def score(self, X, y=None):
        """Mean log-density of the rows, in nats: as of `GaussianMixture`, not their sum.

        Args:
          X: rows `[n, D]`.
          y: not used; there for scikit-learn.

        Returns:
          `float`; larger is better.
        """
        return float(np.mean(self.score_samples(X)))

    def sample(self, n_samples=1, random_state=None):
        """New rows.

        Args:
          n_samples: `int >= 1`. Default: 1.
          random_state: `int`, `np.random.RandomState` or `None`; the same `int` gives the same
            rows.

        Returns:
          NumPy array `[n_samples, D]`, float32.
        """
        check_is_fitted(self, "model_")
        number = _checks.positive_integer(n_samples, "n_samples", "FlowDensity.sample")
        seed = check_random_state(random_state).randint(_SEEDS)
        return self.model_.sample(number, seed=seed).numpy()


def _check_digits(x, title):
    """Refuses columns whose rows float32 rounds to a few values: times in seconds since 1970."""
    spacing = np.spacing(np.abs(x).max(axis=0).astype(np.float32)).astype(np.float64)
    deviation = x.std(axis=0)
    lost = np.flatnonzero((deviation > 0.0) & (spacing > _COARSEST * deviation))
    if len(lost):
        column = lost[0]
        raise ValueError(
            f"{title}: column {column} has the deviation {deviation[column]:.3g} around "
            f"{x[:, column].mean():.3g}, where float32 has steps of {spacing[column]:.3g}. "
            "Subtract its mean first."
        )
