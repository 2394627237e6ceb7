"""A conditional flow with its context: a plain distribution."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.composition import check_distribution, entries_of, title_of
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.unbatched import known_sizes

tfb = tfp.bijectors


class Conditioned(tfp.distributions.Distribution):
    """A conditional distribution given its context: what `condition` returns.

        log p(x | c)            for every context c of a batch of them

    The batch shape is that of the context. Variables are those of the distribution, and the
    context's if it is a `tf.Variable`.

    Args:
      distribution: any `tfd.Distribution` in which some part takes a context: a recipe of
        `tfp_flows.flows` with `context_size`, or a composition around one.
      context: `[*batch, context_size]`, as the distribution takes it (other shapes and
        dictionaries of several included), of the dtype of its weights or cast to it.
      validate_args: passed to the base class.
      allow_nan_stats: passed to the base class.
      name: name of the distribution. Default: that of `distribution`.

    Raises:
      TypeError: if `distribution` is none.
      ValueError: if no part of it takes a context, or it takes one of another shape.

    >>> from tfp_flows import flows
    >>> flow = flows.maf([2], num_layers=1, hidden_units=(8,), context_size=3, seed=0)
    >>> Conditioned(flow, tf.eye(3)).batch_shape
    TensorShape([3])
    """

    def __init__(
        self, distribution, context, *, validate_args=False, allow_nan_stats=True, name=None
    ):
        parameters = dict(locals())
        check_distribution(distribution, "the distribution", "condition")
        self._road = self._no_dependency(Road(distribution))
        shapes = self._road.context_shapes
        contexts.check(
            context,
            shapes,
            f"condition({title_of(distribution)})",
            required="Pass it as the second argument.",
            ignored=", but no part of the distribution takes one: it would be ignored. Use the "
            "distribution itself, or build the flow with `context_size`.",
        )
        self._distribution = distribution
        self._context = contexts.each(
            lambda c, _: c if isinstance(c, tf.Variable) else tf.cast(c, self._road.dtype),
            context,
            shapes,
        )
        super().__init__(
            dtype=distribution.dtype,
            reparameterization_type=distribution.reparameterization_type,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name or distribution.name,
        )

    @property
    def distribution(self):
        """The conditional distribution."""
        return self._distribution

    @property
    def context(self):
        """The context that is given."""
        return self._context

    @property
    def likelihood(self):
        """What `log_prob` is: that of the distribution."""
        return self._road.likelihood

    @property
    def num_samples(self):
        """Number of draws of a `log_prob` that is an estimate, or `None`."""
        return self._road.num_samples

    def draw_noise(self, shape, seed):
        """What a `log_prob` that is not exact is drawn with: see `StochasticDistribution`."""
        return self._road.draw_noise(shape, seed)

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def __getitem__(self, slices):
        """The distribution of some of the contexts, by an index of the batch shape."""
        # TFP slices parameters, and the context has not the batch shape where it broadcasts.
        slices = slices if isinstance(slices, tuple) else (slices,)
        count = sum(s is not tf.newaxis and s is not Ellipsis for s in slices)
        if count > self.batch_shape.rank:
            raise IndexError(
                f"{title_of(self)}: too many indices, {count}, for the batch shape "
                f"{self.batch_shape}."
            )
        if not any(s is Ellipsis for s in slices):
            slices = (*slices, Ellipsis)
        context = self._context_for(self.batch_shape_tensor())

        def part(tensor, shape):
            return tensor[(*slices, *[slice(None)] * len(shape))]

        return self.copy(context=contexts.each(part, context, self._road.context_shapes))

    def _event_shape(self):
        return self._distribution.event_shape

    def _event_shape_tensor(self):
        return self._distribution.event_shape_tensor()

    def _batch_shape(self):
        shape = tf.TensorShape([])
        for rows in self._rows():
            shape = tf.broadcast_static_shape(shape, rows)
        return shape

    def _batch_shape_tensor(self):
        shape = tf.zeros([0], tf.int32)
        for tensor, rank in self._tensors():
            shape = tf.broadcast_dynamic_shape(shape, tf.shape(tensor)[: tf.rank(tensor) - rank])
        return shape

    def _tensors(self):
        found = []
        shapes = self._road.context_shapes
        contexts.each(lambda c, shape: found.append((c, len(shape))), self._context, shapes)
        return found

    def _rows(self):
        return [tensor.shape[: tensor.shape.rank - rank] for tensor, rank in self._tensors()]

    def _default_event_space_bijector(self):
        base = entries_of(self._road.base)
        of_base = base.experimental_default_event_space_bijector()
        if of_base is None:
            return None  # TFP's word for integers, and for what says nothing of its support.
        # Of TFP's bijectors nothing is known.
        bounded = [getattr(s.bijector, "has_bounded_values", True) for s in self._road.steps]
        if any(bounded) or not isinstance(of_base, tfb.Identity):
            raise NotImplementedError(
                f"{title_of(self)}: its support is not known to be all real values, as it has "
                "bijectors of TFP, bounded ones, or a base that is bounded. Give "
                "`event_space_bijector` where one is asked for."
            )
        return tfb.Identity()

    def _context_for(self, batch):
        """The context with the batch shape of the data, one row for each event."""

        def spread(tensor, shape):
            tensor = tf.convert_to_tensor(tensor)
            event = tf.shape(tensor)[tf.rank(tensor) - len(shape) :]
            return tf.broadcast_to(tensor, tf.concat([batch, event], axis=0))

        return contexts.each(spread, self._context, self._road.context_shapes)

    def _log_prob(self, x, seed=None, noise=None):
        ndims = self.event_shape.rank
        event = tf.shape(x)[tf.rank(x) - ndims :]
        batch = tf.shape(x)[: tf.rank(x) - ndims]
        batch = tf.broadcast_dynamic_shape(batch, self.batch_shape_tensor())
        static = tf.broadcast_static_shape(x.shape[: x.shape.rank - ndims], self.batch_shape)
        x = tf.broadcast_to(x, tf.concat([batch, event], axis=0))
        x = tf.ensure_shape(x, static + self.event_shape)
        if self._road.is_noisy and noise is None:
            noise = self._road.draw_noise(tf.unstack(batch), tfp.random.sanitize_seed(seed))
        return self._road.log_prob(x, self._context_for(batch), noise)

    def _call_sample_n(self, sample_shape, seed, **kwargs):
        shape, static = self._shape_of(sample_shape)
        seed = tfp.random.sanitize_seed(seed)
        samples = self._road.sample(shape, seed, self._context_for(shape))
        return tf.ensure_shape(samples, static + self.event_shape)

    def _sample_and_log_prob(self, sample_shape, seed, **kwargs):
        shape, static = self._shape_of(sample_shape)
        seed = tfp.random.sanitize_seed(seed)
        samples, log_prob = self._road.sample_and_log_prob(shape, seed, self._context_for(shape))
        return (
            tf.ensure_shape(samples, static + self.event_shape),
            tf.ensure_shape(log_prob, static),
        )

    def _shape_of(self, sample_shape):
        sample_shape = tf.reshape(tf.cast(sample_shape, tf.int32), [-1])
        shape = tf.concat([sample_shape, self.batch_shape_tensor()], axis=0)
        return shape, tf.TensorShape(known_sizes(sample_shape)) + self.batch_shape


def condition(distribution, context):
    """A conditional distribution with its context: a plain `tfd.Distribution`.

    Its batch shape is the context's, so it goes wherever TFP takes a distribution:
    `tfd.JointDistributionNamed`, `tfd.MixtureSameFamily` (the batch axis is the component's), MCMC
    (`target_log_prob_fn=condition(flow, c).log_prob`), `tfp.vi`. `log_prob(x)` broadcasts: one
    image is scored under ten classes at once. `sample(n)` gives `[n, *batch, *event]`. Its
    variables are the distribution's: in a loop of one's own, or a `tf.train.Checkpoint`, they are
    seen; in Keras through a `FlowModel` of the distribution.

    Args:
      distribution: any `tfd.Distribution` in which some part takes a context.
      context: `[*batch, context_size]`, or as the distribution takes it.

    Returns:
      A `distributions.Conditioned`.

    Raises:
      TypeError: if `distribution` is none.
      ValueError: if no part of it takes a context, or it takes one of another shape.

    >>> from tfp_flows import flows
    >>> flow = flows.real_nvp([2], num_couplings=2, hidden_units=(8,), context_size=10, seed=0)
    >>> classes = condition(flow, tf.eye(10))
    >>> classes.log_prob([0.3, 0.7]).shape, classes.sample(5).shape
    (TensorShape([10]), TensorShape([5, 10, 2]))
    """
    return Conditioned(distribution, context)
