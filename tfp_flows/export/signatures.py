"""The functions that an export consists of."""

import tensorflow as tf

from tfp_flows.bijectors import stock
from tfp_flows.bijectors.context import (
    context_kwargs,
    context_size_of,
    distribution_context_kwargs,
    distribution_context_size,
)
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
        self.signatures_of = {}
        for name, function in _functions(model).items():
            setattr(self, name, function)
            self.signatures_of[name] = function
        self.signatures_of = self._no_dependency(self.signatures_of)


def _functions(model):
    """Name -> `tf.function`, with one input signature each."""
    distribution, event = model.distribution, model.event_shape.as_list()
    dtype = tf.as_dtype(distribution.dtype)
    context_specs = []
    if model.context_size is not None:
        context_specs = [tf.TensorSpec([None, model.context_size], dtype, name="context")]

    def batch_of(shape, kind, name):
        return tf.TensorSpec([None, *shape], kind, name=name)

    x_spec = batch_of(event, dtype, "x")
    data_spec = x_spec
    if model.dequantization is not None:
        data_spec = batch_of(event, tf.int32, "x")

    @tf.function(autograph=False)
    def density(x, context):
        return model._log_prob(x, context)

    def log_prob(x, context=None):
        x, context = _checked(x, context, x_spec)
        return density(x, context)

    def log_prob_of_data(x, context=None):
        if model.dequantization is None:
            return log_prob(x, context)
        x, context = _checked(x, context, data_spec)
        levels = model.dequantization.num_levels
        in_range = tf.reduce_all((x >= 0) & (x < levels))
        message = f"x must hold integers from 0 to {levels - 1}"
        with tf.control_dependencies([tf.debugging.Assert(in_range, [message])]):
            x = model._prepare(tf.identity(x))
        return density(x, context)

    # The names of these functions and of their arguments are what callers of the loaded export see.
    def served_log_prob(x, context=None):
        return {"log_prob": log_prob_of_data(x, context)}

    def served_bits_per_dim(x, context=None):
        return {"bits_per_dim": bits_per_dim(log_prob_of_data(x, context), event)}

    def served_log_prob_dequantized(x, context=None):
        return {"log_prob": log_prob(x, context)}

    specs = [data_spec, *context_specs]
    found = {"log_prob": _function(served_log_prob, specs)}
    if model.reports_bits_per_dim:
        found["bits_per_dim"] = _function(served_bits_per_dim, specs)
    if model.dequantization is not None:
        found["log_prob_dequantized"] = _function(
            served_log_prob_dequantized, [x_spec, *context_specs]
        )

    base, layers = distribution, []
    while isinstance(base, stock.TransformedDistribution):
        layers.append(base.bijector)
        base = base.distribution
    latent_shape = event
    for bijector in layers:
        latent_shape = bijector.inverse_event_shape(latent_shape).as_list()
    z_spec = batch_of(latent_shape, dtype, "z")

    @tf.function(autograph=False)
    def to_data(z, context):
        for bijector in reversed(layers):
            z = bijector.forward(z, **_kwargs(bijector, context))
        return z

    if layers:

        def forward(z, context=None):
            return {"x": to_data(*_checked(z, context, z_spec))}

        def inverse(x, context=None):
            x, context = _checked(x, context, x_spec)
            for bijector in layers:
                x = bijector.inverse(x, **_kwargs(bijector, context))
            return {"z": x}

        found["forward"] = _function(forward, [z_spec, *context_specs])
        found["inverse"] = _function(inverse, [x_spec, *context_specs])

    def draw(n, seed, context, temperature):
        checks = [
            tf.debugging.assert_positive(n, message="n must be at least 1"),
            tf.debugging.assert_positive(temperature, message="temperature must be above 0"),
        ]
        with tf.control_dependencies(checks):
            n = tf.identity(n)
        if context is not None:
            context = _one_row_or(n, context)
        own = None if distribution_context_size(base) is None else context
        kwargs = distribution_context_kwargs(base, own)
        z = base.sample(tf.reshape(n, [1]), seed=tf.ensure_shape(seed, [2]), **kwargs)
        z = _at_temperature(base, z, temperature, kwargs)
        return {"samples": tf.ensure_shape(to_data(z, context), [None, *event])}

    # The default reaches every loader but Python's, which takes it of `loaded.sample` alone.
    one = tf.ones([], dtype)
    n_spec, seed_spec = tf.TensorSpec([], tf.int32, "n"), tf.TensorSpec([2], tf.int32, "seed")
    temperature_spec = tf.TensorSpec([], dtype, name="temperature")

    def conditional_sample(n, seed, context, temperature=one):
        return draw(n, seed, context, temperature)

    def unconditional_sample(n, seed, temperature=one):
        return draw(n, seed, None, temperature)

    sample = conditional_sample if context_specs else unconditional_sample
    found["sample"] = _function(sample, [n_spec, seed_spec, *context_specs, temperature_spec])
    return found


def _function(python_function, specs):
    if specs[-1].name == "context":
        # No default then: who leaves the context out hears of it, not of a None.
        python_function.__defaults__ = None
    return tf.function(python_function, input_signature=specs, autograph=False)


def _kwargs(bijector, context):
    return context_kwargs(bijector, None if context_size_of(bijector) is None else context)


def _checked(value, context, spec):
    """Shape checks at run time: of a signature's shapes TensorFlow checks none by itself."""
    value = tf.ensure_shape(value, spec.shape, name=f"shape_of_{spec.name}")
    if context is not None:
        context = _one_row_or(tf.shape(value)[0], context)
    return value, context


def _one_row_or(n, context):
    context = tf.ensure_shape(context, context.shape, name="shape_of_context")
    rows = tf.shape(context)[0]
    message = "context must have one row, or as many as the batch"
    check = tf.debugging.Assert((rows == 1) | (rows == n), [message, rows, n])
    with tf.control_dependencies([check]):
        return tf.identity(context)


def _at_temperature(base, latent, temperature, kwargs):
    """Scales the deviation of a base distribution's samples from its mean; 1 leaves them as is."""
    try:
        mean = base.mean(**kwargs)
    except NotImplementedError:
        message = f"the base '{base.name}' has no mean: temperature must be 1"
        check = tf.debugging.assert_equal(temperature, tf.ones_like(temperature), message=message)
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(latent)
    # Chosen, not computed, at 1: the mean of a Cauchy is NaN.
    return tf.where(temperature == 1.0, latent, mean + temperature * (latent - mean))
