"""The Keras model that trains a distribution."""

import contextlib
import dataclasses
import functools
import types
import warnings

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._files import written_whole
from tfp_flows.bijectors import BatchNorm, stock
from tfp_flows.bijectors.context import (
    context_kwargs,
    context_size_of,
    distribution_context_kwargs,
    distribution_context_size,
)
from tfp_flows.bijectors.initialization import data_dependent_initialization
from tfp_flows.bijectors.training import training_mode
from tfp_flows.models import datasets, replicas
from tfp_flows.models.backup import Progress, Resumption
from tfp_flows.models.callbacks import adapted
from tfp_flows.models.diagnosis import explain_nonfinite
from tfp_flows.models.fused_adam import use_fused_update
from tfp_flows.models.inputs import (
    check_array,
    check_nan,
    first_batch,
    is_arrays,
    unpack,
    with_weights,
)
from tfp_flows.models.layout import (
    check_stored_layout,
    check_weights_file,
    holds_optimizer,
    store_layout,
)
from tfp_flows.models.variables import (
    TensorFlowVariables,
    actnorms_of,
    conditioners_of,
    raw_variables_of,
)
from tfp_flows.preprocessing import bits_per_dim
from tfp_flows.saving import describe, rebuild

tfd = tfp.distributions

# The arguments of `compile` that a file keeps.
_COMPILED = ("optimizer", "run_eagerly", "steps_per_execution", "jit_compile")


@keras.saving.register_keras_serializable(package="tfp_flows")
class FlowModel(keras.Model):
    """A `keras.Model` that fits a distribution to data by maximum likelihood.

        loss = -mean(log p(x))        in nats; for images also in bits/dim

    Any `tfd.Distribution` with trainable variables will do: a recipe of `tfp_flows.flows`, a
    composition of TFP's and this package's bijectors, raw `tf.Variable`s included. `fit(x)`
    needs no `y`. A context is given as `fit(x, y=context)`, as `(x, context)` elements of a
    `tf.data.Dataset`, or as `{"x": ..., "context": ...}`.

    Args:
      distribution: the distribution, floating dtype; its event shape is that of one example.
      dequantization: `preprocessing.UniformDequantization` to train on integer data (images):
        fresh noise every step, the same for the same seed. Default: the data are continuous.
      bits_per_dim: whether to report bits/dim beside nats. Default: for image events `[H, W,
        C]`. It counts for data in their original units, 0 to 255: put a scaling to [0, 1]
        into the distribution, as a bijector, not before it.
      name: name of the model.

    Raises:
      TypeError: if `distribution` is none; if the data's dtype is not the distribution's (cast
        float64 data, and dequantize integers).
      ValueError: on a wrong event shape, NaN in the data, a context missing or unused, nothing
        to train, or an ActNorm that was never initialised.
      FloatingPointError: by `fit`, when the loss is not finite. The step that would have spoilt
        the weights is not taken, and the message names the first part at fault.

    >>> from tfp_flows import flows
    >>> model = FlowModel(flows.real_nvp([2], num_couplings=2, hidden_units=(8,), seed=0))
    >>> model.compile(optimizer="adam")
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> history = model.fit(x, epochs=1, verbose=0)
    >>> model.log_prob(x).shape
    TensorShape([64])
    """

    def __init__(self, distribution, *, dequantization=None, bits_per_dim=None, name=None):
        if not isinstance(distribution, tfd.Distribution):
            raise TypeError(
                f"FlowModel: expected a tfd.Distribution, got {type(distribution).__name__}. Wrap "
                "a bijector: tfd.TransformedDistribution(base, bijector)."
            )
        dtype = tf.as_dtype(distribution.dtype)
        # A dtype of its own: under a global mixed policy Keras would cast x to bfloat16.
        super().__init__(name=name, dtype=dtype.name)
        title = f"FlowModel '{self.name}'"
        replicas.check_strategy(self.distribute_strategy, title)
        replicas.check_scope(self.distribute_strategy, distribution.variables, title)
        if not distribution.event_shape.is_fully_defined():
            raise ValueError(
                "FlowModel: the distribution's event shape must be known, got "
                f"{distribution.event_shape}."
            )
        if distribution.batch_shape.rank:
            raise ValueError(
                f"FlowModel: expected one distribution, got '{distribution.name}' of batch shape "
                f"{distribution.batch_shape.as_list()}. Make the batch a part of the event: "
                "tfd.Independent(distribution, 1)."
            )
        # Neither Keras nor tf.train.Checkpoint must see the distribution itself: both see its
        # variables, each once, through the layers below.
        object.__setattr__(self, "_distribution", distribution)
        object.__setattr__(self, "_dequantization", dequantization)
        object.__setattr__(self, "_actnorms", actnorms_of(distribution))
        self._context_size = distribution_context_size(distribution)
        self.conditioners = conditioners_of(distribution)
        self.other_variables = TensorFlowVariables(
            raw_variables_of(distribution, self.conditioners), dtype.name
        )
        if bits_per_dim is None:
            bits_per_dim = distribution.event_shape.rank == 3
        self._loss_nats = keras.metrics.Mean(name="loss")
        self._bits_per_dim = keras.metrics.Mean(name="bits_per_dim") if bits_per_dim else None
        self._functions = {}
        self._xla = False
        self._resumption = None
        self._epochs = None

    # --- What the model is made of. ---

    @property
    def distribution(self):
        """The distribution that is trained."""
        return self._distribution

    @property
    def dequantization(self):
        """The dequantization of integer data, or `None`."""
        return self._dequantization

    @property
    def event_shape(self):
        """Shape of one example."""
        return self.distribution.event_shape

    @property
    def context_size(self):
        """Size of the context's last axis, or `None`."""
        return self._context_size

    @property
    def conditioner_policy(self):
        """Name of the Keras policy that the networks compute by; `None` if they differ.

        Set it to train in bfloat16 and sample in float32, with the same (float32) weights:

        ```python
        model.conditioner_policy = "mixed_bfloat16"
        model.fit(x)
        model.conditioner_policy = "float32"
        ```

        A flow inverts a network's effect by computing it again, in another order of operations:
        exact to rounding in float32. Of 32 couplings with networks in bfloat16, 2.6% of the rows
        came back off by more than 1e-4, the worst by 2.5.
        """
        names = {layer.dtype_policy.name for layer in self.conditioners}
        return names.pop() if len(names) == 1 else None

    @conditioner_policy.setter
    def conditioner_policy(self, policy):
        policy = keras.dtype_policies.get(policy)
        wanted = self.distribution.dtype.name
        if policy.variable_dtype != wanted:
            raise ValueError(
                f"FlowModel '{self.name}': expected a policy whose weights are {wanted}, such as "
                f"'{wanted}' or 'mixed_bfloat16', got '{policy.name}'."
            )
        for layer in self.conditioners:
            layer.dtype_policy = policy
        # All that was traced is of the old policy.
        self.train_function = self.test_function = self.predict_function = None
        self._functions = {}

    @property
    def reports_bits_per_dim(self):
        """Whether bits/dim are reported beside nats."""
        return self._bits_per_dim is not None

    def build(self, input_shape=None):
        """All variables exist from the start: there is nothing to build."""
        self.built = True

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        # Keras 3.15 would draw a batch to build from, averaged over the replicas, and so shift a
        # shuffled dataset by one epoch; on several workers it fails.
        self.build()

    def call(self, inputs, training=False):
        """Returns `log p(x)` in nats for `x`, `(x, context)` or `{"x", "context"}`."""
        x, context, _ = unpack(inputs, self)
        return self._log_prob(self._prepare(x, (0, 0)), context)

    def compile(self, optimizer="adam", *, jit_compile=False, **kwargs):
        """Sets the optimizer; the loss is the negative log-likelihood.

        Args:
          optimizer: Keras optimizer or its name.
          jit_compile: whether XLA compiles the step. It pays for splines (about twice as
            fast), not for convolutions.
          **kwargs: `steps_per_execution`, `run_eagerly`, `auto_scale_loss` of
            `keras.Model.compile`.

        Raises:
          ValueError: if there is nothing to train, or a loss or metrics are given.
        """
        for extra in ("loss", "loss_weights", "metrics", "weighted_metrics"):
            if kwargs.pop(extra, None) is not None:
                raise ValueError(
                    f"FlowModel.compile: no `{extra}`: the loss is the negative log-likelihood. "
                    "Add terms through a conditioner's `add_loss` or regularizers."
                )
        self._check_trainable()
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
        title = f"FlowModel '{self.name}'.compile"
        replicas.check_optimizer(
            self.distribute_strategy, optimizer, self.distribution, jit_compile, title
        )
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        use_fused_update(self.optimizer)

    @property
    def metrics(self):
        """The means of the loss in nats and of bits/dim."""
        return [m for m in (self._loss_nats, self._bits_per_dim) if m is not None]

    # --- Training. ---

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """`keras.Model.fit`; initialises ActNorms from the first batch if they were not.

        Args:
          x: array, `tf.data.Dataset`, `(x, context)`, or `{"x": ..., "context": ...}`.
          y: the context, if `x` is an array.
          batch_size: default 32, for arrays.
          **kwargs: everything else that `keras.Model.fit` takes.

        Returns:
          The `keras.callbacks.History`.

        Raises:
          ValueError, TypeError: for data that do not fit the distribution.
          FloatingPointError: if the loss is not finite.
        """
        self._check_trainable()
        self._check_data(x, y)
        x, y, kwargs["sample_weight"] = with_weights(x, y, kwargs.get("sample_weight"), self)
        if kwargs.get("validation_data") is not None:
            validation = keras.utils.unpack_x_y_sample_weight(kwargs["validation_data"])
            self._check_data(*validation[:2])
            if validation[2] is not None and validation[1] is None:
                kwargs["validation_data"] = with_weights(*validation, self)[:1]
        # Callbacks that restore (BackupAndRestore) refuse a model that calls itself unbuilt.
        self.build()
        self._nonfinite = None
        callbacks = kwargs.pop("callbacks", None)
        with (
            adapted(callbacks, self) as (kwargs["callbacks"], backup),
            self._floatx(),
            warnings.catch_warnings(),
        ):
            x, y, batch_size = self._start(x, y, batch_size, backup, kwargs)
            try:
                return super().fit(x, y, batch_size=batch_size, **kwargs)
            except tf.errors.OpError as error:
                if self._nonfinite is not None:
                    raise FloatingPointError(self._nonfinite) from None
                replicas.explain_lost_worker(self.distribute_strategy, error)
                raise
            finally:
                self._resumption = self._epochs = None

    def _start(self, x, y, batch_size, backup, kwargs):
        """Restores, initialises, and returns the data from where the training goes on.

        Args:
          x, y, batch_size: those of `fit`.
          backup: a `Backup`, or `None`.
          kwargs: the other arguments of `fit`, which are changed in place.
        """
        strategy, title = self.distribute_strategy, "FlowModel.fit"
        workers = replicas.num_workers(strategy)
        progress = None if backup is None else backup.restore()
        resumed = progress is not None
        if not resumed:
            # The chief's, for all workers need the same order.
            seed = replicas.gather_over_workers(strategy, [datasets.draw_seed()])[0, 0]
            progress = Progress(int(seed), steps_per_execution=self.steps_per_execution)
            progress.steps_per_epoch = kwargs.get("steps_per_epoch")
        if self._uninitialized():
            training = 1.0 - (kwargs.get("validation_split") or 0.0)
            self.initialize(first_batch(x, y, batch_size, training))
            progress.peeked = isinstance(x, tf.data.Dataset)
        if is_arrays(x):
            batch_size = batch_size or 32
            datasets.check_batch(batch_size, strategy.num_replicas_in_sync, title)
            if workers > 1 or backup is not None:
                data = tuple(d for d in (x, y, kwargs.pop("sample_weight", None)) if d is not None)
                if kwargs.get("validation_split") and kwargs.get("validation_data") is None:
                    data, kept = datasets.split_rows(data, kwargs["validation_split"])
                    kwargs["validation_data"] = kept
                kwargs.setdefault("validation_batch_size", batch_size)
                kwargs["validation_split"] = 0.0
                x = datasets.of_arrays(
                    data if len(data) > 1 else data[0],
                    batch_size,
                    shuffle=kwargs.get("shuffle", True),
                    seed=progress.seed,
                )
                y = batch_size = None
                kwargs["shuffle"] = False
        if isinstance(x, tf.data.Dataset):
            datasets.check_batch(datasets.batch_of(x), strategy.num_replicas_in_sync, title)
            # Keras warns, on every call, that its own default does not apply to datasets.
            kwargs.setdefault("shuffle", False)
            if workers > 1:
                x = datasets.sharded_by_data(x)
        if workers > 1 and isinstance(kwargs.get("validation_data"), tf.data.Dataset):
            kwargs["validation_data"] = datasets.sharded_by_data(kwargs["validation_data"])
        if replicas.worker_index(strategy):
            kwargs["verbose"] = 0  # The chief says it once.
        dropped = 0
        distributed = isinstance(x, tf.distribute.DistributedDataset)
        if distributed or (isinstance(x, tf.data.Dataset) and (workers > 1 or backup is not None)):
            if resumed and progress.peeked:
                iter(x)
            if progress.steps_per_epoch is not None and not distributed:
                x = x.repeat()  # As Keras does, with an iterator whose position it keeps.
            self._epochs = x = datasets.Epochs(x, strategy)
            dropped = x.advance(progress)
            # Keras says so at every end of a dataset whose size it does not know.
            warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
        if backup is not None:
            backup.progress = dataclasses.replace(progress)
        if resumed:
            kwargs["initial_epoch"] = progress.epoch
            self._resumption = Resumption(dropped, progress.calls, progress.metrics)
        return x, y, batch_size

    def initialize(self, batch):
        """Runs the data-dependent initialisation (ActNorm) on one batch, once.

        Args:
          batch: `x`, `(x, context)` or `{"x": ..., "context": ...}`; a few hundred rows give
            steady moments. Parts that are initialised already, by an earlier call or a
            restored checkpoint, stay as they are.
        """
        x, context, _ = unpack(batch, self)
        self._check_data(x, context)
        if not self._uninitialized():
            return
        x = self._prepare(tf.convert_to_tensor(x), (0, 1))
        # In the strategy's scope, and in no replica: an assignment then reaches every device.
        strategy = self.distribute_strategy
        reduce_sum = replicas.sum_over_workers(strategy)
        with strategy.scope(), data_dependent_initialization(reduce_sum):
            # A fresh tensor: TFP's caches would answer for one that they have met.
            self._log_prob(tf.identity(x), context)

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
        counts = replicas.of_each_replica(tf.shape(x)[0])
        rows = tf.cast(tf.reduce_sum(counts), self.distribution.dtype)
        x = self._prepare(x, (1, self.optimizer.iterations), counts)
        variables = self.trainable_variables

        def total_and_gradients(x, context, weight, rows):
            with tf.GradientTape() as tape:
                total = self._total(x, context, weight, training=True)
                loss = total / rows
                if self.losses:
                    count = self.distribute_strategy.num_replicas_in_sync
                    loss += tf.cast(tf.add_n(self.losses), loss.dtype) / count
                scaled = self.optimizer.scale_loss(loss)
            return total, loss, tape.gradient(scaled, variables)

        def nothing():
            return (
                tf.zeros([], x.dtype),
                tf.zeros([], x.dtype),
                [tf.zeros_like(v) for v in variables],
            )

        compute = self._compiled(total_and_gradients)
        results = self._unless_empty(x, lambda: compute(x, context, weight, rows), nothing)
        losses = replicas.of_each_replica(results[1])
        total, _, gradients = replicas.sum_over_replicas(results)
        # The count of steps too waits for the check.
        with tf.control_dependencies([self._check_finite(losses, x, context)]):
            replicas.apply_summed(self.optimizer, gradients, variables)
        return self._update_metrics(total, rows)

    def test_step(self, data):
        """One step of `evaluate`."""
        x, context, weight = unpack(data, self)
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
        x = self._prepare(x, (0, 0))
        compute = self._compiled(self._log_prob)
        return self._unless_empty(x, lambda: compute(x, context), lambda: tf.zeros([0], x.dtype))

    def evaluate(self, x=None, y=None, **kwargs):
        """`keras.Model.evaluate`: mean negative log-likelihood in nats, and bits/dim."""
        self._check_initialized("evaluate")
        if not kwargs.get("_use_cached_eval_dataset"):  # Not fit's own validation.
            self._check_data(x, y)
            x, y, kwargs["sample_weight"] = with_weights(x, y, kwargs.get("sample_weight"), self)
        with self._floatx():
            return super().evaluate(x, y, **kwargs)

    def predict(self, x, **kwargs):
        """`keras.Model.predict`: log-probabilities in nats, as a NumPy array."""
        self._check_initialized("predict")
        self._check_data(x, None)
        with self._floatx():
            return super().predict(x, **kwargs)

    # --- Density and samples. ---

    def log_prob(self, x, context=None):
        """Log-density of `x` in nats.

        Args:
          x: `[..., *event_shape]` in the distribution's dtype; integers if the model
            dequantizes.
          context: `[..., context_size]`, broadcast over the batch, for a conditional flow.

        Returns:
          Tensor of the batch shape. Outside the support it is -inf.

        Raises:
          TypeError, ValueError: for data that do not fit, or that hold NaN.
        """
        self._check_initialized("log_prob")
        self._check_data(x, context, batched=False)
        x, context = tf.convert_to_tensor(x), self._context(context)
        return self._function("log_prob", self._log_prob_of_data, x, context)(x, context)

    def sample(self, n=(), *, seed=None, context=None, temperature=1.0):
        """Draws samples.

        Args:
          n: how many, `int` or a shape such as `[3, 5]`; default one, without a batch axis.
          seed: `int` or a pair of them; the same seed gives the same samples. Default: fresh.
          context: `[..., context_size]`: its batch shape must broadcast with `n`.
          temperature: `> 0`; the latent's deviation from the base's mean is multiplied by it.
            Below 1 gives more typical samples.

        Returns:
          Tensor `[*n, *event_shape]`.
        """
        self._check_initialized("sample")
        known = tf.get_static_value(tf.convert_to_tensor(temperature))
        if known is not None and not known > 0:
            raise ValueError(f"FlowModel.sample: temperature must be > 0, got {temperature!r}.")
        shape = tf.reshape(tf.convert_to_tensor(n, dtype=tf.int32), [-1])
        known = tf.get_static_value(shape)  # None for a tensor inside a tf.function
        if known is not None and (known < 1).any():
            raise ValueError(f"FlowModel.sample: n must be at least 1, got {n!r}.")
        context = self._context(context)
        self._check_context(context, "sample")
        if context is not None and known is not None:
            rows = context.shape[:-1].as_list()
            if len(rows) > len(known) or any(
                m not in (1, n) for m, n in zip(rows[::-1], known[::-1], strict=False)
            ):
                raise ValueError(
                    f"FlowModel.sample: expected a context whose batch shape broadcasts to n = "
                    f"{known.tolist()}, got {rows}. Give one row for all, or one for each sample."
                )
        if float(temperature) == 1.0:
            temperature = None  # It needs no mean, which some bases do not have.
        else:
            temperature = tf.cast(temperature, self.distribution.dtype)
        draw = self._function("sample", self._sample, shape, context)
        samples = draw(shape, _stateless_seed(seed), context, temperature)
        return tf.ensure_shape(samples, [None] * shape.shape[0] + self.event_shape.as_list())

    def summary(self, line_length=None, print_fn=None):
        """Prints a table with a row per part of the distribution.

        Args:
          line_length: width of the first column. Default: as needed.
          print_fn: function that takes each line. Default: `print`.
        """
        from tfp_flows.models.summary import summary_lines

        for line in summary_lines(self, line_length):
            (print_fn or print)(line)

    # --- Persistence. ---

    def save(self, filepath, overwrite=True, zipped=None, **kwargs):
        """`keras.Model.save`: the distribution, its weights and the optimizer's state in one file.

        Stock TFP, this package, Keras layers and registered classes of your own are described
        (see `tfp_flows.saving`); `keras.models.load_model` gives back the same distribution, and
        training goes on as if there had been no save. To load a file runs no code from it.

        Args:
          filepath: path that ends in `.keras`, on a local file system. The file appears there
            when it is complete.
          overwrite: whether a file that is there is replaced.
          zipped, **kwargs: as `keras.Model.save`.

        Raises:
          ValueError: naming the part that no file can describe (a lambda, a class that is not
            registered), or for another ending.
          FileExistsError: if there is a file and `overwrite` is `False`.
          OSError: if it cannot be written; a file that was there is still there then.
        """
        if not str(filepath).endswith(".keras"):
            raise ValueError(
                f"FlowModel.save: expected a path that ends in .keras, got '{filepath}'. For "
                "serving use `export`, for weights alone `save_weights`."
            )
        self.build()
        with written_whole(
            filepath, owner="FlowModel.save", overwrite=overwrite, suffix=".keras"
        ) as partial:
            super().save(partial, zipped=zipped, **kwargs)

    def save_weights(self, filepath, overwrite=True, **kwargs):
        """`keras.Model.save_weights`, also before the model was ever called.

        The file appears under its name when it is complete.
        """
        self.build()
        if kwargs.get("max_shard_size") is not None or not str(filepath).endswith(".weights.h5"):
            super().save_weights(filepath, overwrite=overwrite, **kwargs)
            return
        # HDF5 crashes on a full disk (h5py 3.14): it must not come to that.
        held = self.variables + (self.optimizer.variables if self.compiled else [])
        with written_whole(
            filepath,
            owner="FlowModel.save_weights",
            overwrite=overwrite,
            suffix=".weights.h5",
            room=sum(2048 + v.value.shape.num_elements() * v.value.dtype.size for v in held),
        ) as partial:
            super().save_weights(partial, **kwargs)

    def load_weights(self, filepath, skip_mismatch=False, **kwargs):
        """`keras.Model.load_weights`, also before the model was ever called.

        Raises:
          ValueError: if the file is of another model; the message names the first part that
            differs, and no weight is changed.
        """
        self.build()
        if not skip_mismatch:
            check_weights_file(filepath, self)
        if self.compiled and holds_optimizer(filepath):
            # Keras leaves out the state of an optimizer that has no variables yet.
            self._build_optimizer()
        super().load_weights(filepath, skip_mismatch=skip_mismatch, **kwargs)

    def _trackable_children(self, save_type="checkpoint", **kwargs):
        # What tf.train.Checkpoint saves. It does not see layers that are kept in a list (Keras
        # 3.15), and would save none of the weights, without a word.
        children = super()._trackable_children(save_type, **kwargs)
        if save_type == "checkpoint":
            children["distribution"] = self._distribution
        return children

    def save_own_variables(self, store):
        """Keeps, for `load_own_variables`, what each weight of the model is."""
        super().save_own_variables(store)
        store_layout(self, store)

    def load_own_variables(self, store):
        """Checks that the weights that Keras is about to load are those of such a model."""
        check_stored_layout(self, store)

    def get_config(self):
        """The description of the model, for `keras.saving`: see `tfp_flows.saving.describe`."""
        return {
            "name": self.name,
            "bits_per_dim": self.reports_bits_per_dim,
            "flow": describe(
                distribution=self.distribution,
                dequantization=self.dequantization,
            ),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """The model of `get_config`, with fresh weights in its Keras layers."""
        config = dict(config)
        if custom_objects:  # An empty scope would hide those of the scope around it.
            with keras.saving.custom_object_scope(custom_objects):
                return cls.from_config(config)
        parts = rebuild(config.pop("flow", None))
        if not isinstance(parts.get("distribution"), tfd.Distribution):
            raise ValueError("FlowModel: the file is damaged: it describes no distribution.")
        return cls(parts["distribution"], dequantization=parts.get("dequantization"), **config)

    def get_compile_config(self):
        """The arguments of `compile`, for `keras.saving`."""
        config = super().get_compile_config()
        return {name: value for name, value in config.items() if name in _COMPILED}

    def compile_from_config(self, config):
        """Compiles as `get_compile_config` says, with the optimizer's variables made."""
        config = {name: config[name] for name in _COMPILED if name in config}
        self.build()
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def export(self, filepath, format="tf_saved_model", verbose=None, **kwargs):
        """Writes a SavedModel that TensorFlow alone can load and call.

        Its signatures, each with a free batch size and every input by name:

            log_prob(x)                      -> log_prob [batch], nats
            bits_per_dim(x)                  -> bits_per_dim [batch], where the model reports it
            forward(z)                       -> x
            inverse(x)                       -> z
            sample(n, seed, temperature)     -> samples [n, *event_shape]

        A conditional model's take a `context` as well, `[batch or 1, context_size]`. `n` is an
        int32 scalar, `seed` a pair of int32, `temperature` defaults to 1 where the loader knows
        defaults (Python's does for `loaded.sample(n, seed)`, not for its signature). The same
        seed gives the same samples. A model that dequantizes takes int32 in `log_prob`, and has
        `log_prob_dequantized` for floating data. `assets.extra/manifest.json` describes it all.

        The directory is written under another name beside it and renamed when it is complete.

        Args:
          filepath: the new directory, on a local file system.
          format: `"tf_saved_model"`, the only one.
          verbose: ignored.
          **kwargs: none; the signatures follow from the distribution.

        Raises:
          ValueError: if another format is asked for, or an ActNorm was never initialised.
          TypeError: for any other keyword.
          FileExistsError: if there is something at `filepath`.
          OSError: if it cannot be written; nothing is left at `filepath` then.
        """
        from tfp_flows.export import export

        del verbose
        if format != "tf_saved_model":
            raise ValueError(
                f"FlowModel.export: format must be 'tf_saved_model', got {format!r}. Convert the "
                "SavedModel with the other format's own tool."
            )
        if kwargs:
            raise TypeError(
                f"FlowModel.export: unexpected keyword {', '.join(sorted(kwargs))}. The "
                "signatures follow from the distribution."
            )
        export(self, filepath)

    # --- Inside. ---

    def _log_prob(self, x, context=None, training=False):
        kwargs = distribution_context_kwargs(self.distribution, context)
        with training_mode(training):
            return self.distribution.log_prob(x, **kwargs)

    def _log_prob_of_data(self, x, context):
        return self._log_prob(self._prepare(x, (0, 0)), context)

    def _sample(self, shape, seed, context, temperature):
        return _draw(self.distribution, shape, seed, context, temperature)

    @contextlib.contextmanager
    def _floatx(self):
        """Keras casts arrays to its global floatx before a step sees them: make it the model's."""
        before = keras.config.floatx()
        keras.config.set_floatx(self.distribution.dtype.name)
        try:
            yield
        finally:
            keras.config.set_floatx(before)

    def _function(self, name, python_function, value, context):
        # One for each rank: relaxed over several ranks, TensorFlow would trace with an unknown one.
        rank = value.shape[0] if name == "sample" else value.shape.rank
        key = f"{name}_{rank}_{None if context is None else context.shape.rank}"
        if key not in self._functions:
            # A partial: TensorFlow would count the traces of them all together, and warn.
            self._functions[key] = tf.function(
                functools.partial(python_function), reduce_retracing=True, autograph=False
            )
        return self._functions[key]

    def _prepare(self, x, stream, counts=None):
        """Dequantizes integers, with noise from the seed and the stream.

        Given the number of rows in each replica, the rows of a replica get the noise that they
        would get on one device: replicas differ, and any number of them trains alike.
        """
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
        return tf.reduce_sum(nll if weight is None else nll * tf.cast(weight, nll.dtype))

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
                self._resumption = None
                return function(iterator)
            resumption.calls -= 1
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

        def report(losses, number, x, *context):
            bad = np.flatnonzero(~np.isfinite(losses.numpy()))
            number = int(number)
            if number in bad:
                found = explain_nonfinite(self.distribution, x, *context)
            elif (bad // local == number // local).any():
                return np.float32(1.0)  # Another replica of this process says it.
            else:
                found = f"worker {bad[0] // local} says why"
            step = int(self.optimizer.iterations.numpy())
            self._nonfinite = (
                f"FlowModel '{self.name}': the loss is not finite at step {step}: {found}. The "
                "weights are those of the last good step. Lower the learning rate, clip the "
                "gradients (`clipnorm`), or use bounded log-scales."
            )
            raise FloatingPointError(self._nonfinite)

        arguments = [losses, replicas.replica_id(), x]
        arguments += [] if context is None else [context]
        return tf.cond(
            tf.reduce_all(tf.math.is_finite(losses)),
            lambda: tf.ones([]),
            lambda: tf.ensure_shape(tf.py_function(report, arguments, tf.float32), []),
        )

    # --- Checks. ---

    def _check_data(self, x, context, batched=True):
        """Checks what can be seen of the data without running it."""
        if isinstance(x, (keras.utils.PyDataset, types.GeneratorType)):
            return
        if isinstance(x, tf.distribute.DistributedDataset):
            return
        if isinstance(x, tf.data.Dataset):
            x = x.element_spec
        x, context, _ = unpack(x if context is None else (x, context), self)
        check_array(x, self, batched)
        self._check_context(context, "fit")

    def _check_context(self, context, method):
        if context is None and self.context_size is not None:
            raise ValueError(
                f"FlowModel '{self.name}': the distribution is conditional: a context of shape "
                f"[..., {self.context_size}] is required, got none. Give it as `context=`, or to "
                "fit and evaluate as `y=`."
            )
        if context is not None and self.context_size is None:
            raise ValueError(
                f"FlowModel '{self.name}': got a context (or `y`), but no part of the "
                "distribution takes one: it would be ignored. Leave it out, or build the flow "
                "with `context_size`."
            )
        if context is None:
            return
        shape = tf.TensorShape(context.shape if hasattr(context, "shape") else np.shape(context))
        if shape.rank == 0 or (shape.rank and shape[-1] not in (None, self.context_size)):
            raise ValueError(
                f"FlowModel '{self.name}': expected a context of shape [..., {self.context_size}],"
                f" got {shape.as_list()}."
            )
        check_nan(context, f"FlowModel '{self.name}': the context holds")

    def _context(self, context):
        return None if context is None else tf.cast(context, self.distribution.dtype)

    def _check_trainable(self):
        if not self.trainable_variables:
            raise ValueError(
                f"FlowModel '{self.name}': the distribution '{self.distribution.name}' has nothing "
                "to train: no tf.Variable and no Keras layer. Give its parts variables, e.g. "
                "tfb.Scale(tf.Variable(1.0)), or take a recipe from tfp_flows.flows."
            )

    def _uninitialized(self):
        """The parts whose data-dependent initialisation has not happened yet."""
        # Once initialised is initialised for good: the variables are not read again.
        left = [part for part in self._actnorms if not bool(part.initialized.numpy())]
        object.__setattr__(self, "_actnorms", left)
        return left

    def _check_initialized(self, method):
        missing = self._uninitialized()
        if missing:
            raise ValueError(
                f"FlowModel.{method}: {len(missing)} parts were never initialised from data (the "
                f"first is {type(missing[0]).__name__} '{missing[0].name}'). Call "
                "`initialize(batch)` or `fit` first, or load trained weights."
            )


def _draw(distribution, shape, seed, context, temperature):
    """Samples a distribution with its latent's spread scaled by the temperature."""
    if isinstance(distribution, stock.TransformedDistribution):
        latent = _draw(distribution.distribution, shape, seed, context, temperature)
        bijector = distribution.bijector
        if context_size_of(bijector) is None:
            context = None
        return bijector.forward(latent, **context_kwargs(bijector, context))
    latent = distribution.sample(shape, seed=seed)
    if temperature is None:
        return latent
    mean = distribution.mean()
    return mean + tf.cast(temperature, latent.dtype) * (latent - mean)


def _stateless_seed(seed):
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    seed = tf.cast(tf.convert_to_tensor(seed), tf.int32)
    return tf.stack([0, seed]) if seed.shape.rank == 0 else seed
