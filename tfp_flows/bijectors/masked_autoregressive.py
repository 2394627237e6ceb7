"""Masked autoregressive flows and their inverse, inverse autoregressive flows."""

import numpy as np
import tensorflow as tf

from tfp_flows import elementwise as elementwise_maps
from tfp_flows.bijectors.base import FlowBijector, sum_event
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.sequential import Sequential


class MaskedAutoregressive(FlowBijector):
    """MAF: every entry is transformed by a map whose parameters the entries before it give.

    With `g` the elementwise map and entries numbered in the order of the conditioner,

        forward:  y_i = g(x_i; parameters_i(y_1, ..., y_{i-1}, context))       one after another
        inverse:  x_i = g^-1(y_i; parameters_i(y_1, ..., y_{i-1}, context))    all at once
        log|det dy/dx| = sum_i log|dg/dx_i|

    The inverse, and so `log_prob` of a flow, is one pass of the conditioner. The forward
    direction, sampling, has to go through the entries in order. With `conditioners.MADE` it
    computes every hidden unit once, when the last entry that it may see is known, and costs a
    small multiple of one pass, not D passes (see `bijectors.sequential`). Its graph does not
    grow with D. Gradients flow through it; they are solved for by a second sequential sweep and
    take the memory of about three density passes, whatever D is.

    Any other Keras layer whose parameters for an entry depend on earlier entries alone, in
    whatever order, will do as a conditioner. Its sequential direction takes D passes, and its
    gradient the memory of D passes.

    Shapes: `x`, `y` `[..., D]`; `context` `[..., context_size]`; the conditioner maps
    `[batch, D]` to `[batch, elementwise.num_parameters * D]`, parameter-major.

    Numerics: errors of the sequential direction grow from entry to entry, as those of D passes
    do. Under a mixed policy the conditioner computes `inverse` in bfloat16 and `forward` in the
    bijector's dtype: train so, and sample from a float32 layer with the same weights.

    Args:
      conditioner: `conditioners.MADE(D, elementwise.num_parameters, ...)` or another
        autoregressive Keras 3 layer; built here if it was not.
      elementwise: name of a map of `elementwise.get` (default `"affine"`), or an
        `elementwise.ElementwiseMap`.
      size: `int >= 1`, the number D of entries. Default: `conditioner.size`.
      context_size: what context the conditioner takes. Default: its own `context_size`.
      block_size: `int >= 1`, entries a block of the sequential direction. Larger blocks trace
        longer. Default: about 12.
      validate_args: whether to check once, here, on random points and with random weights, which
        are put back, that the conditioner is autoregressive.
      name: name of the bijector.

    Raises:
      TypeError: if the conditioner is no Keras layer.
      ValueError: if `size` is needed or does not fit, the conditioner's output has the wrong
        size, it has several sets of masks, or it is not autoregressive (`validate_args`).

    >>> from tfp_flows import conditioners
    >>> maf = MaskedAutoregressive(conditioners.MADE(4, 2, hidden_units=(16,), seed=0))
    >>> maf.forward(tf.ones([3, 4])).shape
    TensorShape([3, 4])

    References:
      G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
      estimation, 2017, arXiv:1705.07057, equations 2 to 6: x = u * exp(alpha) + mu is the
      affine map, with a bounded alpha by default. With splines: C. Durkan et al., Neural spline
      flows, 2019, arXiv:1906.04032.
    """

    _forward_is_sequential = True

    def __init__(
        self,
        conditioner,
        elementwise="affine",
        *,
        size=None,
        context_size=None,
        block_size=None,
        name="masked_autoregressive",
        **kwargs,
    ):
        title = self._title()
        elementwise = elementwise_maps.get(elementwise)
        size = _check_size(conditioner, size, elementwise, title)
        if context_size is None:
            context_size = getattr(conditioner, "context_size", None)
        super().__init__(
            event_shape=[size],
            context_size=context_size,
            is_constant_jacobian=elementwise.is_constant_log_det,
            name=name,
            **kwargs,
        )
        self._size = size
        self._elementwise = self._no_dependency(elementwise)
        self._network = Network(
            conditioner,
            input_shape=(size,),
            output_shape=(size * elementwise.num_parameters,),
            owner=title,
            context_size=context_size,
            dtype=self.dtype,
        )
        if self.validate_args:
            check_autoregressive(self._network, size, context_size, self.dtype, title)
        self._sequential = None
        if hasattr(conditioner, "sequential_parts"):
            self._sequential = self._no_dependency(
                Sequential(
                    conditioner,
                    elementwise,
                    forward=self._forward_is_sequential,
                    block_size=block_size,
                )
            )

    @property
    def conditioner(self):
        """The Keras layer that gives the map's parameters."""
        return self._network.layer

    @property
    def elementwise(self):
        """The elementwise map."""
        return self._elementwise

    def _forward_and_log_det(self, x, context):
        run = self._one_after_another if self._forward_is_sequential else self._all_at_once
        return run(x, context, self._elementwise.forward)

    def _inverse_and_log_det(self, y, context):
        run = self._all_at_once if self._forward_is_sequential else self._one_after_another
        return run(y, context, self._elementwise.inverse)

    def _all_at_once(self, value, context, act):
        value, log_det = act(value, self._network(value, context))
        return value, self._summed(log_det)

    def _one_after_another(self, value, context, act):
        if self._sequential is not None:
            with self._network.reading():
                value, log_det = self._sequential(value, context)
        else:
            value, log_det = self._by_passes(value, context, act)
        return value, self._summed(log_det)

    def _summed(self, log_det):
        if self._elementwise.is_constant_log_det:
            return tf.zeros([], log_det.dtype)
        return sum_event(log_det, 1)

    def _by_passes(self, value, context, act):
        """D passes of a conditioner of which nothing is known; any order of the entries."""

        def body(number, found, _):
            # After k passes k entries are right. The others may be anything, and must not turn
            # the conditioner's sums into NaN, which masks do not stop: 0 * inf is NaN.
            found = tf.where(tf.math.is_finite(found), found, tf.zeros([], found.dtype))
            return number + 1, *act(value, self._network(found, context))

        zeros = tf.zeros_like(value)
        _, found, log_det = tf.while_loop(
            lambda number, *_: number < self._size,
            body,
            (tf.constant(0), zeros, zeros),
            maximum_iterations=self._size,
        )
        return found, log_det


def _check_size(conditioner, size, elementwise, title):
    own = getattr(conditioner, "size", None)
    if size is None:
        size = own
    if size is None:
        raise ValueError(
            f"{title}: the number of entries is not known: the conditioner "
            f"{type(conditioner).__name__} has no attribute `size`. Pass `size=`."
        )
    if own is not None and own != size:
        raise ValueError(
            f"{title}: got size {size}, but its conditioner was made for {own} entries. Leave "
            "`size` out."
        )
    num_parameters = getattr(conditioner, "num_parameters", None)
    if isinstance(num_parameters, int) and num_parameters != elementwise.num_parameters:
        raise ValueError(
            f"{title}: {elementwise!r} takes {elementwise.num_parameters} parameters an entry, but "
            f"the conditioner gives {num_parameters}. Set its `num_parameters`."
        )
    num_masks = getattr(conditioner, "num_masks", 1)
    if num_masks > 1:
        raise ValueError(
            f"{title}: the conditioner has {num_masks} sets of masks, and a bijector is one map. "
            "Use num_masks=1, or `flows.made` for an ensemble of orders."
        )
    return int(size)


def check_autoregressive(network, size, context_size, dtype, title):
    """Raises unless some order makes the parameters of each entry depend on earlier ones alone.

    Weights are replaced by random ones for the time of the check: with the initial ones, whose
    last layer is zero, nothing depends on anything.
    """
    rng = np.random.default_rng(0)
    with tf.init_scope():
        trainable = [v for v in network.variables if v.trainable]
        kept = [tf.identity(v) for v in trainable]
        try:
            for v in trainable:
                scale = 1.0 / np.sqrt(max(1, v.shape[0] if v.shape.rank else 1))
                v.assign(tf.cast(rng.normal(size=v.shape, scale=scale), v.dtype))
            # The first row against rows that differ from it in one entry each.
            x = np.tile(rng.normal(size=size), (size + 1, 1))
            x[1:] += np.diag(rng.normal(size=size, loc=2.0))
            context = None
            if context_size is not None:
                context = tf.constant(rng.normal(size=(1, context_size)), dtype)
            out = network(tf.constant(x, dtype), context).numpy()
        finally:
            for v, old in zip(trainable, kept, strict=True):
                v.assign(old)
    # Rows that are equal need not come out equal: they are summed in different orders.
    rounding = 1e3 * np.finfo(out.dtype).eps * np.abs(out).max()
    differs = np.abs(out[1:] - out[0]) > rounding
    depends = differs.reshape(size, -1, size).any(axis=1)  # [of input, for entry]
    own = np.flatnonzero(np.diag(depends))
    if len(own):
        raise ValueError(
            f"{title}: the conditioner '{network.layer.name}' is not autoregressive: the "
            f"parameters of entry {own[0]} depend on entry {own[0]} itself. Use "
            "conditioners.MADE, or mask it."
        )
    rest = np.arange(size)
    while len(rest):
        # Entries whose parameters depend on none of the rest come next in the order.
        free = ~depends[np.ix_(rest, rest)].any(axis=0)
        if not free.any():
            raise ValueError(
                f"{title}: the conditioner '{network.layer.name}' is not autoregressive: entries "
                f"{rest[:5].tolist()} depend on each other in a circle. Use conditioners.MADE, or "
                "mask it."
            )
        rest = rest[~free]
