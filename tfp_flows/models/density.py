"""Scores and samples of a `FlowModel`."""

import functools

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import integer, positive_integer
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.modes import training_mode
from tfp_flows.models.estimate import Estimate, estimate
from tfp_flows.models.inputs import arrays, as_array, as_context, check_context, unpack
from tfp_flows.models.outside import outside_scores_minus_infinity
from tfp_flows.models.progress import Bar
from tfp_flows.models.sampling import stateless_seed
from tfp_flows.models.variables import flags_of


class Density:
    """The part of `FlowModel` that scores and samples."""

    def log_prob(self, x, context=None):
        """Log-density of `x` in nats.

        Where `likelihood` says that it is a bound or an estimate, all rows share one draw of noise,
        the same at every call: a score is a function of the row alone. `estimate_log_prob` takes
        many draws.

        Args:
          x: `[..., *event_shape]` in the distribution's dtype; integers of any dtype if that is
            one of integers, or if the model dequantizes.
          context: `[..., context_size]`, broadcast over the batch, for a conditional flow.

        Returns:
          Tensor of the batch shape. Outside the support it is -inf.

        Raises:
          TypeError, ValueError: for data that do not fit, or that hold NaN.
        """
        x, context = self._data("log_prob", x, context)
        batch = x.shape[: x.shape.rank - self._example.event_shape.rank] if x.shape.rank else []
        if 0 in batch:  # oneDNN's fused convolution gives no rows a wrong shape (TF 2.21).
            return tf.zeros(batch, self._example.dtype)
        function = self._function("log_prob", self._log_prob_of_data, x.shape.rank, context)
        return function(x, context)

    def estimate_log_prob(
        self, x, context=None, *, num_samples=1000, seed=0, batch_size=32, verbose="auto"
    ):
        """Log-probability of `x` by importance sampling, where `log_prob` is drawn with noise.

            log p(x) ~ log (w_1 + ... + w_K) / K,    log w = log_prob(x) of a draw

        Consistent, and below the exact value on average. All rows share the draws, so that a score
        is a function of the row alone. Memory is that of 32 draws of `batch_size` rows.

        Args:
          x, context: as `log_prob`; of a model that dequantizes integers.
          num_samples: `int >= 2`, the number K of draws.
          seed: as `sample`, but fixed.
          batch_size: `int >= 1`, rows at a time.
          verbose: 0 for no progress bar. Default: one, of the rows, after two seconds.

        Returns:
          An `Estimate`: `log_prob` and its `standard_error`, of the batch shape, in nats. A few
          draws that outweigh all others make the second too small, as the first. Of an exact
          `log_prob` that and 0.

        References: Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, 2016,
        arXiv:1509.00519, equation 8.
        """
        title = f"{self._example.title}.estimate_log_prob"
        num_samples = integer(num_samples, "num_samples", title, least=2)
        batch_size = positive_integer(batch_size, "batch_size", title)
        x, context = self._data("estimate_log_prob", x, context)
        batch = x.shape[: x.shape.rank - self.event_shape.rank]
        is_exact = not self._road.is_noisy and not self._example.needs_lift(x)
        if is_exact or 0 in batch:
            log_prob = tf.reshape(self._log_prob_of_data(x, context), batch)
            return Estimate(log_prob, tf.zeros_like(log_prob))
        context = contexts.each(
            lambda c, shape: tf.reshape(tf.broadcast_to(c, [*batch, *shape]), [-1, *shape]),
            context,
            self._example.context_shapes,
        )

        def log_weights(rows, number, seed, first):
            some = contexts.each(
                lambda c, _: c[first : first + len(rows)], context, self._example.context_shapes
            )
            name = f"estimate_{number}"
            draw = functools.partial(self._log_weights, number=number)
            return self._function(name, draw, 1, some)(rows, some, seed)

        rows = tf.reshape(x, [-1, *self.event_shape])
        bar = Bar(len(rows), unit="row", verbose=verbose, owner=title)
        found = estimate(log_weights, rows, num_samples, stateless_seed(seed), batch_size, bar)
        return Estimate(*(tf.reshape(of_rows, batch) for of_rows in found))

    def sample(
        self,
        n=(),
        *,
        seed=None,
        context=None,
        temperature=1.0,
        quantized=False,
        batch_size=None,
        verbose="auto",
    ):
        """Draws samples.

        Args:
          n: how many, `int` or a shape such as `[3, 5]`; default one, without a batch axis.
          seed: `int` or a pair of them; the same seed gives the same samples. Default: fresh.
          context: `[..., context_size]`: its batch shape must broadcast with `n`.
          temperature: `> 0`; the latent's deviation from the base's mean is multiplied by it.
            Below 1 gives more typical samples.
          quantized: whether a model that dequantizes gives integers, as its data are: samples are
            cut down to the level that they lie in.
          batch_size: `int >= 1`, how many are drawn at a time, which bounds the memory; eager mode
            alone. The same seed gives other samples for another one. Default: all at once.
          verbose: with a batch size 0 for no progress bar. Default: one after two seconds.

        Returns:
          Tensor `[*n, *event_shape]`, of integers if `quantized`.
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
        draw = functools.partial(self._draw, seed=stateless_seed(seed), temperature=temperature)
        if batch_size is None:
            samples = draw(shape, context)
        else:
            samples = self._in_parts(draw, shape, context, batch_size, verbose)
        if quantized:
            samples = self._example.quantized(samples)
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

    def inverse(self, x, context=None):
        """The latents of data: the points of the base distribution that `forward` maps to them.

        Args:
          x, context: as `log_prob`.

        Returns:
          Tensor `[..., *event_shape]`, or of the shape of the base's events; latents of all scales.
        """
        x, context = self._data("inverse", x, context)
        function = self._function("inverse", self._latents, x.shape.rank, context)
        return function(x, context)

    def forward(self, z, context=None):
        """The data that latents give; `inverse` of them gives the latents back.

        Args:
          z: `[..., *event_shape]`, or of the shape of the base's events.
          context: `[..., context_size]`, broadcast over the batch, for a conditional flow.

        Returns:
          Tensor `[..., *event_shape]`, continuous, in the data's units.
        """
        self._check_initialized("forward")
        z = tf.convert_to_tensor(z, self._example.event_dtype)
        event = self._road.base.event_shape
        if z.shape.rank < event.rank or not z.shape[z.shape.rank - event.rank :] == event:
            raise ValueError(
                f"{self._example.title}.forward: expected latents of shape "
                f"{contexts.text(event.as_list())}, got {z.shape.as_list()}."
            )
        context = as_array(context, self._example.dtype)
        check_context(context, self._example)
        context = self._embedded(as_context(context, self._example))
        return self._function("forward", self._road.forward, z.shape.rank, context)(z, context)

    def interpolate(self, a, b, n, *, context=None, spherical=True):
        """Data on the way from `a` to `b` through the latent space.

            straight:   z(t) = (1 - t) z_a + t z_b
            spherical:  z(t) = (sin((1 - t) w) z_a + sin(t w) z_b) / sin(w),  w the angle between

        Normal latents of D entries lie near the sphere of radius sqrt(D), which a straight way
        leaves: half-way its points are as improbable as those of a low temperature are probable.

        Args:
          a, b: data, as in `log_prob`, of equal shapes.
          n: `int >= 2`, number of points, the ends among them.
          context: as in `log_prob`, the same all the way.
          spherical: whether the way is along a sphere (default), or straight.

        Returns:
          Tensor `[n, ..., *event_shape]`, continuous, in the data's units.

        References: T. White, Sampling generative networks, 2016, arXiv:1609.04468, section 3.
        """
        n = integer(n, "n", f"{self._example.title}.interpolate", least=2)
        if self._example.discrete:
            raise ValueError(
                f"{self._example.title}.interpolate: there is no way between integers, and the "
                "distribution has no latents."
            )
        start, end = self.inverse(a, context), self.inverse(b, context)
        if start.shape != end.shape:
            raise ValueError(
                f"{self._example.title}.interpolate: expected two ends of equal shape, got "
                f"latents of {start.shape.as_list()} and {end.shape.as_list()}."
            )
        t = tf.reshape(tf.linspace(tf.zeros([], start.dtype), 1.0, n), [n] + [1] * start.shape.rank)
        near, far = 1.0 - t, t
        if spherical:
            axes = list(range(-self._road.base_ndims, 0))
            unit = [tf.math.l2_normalize(z, axis=axes) for z in (start, end)]
            cosine = tf.reduce_sum(unit[0] * unit[1], axis=axes, keepdims=True)
            angle = tf.acos(tf.clip_by_value(cosine, -1.0, 1.0))
            sine = tf.sin(angle)
            # Ends in one direction, or in opposite ones, have no plane between them: straight.
            flat = sine < 1e-4
            safe = tf.where(flat, tf.ones_like(sine), sine)
            near = tf.where(flat, near, tf.sin(near * angle) / safe)
            far = tf.where(flat, far, tf.sin(far * angle) / safe)
        return self.forward(near * start + far * end, context)

    def rareness(self, x, context=None, *, reference=None, num_samples=1000, seed=0):
        """How unusual rows are: the share of reference rows that are less probable.

            rareness(x) = (1 + #{r: log p(r) <= log p(x)}) / (1 + number of r)

        Near 0 for an outlier, uniform on (0, 1] for rows from the distribution of the reference.
        A density depends on the units of the data, and so does this rank: what is rare in one
        parameterization need not be in another. Points of a high density far from all data (a
        constant image) are not rare by this measure.

        Args:
          x, context: as `log_prob`.
          reference: held-out data, and their contexts if there are any as a pair `(data,
            contexts)`. Default: samples of the model itself, under one `context` row for all.
          num_samples: number of these samples.
          seed: seeds them.

        Returns:
          Tensor of the batch shape.
        """
        if reference is None:
            one = contexts.each(
                lambda c, shape: tf.reshape(tf.convert_to_tensor(c), [-1, *shape])[:1],
                context,
                self._example.context_shapes,
            )
            _, scores = self.sample_and_log_prob(num_samples, seed=seed, context=one)
        else:
            pair = reference if isinstance(reference, tuple) else (reference, None)
            scores = self.log_prob(*pair)
        scores = tf.sort(tf.reshape(scores, [-1]))
        below = tf.searchsorted(scores, tf.reshape(self.log_prob(x, context), [-1]), side="right")
        rank = (1 + below) / (1 + tf.size(scores))
        batch = tf.convert_to_tensor(x).shape[: -self._road.event_ndims or None]
        return tf.reshape(tf.cast(rank, self._example.dtype), batch)

    # --- Inside. ---

    def _data(self, method, x, context):
        """Data and their context as tensors, checked."""
        self._check_initialized(method)
        x, context, _ = arrays(x, context, None, self._example, batched=False)
        if context is None:
            x, context, _ = unpack(x, self._example)
        context = as_context(context, self._example)
        if self._embedding is not None:
            context = self._embedded(context)
        return tf.convert_to_tensor(x), context

    def _embedded(self, context, training=False):
        """The context of raw conditions, where a network makes one."""
        if self._embedding is None:
            return context
        self._embedding.build(context)
        return self._embedding(context, training)

    def _draw(self, shape, context, *, seed, temperature):
        sample = self._function("sample", self._road.sample, shape.shape[0], context)
        return sample(shape, seed, context, temperature)

    def _in_parts(self, draw, shape, context, batch_size, verbose):
        """The samples of `draw`, so many at a time, each part with a seed of its own."""
        size = positive_integer(batch_size, "batch_size", "FlowModel.sample")
        if not tf.executing_eagerly():
            raise ValueError(
                "FlowModel.sample: batch_size is a loop in Python, which a tf.function would "
                "unroll. Leave it out, or call `sample` outside of the tf.function."
            )
        number, seed = int(tf.reduce_prod(shape)), draw.keywords["seed"]
        context = contexts.each(
            lambda c, event: tf.reshape(
                tf.broadcast_to(c, tf.concat([shape, event], 0)), [-1, *event]
            ),
            context,
            self._example.context_shapes,
        )
        bar = Bar(number, unit="sample", verbose=verbose, owner="FlowModel.sample")
        found = []
        for part, first in enumerate(range(0, number, size)):
            some = contexts.each(
                lambda c, _, first=first: c[first : first + size],
                context,
                self._example.context_shapes,
            )
            own = tf.random.experimental.stateless_fold_in(seed, part)
            found.append(draw(tf.constant([min(size, number - first)]), some, seed=own))
            bar.add(len(found[-1]))
        return tf.reshape(tf.concat(found, 0), [*shape.numpy(), *self._example.event_shape])

    def _latents(self, x, context):
        return self._road.inverse(self._prepare(x), context)

    def _uninitialized(self):
        """The parts whose data-dependent initialisation has not happened yet."""
        # Once initialised is initialised for good: the variables are not read again.
        with tf.init_scope():  # A value, in the trace of a larger model too.
            left = [
                part
                for part in self._actnorms
                if not all(flag.numpy().all() for flag in flags_of(part))
            ]
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
        if not tf.is_tensor(n) and np.asarray(n).dtype.kind not in "iu" and np.size(n):
            raise TypeError(
                f"FlowModel.{method}: n, how many samples, must be an int or a shape, got {n!r}."
            )
        shape = tf.reshape(tf.convert_to_tensor(n, dtype=tf.int32), [-1])
        known = tf.get_static_value(shape)  # None for a tensor inside a tf.function
        if known is not None and (known < 1).any():
            raise ValueError(f"FlowModel.{method}: n must be at least 1, got {n!r}.")
        context = as_array(context, self._example.dtype)
        check_context(context, self._example)
        context = self._embedded(as_context(context, self._example))

        def check_rows(tensor, event):
            rows = tensor.shape[: tensor.shape.rank - len(event)].as_list()
            if len(rows) > len(known) or any(
                m not in (1, n) for m, n in zip(rows[::-1], known[::-1], strict=False)
            ):
                raise ValueError(
                    f"FlowModel.{method}: expected a context whose batch shape broadcasts to n = "
                    f"{known.tolist()}, got {rows}. Give one row for all, or one for each sample; "
                    f"n={[*known.tolist(), *rows]} gives {int(np.prod(known))} samples of each row."
                )

        if known is not None:
            contexts.each(check_rows, context, self._example.context_shapes)
        return shape, context

    def _log_prob(self, x, context=None, training=False, noise=None):
        if noise is None:
            noise = self._noise_of_scores(x.shape.rank - self._example.event_shape.rank)
        with training_mode(training):
            log_prob = self._road.log_prob(x, context, noise)
        if training:
            return log_prob  # Not finite either way, and then `fit` says why.
        return outside_scores_minus_infinity(self._road, x, log_prob)

    def _log_weights(self, x, context, seed, number):
        """Log-densities `[number, n]` of rows, of as many draws of noise."""
        seed, own = tfp.random.split_seed(seed)
        shape = [number, 1]
        x = tf.repeat(x[tf.newaxis], number, axis=0)
        if self._example.needs_lift(x):
            x = self._example.lifted(x, self._example.draw_noise(shape, own))
        x = tf.cast(x, self._example.event_dtype)
        return self._log_prob(x, context, noise=self._road.draw_noise(shape, seed))

    def _log_prob_of_data(self, x, context):
        return self._log_prob(self._prepare(x), context)

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
