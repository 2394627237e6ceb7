"""Multi-scale architecture: factors channels out half-way."""

import numbers

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import known_shape
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._shapes import sum_event
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import context_shapes_of, dtype_of, shape_after, steps_of, walk
from tfp_flows.bijectors.network import Network

tfb = tfp.bijectors


class FactorOut(FlowBijector):
    """Lets only part of the channels go through the deeper levels of a flow.

    With `x = [x1, x2]` and `y = [y1, y2]` split along the last axis,

        y1 = bijector(x1)
        y2 = x2                                  without a conditioner
        y2 = g(x2; conditioner(y1, context))     with one: a learned conditional prior
        log|det dy/dx| = log|det dy1/dx1| + sum(log|dg/dx2|)

    In the data-to-latent direction `y2` is thus taken out before the deeper levels run. The
    latents of all scales stay in `x`, which has the shape of `y`, so the inverse is exact and
    the base distribution sees one event. With a conditioner and an affine map, `x2` standard
    normal means that `y2` given `y1` is normal with learned mean and scale, as in Glow.

    Shapes: `x`, `y` `[..., *event_shape]`; `bijector` maps events
    `[*event_shape[:-1], num_kept]` to the same shape; the conditioner maps such an event to
    `elementwise.num_parameters * (C - num_kept)` channels, parameter-major.

    Args:
      bijector: the deeper levels, any `tfb.Bijector` that keeps the shape.
      event_shape: `[D]` or `[H, W, C]`.
      num_kept: `1 <= int < C`, how many of the first channels go through `bijector`.
        Default: half.
      conditioner: Keras 3 layer, or `None` for a standard prior.
      elementwise: map of the conditional prior; used with a conditioner only. Default: `"affine"`.
      context_size: what context the conditioner takes. Default: its own `context_size`.
      dtype: float32 or float64. Default: that of `bijector`; float32 if it has none.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `bijector` is none, or `dtype` is not its own.
      ValueError: if `event_shape` is not known, the channels do not split, `bijector` is for
        another shape or changes it, or the conditioner's output has the wrong size.

    >>> import tensorflow_probability as tfp
    >>> factor_out = FactorOut(tfp.bijectors.Scale(2.0), [4])
    >>> factor_out.forward([1.0, 1.0, 1.0, 1.0]).numpy()
    array([2., 2., 1., 1.], dtype=float32)

    References:
      L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
      arXiv:1605.08803, section 3.6. The learned prior is in Glow's code, not in its paper.
    """

    def __init__(
        self,
        bijector,
        event_shape,
        *,
        num_kept=None,
        conditioner=None,
        elementwise="affine",
        context_size=None,
        dtype=None,
        name="factor_out",
        **kwargs,
    ):
        title = self._title()
        if not isinstance(bijector, tfb.Bijector):
            raise TypeError(f"{title}: expected a tfb.Bijector, got a {type(bijector).__name__}.")
        shape = known_shape(event_shape, "event_shape", title)
        if num_kept is None:
            num_kept = shape[-1] // 2
        if not isinstance(num_kept, numbers.Integral) or not 1 <= num_kept < shape[-1]:
            raise ValueError(
                f"{title}: num_kept must be an integer, at least 1 and below the number of "
                f"channels ({shape[-1]}), got {num_kept!r}."
            )
        num_kept = int(num_kept)
        kept = (*shape[:-1], num_kept)
        shape_after(bijector, tf.TensorShape(kept), title, inverse=False)
        if bijector.forward_event_shape(kept) != tf.TensorShape(kept):
            raise ValueError(
                f"{title}: '{bijector.name}' must keep the event shape {list(kept)}, but gives "
                f"{bijector.forward_event_shape(kept)}. End it with the inverse of its squeeze."
            )
        context_size = contexts.given_or_own(context_size, conditioner)
        prior = contexts.shapes_of(context_size, title)
        shapes = contexts.common(
            [("conditioner", prior), (bijector.name, context_shapes_of(bijector))], title
        )
        below = dtype_of(bijector)
        dtype = tf.as_dtype(dtype or below or tf.float32)
        if below not in (None, dtype):
            raise TypeError(
                f"{title}: '{bijector.name}' computes in {below.name}, got dtype={dtype.name}."
            )
        super().__init__(
            event_shape=shape,
            context_size=shapes,
            dtype=dtype,
            is_constant_jacobian=bijector.is_constant_jacobian and conditioner is None,
            name=name,
            **kwargs,
        )
        self._bijector = bijector
        self._sizes = self._no_dependency([num_kept, shape[-1] - num_kept])
        self._network = None
        self._prior_context = self._no_dependency(prior)
        if conditioner is not None:
            self._elementwise = self._no_dependency(elementwise_maps.get(elementwise))
            self._network = Network(
                conditioner,
                input_shape=kept,
                output_shape=(*shape[:-1], self._sizes[1] * self._elementwise.num_parameters),
                owner=title,
                context_size=context_size,
                dtype=dtype,
            )

    @property
    def bijector(self):
        """The deeper levels."""
        return self._bijector

    @property
    def conditioner(self):
        """The Keras layer of the conditional prior, or `None`."""
        return None if self._network is None else self._network.layer

    @property
    def branches(self):
        """The deeper levels, which see the first channels."""
        return ((slice(self._sizes[0]), self._bijector),)

    def split(self, value):
        """Splits an event into the channels that go on and those that are factored out."""
        return tf.split(value, self._sizes, axis=-1)

    def _forward_and_log_det(self, x, context):
        return self._both(x, context, inverse=False)

    def _inverse_and_log_det(self, y, context):
        return self._both(y, context, inverse=True)

    def _both(self, value, context, *, inverse):
        kept, out = self.split(value)
        ndims = len(self._domain)
        below, log_det, _ = walk(steps_of(self._bijector, inverse), kept, context, ndims)
        if self._network is not None:
            # The prior of what is factored out sees the data's side of the deeper levels.
            act = self._elementwise.inverse if inverse else self._elementwise.forward
            seen = contexts.take(context, self._prior_context)
            out, prior = act(out, self._network(kept if inverse else below, seen))
            log_det = log_det + sum_event(prior, ndims)
        return tf.concat([below, out], axis=-1), log_det
