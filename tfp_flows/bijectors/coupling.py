"""Coupling layers: one half of an event transforms the other."""

import numpy as np
import tensorflow as tf

from tfp_flows import elementwise as elementwise_maps
from tfp_flows import masks
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._shapes import sum_of_map
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network


class Coupling(FlowBijector):
    """Transforms the entries outside a mask by a map whose parameters the masked ones give.

    With `m` the mask (1 = passes through) and `g` the elementwise map,

        y[m]  = x[m]
        y[~m] = g(x[~m]; conditioner(x[m], context))
        log|det dy/dx| = sum over ~m of log|dg/dx|

    and the inverse with `g`'s inverse: the same single conditioner call either way.

    Vector masks and masks that only depend on the channel touch just the half that they
    transform. The conditioner then sees `n_pass` entries and gives
    `elementwise.num_parameters * n_transformed`, parameter-major (first the first parameter of
    every entry). For any other mask of an image (checkerboard), it sees the image with the
    transformed entries set to 0 and gives `num_parameters * C` channels.

    Shapes: `x`, `y` `[..., *mask.shape]`; `context` `[..., context_size]`.

    A layer of your own gets the context as `context=` if its `call` has that argument, else as
    the second of the list `[x, context]`. `FlowModel` goes by Keras's `trainable` of the layer;
    the bijector's own `trainable_variables` list those of a frozen layer too, so a training loop
    of your own takes `[v.value for v in FlowModel(flow).trainable_variables]`.

    Args:
      conditioner: Keras 3 layer (see `tfp_flows.conditioners`); built here if it was not.
      mask: boolean array of the event shape, `[D]` or `[H, W, C]`, `True` where an entry
        passes through (see `tfp_flows.masks`).
      elementwise: name of a map of `elementwise.get` (default `"affine"`), or an
        `elementwise.ElementwiseMap`.
      context_size: what context the conditioner takes. Default: its own `context_size`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if the conditioner is no Keras layer.
      ValueError: if the mask transforms nothing or everything, or has another rank than 1 or
        3, or the conditioner's output has the wrong size.

    >>> from tfp_flows import conditioners, masks
    >>> spline = elementwise_maps.RationalQuadraticSpline(num_bins=4)
    >>> conditioner = conditioners.MLP(2 * spline.num_parameters, seed=0)
    >>> coupling = Coupling(conditioner, masks.alternating(4), spline)
    >>> coupling.forward(tf.ones([2, 4])).shape
    TensorShape([2, 4])

    References:
      L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
      arXiv:1605.08803, eq. 4-9.
    """

    def __init__(
        self,
        conditioner,
        mask,
        elementwise="affine",
        *,
        context_size=None,
        name="coupling",
        **kwargs,
    ):
        title = self._title()
        mask = masks.check(mask, title)
        elementwise = elementwise_maps.get(elementwise)
        context_size = contexts.given_or_own(context_size, conditioner)
        super().__init__(
            event_shape=mask.shape,
            context_size=context_size,
            name=name,
            **kwargs,
        )
        self._mask = self._no_dependency(mask)
        self._elementwise = self._no_dependency(elementwise)
        last = mask.reshape(-1, mask.shape[-1])
        self._by_channel = bool((last == last[0]).all())
        if self._by_channel:
            passed, changed = np.flatnonzero(last[0]), np.flatnonzero(~last[0])
            self._order = self._no_dependency(_Split(passed, changed))
            sizes = len(passed), len(changed)
        else:
            per_pixel = (mask == mask[..., :1]).all()
            self._keep = self._no_dependency(mask[..., :1] if per_pixel else mask)
            sizes = mask.shape[-1], mask.shape[-1]
        self._network = Network(
            conditioner,
            input_shape=(*mask.shape[:-1], sizes[0]),
            output_shape=(*mask.shape[:-1], sizes[1] * elementwise.num_parameters),
            owner=title,
            context_size=context_size,
            dtype=self.dtype,
        )

    @property
    def mask(self):
        """Boolean array of the event shape, `True` where an entry passes through."""
        return self._mask

    @property
    def elementwise(self):
        """The elementwise map of the transformed entries."""
        return self._elementwise

    @property
    def conditioner(self):
        """The Keras layer that gives the map's parameters."""
        return self._network.layer

    def _forward_and_log_det(self, x, context):
        return self._transform(x, context, self.elementwise.forward)

    def _inverse_and_log_det(self, y, context):
        return self._transform(y, context, self.elementwise.inverse)

    def _transform(self, value, context, act):
        if self._by_channel:
            passed, changed = self._order.split(value)
            changed, log_det = act(changed, self._network(passed, context))
            value = self._order.merge(passed, changed)
        else:
            # `where`, not a product: 0 * inf would let the conditioner see what it must not.
            passed = tf.where(self._keep, value, tf.zeros([], value.dtype))
            changed, log_det = act(value, self._network(passed, context))
            value = tf.where(self._keep, value, changed)
            log_det = tf.where(self._keep, tf.zeros([], value.dtype), log_det)
        return value, sum_of_map(self.elementwise, log_det, self.forward_min_event_ndims)


class AffineCoupling(Coupling):
    """RealNVP's affine coupling: scales and shifts one half by functions of the other.

    With `m` the mask (1 = passes through) and `t`, `s` the halves of the conditioner's output,

        y[m]  = x[m]
        y[~m] = x[~m] * exp(s(x[m])) + t(x[m])
        log|det dy/dx| = sum(s)

    By default `s = cap * tanh(raw / cap)`, which keeps an untrained or diverging network
    from overflowing in either direction.

    Shapes: `x`, `y` `[..., *mask.shape]`; the conditioner gives `2 * n_transformed` values,
    first all shifts, then all raw log-scales (`2 * C` channels for a checkerboard).

    Args:
      conditioner: Keras 3 layer.
      mask: boolean array of the event shape, `True` where an entry passes through.
      log_scale: `"tanh"` (default), `"exp"` (the paper's) or `"sigmoid"` (Glow's).
      cap: bound of the log-scale for `"tanh"`, `> 0`. Default 3.
      name, **kwargs: as `Coupling`.

    Raises:
      TypeError, ValueError: as `Coupling`.

    >>> from tfp_flows import conditioners, masks
    >>> coupling = AffineCoupling(conditioners.MLP(4, seed=0), masks.halves(4))
    >>> coupling.forward(tf.ones([2, 4])).shape  # zero-initialised: the identity
    TensorShape([2, 4])

    References:
      L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
      arXiv:1605.08803, eq. 7-8. The paper writes it from data to latent; `forward` here is
      the generative direction, as in TFP.
    """

    def __init__(
        self, conditioner, mask, *, log_scale="tanh", cap=3.0, name="affine_coupling", **kwargs
    ):
        elementwise = elementwise_maps.Affine(log_scale=log_scale, cap=cap)
        super().__init__(conditioner, mask, elementwise, name=name, **kwargs)


class AdditiveCoupling(Coupling):
    """NICE's additive coupling: shifts one half by a function of the other.

    With `m` the mask (1 = passes through) and `t` the conditioner,

        y[m]  = x[m]
        y[~m] = x[~m] + t(x[m])
        log|det dy/dx| = 0

    Shapes: `x`, `y` `[..., *mask.shape]`; the conditioner gives `n_transformed` values (`C`
    channels for a checkerboard).

    Args:
      conditioner: Keras 3 layer.
      mask: boolean array of the event shape, `True` where an entry passes through.
      name, **kwargs: as `Coupling`.

    Raises:
      TypeError, ValueError: as `Coupling`.

    >>> from tfp_flows import conditioners, masks
    >>> coupling = AdditiveCoupling(conditioners.MLP(2, seed=0), masks.halves(4))
    >>> coupling.forward(tf.ones([2, 4])).shape
    TensorShape([2, 4])

    References:
      L. Dinh, D. Krueger, Y. Bengio, NICE: Non-linear independent components estimation,
      2014, arXiv:1410.8516, section 3.2.
    """

    def __init__(self, conditioner, mask, *, name="additive_coupling", **kwargs):
        super().__init__(conditioner, mask, elementwise_maps.Shift(), name=name, **kwargs)


class _Split:
    """Splits the last axis in two by index, and puts it together again."""

    def __init__(self, passed, changed):
        self._sizes = [len(passed), len(changed)]
        order = np.concatenate([passed, changed])
        self._order = order if (np.diff(order) != 1).any() else None
        # `changed` first is a contiguous layout too, and needs no gather either.
        self._swapped = bool((np.diff(np.concatenate([changed, passed])) == 1).all())

    def split(self, value):
        if self._swapped:
            changed, passed = tf.split(value, self._sizes[::-1], axis=-1)
            return passed, changed
        if self._order is not None:
            value = tf.gather(value, self._order, axis=-1)
        return tf.split(value, self._sizes, axis=-1)

    def merge(self, passed, changed):
        if self._swapped:
            return tf.concat([changed, passed], axis=-1)
        value = tf.concat([passed, changed], axis=-1)
        if self._order is not None:
            value = tf.gather(value, np.argsort(self._order), axis=-1)
        return value
