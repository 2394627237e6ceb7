"""MADE as a density by itself."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners
from tfp_flows import elementwise as elementwise_maps
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.sequential import Sequential
from tfp_flows.flows._parts import event_of, layer_policy

tfd = tfp.distributions


def made(
    event_shape,
    *,
    output="bernoulli",
    hidden_units=(500,),
    order="left-to-right",
    degrees="equal",
    num_masks=1,
    activation="relu",
    residual=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    validate_args=False,
    name="made",
):
    """MADE: a density that is a product of conditionals, from one masked network.

        p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

    with Bernoulli conditionals for binary data, MADE's own use, or normal ones. With
    `num_masks=K > 1` the network is trained under K sets of masks in turn, one a call in
    training mode (`FlowModel.fit`, `bijectors.training_mode()`), and used as their mixture,

        p(x) = mean_k p_k(x)

    which is order-agnostic training with `order="random"`, connectivity-agnostic training with
    `degrees="random"`, and an ensemble of them at test time. A density then costs K passes.

    Args:
      event_shape: `[D]`, or `[H, W, C]`, which is flattened inside.
      output: `"bernoulli"`: `x` holds 0 and 1; `"normal"`.
      hidden_units: widths of the hidden layers, at least `D - 1` or dependencies are lost, with
        a warning.
      order, degrees, num_masks, activation, residual, context_size: as `conditioners.MADE`.
      seed: `int`; the same seed gives the same initial weights, orders and degrees.
      dtype: float32 (default) or float64.
      validate_args: whether to refuse Bernoulli data other than 0 and 1. Otherwise values in
        between count as their cross-entropy, others as impossible.
      name: name of the distribution.

    Returns:
      A `tfd.Distribution` over `event_shape`. `log_prob` and `sample` take `context=`
      `[..., context_size]` if there is one; `log_prob` is in nats.

    Raises:
      TypeError: by `log_prob`, for data of another float type, or for integers if the output is
        normal.
      ValueError: for an event shape of another rank or an unknown output, and as
        `conditioners.MADE`.

    >>> density = made([3], hidden_units=(8,), seed=0)
    >>> x = density.sample(5, seed=[0, 1])
    >>> density.log_prob(x).shape
    TensorShape([5])

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 2 and 4 and sections 4.1 to 4.3.
    """
    shape = event_of(event_shape, (1, 3), "made")
    if output not in _OUTPUTS:
        raise ValueError(f"flows.made: output must be one of {tuple(_OUTPUTS)}, got {output!r}.")
    layer = conditioners.MADE(
        int(np.prod(shape)),
        _OUTPUTS[output].num_parameters,
        hidden_units=hidden_units,
        order=order,
        degrees=degrees,
        num_masks=num_masks,
        activation=activation,
        residual=residual,
        context_size=context_size,
        seed=seed,
        dtype=layer_policy(dtype),
    )
    return MADEDistribution(
        layer, shape, output=output, dtype=dtype, validate_args=validate_args, name=name
    )


class MADEDistribution(tfp.distributions.Distribution):
    """The density of `made`, around a given layer.

    Args:
      layer: `conditioners.MADE` with 1 parameter an entry (Bernoulli) or 2 (normal).
      event_shape: static shape of an event of `layer.size` entries.
      output: `"bernoulli"` or `"normal"`.
      mask_counter: variable, as `copy()` hands it over.
      dtype: float32 (default) or float64.
      validate_args: whether to refuse Bernoulli data other than 0 and 1.
      allow_nan_stats: passed to the base class.
      name: name of the distribution.
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
        self._event = tuple(event_shape)
        self._output = output
        self._mask_counter = mask_counter
        self._map = self._no_dependency(_OUTPUTS[output])
        self._network = Network(
            layer,
            input_shape=(layer.size,),
            output_shape=(layer.size * self._map.num_parameters,),
            owner=f"MADEDistribution '{name}'",
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
        x = self._as_data(x)
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
            f"MADEDistribution '{self.name}': expected {self.dtype.name}, got {x.dtype.name}. "
            f"{remedy}"
        )

    def _sample_n(self, n, seed=None, context=None):
        n = tf.convert_to_tensor(n)
        masks_seed, noise_seed = tfp.random.split_seed(seed)
        context = self._rows_of_context(context, n[tf.newaxis])
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
        size = self.context_size
        if (context is None) != (size is None):
            got = "none" if context is None else "one"
            raise ValueError(
                f"MADEDistribution '{self.name}': a context of size {size} is expected, got {got}."
            )
        if context is None:
            return None
        context = tf.cast(tf.convert_to_tensor(context), self.dtype)
        if context.shape.rank == 0 or context.shape[-1] != size:
            raise ValueError(
                f"MADEDistribution '{self.name}': expected a context of shape [..., {size}], got "
                f"{context.shape.as_list()}."
            )
        return tf.reshape(tf.broadcast_to(context, tf.concat([batch, [size]], 0)), [-1, size])

    def _sample_control_dependencies(self, x, **kwargs):
        if not self.validate_args or self._output != "bernoulli":
            return []
        binary = tf.reduce_all((x == 0.0) | (x == 1.0))
        message = (
            f"MADEDistribution '{self.name}': its data must be 0 and 1. Binarize them, or use "
            'output="normal" or flows.maf for continuous data.'
        )
        return [tf.debugging.Assert(binary, [message])]


@keras.saving.register_keras_serializable(package="tfp_flows")
class _Threshold(elementwise_maps.ElementwiseMap):
    """From uniform noise to a Bernoulli variable, given its logit; not invertible."""

    num_parameters = 1
    is_constant_log_det = True

    def _forward(self, x, parameters):
        return tf.cast(x < tf.sigmoid(parameters[0]), x.dtype), tf.zeros_like(x)

    def _inverse(self, y, parameters):
        raise NotImplementedError("flows.made: samples of Bernoulli variables have no gradient.")


_OUTPUTS = {"bernoulli": _Threshold(), "normal": elementwise_maps.Affine()}
