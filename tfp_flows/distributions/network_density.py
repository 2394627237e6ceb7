"""What densities share that are a product of conditionals from one network."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import elementwise
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.sequential import Sequential
from tfp_flows.distributions.real_outputs import NormalOutput
from tfp_flows.distributions.unbatched import Unbatched

tfd = tfp.distributions


class NetworkDensity(Unbatched):
    """What the densities from one network share: data, contexts, scores of the network's output.

    A subclass gives `_log_prob_of_rows(rows, context)` and `_draw_rows(noise, seed, context)`.

    Args:
      layer: the Keras layer.
      event_shape: static shape of an event.
      output: an `Output`.
      network_shape: shape of an event as the layer takes it.
      context_size: what context the layer takes, or `None`.
      dtype: dtype that it computes in, float32 or float64.
      event_dtype: dtype of an event.
      parameters: the constructor's arguments.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.
    """

    def __init__(
        self,
        layer,
        event_shape,
        output,
        *,
        network_shape,
        context_size,
        dtype,
        event_dtype,
        parameters,
        validate_args,
        allow_nan_stats,
        name,
    ):
        title = f"{type(self).__name__} '{name}'"
        self._event, self._network_shape = tuple(event_shape), tuple(network_shape)
        self._dtype_inside = dtype
        self._output = self._no_dependency(output)
        self._network = Network(
            layer,
            input_shape=self._network_shape,
            output_shape=(
                *self._network_shape[:-1],
                self._network_shape[-1] * output.num_parameters,
            ),
            owner=title,
            context_size=context_size,
            dtype=dtype,
        )
        self._sequential = None
        if hasattr(layer, "sequential_parts"):
            self._sequential = self._no_dependency(
                Sequential(layer, _map_of(output), forward=True, block_size=None)
            )
        super().__init__(
            dtype=event_dtype,
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
    def output(self):
        """The `Output`: what the network's parameters of an entry mean."""
        return self._output

    @property
    def num_levels(self):
        """Of integers 0 to `num_levels - 1` their number; `None` if entries are real numbers."""
        return self._output.num_levels

    @property
    def context_size(self):
        """Size of the context (or what else the network takes), or `None`."""
        return contexts.declared(self._network._context_shapes)

    def _event_shape(self):
        return tf.TensorShape(self._event)

    # --- Scores. ---

    def _log_prob(self, x, context=None):
        x = self._with_event_shape(self._as_data(x))
        batch = tf.shape(x)[: tf.rank(x) - len(self._event)]
        rows = tf.reshape(x, [-1, *self._network_shape])
        context = self._rows_of_context(context, batch)
        return tf.reshape(self._log_prob_of_rows(rows, context), batch)

    def _score(self, rows, out):
        """Log-densities of rows, given what the network made of them."""
        entries = self._output.log_prob(rows, self._apart(out))
        return tf.reduce_sum(entries, axis=list(range(1, entries.shape.rank)))

    def _apart(self, out):
        """The network's output `[..., num_parameters * k]` as `[..., num_parameters, k]`."""
        out = tf.cast(out, self._dtype_inside)
        sizes = [self._output.num_parameters, self._network_shape[-1]]
        return tf.reshape(out, [-1, *self._network_shape[:-1], *sizes])

    def _as_data(self, x):
        if x.dtype == self._dtype_inside:
            return x
        discrete = x.dtype.is_integer or x.dtype.is_bool
        if discrete and self.num_levels is not None:
            return tf.cast(x, self._dtype_inside)
        remedy = "Cast the argument, or build the density with that dtype."
        if discrete:
            remedy = (
                "Discrete values have no density: add noise of the width of their steps "
                "(preprocessing.UniformDequantization), or use a discrete output, as "
                'output="bernoulli" for binary data.'
            )
        raise TypeError(
            f"{self._title()}: expected {self._dtype_inside.name}, got {x.dtype.name}. {remedy}"
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

    # --- Samples. ---

    def _call_sample_n(self, sample_shape, seed, context=None):
        # TFP makes one number of the sample shape, to which no context could be broadcast.
        batch = tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
        context = self._rows_of_context(context, batch)
        return super()._call_sample_n(sample_shape, seed, context=context)

    def _sample_n(self, n, seed=None, context=None):
        n = tf.convert_to_tensor(n)
        order_seed, noise_seed = tfp.random.split_seed(seed)
        size = math.prod(self._event)
        shape = tf.stack([n, self._output.num_noises, size])
        noise = self._output.noise(shape, noise_seed, self._dtype_inside)
        noise = tf.ensure_shape(noise, [None, self._output.num_noises, size])
        x = self._draw_rows(noise, order_seed, context)
        return tf.reshape(tf.cast(x, self.dtype), tf.concat([n[tf.newaxis], self._event], 0))

    def _draw_in_order(self, noise, context, mask_index=0):
        """Entries `[n, D]` of noise `[n, num_noises, D]`, by the pieces of a masked network."""
        flat = tf.reshape(noise, [-1, noise.shape[1] * noise.shape[2]])
        fed, drawn = self._sequential(flat, context, mask_index=mask_index)
        return fed if isinstance(self._output, NormalOutput) else drawn

    # --- Contexts, checks. ---

    def _rows_of_context(self, context, batch):
        """The context as `[rows, context_size]`, one for each event of the batch shape."""
        shapes = self._network._context_shapes
        contexts.check(
            context,
            shapes,
            self._title(),
            required="Pass `context=`.",
            ignored=", which it would ignore. Leave it out, or build it with `context_size`.",
        )
        known = tf.get_static_value(batch)

        def rows_of(tensor, shape):
            tensor = tf.cast(tf.convert_to_tensor(tensor), self._dtype_inside)
            tensor = tf.ensure_shape(tensor, [*tensor.shape[: -len(shape)], *shape])
            if known is not None:
                contexts.check_batch(tensor, shape, known.tolist(), self._title())
            sizes = tf.shape(tensor)[tf.rank(tensor) - len(shape) :]
            rows = tf.broadcast_to(tensor, tf.concat([batch, sizes], 0))
            return tf.reshape(rows, tf.concat([[-1], sizes], 0))

        return contexts.each(rows_of, context, shapes)

    def _sample_control_dependencies(self, x, **kwargs):
        if not self.validate_args or self.num_levels is None:
            return []
        levels = tf.reduce_all(self._output.is_level(self._as_data(x)))
        message = f"its data must be integers from 0 to {self.num_levels - 1}."
        if self.num_levels == 2:
            message = (
                "its data must be 0 and 1. Binarize them, or use "
                'output="normal" or flows.maf for continuous data.'
            )
        return [tf.debugging.Assert(levels, [f"{self._title()}: {message}"])]


def check_dtype(dtype, title):
    """`dtype` as a `tf.DType`, if it is one that densities are computed in."""
    dtype = tf.as_dtype(dtype)
    if dtype not in (tf.float32, tf.float64):
        raise TypeError(
            f"{title}: dtype must be float32 or float64, got {dtype.name}. For bfloat16 give "
            "the layer a mixed policy; the density itself stays in float32."
        )
    return dtype


class _Draws(elementwise.ElementwiseMap):
    """From noise to an entry as the network sees it; the second result is the entry itself."""

    def __init__(self, output):
        self.output, self.num_noises = output, output.num_noises

    @property
    def num_parameters(self):
        return self.output.num_parameters

    def get_config(self):
        return {"output": self.output}

    def _forward(self, x, parameters):
        # Entry by entry: `[num_noises, n]`, and a row for each parameter.
        stacked = tf.concat(parameters, axis=0)
        drawn = self.output.draw(x, stacked)[tf.newaxis]
        return self.output.to_network(drawn), drawn

    def _inverse(self, y, parameters):
        raise NotImplementedError("Samples of discrete variables and mixtures have no gradient.")


def _map_of(output):
    """What a masked network's solver applies to the noise of each entry."""
    return output.map if isinstance(output, NormalOutput) else _Draws(output)
