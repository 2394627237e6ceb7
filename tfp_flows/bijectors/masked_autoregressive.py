"""Masked autoregressive flows and their inverse, inverse autoregressive flows."""

import math
import warnings

import tensorflow as tf

from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import positive_integer, positive_number
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import stepwise
from tfp_flows.bijectors._shapes import sum_of_map
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.causality import check_autoregressive
from tfp_flows.bijectors.fixed_point import FixedPoint
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

    A network that goes from one entry to the next with what it kept of the earlier ones
    (`conditioners.WaveNet`, `PixelCNN`, `DiagonalBiLSTM`, `RowLSTM` and `CausalTransformer`, or
    your own: `num_steps`, `step_entries`, `init_cache` and `step`, as
    `tfp_flows.bijectors.stepwise` has them) is run so: S steps of it, each at the cost of one
    position, in a loop whose graph does not grow with S. Gradients differentiate that loop: they
    take about four times as long as it does, and the memory of all its steps.

    Any other Keras layer whose parameters for an entry depend on earlier entries alone, in
    whatever order, will do as a conditioner. Its sequential direction takes D passes, with a
    warning, and its gradient the memory of D passes. With a `tolerance` it takes fewer: passes are
    repeated until one changes nothing any more, which most networks reach long before D, and the
    gradient takes as many again, in the memory of one (see `bijectors.fixed_point`).

    Shapes: `x`, `y` `[..., *event_shape]`, `[D]`, `[T, C]`, `[H, W, C]` or another rank;
    `context` `[..., context_size]`; the conditioner maps `[batch, ..., C]` to
    `[batch, ..., elementwise.num_parameters * C]`, parameter-major in the last axis.

    Numerics: errors of the sequential direction grow from entry to entry, as those of D passes
    do. A network that amplifies what it is given, as one trained on audio does, amplifies rounding
    too: of a WaveNet trained on speech, the latents of data led back to points off by 9.5 after
    1,023 steps in float32, and by 4.5e-8 in float64. Samples are samples all the same; for round
    trips use float64. Under a mixed policy the conditioner computes `inverse` in bfloat16 and
    `forward` in the bijector's dtype: train so, and sample from a float32 layer with the same
    weights.

    Args:
      conditioner: `conditioners.MADE(D, elementwise.num_parameters, ...)` or another
        autoregressive Keras 3 layer; built here if it was not.
      elementwise: name of a map of `elementwise.get` (default `"affine"`), or an
        `elementwise.ElementwiseMap`.
      size: `int >= 1`, the number D of entries of a vector. Default: `conditioner.size`.
      event_shape: shape of an event, for one that is no vector. Default: that of the
        conditioner, if it has an `event_shape`, else `[size]`.
      context_size: what context the conditioner takes. Default: its own `context_size`.
      block_size: `int >= 1`, entries a block of a MADE's sequential direction. Larger blocks trace
        longer. Default: about 12.
      tolerance: `float > 0`: the sequential direction, of any conditioner, is a fixed point, found
        by passes until one changes no entry of a row by more than `tolerance * max(1, |entry|)`,
        and two more. Exact after D passes; before, values solve their equations to that tolerance.
        Default: `None`, entries in order.
      max_passes: `int >= 1`, most passes of the fixed point. Rows that have not converged by then
        are refused. Default: D, after which all are right.
      validate_args: whether to check once, here, on random points and with random weights, which
        are put back, that the conditioner is autoregressive, and that its steps, if it has them,
        give what its call gives.
      name: name of the bijector.

    Raises:
      TypeError: if the conditioner is no Keras layer.
      ValueError: if `size` or `event_shape` is needed or does not fit, the conditioner's output
        has the wrong size, it has several sets of masks, its `step_entries` are no permutation
        of the entries, or (`validate_args`) it is not autoregressive or its steps disagree with
        its call, or `max_passes` is given alone.
      tf.errors.InvalidArgumentError: if rows did not converge within `max_passes`. Under XLA, which
        drops assertions, these are NaN instead.

    Warns:
      UserWarning: where the sequential direction takes D passes; it says what the layer lacks.

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
        event_shape=None,
        context_size=None,
        block_size=None,
        tolerance=None,
        max_passes=None,
        name="masked_autoregressive",
        **kwargs,
    ):
        title = self._title()
        elementwise = elementwise_maps.get(elementwise)
        shape = _shape_of_event(conditioner, size, event_shape, title)
        _check_parameters(conditioner, elementwise, title)
        context_size = contexts.given_or_own(context_size, conditioner)
        super().__init__(
            event_shape=shape,
            context_size=context_size,
            name=name,
            **kwargs,
        )
        self._size = math.prod(shape)
        self._elementwise = self._no_dependency(elementwise)
        self._network = Network(
            conditioner,
            input_shape=shape,
            output_shape=(*shape[:-1], shape[-1] * elementwise.num_parameters),
            owner=title,
            context_size=context_size,
            dtype=self.dtype,
        )
        if self.validate_args:
            self.check_conditioner()
        self._fixed_point = self._no_dependency(
            self._fixed_point_of(elementwise, shape, tolerance, max_passes)
        )
        self._sequential = self._no_dependency(
            self._sequential_of(conditioner, elementwise, shape, block_size)
        )

    def check_conditioner(self):
        """Checks the conditioner on random points, with random weights, which are put back.

        Raises:
          ValueError: if it is not autoregressive, in the order of its `step_entries`, if it has
            them, or if its steps disagree with its call.
        """
        check_autoregressive(self._network, self._domain, self.dtype, self._title())

    def _sequential_of(self, conditioner, elementwise, shape, block_size):
        """What runs the sequential direction, or `None` for D passes."""
        forward = self._forward_is_sequential
        if hasattr(conditioner, "sequential_parts"):
            return Sequential(conditioner, elementwise, forward=forward, block_size=block_size)
        if stepwise.missing_parts(conditioner):
            return None
        stepwise.entries_of(conditioner, self._size, self._title())
        return stepwise.Stepwise(
            self._network, elementwise, shape, forward=forward, title=self._title()
        )

    def _fixed_point_of(self, elementwise, shape, tolerance, max_passes):
        title = self._title()
        if tolerance is None:
            if max_passes is not None:
                raise ValueError(
                    f"{title}: max_passes is of the fixed point, which `tolerance` asks for, got "
                    f"max_passes={max_passes} alone. Give both, or neither."
                )
            return None
        if max_passes is not None:
            max_passes = positive_integer(max_passes, "max_passes", title)
        return FixedPoint(
            self._network,
            elementwise.forward if self._forward_is_sequential else elementwise.inverse,
            shape,
            size=self._size,
            tolerance=positive_number(tolerance, "tolerance", title),
            max_passes=max_passes,
            title=title,
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
        if self._fixed_point is not None:
            value, log_det = self._fixed_point(value, context)
        elif self._sequential is not None:
            with self._network.reading():
                value, log_det = self._sequential(value, context)
        else:
            value, log_det = self._by_passes(value, context, act)
        return value, self._summed(log_det)

    def _summed(self, log_det):
        return sum_of_map(self._elementwise, log_det, self.forward_min_event_ndims)

    def _by_passes(self, value, context, act):
        """D passes of a conditioner of which nothing is known; any order of the entries."""
        missing = ", ".join(stepwise.missing_parts(self.conditioner))
        warnings.warn(
            f"{self._title()}: its conditioner '{self.conditioner.name}' is called {self._size} "
            f"times, once for each entry, to go through them in order. To make it one pass, give "
            f"it {missing} (tfp_flows.bijectors.stepwise says what they are).",
            stacklevel=2,
        )

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


def _shape_of_event(conditioner, size, event_shape, title):
    """The event shape, from what is given and what the conditioner says of itself."""
    own = getattr(conditioner, "event_shape", None)
    if own is None and getattr(conditioner, "size", None) is not None:
        own = (conditioner.size,)
    given = event_shape
    if size is not None:
        if given is not None:
            raise ValueError(f"{title}: got both size and event_shape. Give event_shape alone.")
        given = (size,)
    if given is None:
        given = own
    if given is None:
        raise ValueError(
            f"{title}: the number of entries is not known: the conditioner "
            f"{type(conditioner).__name__} has no attribute `size` or `event_shape`. Pass `size=` "
            "for vectors, `event_shape=` for others."
        )
    given = tuple(int(n) for n in given)
    if not given or min(given) < 1:
        raise ValueError(
            f"{title}: event_shape must be one or more sizes of at least 1, got {list(given)}."
        )
    if own is not None and tuple(own) != given:
        what = f"size {size}" if size is not None else f"event_shape {list(given)}"
        made_for = f"{own[0]} entries" if len(own) == 1 else f"events of shape {list(own)}"
        raise ValueError(
            f"{title}: got {what}, but its conditioner was made for {made_for}. Leave it out."
        )
    return given


def _check_parameters(conditioner, elementwise, title):
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
