"""The joint distribution of a table's columns: every column given any others."""

import math

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import elementwise
from tfp_flows.bijectors.modes import in_training_mode
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.weights import COUNTER
from tfp_flows.distributions.unbatched import Unbatched

tfd = tfp.distributions

# A coordinate is shown to the network within these bounds: an outlier must not drown the rest.
_SHOWN = 10.0
# The share of a numeric column's distribution that no other column has a say in.
_SHARE = 1e-4
_IMPOSSIBLE = np.float64(-math.inf)
# Ordinal columns of as many levels are shown to the network level by level, too.
_FEW_LEVELS = 32


class TableDistribution(Unbatched):
    """Rows of a table, one network giving the distribution of each column given any others.

        log p(x) = sum_i log p(x_{o_i} | x_{o_1}, ..., x_{o_{i-1}})       along an order o

    For every set of columns that are given, the network sees their values and which they are, and
    says how each of the others is distributed: numeric ones by an elementwise map m from a
    logistic variable to their standardized coordinate t, categorical ones by logits, angles by
    a map of the circle. With s the sigmoid,

        p(x_i | ...) = s'(u) |du/dx_i|,  u = m^-1(t(x_i))                 a density
        p(x_i | ...) = s(u_b) - s(u_a),  a and b the edges of x_i's cell   a probability
        p(x_i | ...) = softmax(logits)                                    a probability

    Both are exact: nothing is dequantized. A ten-thousandth of each numeric column's is the
    logistic distribution of all training rows instead (u = t), so that an outlier costs no more
    than it would without the other columns. Entries that are missing (NaN) are left out of the
    product, and out of what is given. Along one order, that of the columns, this is a normalized
    joint distribution, and `sample` draws from it. In training mode (`FlowModel.fit`) the order is
    random for each row and step, and one random place of it stands for all:

        log p(x) ~ d / (d - k) sum_{i > k} log p(x_{o_i} | x_{o_1}, ..., x_{o_k}),  k ~ U{0..d-1}

    whose mean over orders and places is the mean of log p(x) over orders; d counts the entries
    that are there. So one network knows what is missing from what is there, whichever it is.
    Different orders of it need not agree exactly.

    Args:
      schema: `tables.Schema`, measured: with the locations and scales of training rows.
      layer: Keras layer from `[batch, num_features]` to `[batch, num_outputs]`, as
        `TableDistribution.sizes(schema, numeric, circular)` gives them.
      numeric: elementwise map of numeric columns. Default: a spline with an affine part.
      circular: elementwise map of angles. Default: a circular spline.
      step_counter: variable, as `copy()` hands it over. Default: a new one.
      seed: `int`, of the random orders.
      validate_args, allow_nan_stats: passed to the base class.
      name: name of the distribution.

    Events are float64 `[columns]`, as `Schema.encode` gives them, in the units of the table.

    >>> from tfp_flows import conditioners, tables
    >>> schema = tables.Schema({"size": tables.positive(), "kind": tables.categorical(["a", "b"])})
    >>> inputs, outputs = TableDistribution.sizes(schema)
    >>> layer = conditioners.MLP(outputs, hidden_units=(8,), seed=0)
    >>> rows = TableDistribution(schema, layer)
    >>> rows.log_prob([[1.0, 0.0], [2.5, math.nan]]).shape
    TensorShape([2])

    References: B. Uria, I. Murray, H. Larochelle, A deep and tractable density estimator, 2014,
    arXiv:1310.1757, equations 6 to 8 (any order). E. Hoogeboom et al., Autoregressive diffusion
    models, 2022, arXiv:2110.02037, equation 3 (one place for all). R. Strauss, J. Oliva,
    Arbitrary conditional distributions with energy, 2021, arXiv:2102.04426, section 3 (what is
    given as values and bits).
    """

    # What is missing is data here: `FlowModel` lets it pass.
    nan_is_missing = True

    def __init__(
        self,
        schema,
        layer,
        *,
        numeric=None,
        circular=None,
        step_counter=None,
        seed=0,
        validate_args=False,
        allow_nan_stats=True,
        name="table",
    ):
        parameters = dict(locals())
        numeric = _numeric_map() if numeric is None else elementwise.get(numeric)
        circular = _circular_map() if circular is None else elementwise.get(circular)
        parameters.update(numeric=numeric, circular=circular)
        if step_counter is None:
            step_counter = tf.Variable(0, name=f"{name}/step_counter", **COUNTER)
            parameters["step_counter"] = step_counter
        self._schema = self._no_dependency(schema)
        self._columns = self._no_dependency(tuple(schema.columns.values()))
        self._typical = self._no_dependency([_typical(c) for c in self._columns])
        self._maps = self._no_dependency({"numeric": numeric, "circular": circular})
        self._step_counter, self._seed = step_counter, seed
        inputs, outputs = self.sizes(schema, numeric, circular)
        self._network = Network(
            layer,
            input_shape=(inputs,),
            output_shape=(outputs,),
            owner=f"TableDistribution '{name}'",
            dtype=tf.float64,
        )
        super().__init__(
            dtype=tf.float64,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @staticmethod
    def sizes(schema, numeric=None, circular=None):
        """The numbers of inputs and outputs that the network must have."""
        numeric = _numeric_map() if numeric is None else elementwise.get(numeric)
        circular = _circular_map() if circular is None else elementwise.get(circular)
        columns = list(schema.columns.values())
        inputs = len(columns) + sum(map(_num_features, columns))
        outputs = {"categorical": 0, "angle": circular.num_parameters}
        return inputs, sum(
            outputs.get(c.kind, numeric.num_parameters)
            + (len(c.levels) if c.kind == "categorical" else 0)
            for c in columns
        )

    @property
    def schema(self):
        """The `tables.Schema`, with what it measured."""
        return self._schema

    @property
    def seed(self):
        """That of the random orders."""
        return self._seed

    def _event_shape(self):
        return tf.TensorShape([len(self._columns)])

    # --- Densities. ---

    def _log_prob(self, x):
        batch = tf.shape(x)[:-1]
        rows = tf.reshape(x, [-1, len(self._columns)])
        nothing = tf.zeros_like(rows, tf.bool)
        if in_training_mode():
            result = self._one_place(rows)
        else:
            result = self.conditional_log_prob(rows, nothing)
        return tf.reshape(result, batch)

    def conditional_log_prob(self, x, given):
        """Log-probability of the entries that are not given, in the order of the columns.

        Args:
          x: float64 `[rows, columns]`, NaN where an entry is missing.
          given: Boolean, of its shape: entries that are given.

        Returns:
          Tensor `[rows]`: the log of the product of densities and probabilities.
        """
        there = ~tf.math.is_nan(x)
        known = there & given
        scored = there & ~given
        count = len(self._columns)

        def body(place, total):
            now = tf.range(count) == place
            before = known | (scored & (tf.range(count) < place))
            scores = self._scores(x, self._parameters_given(x, before))
            one = tf.where(now & scored, scores, tf.zeros_like(scores))
            return place + 1, total + tf.reduce_sum(one, axis=-1)

        return tf.while_loop(
            lambda place, _: place < count,
            body,
            (tf.constant(0), tf.zeros_like(x[:, 0])),
            maximum_iterations=count,
        )[1]

    def each_log_prob(self, x):
        """Log-probability of each entry given all the others, and its mean over what could be.

        Args:
          x: float64 `[rows, columns]`, NaN where an entry is missing.

        Returns:
          Two tensors `[rows, columns]`, NaN where an entry is missing: the log-probabilities, and
          the means of those of 32 draws from the same conditionals.
        """
        there = ~tf.math.is_nan(x)
        count, draws = len(self._columns), 32
        sizes = [self._num_parameters(column) for column in self._columns]
        owner = np.repeat(np.arange(count), sizes)

        def body(column, own):
            others = there & (tf.range(count) != column)
            every = tf.concat(self._parameters_given(x, others), axis=-1)
            return column + 1, tf.where(owner == column, every, own)

        start = tf.zeros([tf.shape(x)[0], len(owner)], x.dtype)
        own = tf.while_loop(lambda column, _: column < count, body, (tf.constant(0), start))[1]
        # Of each column given all others: so the draws of all are made, and scored, at once.
        parameters = tf.split(own, sizes, axis=-1)

        def drawn(number):
            return self._scores(self._draws(parameters, tf.stack([0, number])), parameters)

        scores = tf.map_fn(drawn, tf.range(draws), fn_output_signature=tf.float64)
        nan = np.float64(math.nan)
        found = tf.where(there, self._scores(x, parameters), nan)
        return found, tf.where(there, tf.reduce_mean(scores, axis=0), nan)

    def _one_place(self, x):
        """The estimate of a row's log-probability by one random place of a random order."""
        there = ~tf.math.is_nan(x)
        seeds = tf.random.experimental.stateless_split(
            tf.stack([tf.cast(self._seed, tf.int32), self._step_counter]), 2
        )
        self._step_counter.assign_add(1)
        keys = tf.random.stateless_uniform(tf.shape(x), seeds[0])
        keys = tf.where(there, keys, 2.0)  # What is missing comes last.
        places = tf.argsort(tf.argsort(keys, axis=-1), axis=-1)
        number = tf.reduce_sum(tf.cast(there, tf.float32), axis=-1, keepdims=True)
        drawn = tf.random.stateless_uniform(tf.shape(number), seeds[1])
        known = tf.minimum(tf.floor(drawn * number), tf.maximum(number - 1.0, 0.0))
        given = there & (tf.cast(places, tf.float32) < known)
        scores = self._scores(x, self._parameters_given(x, given))
        total = tf.reduce_sum(tf.where(there & ~given, scores, tf.zeros_like(scores)), axis=-1)
        weight = tf.math.divide_no_nan(number, number - known)[:, 0]
        return tf.cast(weight, total.dtype) * total

    # --- Samples. ---

    def _sample_n(self, n, seed=None):
        rows = tf.fill([n, len(self._columns)], tf.constant(math.nan, tf.float64))
        return self.complete(rows, seed=seed)

    def complete(self, x, seed=None):
        """Draws the missing entries given the others, one after another: exact draws.

        Args:
          x: float64 `[rows, columns]`, NaN where an entry is missing.
          seed: as of `tfd.Distribution.sample`.

        Returns:
          `x`, with draws where entries were missing.
        """
        seed = tfp.random.sanitize_seed(seed)
        count = len(self._columns)

        def body(place, x):
            parameters = self._parameters_given(x, ~tf.math.is_nan(x))
            draws = self._draws(parameters, tf.random.experimental.stateless_fold_in(seed, place))
            now = (tf.range(count) == place) & tf.math.is_nan(x)
            return place + 1, tf.where(now, draws, x)

        return tf.while_loop(
            lambda place, _: place < count,
            body,
            (tf.constant(0), tf.convert_to_tensor(x, tf.float64)),
            shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, count])),
            maximum_iterations=count,
        )[1]

    # --- The columns. ---

    def _parameters_given(self, x, given):
        """What the network says of each column: a list of tensors `[rows, ...]`."""
        features = [tf.cast(given, x.dtype)]
        for n, column in enumerate(self._columns):
            value = tf.where(given[:, n], x[:, n], np.float64(self._typical[n]))
            shown = tf.stack(_features(column, value), axis=-1)
            features.append(tf.where(given[:, n : n + 1], shown, tf.zeros_like(shown)))
        out = self._network(tf.concat(features, axis=-1))
        sizes = [self._num_parameters(column) for column in self._columns]
        return tf.split(out, sizes, axis=-1)

    def _num_parameters(self, column):
        if column.kind == "categorical":
            return len(column.levels)
        return self._maps["circular" if column.kind == "angle" else "numeric"].num_parameters

    def _scores(self, x, parameters):
        """Log-density or -probability of each entry; of a missing one anything."""
        scores = [None] * len(self._columns)
        values = [
            tf.where(tf.math.is_nan(x[:, n]), np.float64(typical), x[:, n])
            for n, typical in enumerate(self._typical)
        ]
        for n, column in enumerate(self._columns):
            if column.kind == "categorical":
                level = tf.cast(values[n], tf.int32)
                logits = tf.nn.log_softmax(parameters[n])
                one = tf.gather(logits, tf.maximum(level, 0), batch_dims=1)
                scores[n] = tf.where(level < 0, _IMPOSSIBLE, one)  # -1: a level never seen
        angles = [n for n, c in enumerate(self._columns) if c.kind == "angle"]
        if angles:
            turn = tf.constant([2.0 * math.pi / self._columns[n].period for n in angles], x.dtype)
            theta = tf.stack([values[n] for n in angles], axis=-1) * turn
            log_det = self._inverse("circular", theta, [parameters[n] for n in angles])[1]
            each = log_det + tf.math.log(turn) - math.log(2.0 * math.pi)
            for n, score in zip(angles, tf.unstack(each, axis=-1), strict=True):
                scores[n] = score
        smooth = [n for n, c in enumerate(self._columns) if c.is_numeric and c.step is None]
        if smooth:
            t, inner = zip(*(self._columns[n].coordinate(values[n]) for n in smooth), strict=True)
            own = [parameters[n] for n in smooth]
            t = tf.stack(t, axis=-1)
            u, log_det = self._inverse("numeric", t, own)
            each = _mixed(log_det + _log_logistic(u), _log_logistic(t)) + tf.stack(inner, axis=-1)
            for n, score in zip(smooth, tf.unstack(each, axis=-1), strict=True):
                scores[n] = score
        cells = [n for n, c in enumerate(self._columns) if c.is_numeric and c.step is not None]
        if cells:
            edges = [self._columns[n].edges(values[n]) for n in cells]
            below, above = (tf.stack(side, axis=-1) for side in zip(*edges, strict=True))
            each = self._cell_scores(below, above, [parameters[n] for n in cells])
            for n, score in zip(cells, tf.unstack(each, axis=-1), strict=True):
                if self._columns[n].kind == "ordinal":  # -1: a level never seen
                    score = tf.where(values[n] < 0.0, _IMPOSSIBLE, score)
                scores[n] = score
        return tf.stack(scores, axis=-1)

    def _cell_scores(self, below, above, parameters):
        """Log-probabilities of cells between edges, which may be infinite."""
        first, last = ~tf.math.is_finite(below), ~tf.math.is_finite(above)
        zero = tf.zeros_like(below)
        below, above = tf.where(first, zero, below), tf.where(last, zero, above)
        flat = _parameter_major(parameters)
        edges, flat = tf.concat([below, above], axis=0), tf.concat([flat, flat], axis=0)
        u = tf.split(self._maps["numeric"].inverse(edges, flat)[0], 2, axis=0)
        return _mixed(_log_cell(*u, first, last), _log_cell(below, above, first, last))

    def _draws(self, parameters, seed):
        """A draw of each column from what the network says of it, `[rows, columns]`."""
        shape = tf.stack([tf.shape(parameters[0])[0], len(self._columns)])
        low = np.finfo(np.float64).tiny
        seeds = tf.random.experimental.stateless_split(seed, 2)
        noise = tf.random.stateless_uniform(shape, seeds[0], minval=low, dtype=tf.float64)
        alone = tf.random.stateless_uniform(shape, seeds[1], dtype=tf.float64)
        draws = [None] * len(self._columns)
        for n, column in enumerate(self._columns):
            if column.kind == "categorical":
                below = tf.cumsum(tf.nn.softmax(parameters[n]), axis=-1)
                level = tf.reduce_sum(tf.cast(below <= noise[:, n : n + 1], tf.int32), axis=-1)
                level = tf.minimum(level, len(column.levels) - 1)
                draws[n] = tf.cast(level, tf.float64)
        for kind, name in ((True, "numeric"), (False, "circular")):
            own = [
                n
                for n, c in enumerate(self._columns)
                if c.kind != "categorical" and c.is_numeric == kind
            ]
            if not own:
                continue
            u = tf.gather(noise, own, axis=-1)
            u = tf.math.log(u) - tf.math.log1p(-u) if kind else (2.0 * u - 1.0) * math.pi
            t = self._maps[name].forward(u, _parameter_major([parameters[n] for n in own]))[0]
            if kind:
                t = tf.where(tf.gather(alone, own, axis=-1) < _SHARE, u, t)
            t = tf.unstack(t, axis=-1)
            for n, one in zip(own, t, strict=True):
                column = self._columns[n]
                if kind:
                    draws[n] = column.value(one)
                else:
                    draws[n] = tf.math.floormod(one / (2.0 * math.pi), 1.0) * column.period
        return tf.stack(draws, axis=-1)

    def _inverse(self, name, values, parameters):
        return self._maps[name].inverse(values, _parameter_major(parameters))


def _numeric_map():
    return elementwise.get("affine_rational_quadratic_spline", num_bins=16, bound=8.0, cap=7.0)


def _circular_map():
    return elementwise.get("circular_rational_quadratic_spline", num_bins=8)


def _log_logistic(u):
    """Log-density of a logistic variable of scale 1."""
    return tf.math.log_sigmoid(u) + tf.math.log_sigmoid(-u)


def _log_cell(a, b, first, last):
    """log(s(b) - s(a)); without a where a cell is the first one, without b where it is the last.

    With a < b: s(b) - s(a) = s(b) s(-a) (1 - e^(a - b)), a product, which loses no digits.
    """
    zero = tf.zeros_like(a)
    # Above zero: of edges that meet in rounding the gradient must stay finite.
    width = tf.where(first | last, tf.ones_like(a), tf.maximum(b - a, 1e-12))
    return (
        tf.where(last, zero, tf.math.log_sigmoid(b))
        + tf.where(first, zero, tf.math.log_sigmoid(-a))
        + tf.where(first | last, zero, tf.math.log(-tf.math.expm1(-width)))
    )


def _mixed(given_others, alone):
    """Log of a mixture of what a column is given the others, and a small share of it alone."""
    low, high = float(np.log(_SHARE)), float(np.log1p(-_SHARE))
    return tf.reduce_logsumexp(tf.stack([high + given_others, low + alone]), axis=0)


def _parameter_major(parameters):
    """Parameters of columns `[rows, P]` each, as elementwise maps take them: `[rows, P * n]`."""
    together = tf.stack(parameters, axis=-1)
    return tf.reshape(together, [-1, together.shape[1] * together.shape[2]])


def _typical(column):
    """A value that is in the column's range, to stand for a missing one."""
    if not column.is_numeric:
        return 0.0
    if column.kind == "ordinal":
        return 0.0
    with tf.init_scope():
        return float(column.value(tf.zeros([], tf.float64)))


def _num_features(column):
    return len(_features(column, tf.zeros([1], tf.float64) + _typical(column)))


def _features(column, values):
    """What the network is shown of a value, a list of tensors of its shape."""
    levels = 0
    shown = []
    if column.kind == "categorical":
        levels = len(column.levels)
    elif column.kind == "angle":
        turn = values * (2.0 * math.pi / column.period)
        shown = [tf.cos(turn), tf.sin(turn)]
    else:
        t = column.coordinate(values)[0]
        shown = [tf.clip_by_value(t, -_SHOWN, _SHOWN)]
        if column.is_heaped:
            below, above = column.edges(values)
            shown.append(
                0.5
                * (
                    tf.clip_by_value(below, -_SHOWN, _SHOWN)
                    + tf.clip_by_value(above, -_SHOWN, _SHOWN)
                )
            )
        if column.kind == "ordinal" and len(column.levels) <= _FEW_LEVELS:
            levels = len(column.levels)
    shown += [tf.cast(tf.equal(values, float(level)), values.dtype) for level in range(levels)]
    return shown
