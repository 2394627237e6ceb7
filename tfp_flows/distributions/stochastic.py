"""Distributions whose log-density is a bound or an estimate, drawn with noise."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import positive_integer
from tfp_flows.bijectors import context as contexts
from tfp_flows.distributions.unbatched import Unbatched, known_sizes

tfd = tfp.distributions


class StochasticDistribution(Unbatched):
    """The base class of distributions that can only bound, or estimate, their log-density.

        log_prob(x, seed) = log w(x, noise),      E_noise[w(x, noise)] = p(x)

    or, with `num_samples = K` of them a call, `log (w_1 + ... + w_K) / K`. Its mean is a lower
    bound of `log p(x)` that rises with K to the exact value. A distribution that says so by the
    properties `likelihood` (`"bound"` or `"estimate"`) and `num_samples` is asked by `FlowModel` as
    this: in `fit` and `evaluate` every row has noise of its own, which depends on the step and on
    the row's place in the global batch and on nothing else; scores have one fixed draw for all
    rows.

    A subclass gives

        _draw_noise(shape, seed)              noise [*shape, ...], a tensor or a nest of tensors;
                                              of no weight and of no data
        _log_weight(x, noise, context)        log w, with the noise of each event
        _sample_n, or _draw(shape, seed, context)

    and passes its constructor's arguments on. `_log_weight` finds `x`, noise and context with equal
    batch shapes.

    Args:
      num_samples: `int >= 1`, or `None` (default): 1, and what is reported is a bound.
      dtype: of an event.
      reparameterization_type: of the samples.
      parameters: the subclass's constructor's arguments.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.

    ```python
    class Blurred(StochasticDistribution):      # x = z + e,  z ~ base,  e ~ N(0, 1)
        def _draw_noise(self, shape, seed):
            return tf.random.stateless_normal([*shape, 2], seed)

        def _log_weight(self, x, noise, context=None):
            return self.base.log_prob(x + noise)
    ```

    Reference: Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, 2016,
    arXiv:1509.00519, equation 8.
    """

    def __init__(
        self,
        *,
        num_samples=None,
        dtype,
        reparameterization_type,
        parameters,
        validate_args=False,
        allow_nan_stats=True,
        name,
    ):
        if num_samples is not None:
            title = f"{type(self).__name__} '{name}'"
            num_samples = positive_integer(num_samples, "num_samples", title)
        self._num_samples = num_samples
        super().__init__(
            dtype=dtype,
            reparameterization_type=reparameterization_type,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @property
    def likelihood(self):
        """What `log_prob` is: `"bound"`, or `"estimate"`, of `num_samples` draws."""
        return "bound" if self._num_samples is None else "estimate"

    @property
    def num_samples(self):
        """Number of draws of an estimate, or `None`."""
        return self._num_samples

    def draw_noise(self, shape, seed):
        """Noise for one `log_prob` of a batch; it depends on no weight, no data and no context.

        Args:
          shape: the batch shape, a list of `int`s and int32 scalars. A size of 1 stands for one
            draw that all share.
          seed: pair of int32.

        Returns:
          A tensor `[*shape, ...]`, or a nest of such, for `log_prob(x, noise=...)`.
        """
        more = [] if self._num_samples is None else [self._num_samples]
        return self._draw_noise([*shape, *more], tfp.random.sanitize_seed(seed))

    # --- Scores. ---

    def _log_prob(self, x, seed=None, noise=None, context=None):
        x = self._checked(x)
        rank = x.shape.rank - self.event_shape.rank
        batch = tf.shape(x)[:rank]
        context = self._checked_context(context, batch)
        if noise is None:
            noise = self.draw_noise(tf.unstack(batch, rank), seed)
        if self._num_samples is None:
            return self._log_weight(*self._together(x, noise, context, batch))
        # The draws of a row come after its place in a batch, where noise is cut; now before it.
        order = [rank, *range(rank)]
        noise = tf.nest.map_structure(
            lambda t: tf.transpose(t, [*order, *range(rank + 1, t.shape.rank)]), noise
        )
        batch = tf.concat([[self._num_samples], batch], 0)
        log_weights = self._log_weight(*self._together(x[tf.newaxis], noise, context, batch))
        return tf.reduce_logsumexp(log_weights, axis=0) - math.log(self._num_samples)

    def _together(self, x, noise, context, batch):
        """Data, noise and context with equal batch shapes."""
        rank = x.shape.rank - self.event_shape.rank

        def spread(tensor, own):
            # A context may have fewer batch axes than the data; noise has all.
            rest = tf.shape(tensor)[tensor.shape.rank - own :]
            return tf.broadcast_to(tensor, tf.concat([batch, rest], 0))

        x = spread(x, self.event_shape.rank)
        x = tf.ensure_shape(x, [*known_sizes(batch), *self.event_shape])
        noise = tf.nest.map_structure(lambda t: spread(t, t.shape.rank - rank), noise)
        if context is not None:
            shapes = self._shapes_of_context()
            context = contexts.each(lambda c, shape: spread(c, len(shape)), context, shapes)
        return x, noise, context

    def _checked(self, x):
        """Data as a tensor, if they are of the event's shape and kind."""
        x, event = tf.convert_to_tensor(x), self.event_shape
        known = x.shape.rank is not None and x.shape.rank >= event.rank
        if not known or not x.shape[x.shape.rank - event.rank :].is_compatible_with(event):
            raise ValueError(
                f"{self._title()}: expected data of shape {contexts.text(event.as_list())}, got "
                f"{x.shape}. Reshape them, or state it with tf.ensure_shape."
            )
        levels = getattr(self, "num_levels", None)
        discrete = not x.dtype.is_floating
        if self.dtype.is_floating and x.dtype != self.dtype and not (discrete and levels):
            remedy = ". Cast the argument, or build it with that dtype."
            if discrete:
                remedy = ": integers have no density. Give it a discrete output, or cast them."
            raise TypeError(
                f"{self._title()}: expected {self.dtype.name}, got {x.dtype.name}{remedy}"
            )
        return tf.ensure_shape(x, x.shape[: x.shape.rank - event.rank] + event)

    def _checked_context(self, context, batch):
        """The context as tensors, if it is there, is taken, and broadcasts to a batch shape."""
        shapes, title = self._shapes_of_context(), self._title()
        contexts.check(
            context,
            shapes,
            title,
            required="Pass `context=`.",
            ignored=", which it would ignore. Leave it out, or build its parts with "
            "`context_size`.",
        )
        context = contexts.each(lambda c, _: tf.convert_to_tensor(c), context, shapes)
        known = tf.get_static_value(batch)
        if known is not None:
            batch = known.tolist()
            contexts.each(lambda c, s: contexts.check_batch(c, s, batch, title), context, shapes)
        return context

    def _shapes_of_context(self):
        return contexts.shapes_of(getattr(self, "context_size", None), self._title())

    def _draw_noise(self, shape, seed):
        raise NotImplementedError(f"{type(self).__name__} gives no _draw_noise.")

    def _log_weight(self, x, noise, context=None):
        raise NotImplementedError(f"{type(self).__name__} gives no _log_weight.")

    # --- Samples. ---

    def _call_sample_n(self, sample_shape, seed, context=None):
        sample_shape = tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
        context = self._checked_context(context, sample_shape)
        drawn = self._draw(sample_shape, tfp.random.sanitize_seed(seed), context)
        return tf.ensure_shape(drawn, [*known_sizes(sample_shape), *self.event_shape])

    def _sample_and_log_prob(self, sample_shape, seed, **kwargs):
        seed = tfp.random.sanitize_seed(seed)
        x = self.sample(sample_shape, seed=seed, **kwargs)
        # TFP would score them with noise of no seed.
        own = tf.random.experimental.stateless_fold_in(seed, 1)
        return x, self.log_prob(x, seed=own, **kwargs)

    def _draw(self, shape, seed, context=None):
        raise NotImplementedError(f"{type(self).__name__} gives no _draw.")
