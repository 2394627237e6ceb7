"""Scores and samples of a `FlowModel`."""

import functools
import math

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import FlowBijector
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.modes import training_mode
from tfp_flows.models.inputs import arrays, as_context, check_context, unpack
from tfp_flows.models.sampling import stateless_seed


class Density:
    """The part of `FlowModel` that scores and samples."""

    def log_prob(self, x, context=None):
        """Log-density of `x` in nats.

        Args:
          x: `[..., *event_shape]` in the distribution's dtype; integers if the model
            dequantizes, by one draw of noise for all rows, the same at every call.
          context: `[..., context_size]`, broadcast over the batch, for a conditional flow.

        Returns:
          Tensor of the batch shape. Outside the support it is -inf.

        Raises:
          TypeError, ValueError: for data that do not fit, or that hold NaN.
        """
        self._check_initialized("log_prob")
        x, context, _ = arrays(x, context, None, self._example, batched=False)
        if context is None:
            x, context, _ = unpack(x, self._example)
        x, context = tf.convert_to_tensor(x), as_context(context, self._example)
        batch = x.shape[: x.shape.rank - self._example.event_shape.rank] if x.shape.rank else []
        if 0 in batch:  # oneDNN's fused convolution gives no rows a wrong shape (TF 2.21).
            return tf.zeros(batch, self._example.dtype)
        function = self._function("log_prob", self._log_prob_of_data, x.shape.rank, context)
        return function(x, context)

    def sample(self, n=(), *, seed=None, context=None, temperature=1.0):
        """Draws samples.

        Args:
          n: how many, `int` or a shape such as `[3, 5]`; default one, without a batch axis.
          seed: `int` or a pair of them; the same seed gives the same samples. Default: fresh.
          context: `[..., context_size]`: its batch shape must broadcast with `n`.
          temperature: `> 0`; the latent's deviation from the base's mean is multiplied by it.
            Below 1 gives more typical samples.

        Returns:
          Tensor `[*n, *event_shape]`.
        """
        self._check_initialized("sample")
        known = tf.get_static_value(tf.convert_to_tensor(temperature))
        if np.ndim(known) or not (known is None or known > 0):
            raise ValueError(f"FlowModel.sample: temperature must be > 0, got {temperature!r}.")
        if known == 1.0:
            temperature = None  # It needs no mean, which some bases do not have.
        else:
            temperature = tf.cast(
                tf.convert_to_tensor(temperature, dtype_hint=tf.float64), self._example.dtype
            )
        shape, context = self._sample_arguments("sample", n, context)
        if temperature is not None and not self._road.has_mean(context):
            raise ValueError(self._road.no_mean)
        sample = self._function("sample", self._road.sample, shape.shape[0], context)
        samples = sample(shape, stateless_seed(seed), context, temperature)
        return tf.ensure_shape(
            samples, [None] * shape.shape[0] + self._example.event_shape.as_list()
        )

    def sample_and_log_prob(self, n=(), *, seed=None, context=None):
        """Draws samples, and their log-density on the way: one pass of each network.

        For an inverse autoregressive flow, whose density of given points is the dear one, this is
        the cheap one.

        Args:
          n, seed, context: as `sample`.

        Returns:
          Tensors `[*n, *event_shape]` and `[*n]`, the latter in nats.
        """
        self._check_initialized("sample_and_log_prob")
        shape, context = self._sample_arguments("sample_and_log_prob", n, context)
        draw = self._function(
            "sample_and_log_prob", self._road.sample_and_log_prob, shape.shape[0], context
        )
        samples, log_prob = draw(shape, stateless_seed(seed), context)
        batch = [None] * shape.shape[0]
        samples = tf.ensure_shape(samples, batch + self._example.event_shape.as_list())
        return samples, tf.ensure_shape(log_prob, batch)

    # --- Inside. ---

    def _uninitialized(self):
        """The parts whose data-dependent initialisation has not happened yet."""
        # Once initialised is initialised for good: the variables are not read again.
        with tf.init_scope():  # A value, in the trace of a larger model too.
            left = [part for part in self._actnorms if not bool(part.initialized.numpy())]
        object.__setattr__(self, "_actnorms", left)
        return left

    def _check_initialized(self, method):
        missing = self._uninitialized()
        if missing:
            raise ValueError(
                f"FlowModel.{method}: {len(missing)} parts were never initialised from data (the "
                f"first is {type(missing[0]).__name__} '{missing[0].name}'). Call "
                "`initialize(batch)` or `fit` first, or load trained weights."
            )

    def _sample_arguments(self, method, n, context):
        """The sample shape and the context as tensors, checked."""
        shape = tf.reshape(tf.convert_to_tensor(n, dtype=tf.int32), [-1])
        known = tf.get_static_value(shape)  # None for a tensor inside a tf.function
        if known is not None and (known < 1).any():
            raise ValueError(f"FlowModel.{method}: n must be at least 1, got {n!r}.")
        check_context(context, self._example)
        context = as_context(context, self._example)

        def check_rows(tensor, event):
            rows = tensor.shape[: tensor.shape.rank - len(event)].as_list()
            if len(rows) > len(known) or any(
                m not in (1, n) for m, n in zip(rows[::-1], known[::-1], strict=False)
            ):
                raise ValueError(
                    f"FlowModel.{method}: expected a context whose batch shape broadcasts to n = "
                    f"{known.tolist()}, got {rows}. Give one row for all, or one for each sample; "
                    f"n={[*known.tolist(), *rows]} gives {known.tolist()[0]} samples of each row."
                )

        if known is not None:
            contexts.each(check_rows, context, self._example.context_shapes)
        return shape, context

    def _log_prob(self, x, context=None, training=False):
        with training_mode(training):
            log_prob = self._road.log_prob(x, context)
        if training:
            return log_prob  # Not finite either way, and then `fit` says why.
        return outside_scores_minus_infinity(self._road, x, log_prob)

    def _log_prob_of_data(self, x, context):
        if self._example.dequantization is not None:
            x = self._prepare(x)
        return self._log_prob(x, context)

    def _function(self, name, python_function, rank, context):
        # One for each rank: relaxed over several ranks, TensorFlow would trace with an unknown one.
        flat = [] if context is None else tf.nest.flatten(context)
        key = f"{name}_{rank}_{[tensor.shape.rank for tensor in flat]}"
        if key not in self._functions:
            # A partial: TensorFlow would count the traces of them all together, and warn.
            self._functions[key] = tf.function(
                functools.partial(python_function), reduce_retracing=True, autograph=False
            )
        return self._functions[key]


def outside_scores_minus_infinity(road, x, log_prob):
    """`log_prob` with -inf for the rows of `x` where the density is zero.

    Those are rows with an infinite entry, and rows that TFP's own bijectors between the data and
    the first part with variables have no finite image of: `tfb.Sigmoid` from 0 down and from 1
    up, `tfb.Exp` from 0 down. TFP (0.25) gives NaN there. A row that holds NaN keeps its score.

    Args:
      road: that of the distribution.
      x: data, of its dtype.
      log_prob: what it scores them, of the batch shape.
    """
    unknown = _any_entry(tf.math.is_nan(x), road.event_ndims)
    outside = _any_entry(tf.equal(tf.abs(x), math.inf), road.event_ndims)
    outside |= _outside(road.steps, x, road.event_ndims)
    return tf.where(outside & ~unknown, tf.constant(-math.inf, log_prob.dtype), log_prob)


def _outside(steps, value, ndims):
    """Which rows have no finite image up to the first step that has variables."""
    outside = tf.zeros([], tf.bool)
    for step in steps[: _last_of_stock(steps)]:
        for part, inside in step.branches:
            outside |= _outside(inside, value[..., part], ndims)
        ranks = step.bijector.forward_min_event_ndims, step.bijector.inverse_min_event_ndims
        if step.bijector.variables or any(map(tf.nest.is_nested, ranks)):
            break  # It is trained, or one of several tensors.
        value, log_det, ndims = step(value, None, ndims)
        outside |= _any_entry(~tf.math.is_finite(value), ndims) | tf.math.is_nan(log_det)
    return outside


def _last_of_stock(steps):
    """How many steps there are up to the last of TFP's own: ours see to their support."""
    return max((n for n, step in enumerate(steps, 1) if _holds_stock(step)), default=0)


def _holds_stock(step):
    inside = [_last_of_stock(steps) for _, steps in step.branches]
    return any(inside) or not isinstance(step.bijector, FlowBijector)


def _any_entry(condition, ndims):
    return tf.reduce_any(condition, axis=list(range(-ndims, 0))) if ndims else condition
