"""WaveNet's network of dilated causal convolutions."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integers
from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.stepwise import SequenceConditioner, gate, in_dtype, product

_LONGEST = 512  # The paper's largest dilation.


@keras.saving.register_keras_serializable(package="tfp_flows")
class WaveNet(SequenceConditioner):
    """WaveNet: dilated causal convolutions, which give a step's parameters from the steps before.

    With `x_t` the C entries of step t, `c_t` its context, `a` the activation and d_l the dilations,

        h_0,t = W (x_{t-1}, 1) + b                                           (0, 0) at t = 1
        z_l,t = U_l h_{l-1},t + V_l h_{l-1},t-d_l + R_l c_t + b_l            0 before the first step
        g_l,t = tanh(first half of z_l,t) * sigmoid(second half of z_l,t)
        h_l,t = h_{l-1},t + S_l g_l,t + s_l
        out_t = W'' a(W' a(sum_l K_l g_l,t + k) + b') + b''

    so that the parameters of step t depend on the steps t - 1, ..., t - 1 - sum_l d_l and on
    nothing else, whatever values the weights have. All C entries of a step are given at once, from
    earlier steps alone: given those, they are independent. `W''` starts at zero (`zero_output`),
    so that a fresh flow is the identity, and the `S_l` start at zero, so that depth does not blow
    up the activations.

    Step by step (`init_cache`, `step`: see `tfp_flows.bijectors.stepwise`) it keeps the last d_l
    values of every layer, in a ring; what it keeps does not grow with T.

    Shapes: `x` is `[batch, T, C]`, the output `[batch, T, num_parameters * C]`, parameter-major
    in the last axis. The context is `[batch, context_size]`, one vector for all steps; with
    `context_size=[T, F]`, one a step, `[batch, T, F]`; or a dictionary of either by name. A single
    row serves the whole batch.

    Args:
      event_shape: `[T, C]`, of a sequence of T steps of C entries each.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      filters: `int >= 1`, width of every layer. Default 32.
      skip_filters: `int >= 1`, width of the two layers after the sum. Default: `filters`.
      dilations: `int`s `>= 1` and below T, one a layer. Default: 1, 2, 4, ... while below T, at
        most 512. The paper repeats 1, ..., 512 three times.
      activation: name of a Keras activation, or a callable: of the two layers after the sum.
        Default `"relu"`.
      order: `"left-to-right"` (default) or `"right-to-left"`, in which a step depends on later
        ones.
      context_size: size or shape of the context, a dictionary of them by name, or `None`.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, a dilation reaches beyond the sequence, the order is
        unknown, or the input or the context of a call has another shape.

    >>> layer = WaveNet([8, 2], filters=4, dilations=(1, 2), context_size=3, seed=0)
    >>> layer(tf.ones([5, 8, 2]), context=tf.ones([5, 3])).shape
    TensorShape([5, 8, 4])
    >>> layer.num_steps, layer.receptive_field
    (8, 4)

    References: A. van den Oord et al., WaveNet: A Generative Model for Raw Audio, 2016,
    arXiv:1609.03499, sections 2.1 to 2.5 and figure 4. T. Le Paine et al., Fast Wavenet
    Generation Algorithm, 2016, arXiv:1611.09482 (the rings). The paper's outputs are a softmax over
    levels; here they are the parameters of any map.
    """

    def __init__(
        self,
        event_shape,
        num_parameters=2,
        *,
        filters=32,
        skip_filters=None,
        dilations=None,
        activation="relu",
        order="left-to-right",
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        if skip_filters is None:
            skip_filters = filters
        super().__init__(
            arguments=locals(), sizes=("num_parameters", "filters", "skip_filters"), ranks=(2,)
        )
        steps = self.event_shape[0]
        if dilations is None:
            dilations = [d for d in 2 ** np.arange(10) if d < steps and d <= _LONGEST] or [1]
        self.dilations = positive_integers(dilations, "dilations", self._title())
        if not self.dilations or max(self.dilations) > max(1, steps - 1):
            raise ValueError(
                f"{self._title()}: dilations must be one or more below the {steps} steps, or they "
                f"reach beyond the first one, got {self.dilations}."
            )

    @property
    def receptive_field(self):
        """How many steps before it the parameters of a step depend on."""
        return 1 + sum(self.dilations)

    @property
    def _tokens(self):
        return np.arange(np.prod(self.event_shape)).reshape(self.event_shape)

    def _add_weights(self, input_size):
        layers, filters, skips = len(self.dilations), self.filters, self.skip_filters
        more = filters + sum(self._context_sizes())
        self._kernel_in = self._add_kernel("kernel_in", (input_size + 1, filters))
        self._bias_in = self._add_bias("bias_in", filters)
        shape = (filters, 2 * filters)
        self._now = self._add_kernel("kernel_now", shape, more_inputs=more, copies=layers)
        self._earlier = self._add_kernel("kernel_earlier", shape, more_inputs=more, copies=layers)
        self._bias = self.add_weight(name="bias", shape=(layers, 2 * filters), initializer="zeros")
        self._kernel_context, self._kernel_step_context = self._add_context_kernels(
            (layers, 2 * filters), more_inputs=2 * filters
        )
        # The last layer's residual would reach nothing.
        self._residual = None
        if layers > 1:
            shape = (filters, filters)
            self._residual = self._add_kernel(
                "kernel_residual", shape, zero=True, copies=layers - 1
            )
            self._bias_residual = self.add_weight(
                name="bias_residual", shape=(layers - 1, filters), initializer="zeros"
            )
        self._head = []
        sizes = [layers * filters, skips, skips, self._num_outputs]
        for i, (inputs, outputs) in enumerate(zip(sizes, sizes[1:], strict=False)):
            zero = i == 2 and self.zero_output
            kernel = self._add_kernel(f"kernel_out_{i}", (inputs, outputs), zero=zero)
            self._head.append((kernel, self._add_bias(f"bias_out_{i}", outputs)))

    def _all_steps(self, before, vector, steps):
        now, earlier, bias, residual, shift = self._layers_in(before.dtype)
        h = add_bias(product(before, tf.convert_to_tensor(self._kernel_in)), self._bias_in)
        shares = []
        if vector is not None:
            shares.append(
                product(vector, tf.convert_to_tensor(self._kernel_context))[:, tf.newaxis]
            )
        if steps is not None:
            shares.append(product(steps, tf.convert_to_tensor(self._kernel_step_context)))
        shares = [tf.split(share, len(self.dilations), axis=-1) for share in shares]
        gated = []
        for i, dilation in enumerate(self.dilations):
            old = tf.pad(h, [[0, 0], [dilation, 0], [0, 0]])[:, :-dilation]
            z = product(tf.concat([h, old], -1), tf.concat([now[i], earlier[i]], 0))
            z = add_bias(z, bias[i])
            for share in shares:
                z = add_bias(z, share[i])
            gated.append(gate(z))
            if i < len(residual):
                h += add_bias(product(gated[i], residual[i]), shift[i])
        return self._out(tf.concat(gated, -1))

    def _layers_in(self, dtype):
        """Of each layer the two taps, the bias, and the residual's kernel and bias."""
        weights = in_dtype(dtype, self._now, self._earlier, self._bias)
        residuals = [] if self._residual is None else [self._residual, self._bias_residual]
        residuals = in_dtype(dtype, *residuals) or [tf.zeros([0]), tf.zeros([0])]
        return [tf.unstack(w) for w in (*weights, *residuals)]

    def _out(self, gated):
        h = gated
        for i, (kernel, bias) in enumerate(self._head):
            kernel, bias = in_dtype(h.dtype, kernel, bias)
            h = add_bias(product(self.activation(h) if i else h, kernel), bias)
        return h

    # --- Step by step. ---

    def init_cache(self, n, context, dtype):
        """What is known before the first step: see `tfp_flows.bijectors.stepwise`.

        Of each layer the ring of its last values; bias and the vector's share of all layers; the
        vectors of all steps.
        """
        (bias,) = in_dtype(dtype, self._bias)
        vector, a_step = self._contexts(context)
        offset = bias[:, tf.newaxis]  # [layers, n, 2 * filters]
        if vector is not None:
            (kernel,) = in_dtype(dtype, self._kernel_context)
            share = tf.reshape(tf.matmul(vector, kernel), [n, *bias.shape])
            offset += tf.transpose(share, [1, 0, 2])
        cache = {
            "offset": offset,
            "rings": tuple(self._ring(d + 1, n, dtype) for d in self.dilations),
        }
        if a_step is not None:
            cache["steps"] = tf.transpose(self._by_step(a_step), [1, 0, 2])
        return cache

    def _ring(self, size, n, dtype):
        ring = tf.TensorArray(dtype, size=size, clear_after_read=False)
        return ring.unstack(tf.zeros([size, n, self.filters], dtype))

    def step(self, cache, s, previous):
        """Parameters of step s, `[n, P, C]`: see `tfp_flows.bijectors.stepwise`."""
        dtype, layers = previous.dtype, len(self.dilations)
        rings = list(cache["rings"])
        now, earlier, _, residual, shift = self._layers_in(dtype)
        kernel, bias = in_dtype(dtype, self._kernel_in, self._bias_in)
        before = tf.where(s > 0, self._with_one(previous), tf.zeros([], dtype))
        h = tf.matmul(before, kernel) + bias
        offset = cache["offset"]
        if "steps" in cache:
            (kernel,) = in_dtype(dtype, self._kernel_step_context)
            share = tf.matmul(cache["steps"][s], kernel)
            share = tf.reshape(share, [-1, layers, 2 * self.filters])
            offset += tf.transpose(share, [1, 0, 2])
        offset = tf.unstack(offset)
        gated = []
        for i, dilation in enumerate(self.dilations):
            # First written, then read: as the one needs the other, XLA makes no copy of the ring.
            rings[i] = rings[i].write(s % (dilation + 1), h)
            old = rings[i].read((s + 1) % (dilation + 1))
            z = tf.matmul(h, now[i]) + tf.matmul(old, earlier[i])
            gated.append(gate(z + offset[i]))
            if i < layers - 1:
                h += tf.matmul(gated[i], residual[i]) + shift[i]
        out = self._out(tf.concat(gated, -1))
        out = tf.reshape(out, [-1, self.num_parameters, self.event_shape[-1]])
        return out, {**cache, "rings": tuple(rings)}
