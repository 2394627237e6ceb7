"""The steps of `fit`, `evaluate` and `predict`, on any number of replicas."""

import contextlib
import weakref

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _private
from tfp_flows.bijectors import BatchNorm
from tfp_flows.bijectors.modes import training_mode
from tfp_flows.models import replicas
from tfp_flows.models.diagnosis import (
    SPOILT,
    explain_gradients,
    explain_nonfinite,
    explain_objective,
    spoilt_variable,
)
from tfp_flows.models.inputs import checks_of_batch, unpack
from tfp_flows.models.pieces import sum_over_pieces
from tfp_flows.preprocessing import bits_per_dim

# The streams of noise: the first half of their seeds; a counter is the second. A dequantization has
# these numbers, the objective the next ones, and the distribution the ones after.
_STREAMS = {"initialise": 0, "train": 1, "evaluate": 2}


def metrics_of(functions, taken):
    """Pairs of a function of `(x, log_prob)` and the mean of what it gives.

    Args:
      functions: list of them, or `None`.
      taken: names that they must not have.
    """
    pairs, title = [], "FlowModel.compile"
    for function in functions or []:
        name = getattr(function, "__name__", None)
        if not callable(function) or isinstance(function, type) or name is None:
            raise TypeError(
                f"{title}: a metric must be a function of (x, log_prob) that gives one number for "
                f"each row, got {function!r}. Samples are scored by metrics.SampleScores, a "
                "callback."
            )
        if name in [*taken, *(mean.name for _, mean in pairs)]:
            raise ValueError(f"{title}: two metrics are named '{name}'. Rename the function.")
        pairs.append((function, keras.metrics.Mean(name=name, dtype="float64")))
    return pairs


class Steps:
    """The part of `FlowModel` that Keras traces."""

    def make_train_function(self, force=False):
        """`keras.Model.make_train_function`, with the optimizer's variables made first.

        Made inside the traced step they would have it traced twice, which for a deep flow is
        most of the time to the first step.
        """
        self._build_optimizer()
        if self.train_function is not None and not force:
            return self.train_function
        with self._xla_inside():
            super().make_train_function(force)
        self.train_function = self._resuming(self._one_by_one(self.train_function))
        return self.train_function

    def _build_optimizer(self):
        if not self.optimizer.built:
            with self.distribute_strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def make_test_function(self, force=False):
        """`keras.Model.make_test_function`, with XLA inside the step."""
        if self.test_function is not None and not force:
            return
        with self._xla_inside():
            super().make_test_function(force)
        self.test_function = self._one_by_one(self.test_function)

    def make_predict_function(self, force=False):
        """`keras.Model.make_predict_function`, with XLA inside the step."""
        with self._xla_inside():
            return super().make_predict_function(force)

    def train_step(self, data):
        """One step of `fit`: the gradient of the mean loss, of the likelihood or the objective."""
        x, context, weight = unpack(data, self._example)
        x = self._checked(x, nan=False)  # NaN makes the loss NaN, which is checked.
        counts = replicas.of_each_replica(tf.shape(x)[0])
        rows = tf.cast(tf.reduce_sum(counts), self._example.dtype)
        step = _private.steps_of(self.optimizer)
        seed = self._objective_seed("train", step)
        noise = self._noise(x, "train", step, counts)
        x = self._prepare(x, "train", step, counts)
        variables = self.trainable_variables
        busy = tf.cast(tf.math.count_nonzero(counts), rows.dtype)

        def total_and_gradients(x, context, weight, noise, rows, busy, seed):
            with tf.GradientTape() as tape:
                total, loss = self._total_and_loss(
                    x, context, weight, rows, busy, seed, noise, training=True
                )
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, variables)
            # Dense; `None` for a variable that the loss does not depend on.
            gradients = [
                g if g is None else tf.ensure_shape(tf.convert_to_tensor(g), v.shape)
                for g, v in zip(gradients, variables, strict=True)
            ]
            return total, loss, gradients, self._squares(gradients, loss.dtype)

        compute = self._compiled(total_and_gradients)
        batch = (x, context, weight, noise)
        results = self._unless_empty(x, lambda: self._sums(compute, batch, rows, busy, seed))
        losses = replicas.of_each_replica(results[1])
        total, _, gradients, squares = replicas.sum_over_replicas(results)
        check = self._check_finite(losses, gradients, squares, x, context)
        # The count of steps too waits for the check.
        with tf.control_dependencies([check]):
            replicas.apply_summed(self.optimizer, gradients, variables)  # Keras warns of `None`.
        return self._update_metrics(total, tf.reduce_sum(losses), rows)

    def test_step(self, data):
        """One step of `evaluate`."""
        x, context, weight = unpack(data, self._example)
        x = self._checked(x)
        counts = replicas.of_each_replica(tf.shape(x)[0])
        count = self._loss_nats.count
        seed = self._objective_seed("evaluate", count)
        noise = self._noise(x, "evaluate", count, counts)
        x = self._prepare(x, "evaluate", count, counts)
        rows = tf.cast(tf.reduce_sum(counts), self._example.dtype)
        busy = tf.cast(tf.math.count_nonzero(counts), rows.dtype)

        def totals(x, context, weight, noise, rows, busy, seed):
            results = self._total_and_loss(x, context, weight, rows, busy, seed, noise)
            if self._nats is None:
                return results
            nats = -self._log_prob(x, self._embedded(context), noise=noise)
            return *results, self._weighted(nats, weight)

        compute = self._compiled(totals)
        batch = (x, context, weight, noise)
        results = self._unless_empty(x, lambda: self._sums(compute, batch, rows, busy, seed))
        total, loss, *nats = replicas.sum_over_replicas(results)
        return self._update_metrics(nats[0] if nats else total, loss, rows, bool(nats))

    def predict_step(self, data):
        """One step of `predict`: log-probabilities in nats."""
        x, context, _ = unpack(data, self._example)
        x = self._prepare(self._checked(x))
        compute = self._compiled(lambda x, c: self._log_prob(x, self._embedded(c)))
        return self._unless_empty(x, lambda: compute(x, context))

    def _sums(self, compute, batch, rows, busy, seed):
        """What `compute` gives for a batch; in pieces, if `compile` was told so.

        Args:
          compute: function of what a batch is made of, and of the other arguments. All that it
            returns are sums over rows.
          batch: tuple, of this replica.
          rows, busy, seed: as of `_total_and_loss`.
        """
        size = self._micro_batch_size
        if size is None or (batch[0].shape[0] or size + 1) <= size:
            return compute(*batch, rows, busy, seed)

        def of_piece(piece, n, number):
            own = seed
            if seed is not None:
                own = tf.random.experimental.stateless_fold_in(seed, n)
            return compute(*piece, rows, busy * tf.cast(number, busy.dtype), own)

        return sum_over_pieces(of_piece, batch, size)

    def _squares(self, gradients, dtype):
        """Half the sum of squares of each gradient that is there, `[number]`.

        One kernel a gradient finds NaN and infinity, and what is so large that its square, which
        Adam keeps and clipping sums, would be infinite. None under a `LossScaleOptimizer`, which
        meets such gradients on its way and skips them itself.
        """
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            return tf.zeros([0], dtype)
        there = [g for g in gradients if g is not None]
        return tf.stack([tf.cast(tf.nn.l2_loss(g), dtype) for g in there] or tf.zeros([0], dtype))

    def _prepare(self, x, stream="score", counter=0, counts=None):
        """Dequantizes integers, with noise from the seed, the stream and the counter in it.

        Of a distribution of integers it casts them to its own dtype.

        Given the number of rows in each replica, the rows of a replica get the noise that they
        would get on one device: replicas differ, and any number of them trains alike.
        """
        x = tf.convert_to_tensor(x)
        if self.dequantization is None or x.dtype.is_floating:
            return tf.cast(x, self._example.event_dtype)
        if stream == "score":  # It depends on no row beside it and on no device.
            x = self.dequantization.shared_noise(x, event_shape=self.event_shape)
            return tf.cast(x, self._example.dtype)
        seed = self._seed(0, stream, counter)
        seed = tf.random.experimental.stateless_fold_in(seed, self.dequantization.seed or 0)
        noise = self._rows_of_noise(
            lambda shape: self.dequantization.draw_noise(shape, seed, self.event_shape), x, counts
        )
        return tf.cast(self.dequantization.inverse(x, noise)[0], self._example.dtype)

    def _noise(self, x, stream, counter=0, counts=None):
        """What the log-density of a batch is drawn with; `None` if it is exact."""
        if not self._road.is_noisy:
            return None
        seed = self._seed(2, stream, counter)
        return self._rows_of_noise(lambda shape: self._road.draw_noise(shape, seed), x, counts)

    def _rows_of_noise(self, draw, x, counts):
        """Of the noise of the global batch that of this replica's rows.

        Args:
          draw: function of a batch shape.
          x: this replica's rows.
          counts: the number of rows in each replica, or `None` for one.
        """
        rows = tf.shape(x)[0]
        if counts is None or counts.shape[0] == 1:
            return draw([x.shape[0] or rows])
        before = tf.reduce_sum(counts[: replicas.replica_id()])

        def cut(noise):
            shape = [x.shape[0], *noise.shape[1:]]
            return tf.ensure_shape(noise[before : before + rows], shape)

        return tf.nest.map_structure(cut, draw([tf.reduce_sum(counts)]))

    def _seed(self, kind, stream, counter):
        """The seed of a kind of noise at a step."""
        stream = kind * len(_STREAMS) + _STREAMS[stream]
        return tf.stack([stream, tf.cast(counter, tf.int32)])

    def _objective_seed(self, stream, counter):
        """The seed of the objective at a step, of this replica; `None` for the likelihood."""
        if self._objective is None:
            return None
        seed = self._seed(1, stream, counter)
        return tf.random.experimental.stateless_fold_in(seed, replicas.replica_id())

    def _total_and_loss(self, x, context, weight, rows, busy, seed, noise, training=False):
        """Sums over this replica's rows, and its share of the loss of all rows.

        Args:
          x, context, weight: of this replica.
          rows: number of rows of all replicas.
          busy: number of replicas that have some, times that of the pieces of a batch here. Of
            regularizers and other added losses, which are the same in all, each adds its part.
          seed: that of the objective, or `None`.
          noise: that of the log-density, or `None`.
          training: whether it is for a gradient.
        """
        losses = self._row_losses(x, context, seed, noise, training)
        total = self._weighted(losses, weight)
        loss = tf.math.divide_no_nan(total, rows)
        if self.losses:
            part = tf.cast(tf.shape(x)[0] > 0, loss.dtype) / busy
            loss += tf.cast(tf.add_n(self.losses), loss.dtype) * part
        metrics = [self._sum_of_metric(metric, x, losses) for metric, _ in self._own_metrics]
        return tf.stack([total, *metrics]), loss

    def _row_losses(self, x, context, seed, noise=None, training=False):
        """The loss of each row."""
        context = self._embedded(context, training)
        if self._objective is None:
            return -self._log_prob(x, context, training, noise)
        batch = (x, context) if self._objective.needs_data else tf.shape(x)[0]
        with training_mode(training):
            if self._objective.takes_noise:
                seed = noise
            losses = self._objective.loss(self.distribution, batch, seed)
        return tf.ensure_shape(losses, x.shape[:1])

    def _sum_of_metric(self, metric, x, nll):
        value = tf.convert_to_tensor(metric(x, -tf.stop_gradient(nll)))
        if not value.shape.is_compatible_with(nll.shape) or value.shape.rank != 1:
            raise ValueError(
                f"FlowModel '{self.name}': the metric '{metric.__name__}' must give one number for "
                f"each row, of shape [batch], got {value.shape.as_list()}."
            )
        return tf.reduce_sum(tf.cast(value, nll.dtype))

    def _weighted(self, nll, weight):
        """Sum of the (weighted) losses of a batch."""
        if weight is None:
            return tf.reduce_sum(nll)
        weight = tf.cast(weight, nll.dtype)
        if weight.shape.rank != 1:
            column = weight.shape.rank == 2 and weight.shape[1] in (None, 1)
            if not column and weight.shape.rank is not None:
                raise ValueError(
                    f"FlowModel '{self.name}': expected one sample weight for each row, of shape "
                    f"[batch], got {weight.shape.as_list()}."
                )
            weight = tf.reshape(weight, tf.shape(nll))
        # A row of weight 0 counts for nothing, even one whose density is zero.
        return tf.reduce_sum(tf.math.multiply_no_nan(nll, weight))

    def _update_metrics(self, total, loss, rows, nats_too=False):
        # Every replica counts the global batch: the ratio of the sums is right, and so is the
        # result that a replica reads by itself.
        sums = tf.unstack(tf.reshape(total, [-1]), num=1 + len(self._own_metrics))
        nats, *own = (tf.math.divide_no_nan(value, rows) for value in sums)
        self._loss_nats.update_state(loss, sample_weight=rows)
        updated = [self._loss_nats]
        if nats_too:
            self._nats.update_state(nats, sample_weight=rows)
            updated.append(self._nats)
        if self._bits_per_dim is not None and (nats_too or self._objective is None):
            self._bits_per_dim.update_state(
                bits_per_dim(-nats, self.event_shape), sample_weight=rows
            )
            updated.append(self._bits_per_dim)
        for (_, mean), value in zip(self._own_metrics, own, strict=True):
            mean.update_state(value, sample_weight=rows)
            updated.append(mean)
        logs = {m.name: m.result() for m in updated}
        if replicas.num_workers(self.distribute_strategy) > 1:
            # Keras 3.15 averages over workers along axis 0, which a scalar does not have.
            logs = {name: value[tf.newaxis] for name, value in logs.items()}
        return logs

    def _in_xla(self):
        return self._xla and not self.run_eagerly

    @contextlib.contextmanager
    def _xla_inside(self):
        """Keeps Keras from compiling the whole step, which holds collectives and Python."""
        self._xla = bool(self.jit_compile)
        self.jit_compile = False
        try:
            yield
        finally:
            self.jit_compile = self._xla

    def _one_by_one(self, function):
        """On several workers, takes the steps of `steps_per_execution` in Python.

        Keras's loop fails there (3.15: no value for a placeholder of the loop in the loop of the
        distributed iterator).
        """
        if replicas.num_workers(self.distribute_strategy) == 1:
            return function

        def steps(iterator):
            if not isinstance(iterator, (tf.data.Iterator, tf.distribute.DistributedIterator)):
                return function(iterator)  # The one batch of `train_on_batch`.
            count, self.steps_per_execution = self.steps_per_execution, 1
            try:
                logs = function(iterator)
                with contextlib.suppress(StopIteration, tf.errors.OutOfRangeError):
                    for _ in range(count - 1):
                        logs = function(iterator)
            finally:
                self.steps_per_execution = count
            return logs

        return steps

    def _resuming(self, function):
        """Skips what an interrupted training had done of its epoch."""

        def step(iterator):
            if self._start is not None and self._start.skips(iterator, self.metrics):
                results = self.get_metrics_result()
                # As `_update_metrics`: a step for another objective computes no likelihood.
                return results if self._objective is None else {"loss": results["loss"]}
            return function(iterator)

        return step

    def _compiled(self, function):
        """`function` as `compile` wants it.

        Made anew for each trace of a step: a trace holds the variables of its replica.
        """
        if not self._in_xla():
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    def _unless_empty(self, x, compute):
        """`compute()` where there are rows, else zeros; a replica may have none of the last batch.

        A fused convolution gives such a batch a wrong shape (TF 2.21, oneDNN). Parts that meet
        the other replicas in the middle of the step do so without rows, too.
        """
        if x.shape[0] is not None or self.distribute_strategy.num_replicas_in_sync == 1:
            return compute()
        if any(isinstance(part, BatchNorm) for part in self.distribution.submodules):
            return compute()
        function = tf.function(compute, autograph=False).get_concrete_function()

        def nothing():
            # The only unknown sizes are the rows, of which there are none.
            return tf.nest.map_structure(
                lambda s: s if s is None else tf.zeros([n or 0 for n in s.shape], s.dtype),
                function.structured_outputs,
            )

        return tf.cond(tf.shape(x)[0] > 0, function, nothing)

    def _check_finite(self, losses, gradients, squares, x, context):
        """Returns 1, or raises inside the graph after noting what went wrong.

        Args:
          losses: of each replica.
          gradients: of the global batch, `None` for variables without one.
          squares: their sums of squares, of those that have one.
          x, context: of this replica.
        """
        local = replicas.replicas_here(self.distribute_strategy)
        pairs = zip(self.trainable_variables, gradients, strict=True)
        there = [v for v, g in pairs if g is not None]

        def packed(flat):
            return tf.nest.pack_sequence_as(context, flat) if flat else None

        def explain(losses, squares, number, x, *flat):
            bad = np.flatnonzero(~np.isfinite(losses.numpy()))
            number = int(number)
            if not len(bad):  # All see the same sums: the first replica of each process says it.
                if number % local:
                    return None
                of = [there[n].value for n in np.flatnonzero(~np.isfinite(squares.numpy()))]
                what, (found, remedy) = "gradient", explain_gradients(self._road, of)
            elif number in bad and self._objective is not None:
                what, (found, remedy) = "loss", explain_objective(self._road, self._objective)
            elif number in bad:
                what = "loss"
                found, remedy = explain_nonfinite(self._road, x, self._embedded(packed(flat)))
            elif (bad // local == number // local).any():
                return None  # Another replica of this process says it.
            else:
                what, found, remedy = "loss", f"worker {bad[0] // local} says why", "See there."
            step = int(self.optimizer.iterations.numpy())
            return (
                f"FlowModel '{self.name}': the {what} is not finite at step {step}: {found}. "
                f"{remedy}"
            )

        arguments = [losses, squares, replicas.replica_id(), x]
        arguments += [] if context is None else tf.nest.flatten(context)
        finite = tf.reduce_all(tf.math.is_finite(tf.concat([losses, squares], axis=0)))
        return self._require(finite, explain, arguments, FloatingPointError)

    def _check_sound(self):
        """Refuses what updates by finite gradients have made infinite, or NaN."""
        found = spoilt_variable(self._road, [v.value for v in self.trainable_variables])
        for v in self.optimizer.variables:
            if not found and not np.isfinite(v.numpy()).all():
                found = f"the variable '{v.path}' of the optimizer holds values that are not finite"
        if found:
            step = int(self.optimizer.iterations.numpy())
            raise FloatingPointError(
                f"FlowModel '{self.name}': after step {step} {found}. {SPOILT}"
            )

    def _checked(self, x, nan=True):
        """`x` of a step once it has passed the checks that need its values."""
        x = tf.convert_to_tensor(x)
        checks = [self._require(*check) for check in checks_of_batch(x, self._example, nan)]
        with tf.control_dependencies(checks):
            x = tf.identity(x) if checks else x
        return tf.ensure_shape(x, [None, *self.event_shape])

    def _require(self, good, explain, arguments, error=ValueError):
        """Returns 1 if `good`; else raises inside the graph, and `_explained` outside of it.

        Args:
          good: Boolean tensor.
          explain: function of the values of `arguments` that returns the message, or `None` if
            this is not the replica to raise.
          arguments: tensors.
          error: class of the exception.
        """

        # TensorFlow 2.21 keeps every py_function on the default graph, for as long as the process
        # lives: one that held the model, as `explain` does, would keep it as long. The model itself
        # holds `explain`; as a plain list, for Keras would track it.
        if "_explanations" not in vars(self):
            object.__setattr__(self, "_explanations", [])

        def fail():
            model, number = weakref.ref(self), len(self._explanations)
            self._explanations.append(explain)

            def report(*arguments):
                message = model()._explanations[number](*arguments)
                if message is None:
                    return ""
                model()._fault = error(message)
                return message

            # Raised in here, TensorFlow would print the way to it, twice.
            message = tf.ensure_shape(tf.py_function(report, arguments, tf.string), [])
            raised = tf.debugging.Assert(tf.equal(message, ""), [message])
            with tf.control_dependencies([] if raised is None else [raised]):
                return tf.ones([])

        return tf.cond(good, lambda: tf.ones([]), fail)

    @contextlib.contextmanager
    def _explained(self):
        """Raises what went wrong inside a graph as Python's own exception, without the graph."""
        self._fault = None
        try:
            yield
        except tf.errors.OpError as error:
            if self._fault is not None:
                raise self._fault.with_traceback(None) from None
            replicas.explain_lost_worker(self.distribute_strategy, error)
            raise
