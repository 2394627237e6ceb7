"""An elementwise map whose parameters come from the context alone."""

import tensorflow as tf

from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import known_shape
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._shapes import sum_of_map
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network


class ContextMap(FlowBijector):
    """An elementwise map of all entries, whose parameters the context gives.

        forward:  y_i = f(x_i; parameters_i(context))
        log|det dy/dx| = sum_i log f'(x_i)

    With an affine map it makes of a standard normal base the normal distribution with mean and
    deviation from an encoder: the first layer of an amortised posterior.

    Shapes: `x`, `y` `[..., *event_shape]`; parameters `[..., *event_shape[:-1], num_parameters *
    event_shape[-1]]`, those of an affine map first all shifts, then all raw log-scales.

    Args:
      event_shape: static shape of an event, `[D]`, `[T, C]` or `[H, W, C]`.
      elementwise: an `ElementwiseMap`, or a name of one. Default: `"affine"`.
      conditioner: Keras layer from the context to the parameters. Default: none, the context
        holds the parameters themselves.
      context_size: what context the conditioner takes. Default: its own `context_size`; without
        a conditioner it is that of the parameters.
      name, **kwargs: as `FlowBijector`.

    Raises:
      ValueError: for an event shape that is not known or of no axis; a conditioner without a
        context, or a `context_size` that is not that of the parameters.

    >>> layer = ContextMap([2])
    >>> mean, raw_log_scale = [1.0, 2.0], [0.0, 0.0]
    >>> layer.forward(tf.zeros([1, 2]), context=tf.constant([mean + raw_log_scale])).numpy()
    array([[1., 2.]], dtype=float32)

    References: D. P. Kingma, M. Welling, Auto-encoding variational Bayes, 2014, arXiv:1312.6114,
    equation 9 and appendix C.2 (the encoder's Gaussian).
    """

    def __init__(
        self,
        event_shape,
        elementwise="affine",
        *,
        conditioner=None,
        context_size=None,
        name="context_map",
        **kwargs,
    ):
        title = self._title()
        event = known_shape(event_shape, "event_shape", title)
        elementwise = elementwise_maps.get(elementwise)
        wanted = (*event[:-1], elementwise.num_parameters * event[-1])
        if conditioner is None:
            given = wanted if context_size is None else tuple(tf.TensorShape(context_size))
            if given != wanted:
                raise ValueError(
                    f"{title}: without a conditioner the context holds the parameters, of shape "
                    f"{list(wanted)}, got context_size={context_size}. Leave it out, or give a "
                    "conditioner."
                )
            context_size = wanted
        elif context_size is None:
            context_size = contexts.given_or_own(None, conditioner)
            if context_size is None:
                raise ValueError(
                    f"{title}: a conditioner is one of the context, got no context_size. Give the "
                    "size of the context."
                )
        super().__init__(
            event_shape=event,
            context_size=context_size,
            is_constant_jacobian=elementwise.is_constant_log_det,
            name=name,
            **kwargs,
        )
        self._elementwise = self._no_dependency(elementwise)
        self._network = None
        if conditioner is not None:
            self._network = Network(
                conditioner,
                input_shape=self._context_shapes,
                output_shape=wanted,
                owner=self._title(),
                dtype=self.dtype,
            )

    @property
    def elementwise(self):
        """The elementwise map."""
        return self._elementwise

    def _forward_and_log_det(self, x, context):
        return self._transform(x, context, self.elementwise.forward)

    def _inverse_and_log_det(self, y, context):
        return self._transform(y, context, self.elementwise.inverse)

    def _transform(self, value, context, act):
        value, log_det = act(value, context if self._network is None else self._network(context))
        return value, sum_of_map(self.elementwise, log_det, self.forward_min_event_ndims)
