"""MADE as a density by itself."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.bijectors.weights import COUNTER
from tfp_flows.distributions.network_density import NetworkDensity, check_dtype
from tfp_flows.distributions.outputs import get_output


class MADEDistribution(NetworkDensity):
    """A density that is a product of conditionals, all of them from one masked network.

        p(x | c) = prod_i p(x_i | x_1, ..., x_{i-1}, c)

    where the output says what the layer's numbers for an entry mean, and "before" is in the order
    of the layer. With K sets of masks the density is the mean of K such densities; in training
    mode (`FlowModel.fit`, `bijectors.training_mode()`) it is one of them, another at each call.
    The recipe `flows.made` makes the layer too.

    Shapes: an event has the shape `event_shape`, the context is `[..., context_size]`. The batch
    axes of a context broadcast to those of the data, or to the sample shape.

    Args:
      layer: `conditioners.MADE` with as many parameters an entry as the output has.
      event_shape: static shape of an event of `layer.size` entries, flattened inside.
      output: name or `Output`, as `distributions.get_output` takes it. Default: `"bernoulli"`: `x`
        holds 0 and 1.
      mask_counter: variable, as `copy()` hands it over. Default: a new one.
      dtype: float32 (default) or float64, of events too, which for discrete outputs hold whole
        numbers; `log_prob` takes any integer dtype then.
      validate_args: whether to refuse data that are no levels of the output. Otherwise they are
        impossible, but for Bernoulli variables: values between 0 and 1 count as their
        cross-entropy. Default: `False`.
      allow_nan_stats: passed to the base class.
      name: name of the distribution.

    Raises:
      TypeError: if the layer is no masked network, or for another dtype; by `log_prob`, for data
        of another float type, or for integers if the output is continuous.
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
        dtype = check_dtype(dtype, title)
        if not hasattr(layer, "sequential_parts"):
            raise TypeError(
                f"{title}: its layer must be a conditioners.MADE, got {type(layer).__name__}. For "
                "another network use distributions.AutoregressiveDistribution."
            )
        event = tuple(tf.TensorShape(event_shape).as_list())
        if None in event or math.prod(event) != layer.size:
            raise ValueError(
                f"{title}: event_shape must have the {layer.size} entries of its layer, got "
                f"{list(event)}. Set `size` of the MADE to their number."
            )
        found = get_output(output)
        if found.whole_pixels:
            raise ValueError(
                f"{title}: {found!r} is of whole pixels, which a MADE takes apart. Leave "
                "`coupled` out."
            )
        parameters.update(dtype=dtype, event_shape=event)
        if mask_counter is None:
            mask_counter = tf.Variable(0, name=f"{name}/mask_counter", **COUNTER)
            parameters["mask_counter"] = mask_counter
        self._mask_counter = mask_counter
        super().__init__(
            layer,
            event,
            found,
            network_shape=(layer.size,),
            context_size=layer.context_size,
            dtype=dtype,
            event_dtype=dtype,
            parameters=parameters,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            name=name,
        )

    @property
    def layer(self):
        """The `conditioners.MADE`."""
        return self._network.layer

    def _log_prob_of_rows(self, rows, context):
        num_masks = self.layer.num_masks
        if num_masks == 1:
            return self._log_prob_under(rows, context, 0)
        if bijectors.in_training_mode():
            result = self._log_prob_under(rows, context, self._mask_counter % num_masks)
            self._mask_counter.assign_add(1)
            return result
        each = tf.map_fn(
            lambda mask: self._log_prob_under(rows, context, mask),
            tf.range(num_masks),
            fn_output_signature=tf.TensorSpec([None], self.dtype),
        )
        return tf.reduce_logsumexp(each, axis=0) - float(np.log(num_masks))

    def _log_prob_under(self, rows, context, mask_index):
        seen = self._output.to_network(rows)
        return self._score(rows, self.layer(seen, context=context, mask_index=mask_index))

    def _draw_rows(self, noise, seed, context):
        num_masks = self.layer.num_masks
        if num_masks == 1:
            return self._draw_in_order(noise, context)
        # Each row has an order of its own; the rows of one order are drawn together.
        n = tf.shape(noise)[:1]
        chosen = tf.random.stateless_uniform(n, seed, maxval=num_masks, dtype=tf.int32)
        numbers = tf.dynamic_partition(tf.range(n[0]), chosen, num_masks)
        parts = []
        for mask, mine in enumerate(numbers):
            own = None if context is None else tf.gather(context, mine)
            parts.append(self._draw_in_order(tf.gather(noise, mine), own, mask_index=mask))
        return tf.ensure_shape(tf.dynamic_stitch(numbers, parts), [None, self.layer.size])
