"""The steps of `fit`, `evaluate` and `predict`, on any number of replicas."""

import contextlib
import weakref

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import BatchNorm
from tfp_flows.models import replicas
from tfp_flows.models.diagnosis import explain_nonfinite
from tfp_flows.models.inputs import checks_of_batch, unpack
from tfp_flows.preprocessing import bits_per_dim


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
        """One step of `fit`: the gradient of the mean negative log-likelihood."""
        x, context, weight = unpack(data, self)
        x = self._checked(x, nan=False)  # NaN makes the loss NaN, which is checked.
        counts = replicas.of_each_replica(tf.shape(x)[0])
        rows = tf.cast(tf.reduce_sum(counts), self.distribution.dtype)
        # The steps themselves: `iterations` counts the updates by accumulated gradients.
        steps = getattr(self.optimizer, "inner_optimizer", self.optimizer)._iterations
        x = self._prepare(x, (1, steps), counts)
        variables = self.trainable_variables
        used = list(range(len(variables)))  # Those that the loss depends on.
        # Of regularizers, the same in all, each replica that has rows adds its part.
        busy = tf.cast(tf.math.count_nonzero(counts), rows.dtype)

        def total_and_gradients(x, context, weight, rows):
            with tf.GradientTape() as tape:
                total = self._total(x, context, weight, training=True)
                loss = total / rows
                if self.losses:
                    part = tf.cast(tf.shape(x)[0] > 0, loss.dtype) / busy
                    loss += tf.cast(tf.add_n(self.losses), loss.dtype) * part
                scaled = self.optimizer.scale_loss(loss)
            gradients = tape.gradient(scaled, variables)
            used[:] = [n for n, gradient in enumerate(gradients) if gradient is not None]
            return total, loss, [tf.convert_to_tensor(gradients[n]) for n in used]

        def nothing():
            zero = tf.zeros([], x.dtype)
            return zero, zero, [tf.zeros_like(variables[n]) for n in used]

        compute = self._compiled(total_and_gradients)
        results = self._unless_empty(x, lambda: compute(x, context, weight, rows), nothing)
        losses = replicas.of_each_replica(results[1])
        total, _, gradients = replicas.sum_over_replicas(results)
        # The count of steps too waits for the check.
        with tf.control_dependencies([self._check_finite(losses, x, context)]):
            found = dict(zip(used, gradients, strict=True))
            gradients = [found.get(n) for n in range(len(variables))]  # Keras warns of `None`.
            replicas.apply_summed(self.optimizer, gradients, variables)
        return self._update_metrics(total, rows)

    def test_step(self, data):
        """One step of `evaluate`."""
        x, context, weight = unpack(data, self)
        x = self._checked(x)
        counts = replicas.of_each_replica(tf.shape(x)[0])
        x = self._prepare(x, (2, self._loss_nats.count), counts)
        compute = self._compiled(self._total)
        total = self._unless_empty(
            x, lambda: compute(x, context, weight), lambda: tf.zeros([], x.dtype)
        )
        total = replicas.sum_over_replicas(total)
        return self._update_metrics(total, tf.cast(tf.reduce_sum(counts), total.dtype))

    def predict_step(self, data):
        """One step of `predict`: log-probabilities in nats."""
        x, context, _ = unpack(data, self)
        x = self._prepare(self._checked(x), (0, 0))
        compute = self._compiled(self._log_prob)
        return self._unless_empty(x, lambda: compute(x, context), lambda: tf.zeros([0], x.dtype))

    def _prepare(self, x, stream, counts=None):
        """Dequantizes integers, with noise from the seed and the stream.

        Given the number of rows in each replica, the rows of a replica get the noise that they
        would get on one device: replicas differ, and any number of them trains alike.
        """
        x = tf.convert_to_tensor(x)
        if self.dequantization is None or x.dtype.is_floating:
            return x
        if stream == (0, 0):  # A score depends on no row beside it and on no device.
            x = self.dequantization.shared_noise(x, event_shape=self.event_shape)
            return tf.cast(x, self.distribution.dtype)
        purpose, counter = stream
        seed = tf.stack([tf.cast(purpose, tf.int32), tf.cast(counter, tf.int32)])
        seed = tf.random.experimental.stateless_fold_in(seed, self.dequantization.seed or 0)
        if counts is None or counts.shape[0] == 1:
            return tf.cast(self.dequantization(x, seed=seed), self.distribution.dtype)
        before = tf.reduce_sum(counts[: replicas.replica_id()])
        rows = tf.shape(x)[0]
        ends = [[before, tf.reduce_sum(counts) - before - rows]]
        # The noise of the global batch, of which this replica's rows are cut out.
        padded = tf.pad(x, ends + [[0, 0]] * (x.shape.rank - 1))
        noisy = self.dequantization(padded, seed=seed)[before : before + rows]
        return tf.cast(tf.ensure_shape(noisy, x.shape), self.distribution.dtype)

    def _total(self, x, context, weight, training=False):
        """Sum of the (weighted) negative log-likelihoods of a batch."""
        nll = -self._log_prob(x, context, training)
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

    def _update_metrics(self, total, rows):
        # Every replica counts the global batch: the ratio of the sums is right, and so is the
        # result that a replica reads by itself.
        nats = tf.math.divide_no_nan(total, rows)
        self._loss_nats.update_state(nats, sample_weight=rows)
        if self._bits_per_dim is not None:
            self._bits_per_dim.update_state(
                bits_per_dim(-nats, self.event_shape), sample_weight=rows
            )
        logs = {m.name: m.result() for m in self.metrics}
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
            if self._epochs is not None:
                self._epochs.use(iterator)
            resumption = self._resumption
            if resumption is None:
                return function(iterator)
            resumption.catch_up(iterator, self.metrics)
            if resumption.calls == 0:
                resumption.end()
                self._resumption = None
                return function(iterator)
            resumption.skip()
            return self.get_metrics_result()

        return step

    def _compiled(self, function):
        """`function` as `compile` wants it.

        Made anew for each trace of a step: a trace holds the variables of its replica.
        """
        if not self._in_xla():
            return function
        return tf.function(function, jit_compile=True, autograph=False)

    def _unless_empty(self, x, compute, otherwise):
        """`compute()` where there are rows; a replica may have none of the last batch.

        A fused convolution gives such a batch a wrong shape (TF 2.21, oneDNN). Parts that meet
        the other replicas in the middle of the step do so without rows, too.
        """
        if x.shape[0] is not None or self.distribute_strategy.num_replicas_in_sync == 1:
            return compute()
        if any(isinstance(part, BatchNorm) for part in self.distribution.submodules):
            return compute()
        return tf.cond(tf.shape(x)[0] > 0, compute, otherwise)

    def _check_finite(self, losses, x, context):
        """Returns 1, or raises inside the graph after noting what went wrong.

        Args:
          losses: of each replica.
          x, context: of this one.
        """
        local = replicas.replicas_here(self.distribute_strategy)

        def explain(losses, number, x, *context):
            bad = np.flatnonzero(~np.isfinite(losses.numpy()))
            number = int(number)
            if number in bad:
                found, remedy = explain_nonfinite(self.distribution, x, *context)
            elif (bad // local == number // local).any():
                return None  # Another replica of this process says it.
            else:
                found, remedy = f"worker {bad[0] // local} says why", "See there."
            step = int(self.optimizer.iterations.numpy())
            return (
                f"FlowModel '{self.name}': the loss is not finite at step {step}: {found}. {remedy}"
            )

        arguments = [losses, replicas.replica_id(), x]
        arguments += [] if context is None else [context]
        finite = tf.reduce_all(tf.math.is_finite(losses))
        return self._require(finite, explain, arguments, FloatingPointError)

    def _checked(self, x, nan=True):
        """`x` of a step once it has passed the checks that need its values."""
        x = tf.convert_to_tensor(x)
        checks = [self._require(*check) for check in checks_of_batch(x, self, nan)]
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
                    return np.float32(1.0)
                model()._fault = error(message)
                raise model()._fault

            return tf.ensure_shape(tf.py_function(report, arguments, tf.float32), [])

        return tf.cond(good, lambda: tf.ones([]), fail)

    @contextlib.contextmanager
    def _explained(self):
        """Raises what went wrong inside a graph as Python's own exception, without the graph."""
        self._fault = None
        try:
            yield
        except tf.errors.OpError as error:
            if self._fault is not None:
                raise self._fault from None
            replicas.explain_lost_worker(self.distribute_strategy, error)
            raise
