"""The Keras model that trains a distribution."""

import warnings

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _arguments, _private
from tfp_flows.bijectors.modes import data_dependent_initialization
from tfp_flows.bijectors.road import Road
from tfp_flows.bijectors.stochastic import likelihood_of
from tfp_flows.distributions import Surjected
from tfp_flows.models import datasets, replicas, xla
from tfp_flows.models.callbacks import adapted
from tfp_flows.models.checks import Checks
from tfp_flows.models.completing import Completing
from tfp_flows.models.density import Density
from tfp_flows.models.embedding import Embedding
from tfp_flows.models.example import Example
from tfp_flows.models.fused_adam import use_fused_update
from tfp_flows.models.hints import warn_of_discrete, warn_of_scale
from tfp_flows.models.inputs import (
    arrays,
    as_array,
    check_data,
    first_batch,
    first_of,
    is_arrays,
    raise_empty,
    unpack,
    zeros_of,
)
from tfp_flows.models.noise import Noise
from tfp_flows.models.persistence import Persistence
from tfp_flows.models.pieces import check_size
from tfp_flows.models.progress import Bar
from tfp_flows.models.sampling import stateless_seed
from tfp_flows.models.start import start
from tfp_flows.models.steps import Steps, metrics_of
from tfp_flows.models.summary import summary_lines
from tfp_flows.models.variables import (
    TensorFlowVariables,
    actnorms_of,
    check_optimizer_of_stacks,
    conditioners_of,
    flags_of,
    raw_variables_of,
    repeats_of,
)
from tfp_flows.objectives import MaximumLikelihood, Objective

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_flows")
class FlowModel(Steps, Checks, Noise, Density, Completing, Persistence, keras.Model):
    """A `keras.Model` that fits a distribution to data by maximum likelihood.

        loss = -mean(log p(x))        in nats; for images also in bits/dim

    Any `tfd.Distribution` with trainable variables will do: a recipe of `tfp_flows.flows`, a
    composition of TFP's and this package's bijectors, raw `tf.Variable`s included. `fit(x)`
    needs no `y`. A context is given as `fit(x, y=context)`, as `(x, context)` elements of a
    `tf.data.Dataset`, or as `{"x": ..., "context": ...}`.

    Args:
      distribution: the distribution; its event shape is that of one example. Of integers
        (`tfd.Bernoulli`, `tfd.Categorical`, `distributions.AutoregressiveDistribution`) it takes
        data of any integer dtype as they are, and their bits are exact.
      context_network: Keras layer or model from raw conditions (images, sets, sequences, integer
        labels through an `Embedding`) to the context that the distribution takes; trained with
        it. Contexts are then given raw everywhere, with one batch axis.
      dequantization: `preprocessing.UniformDequantization` to train on integer data (images):
        fresh noise every step, the same for the same seed. Any other `StochasticTransform` is
        short for `distributions.Surjected(distribution, dequantization)` as the distribution.
        Default: the data are continuous.
      objective: what it is trained for (see `tfp_flows.objectives`). Default: the likelihood of
        the data. With another one `evaluate` reports its mean as "loss", and the mean negative
        log-likelihood as "nats", where there are data and the log-density is exact.
      bits_per_dim: whether to report bits/dim beside nats. Default: for image events `[H, W,
        C]`. It counts for data in their original units, 0 to 255: put a scaling to [0, 1]
        into the distribution, as a bijector, not before it.
      name: name of the model.

    Raises:
      TypeError: if `distribution` is none; if the data's dtype is not the distribution's (cast
        float64 data, and dequantize integers; for a distribution of integers cast floats).
      ValueError: on a wrong event shape, NaN in the data, integers that are no level of it, a
        context missing or unused, nothing to train, or an ActNorm that was never initialised.
      FloatingPointError: by `fit`, when the loss or a gradient is not finite (of gradients: or
        so large that its square is not). That step is not taken, no weight, optimizer slot,
        average or backup sees it, and the message names the first part at fault. A
        `LossScaleOptimizer`, for which such gradients are normal, skips them and goes on.

    >>> from tfp_flows import flows
    >>> model = FlowModel(flows.real_nvp([2], num_couplings=2, hidden_units=(8,), seed=0))
    >>> model.compile(optimizer="adam")
    >>> import numpy as np
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> history = model.fit(x, epochs=1, verbose=0)
    >>> model.log_prob(x).shape
    TensorShape([64])
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _arguments.remembering(cls.__init__)

    def __init__(
        self,
        distribution,
        *,
        context_network=None,
        dequantization=None,
        objective=None,
        bits_per_dim=None,
        name=None,
    ):
        if not isinstance(distribution, tfd.Distribution):
            raise TypeError(
                f"FlowModel: expected a tfd.Distribution, got {type(distribution).__name__}. Wrap "
                "a bijector: tfd.TransformedDistribution(base, bijector)."
            )
        whole = distribution
        if dequantization is not None:
            whole = Surjected(distribution, dequantization)
            # In place it has no weights: data are lifted before they are scored, and samples,
            # latents and floating data are those of the continuous distribution.
            if not dequantization.in_place:
                distribution = whole
        road = Road(distribution)
        dtype = road.dtype
        # A dtype of its own: under a global mixed policy Keras would cast x to bfloat16.
        super().__init__(name=name, dtype=dtype.name)
        # Keras (3.15) takes a model that was made in no scope for one of the scope it is called in.
        self._made_under = self.distribute_strategy
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
        object.__setattr__(self, "_own_arguments", vars(self).get("_bound"))
        object.__setattr__(self, "_road", road)
        object.__setattr__(self, "_actnorms", actnorms_of(distribution))
        raw = context_network is not None
        example = Example.of(whole, road, title, raw=raw)
        object.__setattr__(self, "_example", example)
        object.__setattr__(self, "_likelihood", likelihood_of(whole, road))
        embedding = Embedding(context_network, example) if raw else None
        object.__setattr__(self, "_embedding", embedding)
        self.conditioners = conditioners_of(distribution)
        # Of the layers in a Repeat Keras must not see the variables, which only show how its
        # stacks are treated.
        repeats = repeats_of(distribution)
        patterns = [layer for repeat in repeats for layer in repeat.layers]
        object.__setattr__(self, "_networks", (*self.conditioners, *patterns))
        self.other_variables = TensorFlowVariables(
            raw_variables_of(distribution, self.conditioners),
            dtype.name,
            [pair for repeat in repeats for pair in repeat.layer_variables],
        )
        if raw:
            self.context_network = context_network  # Keras sees its variables.
        if objective is not None and not isinstance(objective, Objective):
            raise TypeError(
                f"{title}: objective must be an Objective of tfp_flows.objectives, got "
                f"{type(objective).__name__}. Leave it out for maximum likelihood."
            )
        if isinstance(objective, MaximumLikelihood):
            objective = None
        has_density = getattr(road.base, "has_density", True)
        if objective is None and not has_density:
            raise ValueError(
                f"{title}: the distribution '{distribution.name}' has no density, and so no "
                "likelihood to train. Give it an objective of samples, such as objectives.MMD()."
            )
        if objective is not None:
            objective.check(distribution, title)
            self._check_data_free(objective)
        object.__setattr__(self, "_objective", objective)
        # In float64: a float32 mean of many batches drifts.
        self._loss_nats = keras.metrics.Mean(name="loss", dtype="float64")
        self._nats = None
        estimated = any(getattr(s.bijector, "estimates_log_det", False) for s in self._road.steps)
        if objective is not None and objective.needs_data and has_density and not estimated:
            self._nats = keras.metrics.Mean(name="nats", dtype="float64")
        self._bits_per_dim = None
        if bits_per_dim is None:
            bits_per_dim = distribution.event_shape.rank == 3
        if bits_per_dim and (objective is None or self._nats is not None):
            self._bits_per_dim = keras.metrics.Mean(name="bits_per_dim", dtype="float64")
        object.__setattr__(self, "_own_metrics", [])
        self._functions = {}
        self._xla, self._asked_for_xla = False, "auto"
        self._micro_batch_size = None
        self._start = None  # of the training that runs
        self.build()

    # --- What the model is made of. ---

    @property
    def distribution(self):
        """The distribution that is trained."""
        return self._distribution

    @property
    def dequantization(self):
        """The dequantization of integer data, in place, or `None`."""
        return self._example.lift

    @property
    def objective(self):
        """What the distribution is trained for."""
        return MaximumLikelihood() if self._objective is None else self._objective

    @property
    def likelihood(self):
        """What `log_prob` is: `"exact"`, a `"bound"` of it from below, or an `"estimate"`.

        The last two are drawn with noise. The mean over the draws of an importance-weighted
        estimate, too, lies below the exact value, the closer the more samples it has.
        """
        return self._likelihood

    @property
    def num_samples(self):
        """Of an `"estimate"` how many samples a `log_prob` draws, else `None`."""
        return self._road.num_samples if self.likelihood == "estimate" else None

    @property
    def event_shape(self):
        """Shape of one example."""
        return self._example.event_shape

    @property
    def context_size(self):
        """Size of the context's last axis, or `None`; of other contexts their shapes."""
        return self._example.context_size

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
        exact to rounding in float32, and off in some rows in bfloat16.
        """
        names = {layer.dtype_policy.name for layer in self._networks}
        return names.pop() if len(names) == 1 else None

    @conditioner_policy.setter
    def conditioner_policy(self, policy):
        policy = keras.dtype_policies.get(policy)
        wanted = self._example.dtype.name
        if policy.variable_dtype != wanted:
            raise ValueError(
                f"FlowModel '{self.name}': expected a policy whose weights are {wanted}, such as "
                f"'{wanted}' or 'mixed_bfloat16', got '{policy.name}'."
            )
        for layer in self._networks:
            for part in _private.layers_of(layer):
                part.dtype_policy = policy
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
        """Returns `log p(x)` in nats for `x`, `(x, context)` or `{"x", "context"}`.

        This is how a flow is a part of a larger Keras model. Call `initialize(batch)` first if it
        has ActNorms: only `fit` of this model does it by itself. With `training` integers get
        fresh noise, networks drop out, and batch normalization uses the batch.
        """
        self._check_initialized("call")
        x, context, _ = unpack(inputs, self._example)
        x = tf.convert_to_tensor(x)
        context = self._embedded(context, training)
        noise = None
        if training:
            ndims = x.shape.rank - self.event_shape.rank
            batch = tf.unstack(tf.shape(x)[:ndims], ndims)
            if self._example.needs_lift(x):
                own = self._example.draw_noise(batch, stateless_seed(None))
                x = self._example.lifted(x, own)
            noise = self._road.draw_noise(batch, stateless_seed(None))
        return self._log_prob(self._prepare(x), context, training, noise)

    def stateless_call(self, trainable_variables, non_trainable_variables, *args, **kwargs):
        """`keras.Model.stateless_call`, for models whose variables are all in Keras layers.

        Raises:
          NotImplementedError: if some are raw `tf.Variable`s, whose values Keras cannot replace.
        """
        if self.other_variables.wrapped:
            first = self.other_variables.wrapped[0].path
            raise NotImplementedError(
                f"FlowModel '{self.name}'.stateless_call: {len(self.other_variables.wrapped)} "
                f"variables (the first is '{first}') are tf.Variables, whose given values would be "
                "ignored. Assign the values to `model.variables`, and call the model."
            )
        return super().stateless_call(trainable_variables, non_trainable_variables, *args, **kwargs)

    def compute_output_shape(self, input_shape):
        """`[batch]`."""
        shape = input_shape["x"] if isinstance(input_shape, dict) else input_shape
        return tuple(shape[0][:1] if isinstance(shape[0], (tuple, list)) else shape[:1])

    def compile(
        self,
        optimizer="adam",
        *,
        metrics=None,
        jit_compile="auto",
        micro_batch_size=None,
        **kwargs,
    ):
        """Sets the optimizer; the loss is the negative log-likelihood.

        Args:
          optimizer: Keras optimizer or its name.
          metrics: list of functions of `(x, log_prob)`, a batch (dequantized) and its
            log-probabilities, that return one number for each row, `[batch]`. Their means over all
            rows are reported beside the loss under the functions' names. Sample weights have no
            part in them, and a file does not keep them.
          jit_compile: whether XLA compiles the step. `"auto"` (default): on a GPU, flows of vectors
            by couplings and masked autoregressive maps, whose steps take a half to a ninth then.
            On a CPU most steps are no faster by it (a MAF's by a twentieth, a spline's slower by a
            quarter), and it compiles for as long as a thousand steps take; `True` pays there in
            long trainings of small images (8x8: a quarter).
          micro_batch_size: `int`, for batches that do not fit into memory: the most rows that a
            device computes at once. A step of `fit` or `evaluate` goes through its rows in pieces
            of that size and adds up their sums: losses, gradients, clipping and updates are those
            of the whole batch to rounding, on any number of devices, and noise by the row (see
            `Objective.draw_noise`) is the same too. Default: all rows at once. (An optimizer's
            `gradient_accumulation_steps` takes the mean of the means of batches, which is that of
            their rows if all have as many; one device alone.)
          **kwargs: `steps_per_execution`, `run_eagerly`, `auto_scale_loss` of
            `keras.Model.compile`. If networks compute in float16 by then, the loss is scaled by
            default.

        Raises:
          ValueError: if the distribution has no variables, a loss is given, two metrics have one
            name, or there are metrics and an objective; if a batch is to be computed in pieces,
            and a part takes moments of it (`BatchNorm`) or the objective compares its rows.
          TypeError: if a metric is no function, or `micro_batch_size` no integer.
        """
        for extra in ("loss", "loss_weights", "weighted_metrics"):
            if kwargs.pop(extra, None) is not None:
                raise ValueError(
                    f"FlowModel.compile: no `{extra}`: the loss is the negative log-likelihood, "
                    "or that of FlowModel(..., objective=...). Add terms through a conditioner's "
                    "`add_loss` or regularizers."
                )
        for method in ("call", "compute_loss"):
            if getattr(type(self), method) is not getattr(FlowModel, method):
                raise TypeError(
                    f"{type(self).__name__}.compile: it overrides `{method}`, which training does "
                    "not call: the loss is that of the distribution. Add terms through a "
                    "conditioner's `add_loss` or regularizers, or train in a loop of your own."
                )
        asked = jit_compile
        if jit_compile == "auto":
            # Objectives, context networks and stochastic parts can be anything: none was measured.
            plain = self._objective is None and self._embedding is None and not self._road.is_noisy
            plain = plain and all(layer.supports_jit for layer in self._networks)
            jit_compile = plain and xla.pays(self.distribution, self.distribute_strategy)
        if metrics and self._objective is not None:
            raise ValueError(
                f"FlowModel '{self.name}'.compile: metrics are of log-probabilities, which "
                f"{type(self.objective).__name__} does not compute. Leave them out, or score by "
                "model.log_prob in a callback."
            )
        if jit_compile is True and not self.objective.allows_xla:
            raise ValueError(
                f"FlowModel '{self.name}'.compile: XLA cannot compile this "
                f"{type(self.objective).__name__}. Leave jit_compile out."
            )
        if not self.distribution.variables:  # Frozen ones can be evaluated.
            self._check_trainable()
        replicas.check_same(self._made_under, self.distribute_strategy, "FlowModel.compile")
        with self.distribute_strategy.scope():
            optimizer = keras.optimizers.get(optimizer)
            half = any(layer.compute_dtype == "float16" for layer in self._networks)
            scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
            if half and not scaled and kwargs.get("auto_scale_loss", True):
                # Keras would do so for the model's own policy alone, which is full.
                optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        title = f"FlowModel '{self.name}'.compile"
        replicas.check_optimizer(
            self.distribute_strategy, optimizer, self.distribution, jit_compile, title
        )
        check_optimizer_of_stacks(optimizer, self.distribution, title)
        size = check_size(
            micro_batch_size, self.distribution, self._networks, self.objective, title
        )
        own = metrics_of(metrics, [m.name for m in (self._loss_nats, self._bits_per_dim) if m])
        object.__setattr__(self, "_own_metrics", own)
        super().compile(optimizer=optimizer, jit_compile=jit_compile, **kwargs)
        self._asked_for_xla, self._micro_batch_size = asked, size
        use_fused_update(self.optimizer)

    @property
    def metrics(self):
        """The means of the loss, of nats and bits/dim where they are reported, and of the functions
        given to `compile`."""
        reported = (self._loss_nats, self._nats, self._bits_per_dim)
        return [m for m in (*reported, *(mean for _, mean in self._own_metrics)) if m is not None]

    # --- Training. ---

    def fit(self, x=None, y=None, batch_size=None, **kwargs):
        """`keras.Model.fit`; initialises ActNorms from the first rows if they were not.

        A recipe's `seed` fixes its weights; the order of shuffled arrays, as everywhere in Keras,
        follows `keras.utils.set_random_seed`.

        A `keras.callbacks.BackupAndRestore` among the callbacks makes the training one that can be
        killed at any moment: the same program, started again, goes on from the last backup to the
        weights of an undisturbed training. For that, arrays are shuffled by a seed that is kept
        with the backup; a `tf.data.Dataset` has to give the same data in every run (`shuffle(n,
        seed=...)`). What was read of an interrupted epoch is read again, and with
        `steps_per_epoch`, which goes through the data again when they end, all that was read since
        the beginning. (Training and validation data must not be cut from one reshuffled dataset:
        each would move on the other's order.) On several workers each keeps
        backups of its own, and checkpoints and logs are the chief's.

        Args:
          x: array, `tf.data.Dataset` (also a distributed one), `(x, context)`, or `{"x": ...,
            "context": ...}`. On several workers arrays, and datasets unless their
            `auto_shard_policy` says else, are to be the same on all: each takes its share of
            every batch. With `AutoShardPolicy.FILE` each reads files of its own, which spares
            reading, and the global batches differ from those of one device.
          y: the context, if `x` is an array.
          batch_size: of all replicas together; default 32, for arrays.
          **kwargs: everything else that `keras.Model.fit` takes.

        Returns:
          The `keras.callbacks.History`.

        Raises:
          ValueError, TypeError: for data that do not fit the distribution, a global batch smaller
            than the number of replicas, or a backup of another model.
          FloatingPointError: if the loss, a gradient or the weights are not finite.
          RuntimeError: if another worker was lost.
        """
        self._check_trainable()
        replicas.check_same(self._made_under, self.distribute_strategy, "FlowModel.fit")
        if not self.objective.needs_data:
            x = self._no_data("fit", x, y, batch_size, kwargs, "steps_per_epoch")
        if kwargs.get("class_weight") is not None:
            raise ValueError(
                "FlowModel.fit: no class_weight: a density has no classes. Weigh the rows by "
                "`sample_weight`."
            )
        x, y, kwargs["sample_weight"] = self._arrays(x, y, kwargs.get("sample_weight"))
        if not self.objective.adds_noise:
            warn_of_discrete(x, self._example)
        warn_of_scale(x, self._road, self._example)
        self._build_embedding(x, y)
        if kwargs.get("validation_data") is not None:
            validation = keras.utils.unpack_x_y_sample_weight(kwargs["validation_data"])
            validation = self._arrays(*validation)
            if is_arrays(validation[0]):
                kwargs["validation_data"] = tuple(v for v in validation if v is not None)
        # Callbacks that save refuse a model that calls itself unbuilt.
        self.build()
        callbacks = kwargs.pop("callbacks", None)
        with (
            adapted(callbacks, self) as (kwargs["callbacks"], backup),
            self._explained(),
            warnings.catch_warnings(),
        ):
            try:
                self._start = start(self, x, y, batch_size, backup, kwargs)
                history = super().fit(**self._start.kwargs)
                if history.epoch and not history.history:
                    raise_empty(self._example)
            finally:
                if self._start is not None:
                    self._start.end()
                self._start = None
        self._check_sound()  # The last update: that of any other shows in the next loss.
        return history

    def initialize(self, batch, *, verbose="auto"):
        """Runs the data-dependent initialisation (ActNorm) on one batch, once.

        Args:
          batch: `x`, `(x, context)` or `{"x": ..., "context": ...}`; a few hundred rows give
            steady moments. Of a `tf.data.Dataset` the first batches are taken, 128 rows or more;
            if it has a `cache()`, that is filled.
            Parts that are initialised already, by an earlier call or a restored checkpoint, stay
            as they are. Of a conditional model `x` alone will do, with a context of zeros:
            networks that are fresh make no difference between contexts.
          verbose: 0 for no progress bar. Default: one, of the parts, after two seconds.
        """
        if isinstance(batch, tf.data.Dataset):
            check_data(batch, None, self._example)
            batch = first_batch(batch, None, self._example)
        x, context, _ = unpack(as_array(batch, self._example.dtype), self._example)
        if context is None and x is not None and not self._example.raw:
            context = zeros_of(self._example, len(x))
        check_data(x, context, self._example)
        flags = [flag for part in self._uninitialized() for flag in flags_of(part)]
        if not flags:
            return
        total = sum(flag.shape.num_elements() for flag in flags)
        bar = Bar(total, unit="part", verbose=verbose, owner="FlowModel.initialize")
        x = tf.convert_to_tensor(x)
        noise = self._noise(x, "initialise", 1)
        x = self._prepare(x, "initialise", 1)
        # In the strategy's scope, and in no replica: an assignment then reaches every device.
        strategy = self.distribute_strategy
        reduce_sum = replicas.sum_over_workers(strategy)
        with strategy.scope(), data_dependent_initialization(reduce_sum, on_part=bar.add):
            self._log_prob(x, self._embedded(context), noise=noise)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """`keras.Model.train_on_batch`, for a model that is initialised."""
        self._check_trainable()
        self._check_initialized("train_on_batch")
        with self._explained():
            return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """`keras.Model.test_on_batch`, for a model that is initialised."""
        self._check_initialized("test_on_batch")
        with self._explained():
            return super().test_on_batch(x, y, *args, **kwargs)

    def predict_on_batch(self, x):
        """`keras.Model.predict_on_batch`, for a model that is initialised."""
        self._check_initialized("predict_on_batch")
        with self._explained():
            return super().predict_on_batch(x)

    def evaluate(self, x=None, y=None, batch_size=None, **kwargs):
        """`keras.Model.evaluate`: mean negative log-likelihood in nats, and bits/dim.

        Where `model.likelihood` is a bound or an estimate, that of what it is, with noise of its
        own for each row, the same at every call: above the exact figure on average.

        Of a model with another objective its mean, as "loss", and "nats". An objective that needs
        no data takes `steps` instead.

        The mean of weighted rows is their weighted sum over their number, as Keras has it.
        """
        self._check_initialized("evaluate")
        if not self.objective.needs_data and not kwargs.get("_use_cached_eval_dataset"):
            x = self._no_data("evaluate", x, y, batch_size, kwargs, "steps")
        if not kwargs.get("_use_cached_eval_dataset"):  # Not fit's own validation.
            x, y, kwargs["sample_weight"] = self._arrays(x, y, kwargs.get("sample_weight"))
        if replicas.worker_index(self.distribute_strategy):
            kwargs["verbose"] = 0  # The chief says it once.
        if datasets.cast_by_keras(x, self._example.dtype):
            x = datasets.in_order(x, y, kwargs.pop("sample_weight", None), batch_size)
            y = batch_size = None
        with self._explained():
            found = super().evaluate(x, y, batch_size=batch_size, **kwargs)
        if isinstance(found, (list, dict)) and not found:
            raise_empty(self._example)
        return found

    def predict(self, x, batch_size=None, **kwargs):
        """`keras.Model.predict`: log-probabilities in nats, as a NumPy array.

        A context is given with the data: `(x, context)` or `{"x": ..., "context": ...}`.
        """
        self._check_initialized("predict")
        x = self._arrays(x)[0]
        # Only where the size does not tell: a second iterator moves on a seeded shuffle.
        unknown = isinstance(x, tf.data.Dataset) and int(x.cardinality()) < -1
        if unknown and not first_of(x, 1):
            raise_empty(self._example)
        if datasets.cast_by_keras(x, self._example.dtype):
            x, batch_size = datasets.in_order(x, None, None, batch_size), None
        with self._explained():
            return super().predict(x, batch_size=batch_size, **kwargs)

    def summary(self, line_length=None, print_fn=None):
        """Prints a table with a row per part of the distribution.

        Args:
          line_length: width of the first column. Default: as needed.
          print_fn: function that takes each line. Default: `print`.
        """
        for line in summary_lines(self, line_length):
            (print_fn or print)(line)

    # --- Inside. ---

    def _check_trainable(self):
        if self.trainable_variables:
            return
        reason = (
            "no tf.Variable and no Keras layer. Give its parts variables, e.g. "
            "tfb.Scale(tf.Variable(1.0)), or take a recipe from tfp_flows.flows."
        )
        if self.distribution.variables:
            reason = "all its variables are frozen. Set `trainable` of the model or its networks."
        raise ValueError(
            f"FlowModel '{self.name}': the distribution '{self.distribution.name}' has nothing to "
            f"train: {reason}"
        )

    def _check_data_free(self, objective):
        """Refuses what comes from data where there are none."""
        title = f"FlowModel '{self.name}'"
        if objective.needs_data:
            return
        if self.dequantization is not None:
            raise ValueError(
                f"{title}: {type(objective).__name__} needs no data, and there is nothing to "
                "dequantize. Leave `dequantization` out."
            )
        if self._actnorms:
            part = self._actnorms[0]
            raise ValueError(
                f"{title}: {type(part).__name__} '{part.name}' is initialised from data, of which "
                f"{type(objective).__name__} has none. Leave it out of the distribution."
            )

    def _no_data(self, method, x, y, batch_size, kwargs, steps):
        """Empty rows as data, as many a step as an objective without data draws."""
        title, kind = f"FlowModel '{self.name}'.{method}", type(self.objective).__name__
        given = {"x": x, "y": y, "batch_size": batch_size}
        for name in ("sample_weight", "validation_data", "validation_split"):
            given[name] = kwargs.get(name)
        wrong = [name for name, value in given.items() if value is not None]
        if wrong or kwargs.get(steps) is None:
            got = f"got {wrong[0]}" if wrong else f"got no {steps}"
            raise ValueError(
                f"{title}: {kind} needs no data, but the number of steps, {steps}=...; {got}. How "
                "many rows a step has is the objective's num_samples."
            )
        shape = [self.objective.num_samples, *self.event_shape]
        rows = tf.data.Dataset.from_tensors(tf.zeros(shape, self.distribution.dtype))
        return rows.repeat()

    def _build_embedding(self, x, y):
        """Makes the context network's variables before a step is traced, without drawing data."""
        if self._embedding is None:
            return
        data = x if y is None else (x, y)
        if hasattr(x, "element_spec"):
            data = x.element_spec
        elif not is_arrays(x):
            return  # A generator: the network builds itself from what comes.
        with self.distribute_strategy.scope():
            self._embedding.build(unpack(data, self._example)[1])

    def _arrays(self, x, context=None, weight=None):
        found = arrays(x, context, weight, self._example)
        if self._embedding is not None and is_arrays(found[0]):
            data = found[0] if found[1] is None else found[:2]
            self._embedding.check(unpack(data, self._example)[1])
        return found
