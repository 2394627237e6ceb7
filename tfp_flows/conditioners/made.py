"""The masked network of autoregressive flows."""

import warnings

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import masks
from tfp_flows._checks import one_of
from tfp_flows.conditioners.base import add_bias
from tfp_flows.conditioners.dense import Dense
from tfp_flows.conditioners.masked_network import (
    evaluate,
    evaluate_by_degrees,
    halved,
    masks_between,
)

_SPREADS = ("equal", "random")


@keras.saving.register_keras_serializable(package="tfp_flows")
class MADE(Dense):
    """A masked autoencoder: parameters for every entry from the entries before it.

    With `m(.)` the degrees of the units, `M` the masks made of them and `*` entry by entry,

        M[i, o] = m(o) >= m(i)  into a hidden layer,  m(o) > m(i)  into the output
        h_1 = a((W_1 * M_1) x + V_1 c + b_1)
        h_i = a((W_i * M_i) h_{i-1} + V_i c + b_i)
        out = (W * M) h_k + V c + b

    so that the parameters of the entry at place k of the ordering depend on the entries before
    it and on nothing else, whatever values the weights have: the masks are applied in the
    forward pass. `a` is the activation and `c` the context, which reaches every layer.

    With `residual=True` every entry of `hidden_units` is one pre-activation block of two layers
    of their common width and of equal degrees, after a first layer (see `MLP`).

    Shapes: `x` is `[batch, size]`, the context `[batch, context_size]` or `[1, context_size]`,
    the output `[batch, num_parameters * size]`: first parameter 0 of every entry, then
    parameter 1, as `elementwise` maps take them.

    With `num_masks > 1` the layer holds that many sets of masks over the same weights, chosen
    by `mask_index` at the call: for order-agnostic training `order="random"`, for
    connectivity-agnostic training `degrees="random"`, or both. See `flows.made`.

    Orders and degrees are a weight of the layer (not trained), so they are saved and restored
    with it, also where they were drawn without a seed. Restore before you trace a
    `tf.function` around the layer: a trace holds the masks that it met.

    Args:
      size: `int >= 1`, the number D of entries.
      num_parameters: `int >= 1`, parameters of each entry. Default 2: shift and scale.
      hidden_units: `int`s `>= 1`, widths of the hidden layers (of the blocks, if `residual`). Empty
        for a masked linear map. A width below `size - 1` loses dependencies. Default: `(256, 256)`.
      order: `"left-to-right"` (default), `"right-to-left"`, `"random"`, or a permutation of
        `0..size - 1` whose entry i is the place of input i in the ordering.
      degrees: `"equal"` (default) gives each degree the same number of hidden units but for
        one; `"random"` draws them.
      activation: name of a Keras activation or an elementwise callable. Default: `"relu"`.
        A smooth one (`"silu"`, `"tanh"`) makes the density smooth.
      residual: `bool`, whether to use residual blocks; they need equal `hidden_units`.
      context_size: `int >= 1`, size of the context, or `None` (default). With a context some
        hidden units have degree 0: they see the context alone and serve the first entry.
      num_masks: `int >= 1`, how many sets of masks. Default 1.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes initial weights, random orders and random degrees.
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Warns:
      UserWarning: if a hidden layer is too narrow, or drew its degrees too unevenly, to carry
        every dependency; it says how many are lost.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if a size is out of range, `order` is no permutation, `degrees` is unknown,
        `residual` widths differ, `num_masks > 1` without anything random, or an argument of a
        call has the wrong shape.

    >>> layer = MADE(3, 2, hidden_units=(8, 8), order="right-to-left", seed=0)
    >>> layer(tf.ones([5, 3])).shape
    TensorShape([5, 6])
    >>> layer.input_degrees.tolist()
    [3, 2, 1]

    Initial kernels and biases are those of `MLP`, without regard to the masks.

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 8, 9, 12, 13 and sections 4.1 and
    4.2. Departures: degrees are equal by default instead of drawn, units of degree 0 exist
    with a context, and there are no direct connections from input to output.
    """

    def __init__(
        self,
        size,
        num_parameters=2,
        *,
        hidden_units=(256, 256),
        order="left-to-right",
        degrees="equal",
        activation="relu",
        residual=False,
        context_size=None,
        num_masks=1,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        super().__init__(arguments=locals(), sizes=("size", "num_parameters", "num_masks"))
        self._num_outputs = self.num_parameters * self.size
        try:
            masks.input_degrees(self.size, order, seed=0)
        except ValueError:
            raise ValueError(
                f"{self._title()}: order must be 'left-to-right', 'right-to-left', 'random' or a "
                f"permutation of 0..{self.size - 1}, the place of each input in the ordering, got "
                f"{order!r}. Of inputs listed as they follow each other, pass np.argsort."
            ) from None
        self.order = order if isinstance(order, str) else tuple(np.asarray(order).tolist())
        one_of(degrees, _SPREADS, "degrees", self._title())
        if self.num_masks > 1 and order != "random" and degrees != "random":
            raise ValueError(
                f"{self._title()}: {self.num_masks} sets of masks would all be equal. Set "
                'order="random" (order-agnostic) or degrees="random" (connectivity-agnostic), '
                "or num_masks=1."
            )
        # Widths of the layers whose values an activation is applied to.
        self._widths = tuple(layer.width for layer in self._plan()[:-1])
        self._degree_sets = self._draw_degrees()
        self._masks = {}
        self._warn_of_lost_dependencies()

    # --- Degrees. ---

    @property
    def input_degrees(self):
        """Degrees of the inputs, 1 plus the place in the ordering: array `[size]`."""
        return self.degrees_of(0)[0]

    @property
    def hidden_degrees(self):
        """Degrees of the units of each hidden layer: a list of arrays."""
        return self.degrees_of(0)[1]

    def degrees_of(self, mask_index):
        """Degrees of the inputs and of each hidden layer under one set of masks, as arrays."""
        self._adopt_restored_degrees()
        inputs, *hidden = np.split(self._degree_sets[mask_index], self._boundaries())
        return inputs, hidden

    def _boundaries(self):
        return np.cumsum([self.size, *self._widths])[:-1]

    def _draw_degrees(self):
        """Integer array `[num_masks, size + sum of the widths]`."""
        sequence = np.random.SeedSequence(self.seed)
        sets = []
        for _ in range(self.num_masks):
            seeds = sequence.spawn(2 + len(self._widths))
            degrees = [masks.input_degrees(self.size, self.order, seed=seeds[0])]
            minimum = 0 if self.context_size is not None else None
            for width, seed in zip(self._widths, seeds[2:], strict=True):
                if self.residual and len(degrees) > 1:
                    degrees.append(degrees[1])
                    continue
                drawn = masks.hidden_degrees(
                    width, self.size, how=self.degrees, seed=seed, minimum=minimum
                )
                if minimum != 0:
                    minimum = int(drawn.min())  # Below it a deeper unit would see nothing.
                if self.num_masks > 1 and self.degrees == "random":
                    # Sorted, a unit would have about the same degree in every set.
                    drawn = np.random.default_rng(seeds[1]).permutation(drawn)
                degrees.append(drawn)
            sets.append(np.concatenate(degrees))
        return np.stack(sets).astype(np.int32)

    def _adopt_restored_degrees(self):
        """Takes over the degrees that a checkpoint has put into the weight."""
        variable = getattr(self, "_degrees_weight", None)
        variable = getattr(variable, "value", None)
        if isinstance(variable, tf.Variable):
            with tf.init_scope():
                if tf.executing_eagerly():
                    self._degree_sets = variable.numpy().astype(np.int32)

    def _warn_of_lost_dependencies(self):
        lost = 0
        for inputs, *hidden in (np.split(s, self._boundaries()) for s in self._degree_sets):
            lost = max(lost, _count_lost(len(inputs), hidden))
        if lost:
            total = self.size * (self.size - 1) // 2
            remedy = (
                f"use hidden_units of at least {self.size - 1 + (self.context_size is not None)}"
                if self.degrees == "equal"
                else 'use degrees="equal" or wider layers'
            )
            warnings.warn(
                f"{self._title()}: hidden layers of {self.hidden_units} units cannot carry "
                f"every dependency between {self.size} entries: {lost} of {total} are lost. To "
                f"keep all, {remedy}.",
                stacklevel=4,
            )

    # --- The network. ---

    def _add_weights(self, input_size):
        if input_size != self.size:
            raise ValueError(
                f"{self._title()}: expected an input of shape [batch, {self.size}], got one with "
                f"last axis {input_size}. Set `size` to the number of entries."
            )
        layers = self._add_layers(input_size, context_to_all=True)
        self._kernels, self._biases, self._ends_block = map(list, zip(*layers, strict=True))
        self._context_kernel = None
        if self.context_size is not None:
            # One kernel for all layers: one product. Its last columns start as the output does.
            start = self._start_of_context_kernel()
            self._context_kernel = self.add_weight(
                name="context_kernel",
                shape=start.shape,
                initializer=lambda shape, dtype: tf.cast(start, dtype),
            )
        self._degrees_weight = self.add_weight(
            name="degrees",
            shape=self._degree_sets.shape,
            # TensorFlow keeps int32 variables on the host, where XLA on a GPU cannot read them.
            dtype="int64",
            initializer=lambda shape, dtype: tf.constant(self._degree_sets, dtype),
            trainable=False,
        )

    def _start_of_context_kernel(self):
        rng = np.random.default_rng(self._weight_seed())
        size, columns = self.size, []
        for width, _, zero in self._plan():
            std = 0.0 if zero else np.sqrt(1.0 / (3.0 * (size + self.context_size)))
            columns.append(std * rng.normal(size=(self.context_size, width)))
            size = width
        return np.concatenate(columns, axis=1)

    def call(self, x, context=None, mask_index=None):
        """Maps `x` (and a context `[batch, context_size]`) to the parameters.

        Args:
          x: `[batch, size]`.
          context: `[batch, context_size]` or `[1, context_size]`, or `None`.
          mask_index: `int` or integer tensor in `0..num_masks - 1`, which set of masks.
            Default 0.
        """
        self._check_input(x.shape)
        self._check_context(x, context)
        x = tf.cast(x, self.compute_dtype)
        if isinstance(mask_index, (int, type(None))):
            keep = self._masks_of(mask_index or 0)
        else:
            drawn = tf.gather(tf.convert_to_tensor(self._degrees_weight), mask_index)
            keep = self._masks_between(*tf.split(drawn, [self.size, *self._widths]))
        context = None if context is None else tf.cast(context, x.dtype)
        offsets = self._offsets(context, x.dtype)
        return evaluate(x, self._kernels, offsets, keep, self.activation, self._ends_block)[0]

    def _masks_of(self, mask_index):
        """Boolean masks of all kernels under one set of degrees, made once."""
        inputs, hidden = self.degrees_of(mask_index)
        key = np.concatenate([inputs, *hidden]).tobytes()
        if key not in self._masks:
            # Eager tensors, which every graph captures: as constants each graph would hold
            # them, and to compare degrees takes as long as to apply the mask.
            with tf.init_scope():
                self._masks[key] = [halved(m) for m in self._masks_between(inputs, *hidden)]
        return self._masks[key]

    def _masks_between(self, inputs, *hidden):
        return masks_between([inputs, *hidden, tf.tile(inputs, [self.num_parameters])])

    def _offsets(self, context, dtype):
        """Bias plus the context's share of each layer, `[width]` or `[batch or 1, width]`."""
        biases = [tf.cast(b, dtype) for b in self._biases]
        if context is None:
            return biases
        shares = tf.matmul(context, tf.cast(self._context_kernel, dtype))
        shares = tf.split(shares, [b.shape[0] for b in biases], axis=-1)
        return [add_bias(share, b) for b, share in zip(biases, shares, strict=True)]

    # --- What the sequential direction of an autoregressive bijector reads. ---

    def sequential_parts(self, context=None, mask_index=0, dtype=tf.float32):
        """The network in pieces, for `bijectors.MaskedAutoregressive` and its relatives.

        Args:
          context: `[n, context_size]` or `None`.
          mask_index: `int`, which set of masks. Default: 0.
          dtype: dtype of all tensors.

        Returns:
          A dictionary of `input_degrees` and `hidden_degrees` (arrays), `kernels` (tensors, not
          masked), `offsets` (bias plus the context's share of each layer, `[width]` or
          `[n, width]`), `activation`, `ends_block` (of each layer), and `evaluate`, the network
          as a function of these.
        """
        inputs, hidden = self.degrees_of(mask_index)
        return {
            "input_degrees": inputs,
            "hidden_degrees": hidden,
            "kernels": [tf.cast(k, dtype) for k in self._kernels],
            "offsets": self._offsets(context, dtype),
            "activation": self.activation,
            "ends_block": tuple(self._ends_block),
            "evaluate": evaluate_by_degrees,
        }

    # --- Keras. ---

    def load_own_variables(self, store):
        """Loads the weights, and with them the orders and degrees."""
        super().load_own_variables(store)
        self._adopt_restored_degrees()


def _count_lost(size, hidden):
    """How many of the dependencies between `size` entries the hidden degrees cannot carry."""
    if not hidden:
        return 0
    # An input of degree q reaches the outputs above the least degree that a path of
    # ascending degrees from q can end in.
    reached = np.arange(1, size + 1)
    for degrees in hidden:
        known = np.append(np.unique(degrees), size)  # A degree of `size` feeds no output.
        reached = known[np.searchsorted(known, np.minimum(reached, size))]
    return int((reached - np.arange(1, size + 1)).sum())
