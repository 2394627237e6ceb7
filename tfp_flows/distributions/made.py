"""MADE as a density by itself."""

import math

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, elementwise
from tfp_flows._checks import one_of
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.sequential import Sequential

tfd = tfp.distributions


class MADEDistribution(tfp.distributions.Distribution):
    """A density that is a product of conditionals, all of them from one masked network.

        p(x | c) = prod_i p(x_i | x_1, ..., x_{i-1}, c)
        log p(x | c) = sum_i x_i log s(a_i) + (1 - x_i) log(1 - s(a_i))         Bernoulli
        log p(x | c) = sum_i -0.5 (u_i^2 + log(2 pi)) + log|du_i/dx_i|           normal

    with `a` the output of the layer and `s` the sigmoid, or `u_i` the inverse of
    `elementwise.Affine` at `x_i`. "Before" is in the order of the layer. With K sets of masks the
    density is the mean of K such densities; in training mode (`FlowModel.fit`,
    `bijectors.training_mode()`) it is one of them, another at each call. The recipe `flows.made`
    makes the layer too.

    Shapes: an event has the shape `event_shape`, the context is `[..., context_size]`. The batch
    axes of a context broadcast to those of the data, or to the sample shape.

    Args:
      layer: `conditioners.MADE` with 1 parameter an entry (Bernoulli) or 2 (normal).
      event_shape: static shape of an event of `layer.size` entries, flattened inside.
      output: `"bernoulli"` (default): `x` holds 0 and 1; `"normal"`.
      mask_counter: variable, as `copy()` hands it over. Default: a new one.
      dtype: float32 (default) or float64.
      validate_args: whether to refuse Bernoulli data other than 0 and 1. Otherwise values in
        between count as their cross-entropy, others as impossible. Default: `False`.
      allow_nan_stats: passed to the base class.
      name: name of the distribution.

    Raises:
      TypeError: if the layer is no masked network, or for another dtype; by `log_prob`, for data
        of another float type, or for integers if the output is normal.
      ValueError: for an unknown output, or if the layer does not fit it or `event_shape`; by
        `log_prob` and `sample`, for data or a context of the wrong shape.
      tf.errors.InvalidArgumentError: if a size does not fit that was not known before, or with
        `validate_args`.

    >>> from tfp_flows import conditioners
    >>> density = MADEDistribution(conditioners.MADE(4, 1, hidden_units=(8,)), [2, 2])
    >>> density.log_prob(density.sample(5)).shape
    TensorShape([5])

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 2 and 4 and sections 4.1 to 4.3.
    """

    def __init__(
        self,
        layer,
        event_shape,
        *,
        output="bernoulli",
        mask_counter=None,
        dtype=tf.float32,
        validate_args=False,
        allow_nan_stats=True,
        name="made",
    ):
        parameters = dict(locals())
        title = f"MADEDistribution '{name}'"
        dtype = tf.as_dtype(dtype)
        if dtype not in (tf.float32, tf.float64):
            raise TypeError(
                f"{title}: dtype must be float32 or float64, got {dtype.name}. For bfloat16 give "
                "the layer a mixed policy; the density itself stays in float32."
            )
        if not hasattr(layer, "sequential_parts"):
            raise TypeError(
                f"{title}: its layer must be a conditioners.MADE, got {type(layer).__name__}. For "
                "another network use it in a bijector of tfp_flows.bijectors."
            )
        event = tuple(tf.TensorShape(event_shape).as_list())
        if None in event or math.prod(event) != layer.size:
            raise ValueError(
                f"{title}: event_shape must have the {layer.size} entries of its layer, got "
                f"{list(event)}. Set `size` of the MADE to their number."
            )
        one_of(output, OUTPUTS, "output", title)
        parameters.update(dtype=dtype, event_shape=event)
        if mask_counter is None:
            # Every replica counts its own steps, all alike.
            mask_counter = tf.Variable(
                0,
                trainable=False,
                name=f"{name}/mask_counter",
                synchronization=tf.VariableSynchronization.ON_READ,
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            parameters["mask_counter"] = mask_counter
        self._event = event
        self._output = output
        self._mask_counter = mask_counter
        self._map = self._no_dependency(OUTPUTS[output])
        self._network = Network(
            layer,
            input_shape=(layer.size,),
            output_shape=(layer.size * self._map.num_parameters,),
            owner=title,
            context_size=layer.context_size,
            dtype=dtype,
        )
        self._sequential = self._no_dependency(
            Sequential(layer, self._map, forward=True, block_size=None)
        )
        super().__init__(
            dtype=dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    def get_config(self):
        """The constructor arguments, for saving; of a subclass, if it is registered with Keras."""
        return dict(self.parameters)

    @classmethod
    def from_config(cls, config):
        """The distribution of `get_config`."""
        return cls(**config)

    @property
    def layer(self):
        """The `conditioners.MADE`."""
        return self._network.layer

    @property
    def context_size(self):
        """Size of the context, or `None`."""
        return self.layer.context_size

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _event_shape(self):
        return tf.TensorShape(self._event)

    def _event_shape_tensor(self):
        return tf.constant(self._event, tf.int32)

    def _batch_shape(self):
        return tf.TensorShape([])

    def _batch_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _default_event_space_bijector(self):
        return None

    def _log_prob(self, x, context=None):
        num_masks = self.layer.num_masks
        x = self._with_event_shape(self._as_data(x))
        batch = tf.shape(x)[: tf.rank(x) - len(self._event)]
        rows = tf.reshape(x, [-1, self.layer.size])
        context = self._rows_of_context(context, batch)
        if num_masks == 1:
            result = self._log_prob_under(rows, context, 0)
        elif bijectors.in_training_mode():
            result = self._log_prob_under(rows, context, self._mask_counter % num_masks)
            self._mask_counter.assign_add(1)
        else:
            each = tf.map_fn(
                lambda mask: self._log_prob_under(rows, context, mask),
                tf.range(num_masks),
                fn_output_signature=tf.TensorSpec([None], self.dtype),
            )
            result = tf.reduce_logsumexp(each, axis=0) - float(np.log(num_masks))
        return tf.reshape(result, batch)

    def _log_prob_under(self, rows, context, mask_index):
        out = tf.cast(self.layer(rows, context=context, mask_index=mask_index), self.dtype)
        if self._output == "bernoulli":
            # x log p + (1 - x) log(1 - p), without overflow.
            entries = -tf.nn.sigmoid_cross_entropy_with_logits(labels=rows, logits=out)
            # Outside of [0, 1] the line goes on, up to +infinity.
            outside = (rows < 0.0) | (rows > 1.0)
            entries = tf.where(outside, tf.constant(-np.inf, self.dtype), entries)
        else:
            u, log_det = self._map.inverse(rows, out)
            entries = -0.5 * (u * u + float(np.log(2.0 * np.pi))) + log_det
        return tf.reduce_sum(entries, axis=-1)

    def _as_data(self, x):
        if x.dtype == self.dtype:
            return x
        discrete = x.dtype.is_integer or x.dtype.is_bool
        if discrete and self._output == "bernoulli":
            return tf.cast(x, self.dtype)
        remedy = "Cast the argument, or build the density with that dtype."
        if discrete:
            remedy = (
                "Discrete values have no density: add noise of the width of their steps "
                '(preprocessing.UniformDequantization), or use output="bernoulli" for binary data.'
            )
        raise TypeError(
            f"{self._title()}: expected {self.dtype.name}, got {x.dtype.name}. {remedy}"
        )

    def _with_event_shape(self, x):
        """`x`, whose last sizes are the event's: flattened, others would pass for them."""
        rank = x.shape.rank
        batch = None if rank is None else x.shape[: max(0, rank - len(self._event))]
        if batch is None or not x.shape.is_compatible_with(batch + self._event):
            got = "a tensor of unknown rank" if batch is None else x.shape.as_list()
            raise ValueError(
                f"{self._title()}: expected data of shape {contexts.text(self._event)}, got {got}. "
                f"Reshape them, or state it with tf.ensure_shape(x, {[None, *self._event]})."
            )
        return tf.ensure_shape(x, batch + self._event)

    def _call_sample_n(self, sample_shape, seed, context=None):
        # TFP makes one number of the sample shape, to which no context could be broadcast.
        batch = tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
        context = self._rows_of_context(context, batch)
        return super()._call_sample_n(sample_shape, seed, context=context)

    def _sample_n(self, n, seed=None, context=None):
        n = tf.convert_to_tensor(n)
        masks_seed, noise_seed = tfp.random.split_seed(seed)
        shape = tf.stack([n, self.layer.size])
        draw = tf.random.stateless_uniform
        if self._output == "normal":
            draw = tf.random.stateless_normal
        noise = draw(shape, noise_seed, dtype=self.dtype)
        num_masks = self.layer.num_masks
        if num_masks == 1:
            x, _ = self._sequential(noise, context)
        else:
            # Each row has an order of its own; the rows of one order are drawn together.
            chosen = tf.random.stateless_uniform([n], masks_seed, maxval=num_masks, dtype=tf.int32)
            numbers = tf.dynamic_partition(tf.range(n), chosen, num_masks)
            parts = []
            for mask, mine in enumerate(numbers):
                own = None if context is None else tf.gather(context, mine)
                part, _ = self._sequential(tf.gather(noise, mine), own, mask_index=mask)
                parts.append(part)
            x = tf.dynamic_stitch(numbers, parts)
        x = tf.ensure_shape(x, [None, self.layer.size])
        return tf.reshape(x, tf.concat([n[tf.newaxis], self._event], 0))

    def _rows_of_context(self, context, batch):
        """The context as `[rows, context_size]`, one for each event of the batch shape."""
        shapes = contexts.shapes_of(self.context_size, self._title())
        contexts.check(
            context,
            shapes,
            self._title(),
            required="Pass `context=`.",
            ignored=", which it would ignore. Leave it out, or build it with `context_size`.",
        )
        if context is None:
            return None
        context = tf.cast(tf.convert_to_tensor(context), self.dtype)
        context = tf.ensure_shape(context, [*context.shape[:-1], *shapes])
        known = tf.get_static_value(batch)
        if known is not None:
            contexts.check_batch(context, shapes, known.tolist(), self._title())
        rows = tf.broadcast_to(context, tf.concat([batch, shapes], 0))
        return tf.reshape(rows, [-1, *shapes])

    def _sample_control_dependencies(self, x, **kwargs):
        if not self.validate_args or self._output != "bernoulli":
            return []
        x = self._as_data(x)
        binary = tf.reduce_all((x == 0.0) | (x == 1.0))
        message = (
            f"{self._title()}: its data must be 0 and 1. Binarize them, or use "
            'output="normal" or flows.maf for continuous data.'
        )
        return [tf.debugging.Assert(binary, [message])]

    def _title(self):
        return f"MADEDistribution '{self.name}'"


@keras.saving.register_keras_serializable(package="tfp_flows")
class _Threshold(elementwise.ElementwiseMap):
    """From uniform noise to a Bernoulli variable, given its logit; not invertible."""

    num_parameters = 1
    is_constant_log_det = True

    def _forward(self, x, parameters):
        return tf.cast(x < tf.sigmoid(parameters[0]), x.dtype), tf.zeros_like(x)

    def _inverse(self, y, parameters):
        raise NotImplementedError(
            "MADEDistribution: samples of Bernoulli variables have no gradient."
        )


# What draws an entry from noise, given its parameters, by name of the output.
OUTPUTS = {"bernoulli": _Threshold(), "normal": elementwise.Affine()}
