"""The steps of `fit`, `evaluate` and `predict`, on any number of replicas."""

import contextlib

import keras
import tensorflow as tf

from tfp_flows import _private
from tfp_flows.bijectors import BatchNorm
from tfp_flows.bijectors.modes import training_mode
from tfp_flows.models import replicas
from tfp_flows.models.inputs import unpack
from tfp_flows.models.pieces import sum_over_pieces
from tfp_flows.preprocessing import bits_per_dim


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
        seed, drawn = self._noise_of_objective(x, "train", step, counts)
        noise = self._noise(x, "train", step, counts), drawn
        x = self._prepare(x, "train", step, counts)
        variables = self.trainable_variables
        busy = tf.cast(tf.math.count_nonzero(counts), rows.dtype)

        def total_and_gradients(x, context, weight, noise, rows, busy, seed):
            with tf.GradientTape() as tape:
                total, loss = self._total_and_loss(
                    x, context, weight, noise, rows, busy, seed, training=True
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
        seed, drawn = self._noise_of_objective(x, "evaluate", count, counts)
        noise = self._noise(x, "evaluate", count, counts), drawn
        x = self._prepare(x, "evaluate", count, counts)
        rows = tf.cast(tf.reduce_sum(counts), self._example.dtype)
        busy = tf.cast(tf.math.count_nonzero(counts), rows.dtype)

        def totals(x, context, weight, noise, rows, busy, seed):
            results = self._total_and_loss(x, context, weight, noise, rows, busy, seed)
            if self._nats is None:
                return results
            nats = -self._log_prob(x, self._embedded(context), noise=noise[0])
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

    def _total_and_loss(self, x, context, weight, noise, rows, busy, seed, training=False):
        """Sums over this replica's rows, and its share of the loss of all rows.

        Args:
          x, context, weight: of this replica.
          noise: of these rows, that of the log-density and that of the objective; each or `None`.
          rows: number of rows of all replicas.
          busy: number of replicas that have some, times that of the pieces of a batch here. Of
            regularizers and other added losses, which are the same in all, each adds its part.
          seed: that of the objective, or `None`.
          training: whether it is for a gradient.
        """
        if weight is not None and not self.objective.takes_weights:
            raise ValueError(
                f"FlowModel '{self.name}': no sample_weight: {type(self.objective).__name__} is a "
                "distance of samples from all rows of a batch, and weighs none of them. Leave it "
                "out, or draw rows as often as their weights say."
            )
        losses = self._row_losses(x, context, noise, seed, training)
        total = self._weighted(losses, weight)
        loss = tf.math.divide_no_nan(total, rows)
        if self.losses:
            part = tf.cast(tf.shape(x)[0] > 0, loss.dtype) / busy
            loss += tf.cast(tf.add_n(self.losses), loss.dtype) * part
        metrics = [self._sum_of_metric(metric, x, losses) for metric, _ in self._own_metrics]
        return tf.stack([total, *metrics]), loss

    def _row_losses(self, x, context, noise, seed, training=False):
        """The loss of each row."""
        context = self._embedded(context, training)
        of_density, drawn = noise
        if self._objective is None:
            return -self._log_prob(x, context, training, of_density)
        batch = (x, context) if self._objective.needs_data else tf.shape(x)[0]
        with training_mode(training):
            own = {} if drawn is None else {"noise": drawn}
            if self._objective.takes_noise:
                seed = of_density
            losses = self._objective.loss(self.distribution, batch, seed, **own)
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
