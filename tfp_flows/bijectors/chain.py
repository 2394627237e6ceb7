"""Composition of bijectors."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import context_shapes_of, dtype_of, shape_after, steps_of, walk

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
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if a member is no bijector, or two members have different dtypes.
      ValueError: if there are no members, or they take events of shapes that do not fit or
        contexts of different sizes.

    >>> import tensorflow_probability as tfp
    >>> chain = Chain([tfp.bijectors.Shift(1.0), tfp.bijectors.Scale(2.0)])
    >>> float(chain.forward(3.0))
    7.0
    """

    def __init__(self, bijectors, *, dtype=None, name="chain", **kwargs):
        title = self._title()
        bijectors = tuple(bijectors)
        if not bijectors:
            raise ValueError(f"{title}: expected at least one bijector, got none.")
        for member in bijectors:
            if not isinstance(member, tfb.Bijector):
                raise TypeError(f"{title}: expected tfb.Bijectors, got a {type(member).__name__}.")
        dtypes = {m.name: dtype_of(m) for m in bijectors if dtype_of(m)}
        if dtype is not None:
            dtypes["itself"] = tf.as_dtype(dtype)
        if len(set(dtypes.values())) > 1:
            names = {key: dtype.name for key, dtype in dtypes.items()}
            raise TypeError(f"{title}: its bijectors have different dtypes, {names}.")
        # TFP's own chain infers the ranks and the shapes.
        reference = tfb.Chain(bijectors)
        domain, codomain = _event_shapes(bijectors, reference.forward_min_event_ndims, title)
        shapes = contexts.common([(b.name, context_shapes_of(b)) for b in bijectors], title)
        super().__init__(
            event_shape=domain,
            event_ndims=reference.forward_min_event_ndims,
            inverse_event_shape=codomain,
            inverse_event_ndims=reference.inverse_min_event_ndims,
            context_size=shapes,
            dtype=next(iter(dtypes.values()), tf.float32),
            is_constant_jacobian=reference.is_constant_jacobian,
            name=name,
            **kwargs,
        )
        self._bijectors = bijectors
        self._reference = self._no_dependency(reference)
        self._ways = self._no_dependency(
            {inverse: tuple(steps_of(self, inverse)) for inverse in (True, False)}
        )

    @property
    def bijectors(self):
        """The members; the last acts first in the forward direction."""
        return tuple(self._bijectors)

    in_sequence = bijectors

    def _forward_and_log_det(self, x, context):
        return walk(self._ways[False], x, context, self.forward_min_event_ndims)[:2]

    def _inverse_and_log_det(self, y, context):
        return walk(self._ways[True], y, context, self.inverse_min_event_ndims)[:2]

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
