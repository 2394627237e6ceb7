"""A table: a frame in, a frame out."""

import functools

import numpy as np
import tensorflow as tf

from tfp_flows import conditioners, plots
from tfp_flows._checks import integer, positive_integer, positive_number
from tfp_flows.models import FlowModel
from tfp_flows.models.sampling import stateless_seed
from tfp_flows.saving import load
from tfp_flows.tables import training
from tfp_flows.tables.distribution import TableDistribution
from tfp_flows.tables.schema import Schema

# Rows at a time: every column of them is scored at every place of the order.
_ROWS = 4096


class TableFlow:
    """A density of a table's rows: fits a frame, scores, samples, fills in, finds the odd rows.

    One network gives the distribution of each column given any set of others
    (`tables.TableDistribution`). So missing entries are no trouble: training leaves them out,
    without filling anything in; scores are those of the entries that are there; and what is
    missing is drawn, not searched for, given what is there. The price is that one network learns
    the columns in all orders, where a flow learns them in one.

    Training with missing entries takes it that they are missing at random: that whether an entry
    is missing does not depend on its value, once the entries that are there are known.

    A frame is a pandas `DataFrame`, or a dictionary of arrays; frames come back as `DataFrame`s
    where pandas is installed (`pip install ".[tables]"`), else as dictionaries.

    Args:
      schema: `tables.Schema`, by hand or of `Schema.infer(frame)`.
      hidden_units: equal widths of the network's residual blocks.
      seed: `int >= 0`, of the initial weights and the orders of training.
      name: name of the distribution.

    Raises:
      TypeError: if `schema` is none.
      ValueError: by every method, for a frame that the schema does not fit, naming the column; by
        all but `fit`, before there was one.

    >>> import numpy as np
    >>> from tfp_flows import tables
    >>> rng = np.random.default_rng(0)
    >>> size = rng.integers(0, 3, 300)
    >>> frame = {"size": np.array(["S", "M", "L"])[size], "weight": np.exp(size + rng.random(300))}
    >>> schema = tables.Schema.infer(frame, size=tables.ordinal(["S", "M", "L"]))
    size    ordinal with 3 levels: S, M, L (log-probability)
    weight  positive (log-density per unit)
    >>> table = TableFlow(schema, hidden_units=(16,), seed=0)
    >>> history = table.fit(frame, epochs=2, verbose=0)
    >>> table.log_prob({"size": ["S", None], "weight": [1.5, 3.5]}).shape
    (2,)
    """

    def __init__(self, schema, *, hidden_units=(192, 192, 192), seed=0, name="table"):
        if not isinstance(schema, Schema):
            raise TypeError(
                f"TableFlow: expected a tables.Schema, got {type(schema).__name__}. Of a frame "
                "make one by tables.Schema.infer(frame)."
            )
        self._schema, self._hidden_units = schema, hidden_units
        self._seed, self._name = integer(seed, "seed", "TableFlow", least=0), name
        self._model, self._functions = None, {}

    @property
    def schema(self):
        """The `tables.Schema`; once fitted, with what it measured."""
        return self._schema

    @property
    def model(self):
        """The `FlowModel` over encoded rows, once fitted; else `None`."""
        return self._model

    # --- Training. ---

    def fit(
        self,
        frame,
        *,
        epochs=60,
        batch_size=512,
        learning_rate=2e-3,
        validation=0.1,
        patience=10,
        sample_weight=None,
        verbose="auto",
        callbacks=(),
        **kwargs,
    ):
        """Trains on the rows of a frame; a second call goes on from the weights of the first.

        Adam, with a rate that falls to zero as a cosine. Every few epochs the held-out rows are
        scored, and in the end the model has the weights that scored best.

        Args:
          frame: the training rows. Its entries may be missing.
          epochs: `int >= 1`, at most.
          batch_size: `int >= 1`, rows of a step.
          learning_rate: number `> 0`, of the first step.
          validation: share of the rows that is held out, or a frame of them, or `None` for none.
            At most 2,000 of them are scored at a time.
          patience: `int >= 1`, number of scorings without a better one, after which it ends.
          sample_weight: a number `>= 0` for each row of the frame: how often it counts, among the
            rows that are held out, too. Default: once.
          verbose: as of `keras.Model.fit`.
          callbacks: Keras callbacks, to go with its own.
          **kwargs: what else `FlowModel.fit` takes.

        Returns:
          The `keras.callbacks.History`. `loss` is the mean negative log-likelihood over random
          orders, `val_loss` that of the held-out rows in the order of the columns.
        """
        title = "TableFlow.fit"
        epochs = positive_integer(epochs, "epochs", title)
        batch_size = positive_integer(batch_size, "batch_size", title)
        learning_rate = positive_number(learning_rate, "learning_rate", title)
        patience = positive_integer(patience, "patience", title)
        for other in ("validation_split", "validation_data"):
            if kwargs.get(other) is not None:
                raise ValueError(f"{title}: no {other}: give `validation`, a share or a frame.")
        x, weight, held_out, held_out_weight = self._split(frame, validation, sample_weight)
        if self._model is None:
            self._build(x)
        steps = epochs * -(-len(x) // batch_size)
        self._model.compile(training.make_optimizer(learning_rate, steps))
        own = []
        if held_out is not None:
            some, of_some = held_out[:2000], held_out_weight[:2000]
            # A scoring goes through them once for each column, half as dear as a step.
            cost = 0.5 * len(some) * len(self._schema) / len(x)

            def loss():
                return -np.average(self._log_prob(some), weights=of_some)

            own = [training.KeepBest(loss, cost, patience)]
        callbacks = callbacks if isinstance(callbacks, (list, tuple)) else [callbacks]
        return self._model.fit(
            x,
            batch_size=batch_size,
            epochs=epochs,
            sample_weight=None if sample_weight is None else weight,
            verbose=verbose,
            callbacks=[*own, *callbacks],
            **kwargs,
        )

    def _split(self, frame, validation, weight=None):
        """Encoded rows to train on and to hold out, or `None`, each with their weights."""
        title = "TableFlow.fit"
        x = self._schema.encode(frame, owner=title)
        parts = training.split(x, weight, validation, self._seed, title)
        if isinstance(validation, (int, float)) or validation is None:
            return parts
        held_out = self._schema.encode(validation, owner=f"{title}: validation")
        return *parts[:2], held_out, np.ones(len(held_out))

    def _build(self, x):
        schema = self._schema.measured(x)
        inputs, outputs = TableDistribution.sizes(schema)
        layer = conditioners.MLP(
            outputs,
            hidden_units=self._hidden_units,
            residual=True,
            activation="silu",
            seed=self._seed,
        )
        rows = TableDistribution(schema, layer, seed=self._seed, name=self._name)
        self._schema, self._model = schema, FlowModel(rows)

    # --- Scores. ---

    def log_prob(self, frame, *, hidden=None, unseen="refuse"):
        """Log-probability of each row in nats, of the entries that are there.

        The sum over columns of what `schema` says of each: a log-probability of a discrete
        column, a log-density per unit of the table for another.

        Args:
          frame: rows. Of missing entries nothing is counted: rows with other entries missing
            compare as such.
          hidden: names of columns, or a Boolean array `[rows, columns]`: only these entries are
            scored, given the others.
          unseen: `"refuse"` (default) levels that the schema does not know, or `"impossible"`:
            they score -inf, which the model gives them.

        Returns:
          NumPy array `[rows]`.
        """
        x = self._encoded(frame, "log_prob", unseen)
        if hidden is None:
            return self._log_prob(x)
        return self._log_prob(x, ~self._mask(hidden, x))

    def _log_prob(self, x, given=None):
        given = np.zeros(x.shape, bool) if given is None else given
        return self._in_parts(self._function("conditional_log_prob"), x, given)

    def rank(self, frame, *, unseen="refuse"):
        """The rows by how unusual they are, and the columns that make them so.

        Each entry is compared with what the model expects there, given all others of its row:

            surprise = E[log p(v | others)] - log p(entry | others),   v drawn given the others

        in nats, 0 in the mean for entries that the model would have drawn, whatever their units.
        A row is as unusual as its most surprising entry.

        Args:
          frame: rows; missing entries surprise nobody.
          unseen: as of `log_prob`.

        Returns:
          A frame of one row for each of `frame`'s, the most unusual first: `row`, its number;
          `surprise`; `column`, the name of the entry; and `log_prob`, of the whole row. A row
          without an entry comes last, with -inf and no name.
        """
        x = self._encoded(frame, "rank", unseen)
        found, expected = self._in_parts(self._function("each_log_prob"), x)
        surprise = np.where(np.isnan(x), -np.inf, expected - found)
        worst = surprise.argmax(axis=1)
        most = surprise[np.arange(len(x)), worst]
        order = np.argsort(-most, kind="stable")
        names = np.array([*self._schema.names, None], object)
        worst = np.where(np.isneginf(most), -1, worst)
        return _frame(
            {
                "row": order,
                "surprise": most[order],
                "column": names[worst[order]],
                "log_prob": self._log_prob(x)[order],
            }
        )

    # --- Rows. ---

    def sample(self, n, *, seed=None):
        """New rows.

        Args:
          n: `int >= 1`, how many.
          seed: `int` or a pair of them; the same seed gives the same rows. Default: fresh.

        Returns:
          A frame of `n` rows, each column of its kind: on its grid, within its bounds, of its
          levels.
        """
        self._check_fitted("sample")
        n = positive_integer(n, "n", "TableFlow.sample")
        return self._schema.decode(self._completed(np.full([n, len(self._schema)], np.nan), seed))

    def impute(self, frame, n=1, *, seed=None):
        """Frames with draws where entries are missing.

        The missing entries of a row are drawn one after another, in the order of the columns, each
        given all that is there by then: `n` independent draws from the model, with equal weights,
        whatever is missing. There is nothing to search and no weight to degenerate: the effective
        sample size is `n`. For a single guess take the mean or the median of many draws, or the
        commonest level.

        Args:
          frame: rows; entries that are there stay as they are.
          n: `int >= 1`, number of draws of each.
          seed: as of `sample`.

        Returns:
          List of `n` frames.
        """
        x = self._encoded(frame, "impute")
        n = positive_integer(n, "n", "TableFlow.impute")
        holes = np.isnan(x).any(axis=1)
        draws = np.repeat(x[None], n, axis=0)
        if holes.any():
            draws[:, holes] = self._completed(np.tile(x[holes], [n, 1]), seed).reshape(
                n, int(holes.sum()), -1
            )
        index = getattr(frame, "index", None)
        return [self._schema.decode(one, index) for one in draws]

    def pairs(self, frame, samples=None, *, columns=None, seed=None, **kwargs):
        """A pair plot of a frame's rows and of samples: `plots.pairs`, with the schema's levels.

        Args:
          frame: rows, better such as `fit` has not seen.
          samples: a frame to compare with. Default: as many rows drawn from the table, at most
            5,000.
          columns: names of the columns to draw, at most 12. Default: all.
          seed: as of `sample`.
          **kwargs: what else `plots.pairs` takes: `names`, `units`, `limits`, `title`.

        Returns:
          A `matplotlib.figure.Figure`.
        """
        x = self._encoded(frame, "pairs")
        if samples is None:
            samples = self.sample(min(len(x), 5000), seed=seed)
        y = self._encoded(samples, "pairs")
        # By the schema's codes: every level has its place, also one that is in neither.
        x, y = (dict(zip(self._schema.names, codes.T, strict=True)) for codes in (x, y))
        kinds = self._schema.columns.items()
        levels = {name: column.levels for name, column in kinds if column.levels is not None}
        return plots.pairs(x, y, columns=columns, levels=levels, **kwargs)

    # --- Files. ---

    def save(self, filepath, overwrite=True):
        """Saves schema, weights and the optimizer's state as one `.keras` file.

        Args:
          filepath: path that ends in `.keras`.
          overwrite: whether a file that is there is replaced.
        """
        self._check_fitted("save")
        self._model.save(filepath, overwrite=overwrite)

    @classmethod
    def load(cls, filepath):
        """The table of a file that `save` wrote; to load it runs no code from it.

        Raises:
          ValueError: if it is a file of another model, or damaged.
        """
        model = load(filepath)
        rows = model.distribution
        if not isinstance(rows, TableDistribution):
            raise ValueError(
                f"TableFlow.load: '{filepath}' holds no table but a {type(rows).__name__} "
                f"'{rows.name}'. Load it by tfp_flows.load."
            )
        table = cls(rows.schema, seed=rows.seed, name=rows.name)
        table._model = model
        return table

    # --- Inside. ---

    def __getstate__(self):
        return {**vars(self), "_functions": {}}  # Graphs cannot be pickled.

    def _check_fitted(self, method):
        if self._model is None:
            raise ValueError(f"TableFlow.{method}: not fitted yet. Call `fit`, or load a file.")

    def _encoded(self, frame, method, unseen="refuse"):
        self._check_fitted(method)
        if unseen not in ("refuse", "impossible"):
            raise ValueError(
                f"TableFlow.{method}: unseen must be 'refuse' or 'impossible', got {unseen!r}."
            )
        return self._schema.encode(frame, owner=f"TableFlow.{method}", unseen=unseen)

    def _mask(self, hidden, x):
        names = self._schema.names
        if isinstance(hidden, (list, tuple, set)) and all(name in names for name in hidden):
            return np.tile([name in hidden for name in names], [len(x), 1])
        mask = np.asarray(hidden)
        if mask.dtype != bool or mask.shape != x.shape:
            raise ValueError(
                "TableFlow.log_prob: hidden must be names of columns or a Boolean array of shape "
                f"{list(x.shape)}, got {str(hidden)[:100]}."
            )
        return mask

    def _function(self, method):
        if method not in self._functions:
            rows = [None, len(self._schema)]
            second = {
                "conditional_log_prob": [tf.TensorSpec(rows, tf.bool)],
                "complete": [tf.TensorSpec([2], tf.int32)],
            }
            # One trace for any number of rows: a table has many operations. A partial, for of one
            # method TensorFlow counts the traces of all tables together, and warns.
            self._functions[method] = tf.function(
                functools.partial(getattr(self._model.distribution, method)),
                input_signature=[tf.TensorSpec(rows, tf.float64), *second.get(method, [])],
                autograph=False,
            )
        return self._functions[method]

    def _completed(self, x, seed):
        complete = self._function("complete")
        seed = stateless_seed(seed)

        def part(x, number):
            own = tf.random.experimental.stateless_fold_in(seed, int(number[0]))
            return complete(x, own)

        return self._in_parts(part, x, np.arange(len(x), dtype=np.int32))

    def _in_parts(self, function, *arrays):
        """`function` of some rows at a time; the results are joined along their rows."""
        results = []
        for start in range(0, len(arrays[0]), _ROWS):
            some = function(*(tf.constant(a[start : start + _ROWS]) for a in arrays))
            results.append([r.numpy() for r in tf.nest.flatten(some)])
        joined = [np.concatenate(parts) for parts in zip(*results, strict=True)]
        return joined if len(joined) > 1 else joined[0]


def _frame(columns):
    try:
        import pandas
    except ImportError:
        return columns
    return pandas.DataFrame(columns)
