"""The functions that an export consists of."""

import inspect

import tensorflow as tf

from tfp_flows.preprocessing import bits_per_dim


class ServedFlow(tf.Module):
    """The variables of a model and, as `tf.function`s with an input signature, what it computes.

    It holds no bijector, distribution or Keras layer: a loader then needs none of their
    classes, and every loader, not only Python's, finds all variables.

    Args:
      model: `FlowModel`.
    """

    def __init__(self, model):
        super().__init__(name="served_flow")
        self.flow_variables = list(model.distribution.variables)
        if model._embedding is not None:
            self.flow_variables += [v.value for v in model._embedding.layer.variables]
        self.signatures_of = {}
        for name, function in _Signatures(model).functions():
            if not _has_directions(function):
                continue
            setattr(self, name, function)
            self.signatures_of[name] = function
        self.signatures_of = self._no_dependency(self.signatures_of)


def _has_directions(function):
    """Whether the flow has the directions that a signature takes; tracing it tells."""
    try:
        function.get_concrete_function()
    except NotImplementedError:  # As a bijector says that has one alone.
        return False
    return True


class _Signatures:
    """A method for each signature, that returns its outputs by name, and what it takes."""

    def __init__(self, model):
        self.model, self.road, self.example = model, model._road, model._example
        dtype, event = self.example.dtype, self.example.event_shape
        self.x = tf.TensorSpec([None, *event], self.example.event_dtype, "x")
        self.data = tf.TensorSpec([None, *event], self.example.data_dtype, "x")
        z_dtype = tf.as_dtype(self.road.base.dtype)
        self.z = tf.TensorSpec([None, *self.road.base.event_shape], z_dtype, "z")
        self.n, self.seed = tf.TensorSpec([], tf.int32, "n"), tf.TensorSpec([2], tf.int32, "seed")
        self.temperature = tf.TensorSpec([], dtype, "temperature")
        self.contexts, self.by_name = _contexts_of(model)
        # One graph of the density and of the way to the data, which several signatures call.
        self.density = tf.function(model._log_prob, autograph=False)
        self.to_data = tf.function(self.road.forward, autograph=False)

    def functions(self):
        """Pairs of a name and a `tf.function`, those that the model has."""
        yield "log_prob", self._function(self.log_prob, [self.data])
        if self.model.reports_bits_per_dim:
            yield "bits_per_dim", self._function(self.bits_per_dim, [self.data])
        if self.data.dtype != self.x.dtype:
            yield "log_prob_dequantized", self._function(self.log_prob_dequantized, [self.x])
        if self.road.steps:
            yield "forward", self._function(self.forward, [self.z])
            yield "inverse", self._function(self.inverse, [self.x])
        yield "sample", self._function(self.sample, [self.n, self.seed], [self.temperature])
        yield (
            "sample_and_log_prob",
            self._function(self.sample_and_log_prob, [self.n, self.seed]),
        )

    def log_prob(self, x, context):
        """Log-densities of data as they are."""
        return {"log_prob": self._log_prob_of_data(x, context)}

    def bits_per_dim(self, x, context):
        """The same in bits/dim."""
        nats = self._log_prob_of_data(x, context)
        return {"bits_per_dim": bits_per_dim(nats, self.example.event_shape.as_list())}

    def log_prob_dequantized(self, x, context):
        """Log-densities of data that are continuous already."""
        return {"log_prob": self.density(*self._checked(x, context, self.x))}

    def forward(self, z, context):
        """Data of points of the base."""
        return {"x": self.to_data(*self._checked(z, context, self.z))}

    def inverse(self, x, context):
        """Points of the base of data."""
        return {"z": self.road.inverse(*self._checked(x, context, self.x))}

    def sample(self, n, seed, context, temperature):
        """Samples at a temperature."""
        check = tf.debugging.assert_positive(temperature, message="temperature must be above 0")
        with tf.control_dependencies([check]):
            temperature = tf.identity(temperature)
        n, seed, context = self._checked_draw(n, seed, context)
        z = self.road.base_sample(n, seed, context, temperature)
        return {"samples": self._samples(self.to_data(z, context))}

    def sample_and_log_prob(self, n, seed, context):
        """Samples and their log-densities."""
        samples, log_prob = self.road.sample_and_log_prob(*self._checked_draw(n, seed, context))
        return {"samples": self._samples(samples), "log_prob": tf.ensure_shape(log_prob, [None])}

    # --- Shared by them. ---

    def _log_prob_of_data(self, x, context):
        x, context = self._checked(x, context, self.data)
        levels = self.example.num_levels
        if levels is not None and x.dtype.is_integer:
            in_range = tf.reduce_all((x >= 0) & (x < levels))
            message = f"x must hold integers from 0 to {levels - 1}"
            with tf.control_dependencies([tf.debugging.Assert(in_range, [message])]):
                x = self.model._prepare(tf.identity(x))
        return self.density(x, context)

    def _checked(self, value, context, spec):
        """Shape checks at run time: of a signature's shapes TensorFlow checks none by itself."""
        value = tf.ensure_shape(value, spec.shape, name=f"shape_of_{spec.name}")
        return value, self._checked_context(tf.shape(value)[0], context)

    def _checked_draw(self, n, seed, context):
        check = tf.debugging.assert_positive(n, message="n must be at least 1")
        with tf.control_dependencies([check]):
            n = tf.identity(n)
        return tf.reshape(n, [1]), tf.ensure_shape(seed, [2]), self._checked_context(n, context)

    def _checked_context(self, n, context):
        def check_one(tensor, spec):
            tensor = tf.ensure_shape(tensor, spec.shape, name="shape_of_context")
            rows = tf.shape(tensor)[0]
            message = "context must have one row, or as many as the batch"
            check = tf.debugging.Assert((rows == 1) | (rows == n), [message, rows, n])
            with tf.control_dependencies([check]):
                return tf.identity(tensor)

        if context is None:
            return None
        checked = {name: check_one(context[name], spec) for name, spec in self.contexts.items()}
        context = checked if self.by_name else checked["context"]
        return self.model._embedded(context)

    def _samples(self, samples):
        return tf.ensure_shape(samples, [None, *self.example.event_shape])

    def _function(self, method, before, after=()):
        """A method as a `tf.function` of the tensors that it takes, each by a name of its own.

        Several contexts are several arguments. The names are what callers of the loaded export
        see.
        """
        first, last = len(before), len(before) + len(self.contexts)

        def call(*arguments):
            context = dict(zip(self.contexts, arguments[first:last], strict=True)) or None
            return method(*arguments[:first], context, *arguments[last:])

        specs = [*before, *self.contexts.values(), *after]
        # The default reaches every loader but Python's, which takes it of `loaded.sample` alone.
        defaults = {"temperature": tf.ones([], self.example.dtype)}
        call.__signature__ = inspect.Signature(
            [
                inspect.Parameter(
                    spec.name,
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=defaults.get(spec.name, inspect.Parameter.empty),
                )
                for spec in specs
            ]
        )
        call.__name__ = method.__name__
        return tf.function(call, input_signature=specs, autograph=False)


def _contexts_of(model):
    """Name -> spec of what the signatures take as context, and whether the names are the user's."""
    specs, dtype = model._example.context_shapes, model._example.dtype
    if model._embedding is not None:
        specs = model._embedding.specs
        if specs is None:
            raise ValueError(
                f"{model._example.title}.export: the shapes of its raw contexts are not known yet. "
                "Fit the model, or score some rows, first."
            )
    by_name = isinstance(specs, dict)
    if specs is None:
        return {}, False
    found = {}
    for name, spec in (specs if by_name else {"context": specs}).items():
        if not isinstance(spec, tf.TensorSpec):
            spec = tf.TensorSpec([None, *spec], dtype)
        found[name] = tf.TensorSpec(spec.shape, spec.dtype, name)
    return found, by_name
