"""What a composition is: the way from the data to the base, step by step.

`tfb.Chain`, `tfb.Invert`, `tfb.Blockwise`, `tfd.TransformedDistribution` and `tfd.Independent`, and
the containers of this package, are known here and nowhere else. Everybody else who wants to look
into a flow (scores, samples, summaries, diagnoses, exports) reads its steps.
"""

import dataclasses
import functools
import numbers

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import inside, stock
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.modes import values_alone
from tfp_flows.bijectors.stochastic import likelihood_of

tfd = tfp.distributions


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """One part of a flow, and the direction in which the way goes through it."""

    bijector: object
    inverse: bool

    def __call__(self, value, context, ndims):
        """Applies it to events of rank `ndims`, at least the bijector's own.

        Args:
          value: tensor of floating dtype.
          context: that of the whole way, of which it takes its own, or `None`.
          ndims: rank of one event of `value`.

        Returns:
          The result, its log-det (a scalar if constant, else of the batch shape) and the rank of
          one event of the result.
        """
        bijector, inverse = self.bijector, self.inverse
        if isinstance(bijector, FlowBijector):
            act = bijector.inverse_and_log_det if inverse else bijector.forward_and_log_det
            own = bijector.inverse_min_event_ndims if inverse else bijector.forward_min_event_ndims
            if context is not None:
                context = contexts.for_part(context, bijector._context_shapes, ndims - own)
            result, log_det = act(value, context)
            log_det = _sum_positions(log_det, value, ndims, own)
        elif self.branches:
            return *self._apart(value, context, ndims), ndims
        else:
            kwargs = {}
            if context is not None and context_shapes_of(bijector) is not None:
                kwargs = context_kwargs(bijector, context)
            # A fresh tensor: a stock container's cache would answer with the weights that were.
            value = tf.identity(value)
            if inverse:
                result = bijector.inverse(value, **kwargs)
                log_det = bijector.inverse_log_det_jacobian(value, ndims, **kwargs)
            else:
                result = bijector.forward(value, **kwargs)
                log_det = bijector.forward_log_det_jacobian(value, ndims, **kwargs)
        event_ndims_after = (
            bijector.inverse_event_ndims if inverse else bijector.forward_event_ndims
        )
        return result, log_det, event_ndims_after(ndims)

    @functools.cached_property
    def branches(self):
        """The ways through the parts that act on some of the channels by themselves.

        Pairs of a slice of the last axis and the steps of that way; empty for most.
        """
        found = ()
        if isinstance(self.bijector, FlowBijector):
            found = self.bijector.branches
        elif isinstance(self.bijector, stock.Blockwise):
            sizes = tf.get_static_value(self._block_sizes())
            if sizes is not None:
                ends = np.cumsum(sizes)
                slices = map(slice, ends - sizes, ends)
                found = zip(slices, self.bijector.bijectors, strict=True)
        return tuple((part, tuple(steps_of(b, self.inverse))) for part, b in found)

    @property
    def in_loop(self):
        """The steps that a loop goes, one by one; empty for what is none."""
        members = self.bijector.in_loop if isinstance(self.bijector, FlowBijector) else ()
        members = members if self.inverse else reversed(members)
        return tuple(step for member in members for step in steps_of(member, self.inverse))

    def _block_sizes(self):
        blocks = self.bijector
        return blocks.inverse_block_sizes if self.inverse else blocks.block_sizes

    def _apart(self, value, context, ndims):
        """A `tfb.Blockwise`, whose branches leave nothing out."""
        results, total = [], 0.0
        for part, steps in self.branches:
            result, log_det, _ = walk(steps, value[..., part], context, ndims)
            results.append(result)
            total += log_det
        return tf.concat(results, axis=-1), total

    @property
    def title(self):
        """Class and name of the part, for messages."""
        return title_of(self.bijector)


def title_of(part):
    """Class and name of a bijector or distribution, for messages."""
    # Around a part of this package TFP's classes are their private bases.
    kind = type(part).__name__.lstrip("_")
    if isinstance(part, stock.Composition) and "_of_" in part.name:
        return f"{kind} of {len(part.bijectors)} parts"  # TFP's name for it is all their names.
    return f"{kind} '{part.name}'"


def steps_of(bijector, inverse):
    """The steps of a bijector, in the order in which that direction meets them."""
    if isinstance(bijector, stock.Invert):
        yield from steps_of(bijector.bijector, not inverse)
        return
    members = ()
    if isinstance(bijector, FlowBijector):
        members = bijector.in_sequence
    elif isinstance(bijector, stock.Chain):
        members = bijector.bijectors
    if not members:
        yield Step(bijector, inverse)
    # The last acts first in the forward direction.
    for member in members if inverse else reversed(members):
        yield from steps_of(member, inverse)


def walk(steps, value, context, ndims):
    """Goes all steps; returns the result, its log-det and the rank of one event of it."""
    total = None
    for step in steps:
        value, log_det, ndims = step(value, context, ndims)
        total = log_det if total is None else total + log_det
    return value, 0.0 if total is None else total, ndims


def visit(steps, value, context, ndims):
    """Goes all steps one by one, what is inside a part before the part itself, loops unrolled.

    Yields:
      The step, what it was given and the rank of one event of it, and what it returned.
    """
    for step in steps:
        if step.in_loop:
            for found in visit(step.in_loop, value, context, ndims):
                yield found
                value, _, ndims = found[-1]
            continue
        for part, below in step.branches:
            yield from visit(below, value[..., part], context, ndims)
        result = step(value, context, ndims)
        yield step, value, ndims, result
        value, _, ndims = result


class Road:
    """A distribution as steps from its data to a base distribution.

    Args:
      distribution: any `tfd.Distribution`; one that is no `tfd.TransformedDistribution` is a
        base, without steps.

    Raises:
      ValueError: if a part of the base draws its log-density with noise, and the base says that its
        own is exact.
    """

    def __init__(self, distribution):
        self.distribution = distribution
        self.event_ndims = distribution.event_shape.rank
        steps = []
        while (
            isinstance(distribution, stock.TransformedDistribution)
            and distribution.bijector._is_injective
        ):
            steps += steps_of(distribution.bijector, inverse=True)
            distribution = distribution.distribution
        self.steps, self.base = tuple(steps), distribution
        self.back = tuple(Step(step.bijector, not step.inverse) for step in reversed(steps))
        self.base_ndims = distribution.event_shape.rank
        self.dtype = _floating(self.distribution)
        self._inside = _parts_of(distribution)
        self.likelihood = likelihood_of(distribution)
        _check_likelihood(distribution, self.likelihood)
        self.base_context_shapes = _base_context_shapes(distribution, self._inside)
        self.context_shapes = contexts.common(
            [
                *((step.bijector.name, context_shapes_of(step.bijector)) for step in steps),
                (distribution.name, self.base_context_shapes),
            ],
            "the distribution",
        )

    @property
    def num_samples(self):
        """Of an estimate its number of draws, or `None`."""
        return getattr(self.base, "num_samples", None) if self.is_noisy else None

    @property
    def is_noisy(self):
        """Whether a log-density is drawn with noise: a bound, or an estimate."""
        return self.likelihood != "exact"

    def draw_noise(self, shape, seed):
        """Noise for one `log_prob` of a batch; `None` if it is exact.

        Args:
          shape: the batch shape, a list of `int`s and int32 scalars; 1 for a draw that all share.
          seed: pair of int32.
        """
        return self.base.draw_noise(shape, seed) if self.is_noisy else None

    def log_prob(self, x, context=None, noise=None):
        """Log-density of `x` `[..., *event]` in nats.

        Args:
          x: data.
          context: tensors, or `None`; handed to the parts that take one.
          noise: of a log-density that is drawn what `draw_noise` gave. Default: fresh.
        """
        z, log_det, _ = walk(self.steps, x, context, self.event_ndims)
        return self.base_log_prob(z, context, noise) + log_det

    def inverse(self, x, context=None):
        """The point of the base that `x` comes from."""
        with values_alone():
            return walk(self.steps, x, context, self.event_ndims)[0]

    def forward(self, z, context=None):
        """The data that a point of the base gives."""
        with values_alone():
            return walk(self.back, z, context, self.base_ndims)[0]

    def sample(self, shape, seed, context=None, temperature=None):
        """Samples of the given sample shape.

        Args:
          shape: int tensor `[n]`, the sample shape.
          seed: pair of int32.
          context: tensors, or `None`; handed to the parts that take one.
          temperature: scalar that scales the deviation of the base from its mean, or `None` for
            1, which needs no mean.
        """
        return self.forward(self.base_sample(shape, seed, context, temperature), context)

    def sample_and_log_prob(self, shape, seed, context=None):
        """Samples, and their log-density from the same pass of every network."""
        noise = None
        if self.is_noisy:
            seed, own = tfp.random.split_seed(seed)
            noise = self.draw_noise(tf.unstack(shape), own)
        z = self.base_sample(shape, seed, context)
        return self.forward_and_log_prob(z, context, noise)

    def forward_and_log_prob(self, z, context=None, noise=None):
        """The data that a point of the base gives, and their log-density."""
        x, log_det, _ = walk(self.back, z, context, self.base_ndims)
        return x, self.base_log_prob(z, context, noise) - log_det

    # --- The base. ---

    def base_log_prob(self, z, context=None, noise=None):
        """Log-density of a point of the base."""
        if self._inside is not None:
            return self._inside.log_prob(z, context)
        kwargs = self._base_kwargs(context)
        if noise is not None:
            kwargs["noise"] = noise
        return self.base.log_prob(z, **kwargs)

    def base_sample(self, shape, seed, context=None, temperature=None):
        """Points of the base."""
        if self._inside is not None:
            return self._inside.sample(shape, seed, context, temperature)
        kwargs = self._base_kwargs(context)
        if temperature is not None and hasattr(self.base, "sample_at"):
            return self.base.sample_at(temperature, shape, seed, **kwargs)
        z = self.base.sample(shape, seed=seed, **kwargs)
        if temperature is None:
            return z
        temperature = tf.cast(temperature, self.dtype)
        if not self.has_mean(context):
            check = tf.debugging.assert_equal(
                temperature, tf.ones_like(temperature), message=self.no_mean
            )
            with tf.control_dependencies([] if check is None else [check]):
                return tf.identity(z)
        mean = self.base.mean(**kwargs)
        # Chosen, not computed, at 1: the samples are then those of no temperature to the last bit.
        return tf.where(temperature == 1.0, z, mean + temperature * (z - mean))

    def base_completed(self, z, given, seed, context=None):
        """Points of a base that draws in order, with `z` where it is given."""
        kwargs = self._base_kwargs(context)
        return self.base.complete_in_order(z, given, seed=seed, **kwargs)

    @property
    def no_mean(self):
        """Why a temperature other than 1 is refused."""
        return (
            f"{title_of(self.base)} has no mean, which a temperature other than 1 scales the "
            "latent's spread around (integers have none). Sample at temperature 1."
        )

    def check_fixed_base(self, title):
        """Raises a `ValueError` unless samples are a map of noise that depends on nothing.

        Whoever draws the noise of a bound draws points of the base, without context or gradient.
        """
        wrong = None
        if self.is_noisy:
            wrong = f"has a log-density that is drawn with noise itself ({self.likelihood})"
        elif self.base_context_shapes is not None:
            wrong = "takes the context itself"
        elif self.base.variables:
            wrong = "has variables"
        elif self.base.reparameterization_type != tfd.FULLY_REPARAMETERIZED:
            wrong = "is not one of continuous values"
        if wrong:
            raise ValueError(
                f"{title}: expected a flow over noise that depends on nothing, got the base "
                f"{title_of(self.base)}, which {wrong}. Put a standard normal there, and what is "
                "learned into bijectors."
            )

    def has_mean(self, context=None):
        """Whether the base has a mean that its points can be drawn to; integers cannot."""
        if self._inside is not None:
            return self._inside.has_mean(context)
        if hasattr(self.base, "sample_at"):
            return self.base.has_mean(**self._base_kwargs(context))
        if not tf.as_dtype(self.base.dtype).is_floating:
            return False
        kwargs = self._base_kwargs(context)
        try:
            if kwargs:
                self.base.mean(**kwargs)
                return True
            with tf.init_scope():  # A Cauchy says NaN. By value, so when a function is traced.
                return not np.isnan(self.base.mean()).any()
        except NotImplementedError:
            return False

    def _base_kwargs(self, context):
        if context is None or self.base_context_shapes is None:
            return {}
        return {"context": contexts.take(context, self.base_context_shapes)}


def _floating(distribution):
    """The dtype of a distribution; of one of integers that of its weights."""
    found = [distribution.dtype, *(v.dtype for v in distribution.variables), tf.float32]
    return next(dtype for dtype in map(tf.as_dtype, found) if dtype.is_floating)


def _check_likelihood(base, word):
    """Refuses a base that calls itself exact, around a part that is not."""
    for part in base.submodules if word == "exact" else ():
        if isinstance(part, tfd.Distribution) and likelihood_of(part) != "exact":
            raise ValueError(
                f"{title_of(base)}: the log-density of its part '{part.name}' is drawn with noise "
                f"({likelihood_of(part)}), which this container hands to none of its parts. Put "
                "the container inside that part."
            )


def _parts_of(base):
    """The flows inside a base distribution, or `None` if it is no composition of flows."""
    if isinstance(base, stock.Independent):
        kind, parts = inside.Independent, [base.distribution]
    elif isinstance(base, stock.Mixture):
        kind, parts = inside.Mixture, base.components
    elif isinstance(base, stock.MixtureSameFamily):
        kind, parts = inside.MixtureSameFamily, [base.components_distribution]
    else:
        return None
    roads = [Road(part) for part in parts]
    return kind(base, roads) if any(r.steps or r.context_shapes for r in roads) else None


def _base_context_shapes(base, parts):
    """What a base takes: a distribution of ours or of the user's own takes `context=` itself."""
    if parts is not None:
        return parts.context_shapes
    size = getattr(base, "context_size", None)
    return contexts.shapes_of(size, title_of(base)) if size else None


def _sum_positions(log_det, value, ndims, own_ndims):
    """Sums a log-det over the event axes of `value` that the bijector itself saw as batch."""
    extra = ndims - own_ndims
    if extra == 0:
        return log_det
    if log_det.shape.rank != 0:
        return tf.reduce_sum(log_det, axis=list(range(-extra, 0)))
    positions = value.shape[-ndims : value.shape.rank - own_ndims]
    if positions.is_fully_defined():
        return log_det * float(positions.num_elements())
    shape = tf.shape(value)
    count = tf.reduce_prod(shape[tf.size(shape) - ndims : tf.size(shape) - own_ndims])
    return log_det * tf.cast(count, log_det.dtype)


# --- Another composition of the same shape. ---


def is_transformed(distribution):
    """Whether it is a `tfd.TransformedDistribution`."""
    return isinstance(distribution, stock.TransformedDistribution)


def replaced(distribution, replace, name):
    """A transformed distribution with other bijectors in it.

    Args:
      distribution: `tfd.TransformedDistribution`, of which the base may be another.
      replace: function of a bijector, that is no chain and no inversion, to the one in its place.
      name: name of the result.
    """
    base = distribution.distribution
    if is_transformed(base):
        base = replaced(base, replace, base.name)
    # Not `copy`, whose result would hold the distribution itself, too, with the parts as they were.
    return tfd.TransformedDistribution(
        base,
        _replaced(distribution.bijector, replace),
        kwargs_split_fn=distribution.parameters["kwargs_split_fn"],
        validate_args=distribution.validate_args,
        name=name,
    )


def _replaced(bijector, replace):
    if isinstance(bijector, stock.Invert):
        return bijector.copy(bijector=_replaced(bijector.bijector, replace))
    if isinstance(bijector, stock.Chain) or getattr(bijector, "in_sequence", ()):
        return bijector.copy(bijectors=[_replaced(part, replace) for part in bijector.bijectors])
    return replace(bijector)


# --- What a composition takes. ---


def _inside(bijector):
    """The parts of a stock bijector of several, or an empty tuple."""
    return tuple(bijector.bijectors) if isinstance(bijector, stock.Composition) else ()


def context_shapes_of(bijector):
    """The shapes of the context that a bijector takes; `None` if nothing in it takes one.

    Raises:
      ValueError: if two of its parts take contexts of different sizes.
    """
    if isinstance(bijector, FlowBijector):
        return bijector._context_shapes
    if isinstance(bijector, stock.Invert):
        return context_shapes_of(bijector.bijector)
    parts = [(part.name, context_shapes_of(part)) for part in _inside(bijector)]
    return contexts.common(parts, bijector.name)


def context_kwargs(bijector, context):
    """Keyword arguments that hand `context` to every member of `bijector` that takes one.

    Stock TFP containers route keyword arguments by the name of the member and drop unknown
    names without a word; this walks them (`tfb.Chain`, `tfb.Invert`, `tfb.Blockwise`,
    nested) and builds what they expect. `tfp_flows.bijectors.Chain` needs none of it: it
    takes `context=` itself.

    Args:
      bijector: any `tfb.Bijector`.
      context: tensor `[..., context_size]`, or `None`.

    Returns:
      A dictionary for `bijector.forward(x, **kwargs)`, or for the `bijector_kwargs` of a
      `tfd.TransformedDistribution`. Empty if `context` is `None`.

    Raises:
      ValueError: if nothing in `bijector` takes a context, or two members of a stock
        container share a name and only one of them takes it.

    ```python
    chain = tfb.Chain([conditional_coupling, tfb.Scale(2.0)])
    y = chain.forward(x, **context_kwargs(chain, context))
    ```
    """
    if context is None:
        return {}
    kwargs = _routed(bijector, context)
    if not kwargs:
        raise ValueError(
            f"{title_of(bijector)}: got a context, but no part of it takes one: it would be "
            "ignored. Leave it out, or build the flow with `context_size`."
        )
    return kwargs


def _routed(bijector, context):
    if isinstance(bijector, FlowBijector):
        context = contexts.take(context, bijector._context_shapes)
        return {} if context is None else {"context": context}
    if isinstance(bijector, stock.Invert):
        return _routed(bijector.bijector, context)
    routed = {}
    for member in _inside(bijector):
        kwargs = _routed(member, context)
        if routed.setdefault(member.name, kwargs).keys() != kwargs.keys():
            raise ValueError(
                f"{title_of(bijector)} has two members named '{member.name}' of which only one "
                "takes a context, and TFP routes it by name. Give them different names."
            )
    return {name: kwargs for name, kwargs in routed.items() if kwargs}


def dtype_of(bijector):
    """The dtype a bijector insists on, or `None`."""
    if isinstance(bijector, stock.Invert):
        return dtype_of(bijector.bijector)
    inside = _inside(bijector)
    if inside:  # A stock composition has no dtype of its own, or a structure of them.
        dtypes = {dtype_of(member) for member in inside} - {None}
        return dtypes.pop() if len(dtypes) == 1 else None
    dtype = bijector.dtype
    return dtype if isinstance(dtype, tf.DType) else None


def shape_after(bijector, shape, title, *, inverse):
    """The event shape that a bijector gives, as far as it is known.

    Args:
      bijector: any `tfb.Bijector`.
      shape: `tf.TensorShape` of known rank, of the event that it is given; or `None`, behind a
        bijector of several parts, of which nothing is known.
      title: who asks, for messages.
      inverse: direction.

    Raises:
      ValueError: if the bijector is for events of another shape.
    """
    for step in steps_of(bijector, inverse):
        shape = _shape_after_step(step.bijector, shape, title, step.inverse)
    return shape


def _shape_after_step(bijector, shape, title, inverse):
    ranks = bijector.forward_min_event_ndims, bijector.inverse_min_event_ndims
    if shape is None or not all(isinstance(n, numbers.Integral) for n in ranks):
        return None
    own = ((), ())
    if isinstance(bijector, FlowBijector):
        own = bijector._domain, bijector._codomain
    elif not shape.is_fully_defined():
        # TFP's own do not all expect a shape of which only some is known.
        ndims = bijector.inverse_event_ndims if inverse else bijector.forward_event_ndims
        return tf.TensorShape([None] * ndims(shape.rank))
    before, after = own[::-1] if inverse else own
    shape = _merged(shape, before, bijector, title)
    try:
        shape = (bijector.inverse_event_shape if inverse else bijector.forward_event_shape)(shape)
    except ValueError as error:
        raise ValueError(
            f"{title}: '{bijector.name}' does not take events of shape {shape.as_list()}: {error}"
        ) from error
    if shape.rank is None:
        return None
    return _merged(shape, after, bijector, title)


def _merged(shape, own, bijector, title):
    own = tf.TensorShape([None] * (shape.rank - len(own)) + list(own))
    if not shape.is_compatible_with(own):
        raise ValueError(
            f"{title}: '{bijector.name}' is for events of shape {own.as_list()}, but stands where "
            f"they have the shape {shape.as_list()}. Make the sizes of the parts equal."
        )
    return shape.merge_with(own)
