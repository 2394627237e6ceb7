"""A density that is a product of conditionals, from any causal network."""

import math
import warnings

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import known_shape
from tfp_flows.bijectors import stepwise
from tfp_flows.bijectors.causality import check_autoregressive
from tfp_flows.distributions.network_density import NetworkDensity, check_dtype
from tfp_flows.distributions.outputs import get_output

tfd = tfp.distributions


class AutoregressiveDistribution(NetworkDensity):
    """A density that is a product of conditionals, from any causal network.

        p(x | c) = prod_i p(x_i | the entries before x_i, c)

    The network maps a whole event to `num_parameters` numbers an entry, of which those of entry i
    depend on the entries before it alone, in whatever order the network has. What they mean the
    output says: bits, levels, or a density. For discrete outputs this is a probability of
    integers, exact, without dequantization, and bits/dim of it are the data's.

    Density: one pass of the network. Sampling: a masked network (`conditioners.MADE`) by its
    pieces, at the cost of about one pass; a network that offers

        num_steps, step_entries          int array [num_steps, k], the entries of each step
        init_cache(n, context, dtype)    a nest of tensors or TensorArrays, for n rows
        step(cache, s, previous)         parameters [n, num_parameters, k] and the next cache

    by `num_steps` steps, `previous` `[n, k]` being the entries of the step before, as the network
    sees them (zeros at first); any other by as many passes as there are entries (or coupled
    pixels), with a warning.

    Shapes: an event is `event_shape`, `[D]`, `[T, C]` or `[H, W, C]`; the network maps `[batch,
    *event_shape]` to `[batch, *event_shape[:-1], num_parameters * event_shape[-1]]`, first
    parameter 0 of all channels. Batch axes of a context broadcast to those of the data, or to the
    sample shape.

    Events of discrete outputs are int32; `log_prob` takes any integer dtype and Booleans, and whole
    numbers of the dtype `dtype`. What is no level is impossible. The network sees levels as numbers
    from -1 to 1, bits as 0 and 1.

    Args:
      network: Keras layer, causal; built here if it was not.
      event_shape: static shape of an event.
      output: name or `Output`, as `distributions.get_output` takes it. Default: `"bernoulli"`.
      context_size: what context the network takes. Default: its own `context_size`.
      dtype: float32 (default) or float64, which it computes in.
      validate_args: whether to refuse data that are no levels, and, here and now, a network that
        is not autoregressive or whose `step` is not its `call`. Default: `False`.
      allow_nan_stats: passed to the base class.
      name: name of the distribution.

    Raises:
      TypeError: if the network is no Keras layer, or for another dtype; by `log_prob`, for data of
        another float type, or for integers if the output is continuous.
      ValueError: for an unknown output or event shape, or if the network does not fit them, or its
        steps do not go through every entry once; by `log_prob` and `sample`, for data or a context
        of the wrong shape.
      tf.errors.InvalidArgumentError: if a size does not fit that was not known before, or with
        `validate_args`.

    >>> from tfp_flows import conditioners
    >>> output = get_output("categorical", num_levels=3)
    >>> network = conditioners.MADE(4, output.num_parameters, hidden_units=(8,), seed=0)
    >>> density = AutoregressiveDistribution(network, [4], output=output)
    >>> density.log_prob(density.sample(5, seed=[0, 1])).shape
    TensorShape([5])

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, equation 1.
    """

    def __init__(
        self,
        network,
        event_shape,
        *,
        output="bernoulli",
        context_size=None,
        dtype=tf.float32,
        validate_args=False,
        allow_nan_stats=True,
        name="autoregressive",
    ):
        parameters = dict(locals())
        title = f"{type(self).__name__} '{name}'"
        dtype, output = check_dtype(dtype, title), get_output(output)
        event = known_shape(event_shape, "event_shape", title)
        if getattr(network, "num_masks", 1) > 1:
            raise ValueError(
                f"{title}: the network has {network.num_masks} sets of masks, and this is one "
                "density. Use distributions.MADEDistribution, which is their mixture."
            )
        if output.whole_pixels and (event[-1] != 3 or hasattr(network, "sequential_parts")):
            raise ValueError(
                f"{title}: {output!r} is of whole pixels of 3 channels, which their network must "
                f"not see, got {type(network).__name__} and event_shape {list(event)}. Leave "
                "`coupled` out."
            )
        context_size = getattr(network, "context_size", None) or context_size
        parameters.update(dtype=dtype, event_shape=event, output=output, context_size=context_size)
        self._has_steps = not stepwise.missing_parts(network)
        if self._has_steps:
            _check_steps(network, event, output, title)
        super().__init__(
            network,
            event,
            output,
            network_shape=event,
            context_size=context_size,
            dtype=dtype,
            event_dtype=dtype if output.num_levels is None else tf.int32,
            parameters=parameters,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            name=name,
        )
        if validate_args and not output.whole_pixels:
            check_autoregressive(self._network, event, dtype, title)

    @property
    def network(self):
        """The Keras layer."""
        return self._network.layer

    def can_complete(self, given):
        """Whether `complete_in_order` takes a mask: no given entry comes after a hidden one.

        Of the entries of one step, which do not depend on each other, some may be given; of a pixel
        that is drawn as a whole, all or none. Never of a network that has no `step`, whose order is
        not known.

        Args:
          given: Boolean array `[..., *event_shape]`, `True` where an entry is given.
        """
        places = stepwise.places_of(self.network, self._event, self._title())
        if places is None:
            return False
        if self._output.whole_pixels:
            apart = given.any(axis=-1) != given.all(axis=-1)
            return not apart.any() and stepwise.comes_first(places, given)
        return stepwise.comes_first(places, given)

    def complete_in_order(self, x, given, *, context=None, seed=None):
        """Draws of the hidden entries given those before them, by one pass of the steps: exact.

            p(hidden | given) = prod_i p(x_i | the entries before x_i),     i hidden

        which holds where all given entries come first: `can_complete(given)`.

        Args:
          x: `[..., *event_shape]` of the distribution's dtype; hidden entries may be any number.
          given: Boolean, broadcast to `x`, `True` where an entry is given.
          context: as of `sample`, one for each event of `x`.
          seed: as of `tfd.Distribution.sample`.

        Returns:
          `x`, with draws where entries were hidden.

        >>> from tfp_flows import flows
        >>> density = flows.pixel_cnn([2, 2, 1], output="bernoulli", filters=4, num_layers=1)
        >>> top = np.array([[[True], [True]], [[False], [False]]])
        >>> density.can_complete(top), density.can_complete(~top)
        (True, False)
        >>> density.complete_in_order(tf.ones([5, 2, 2, 1], tf.int32), top, seed=[0, 1]).shape
        TensorShape([5, 2, 2, 1])
        """
        x = self._with_event_shape(tf.cast(tf.convert_to_tensor(x), self.dtype))
        batch = tf.shape(x)[: tf.rank(x) - len(self._event)]
        size, dtype = math.prod(self._event), self._dtype_inside
        rows = tf.reshape(tf.cast(x, dtype), [-1, 1, size])
        given = tf.reshape(tf.cast(tf.broadcast_to(given, tf.shape(x)), dtype), tf.shape(rows))
        shape = tf.stack([tf.shape(rows)[0], self._output.num_noises, size])
        noise = self._output.noise(shape, tfp.random.sanitize_seed(seed), dtype)
        noise = tf.ensure_shape(noise, [None, self._output.num_noises, size])
        drawn = self._by_steps(noise, self._rows_of_context(context, batch), (rows, given))
        return tf.ensure_shape(tf.reshape(tf.cast(drawn, self.dtype), tf.shape(x)), x.shape)

    def _log_prob_of_rows(self, rows, context):
        return self._score(rows, self._network(self._output.to_network(rows), context))

    def _draw_rows(self, noise, seed, context):
        if self._has_steps:
            return self._by_steps(noise, context)
        if self._sequential is not None:
            return self._draw_in_order(noise, context)
        return self._by_passes(noise, context)

    def _by_steps(self, noise, context, known=None):
        """Entries `[n, D]` of noise `[n, num_noises, D]`; `known`: pairs of values and masks."""
        output = self._output

        def draw(drive, parameters):
            drive, parameters = tf.transpose(drive, [0, 2, 1]), tf.stack(parameters, axis=1)
            noise = drive[:, : output.num_noises]
            values = _of_pixels(output.draw, self._event[-1], noise, parameters, output)
            if known is not None:
                values = tf.where(drive[:, -1] > 0.0, drive[:, -2], values)
            return [output.to_network(values), values]

        drive = noise if known is None else tf.concat([noise, *known], axis=1)
        _, x = stepwise.run(
            self.network,
            tf.transpose(drive, [0, 2, 1]),
            draw,
            context,
            num_parameters=output.num_parameters,
            title=self._title(),
        )
        return x

    def _by_passes(self, noise, context):
        # Pixels that are drawn as wholes are right as wholes.
        passes = math.prod(self._event[:-1] if self._output.whole_pixels else self._event)
        warnings.warn(
            f"{self._title()}: its network {type(self.network).__name__} has no `step`, so that "
            f"samples take {passes} passes. Give the layer num_steps, step_entries, init_cache and "
            "step, as the documentation of AutoregressiveDistribution has them.",
            stacklevel=2,
        )
        output, event = self._output, self._event
        # [n, num_noises, D] as [n, *event[:-1], num_noises, C]
        noise = tf.reshape(noise, [-1, output.num_noises, *event])
        axes = [0, *range(2, len(event) + 1), 1, len(event) + 1]
        noise = tf.transpose(noise, axes)

        def body(number, x):
            out = self._network(output.to_network(x), context)
            x = output.draw(noise, self._apart(out))
            # After k passes k entries are right. The others may be anything, and must not turn
            # the network's sums into NaN, which masks do not stop: 0 * inf is NaN.
            x = tf.where(tf.math.is_finite(x), x, tf.zeros([], x.dtype))
            return number + 1, tf.ensure_shape(x, [None, *event])

        zeros = tf.zeros(tf.concat([tf.shape(noise)[:1], event], 0), self._dtype_inside)
        return tf.while_loop(
            lambda number, *_: number < passes,
            body,
            (tf.constant(0), tf.ensure_shape(zeros, [None, *event])),
            maximum_iterations=passes,
        )[1]


def _check_steps(network, event, output, title):
    """Raises unless a network's steps go through every entry once, pixels as wholes if need be."""
    entries = stepwise.entries_of(network, math.prod(event), title)
    if output.whole_pixels:
        pixels = entries.reshape(-1, 3) if entries.shape[1] % 3 == 0 else np.zeros([1, 3])
        if (pixels[:, :1] % 3 != 0).any() or (pixels != pixels[:, :1] + np.arange(3)).any():
            raise ValueError(
                f"{title}: {output!r} needs steps of whole pixels, got steps of "
                f"{entries.shape[1]} entries. Leave `coupled` out."
            )


def _of_pixels(draw, channels, noise, parameters, output):
    """Draws the k entries of one step, pixel by pixel where these are drawn as wholes."""
    if not output.whole_pixels:
        return draw(noise, parameters)

    def apart(tensor):  # [n, P, k] as [n, pixels, P, channels]
        sizes = [-1, tensor.shape[1], tensor.shape[2] // channels, channels]
        return tf.transpose(tf.reshape(tensor, sizes), [0, 2, 1, 3])

    return tf.reshape(draw(apart(noise), apart(parameters)), [-1, noise.shape[2]])
