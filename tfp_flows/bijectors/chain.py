"""Composition of bijectors."""

import numbers

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import stock
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.context import (
    common_context_size,
    context_kwargs,
    context_size_of,
    members,
)

tfb = tfp.bijectors


class Chain(FlowBijector):
    """Composes bijectors, of this package and of TFP, into one.

        forward(x) = b[0](b[1](... b[-1](x)))
        log|det dy/dx| = sum of the members' log-dets

    The order is that of `tfb.Chain`: the last bijector acts first on `x`. Unlike `tfb.Chain`
    it hands `context=` to every member that takes one, `tfb.Invert`, nested chains and
    `tfb.Blockwise` included, and evaluates value and log-det of the whole chain in one walk,
    which also makes it quicker to trace.

    Two things differ in TFP's own containers, `tfb.Chain` and `tfb.Blockwise`, whatever they
    hold. In eager mode, as long as a result is alive (`z = chain.inverse(y)`), they answer for
    the same tensor object `y` from a cache that knows nothing of variables that were assigned
    since, nor of a `tf.GradientTape` that was started since: `log_prob(y)` is then that of the
    old weights, wholly or in part, and its gradients leave out what came before the tape. Pass
    `tf.identity(y)`, call them in a `tf.function`, or use this class. And a `context=` that none
    of their members takes is dropped without a word, where this class refuses it; to check and
    route one through them, use `context_kwargs`.

    Shapes: those of the members; `context` is `[..., context_size]` and broadcasts over the
    batch. Log-dets are in nats.

    Args:
      bijectors: non-empty sequence of `tfb.Bijector`s.
      dtype: float32 or float64. Default: that of the members; float32 if they have none.
      validate_args: passed to the base class.
      name: name of the bijector.

    Raises:
      TypeError: if a member is no bijector, or two members have different dtypes.
      ValueError: if there are no members, or they take events of shapes that do not fit or
        contexts of different sizes.

    >>> import tensorflow_probability as tfp
    >>> chain = Chain([tfp.bijectors.Shift(1.0), tfp.bijectors.Scale(2.0)])
    >>> float(chain.forward(3.0))
    7.0
    """

    def __init__(self, bijectors, *, dtype=None, validate_args=False, name="chain"):
        parameters = dict(locals())
        bijectors = tuple(bijectors)
        if not bijectors:
            raise ValueError(f"Chain '{name}': expected at least one bijector, got none.")
        for member in bijectors:
            if not isinstance(member, tfb.Bijector):
                raise TypeError(
                    f"Chain '{name}': expected tfb.Bijectors, got a {type(member).__name__}."
                )
        dtypes = {m.name: dtype_of(m) for m in bijectors if dtype_of(m)}
        if dtype is not None:
            dtypes["itself"] = tf.as_dtype(dtype)
        if len(set(dtypes.values())) > 1:
            names = {key: dtype.name for key, dtype in dtypes.items()}
            raise TypeError(f"Chain '{name}': its bijectors have different dtypes, {names}.")
        # TFP's own chain infers the ranks and the shapes.
        reference = tfb.Chain(bijectors)
        domain, codomain = _event_shapes(
            bijectors, reference.forward_min_event_ndims, f"Chain '{name}'"
        )
        super().__init__(
            event_ndims=reference.forward_min_event_ndims,
            event_shape=domain,
            inverse_event_ndims=reference.inverse_min_event_ndims,
            inverse_event_shape=codomain,
            context_size=common_context_size(bijectors, f"Chain '{name}'"),
            dtype=next(iter(dtypes.values()), tf.float32),
            is_constant_jacobian=reference.is_constant_jacobian,
            validate_args=validate_args,
            parameters=parameters,
            name=name,
        )
        self._bijectors = bijectors
        self._reference = self._no_dependency(reference)

    @property
    def bijectors(self):
        """The members; the last acts first in the forward direction."""
        return tuple(self._bijectors)

    def _forward_and_log_det(self, x, context):
        ndims = self.forward_min_event_ndims
        return _walk(reversed(self._bijectors), x, context, ndims, inverse=False)[:2]

    def _inverse_and_log_det(self, y, context):
        ndims = self.inverse_min_event_ndims
        return _walk(self._bijectors, y, context, ndims, inverse=True)[:2]

    def _forward_event_shape(self, input_shape):
        return self._reference.forward_event_shape(input_shape)

    def _forward_event_shape_tensor(self, input_shape):
        return self._reference.forward_event_shape_tensor(input_shape)

    def _inverse_event_shape(self, output_shape):
        return self._reference.inverse_event_shape(output_shape)

    def _inverse_event_shape_tensor(self, output_shape):
        return self._reference.inverse_event_shape_tensor(output_shape)

    def forward_event_ndims(self, event_ndims, **kwargs):
        """Returns the rank of an event of the codomain, given that of the domain."""
        return self._reference.forward_event_ndims(event_ndims)

    def inverse_event_ndims(self, event_ndims, **kwargs):
        """Returns the rank of an event of the domain, given that of the codomain."""
        return self._reference.inverse_event_ndims(event_ndims)

    def _batch_shape(self, x_event_ndims):
        return self._reference.experimental_batch_shape(x_event_ndims=x_event_ndims)

    def _batch_shape_tensor(self, x_event_ndims):
        return self._reference.experimental_batch_shape_tensor(x_event_ndims=x_event_ndims)


def dtype_of(bijector):
    """The dtype a bijector insists on, or `None`."""
    inside = members(bijector)
    if inside:  # A stock composition has no dtype of its own, or a structure of them.
        dtypes = {dtype_of(member) for member in inside} - {None}
        return dtypes.pop() if len(dtypes) == 1 else None
    dtype = bijector.dtype
    return dtype if isinstance(dtype, tf.DType) else None


def apply(bijector, value, context, ndims, *, inverse):
    """Applies any bijector to events of rank `ndims`, jointly where it can.

    Args:
      bijector: any `tfb.Bijector`.
      value: its argument, already checked for floating dtype.
      context: tensor or `None`; dropped for a bijector that takes none.
      ndims: rank of one event of `value`, at least the bijector's own.
      inverse: direction.

    Returns:
      The result, its log-det (a scalar if constant, else of the batch shape) and the rank of
      one event of the result.
    """
    if isinstance(bijector, stock.Invert):
        return apply(bijector.bijector, value, context, ndims, inverse=not inverse)
    if isinstance(bijector, stock.Chain):
        steps = bijector.bijectors if inverse else reversed(bijector.bijectors)
        return _walk(steps, value, context, ndims, inverse=inverse)
    if context is not None and context_size_of(bijector) is None:
        context = None
    event_ndims_after = bijector.inverse_event_ndims if inverse else bijector.forward_event_ndims
    if isinstance(bijector, FlowBijector):
        act = bijector.inverse_and_log_det if inverse else bijector.forward_and_log_det
        own = bijector.inverse_min_event_ndims if inverse else bijector.forward_min_event_ndims
        if context is not None:
            for _ in range(ndims - own):  # The same context at every position of the event.
                context = tf.expand_dims(context, -2)
        result, log_det = act(value, context)
        log_det = _sum_positions(log_det, value, ndims, own)
    else:
        kwargs = context_kwargs(bijector, context)
        # A fresh tensor: a stock container's cache would answer with the weights that were.
        value = tf.identity(value)
        if inverse:
            result = bijector.inverse(value, **kwargs)
            log_det = bijector.inverse_log_det_jacobian(value, ndims, **kwargs)
        else:
            result = bijector.forward(value, **kwargs)
            log_det = bijector.forward_log_det_jacobian(value, ndims, **kwargs)
    return result, log_det, event_ndims_after(ndims)


def _walk(bijectors, value, context, ndims, *, inverse):
    total = None
    for bijector in bijectors:
        value, log_det, ndims = apply(bijector, value, context, ndims, inverse=inverse)
        total = log_det if total is None else total + log_det
    return value, total, ndims


def _event_shapes(bijectors, ndims, title):
    """What the members let know of the event shapes of a chain's domain and codomain.

    Raises:
      ValueError: if one member gives what another does not take.
    """
    shape, shapes = tf.TensorShape([None] * ndims), {}
    # Back and forth: a size may be known from the last member only.
    for inverse in (False, True, False):
        for member in bijectors if inverse else reversed(bijectors):
            shape = shape_after(member, shape, title, inverse=inverse)
        shapes[inverse] = shape
    return shapes[True], shapes[False]


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
    if isinstance(bijector, stock.Invert):
        return shape_after(bijector.bijector, shape, title, inverse=not inverse)
    if isinstance(bijector, stock.Chain):
        for member in bijector.bijectors if inverse else reversed(bijector.bijectors):
            shape = shape_after(member, shape, title, inverse=inverse)
        return shape
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
