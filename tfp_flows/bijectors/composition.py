"""What a composition of bijectors is: the steps that a way goes through it, in either direction.

`tfb.Chain`, `tfb.Invert`, `tfb.Blockwise` and the containers of this package are opened here, the
distributions among them in `road`, and nowhere else.
"""

import dataclasses
import functools
import numbers

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import stock
from tfp_flows.bijectors.base import FlowBijector

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


def title_of(part):
    """Class and name of a bijector or distribution, for messages."""
    # Around a part of this package TFP's classes are their private bases.
    kind = type(part).__name__.lstrip("_")
    if isinstance(part, stock.Composition) and "_of_" in part.name:
        return f"{kind} of {len(part.bijectors)} parts"  # TFP's name for it is all their names.
    return f"{kind} '{part.name}'"


def check_distribution(part, what, title, remedy=""):
    """Raises a `TypeError` unless a part is a distribution."""
    if not isinstance(part, tfd.Distribution):
        raise TypeError(
            f"{title}: {what} must be a tfd.Distribution, got {type(part).__name__}."
            f"{remedy and ' '}{remedy}"
        )


def entries_of(distribution):
    """What `tfd.Independent` and `tfd.Sample` put together; of others, the distribution itself."""
    while isinstance(distribution, (stock.Independent, tfd.Sample)):
        distribution = distribution.distribution
    return distribution


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


# --- The shapes of its events. ---


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
