"""What all conditioners share: argument checks, weights, and the context."""

import math
import operator

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import optional_seed, positive_integer, vector_size

# Activations that pass about half of their input's second moment, for which He's variance
# of 2 / fan_in keeps the scale of the activations from layer to layer.
_RELU_LIKE = frozenset(
    ["relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish"]
)
# What `locals()` of a constructor holds beside its arguments.
_NO_ARGUMENTS = ("self", "kwargs", "__class__")


def add_bias(x, bias):
    """Adds a bias to the last axis, or the context's share of one, broadcast.

    The rows of its gradient must not be summed in half precision, which TF 2.21 does on a CPU in
    bfloat16 for `tf.nn.bias_add`, but in float16 for a plain sum. In float32 oneDNN makes the
    gradient of `bias_add` a part of the convolution's filter gradient, which slows that down.
    """
    if x.dtype == tf.float16 and len(bias.shape) == 1:
        return tf.nn.bias_add(x, tf.convert_to_tensor(bias))
    return broadcast(operator.add, x, bias)


def broadcast(operation, x, y):
    """`operation(x, y)`, of which the gradient of `y` is not summed in float16 itself."""
    if x.dtype != tf.float16:
        return operation(x, y)
    return tf.cast(operation(tf.cast(x, tf.float32), tf.cast(y, tf.float32)), x.dtype)


def at_least_float32(x):
    """`x`, of half precision in float32."""
    return x if x.dtype == tf.float64 else tf.cast(x, tf.float32)


class Conditioner(keras.layers.Layer):
    """Base class of the networks: one lean Keras layer with its own weights.

    A flow has tens of conditioners, and every nested Keras layer costs milliseconds each
    time the flow is traced. So a conditioner holds no sublayers: `_add_weights` makes its weights
    by `_add_kernel` and `_add_bias`, and `_compute` uses TensorFlow's operations on them.

    A subclass gives a constructor, whose first statement is

        super().__init__(input_rank=2, arguments=locals(), sizes=("output_size",))

    after which every argument is an attribute, and `get_config` is complete; it sets
    `_num_outputs`, the size of the output's last axis; and it gives `_add_weights(input_size)`
    and `_compute(x, context)`. It never needs a context tensor to be built.

    Args:
      input_rank: `int`, rank of the input with its one batch dimension.
      arguments: `locals()` of the subclass's constructor, which takes the last arguments below
        as `**kwargs`. Default: the others below, which is all that `get_config` then knows.
      sizes: names of the arguments that are integers of at least 1.
      activation: name of a Keras activation, or a callable. Default: `None`, the identity.
      context_size: `int >= 1`, size of the context, or `None` (default) for none.
      zero_output: `bool`, whether the last layer starts at zero. Default: `True`.
      seed: `int >= 0` that fixes the initial weights, or `None` (default).
      **kwargs: `dtype`, `name` and `trainable` of `keras.layers.Layer`.

    Raises:
      TypeError: if a size or the seed is no integer.
      ValueError: if it is out of range, or the activation is unknown.
    """

    def __init__(
        self,
        *,
        input_rank,
        arguments=None,
        sizes=(),
        activation=None,
        context_size=None,
        zero_output=True,
        seed=None,
        **kwargs,
    ):
        common = {
            "activation": activation,
            "context_size": context_size,
            "zero_output": zero_output,
            "seed": seed,
        }
        if arguments is None:
            arguments = common
        else:
            kwargs = arguments.get("kwargs", {})
            arguments = {n: v for n, v in arguments.items() if n not in _NO_ARGUMENTS}
        super().__init__(**kwargs)
        self._input_rank, self._input_size = input_rank, None
        self._arguments = tuple(arguments)
        for name, value in {**common, **arguments}.items():
            if name in sizes:
                value = positive_integer(value, name, self._title())
            elif name == "context_size" and value is not None:
                value = self._checked_context_size(value)
            setattr(self, name, value)
        self.activation = keras.activations.get(self.activation)
        self.zero_output = bool(self.zero_output)
        self.seed = optional_seed(self.seed, self._title())

    def build(self, input_shape):
        """Makes the weights for inputs of this shape, whose last size must be known."""
        size = self._check_input(input_shape)
        self._add_weights(size)
        self._input_size = size

    def _add_weights(self, input_size):
        """Makes the weights for inputs with this last axis."""
        raise NotImplementedError(f"{type(self).__name__} must define _add_weights(input_size).")

    def call(self, x, context=None):
        """Maps `x` (and a context) to the parameters.

        Args:
          x: `[batch, *event]`, of one batch dimension; integers too.
          context: `[batch, context_size]`, or one row for all; `None` for a network without one.

        Returns:
          The shape of `x` with the output's last axis, of the compute dtype.

        Raises:
          ValueError: for other shapes, a context that is lacking, or one that would be ignored.
        """
        self._check_input(x.shape)
        self._check_context(x, context)
        # Keras casts floating arguments only; integer ones (labels, counts) are welcome too.
        x = tf.cast(x, self.compute_dtype)
        if context is not None:
            context = tf.nest.map_structure(lambda c: tf.cast(c, x.dtype), context)
        return self._compute(x, context)

    def _compute(self, x, context):
        """The network itself; the arguments are checked and of `compute_dtype`."""
        raise NotImplementedError(f"{type(self).__name__} must define _compute(x, context).")

    def compute_output_shape(self, input_shape):
        """The input's shape with the last axis of the output."""
        self._check_input(input_shape)
        return (*input_shape[:-1], self._num_outputs)

    def get_config(self):
        """The constructor arguments, for `keras.saving`."""
        config = {name: getattr(self, name) for name in self._arguments}
        if "activation" in config:
            config["activation"] = keras.activations.serialize(self.activation)
        return {**super().get_config(), **config}

    # --- Weights. ---

    def _add_kernel(self, name, shape, *, more_inputs=0, zero=False, small=False, copies=None):
        """Adds a kernel `[..., inputs, outputs]`, normal with He's or Glorot's variance.

        `more_inputs` counts the inputs that reach the same units through another kernel (the
        context), so that the two together start as one layer over both would. `small` asks for
        the variance 1 / (3 fan_in) instead, to go with biases that are not zero. `copies` of them,
        of as many layers, make one weight with a leading axis.
        """
        initializer = "zeros"
        if not zero:
            fan_in = math.prod(shape[:-1]) + more_inputs
            fan_out = math.prod(shape[:-2]) * shape[-1]
            relu_like = getattr(self.activation, "__name__", None) in _RELU_LIKE
            variance = 2.0 / (fan_in if relu_like else fan_in + fan_out)
            if small:
                variance = 1.0 / (3.0 * fan_in)
            initializer = keras.initializers.RandomNormal(
                stddev=math.sqrt(variance), seed=self._weight_seed()
            )
        shape = shape if copies is None else (copies, *shape)
        return self.add_weight(name=name, shape=shape, initializer=initializer)

    def _add_bias(self, name, size, *, fan_in=None):
        """Adds a bias: zero, or uniform within `1 / sqrt(fan_in)`."""
        initializer = "zeros"
        if fan_in is not None:
            bound = 1.0 / math.sqrt(fan_in)
            initializer = keras.initializers.RandomUniform(-bound, bound, seed=self._weight_seed())
        return self.add_weight(name=name, shape=(size,), initializer=initializer)

    def _add_context_kernel(self, width, *, more_inputs, **kwargs):
        """Adds the kernel of the context's share of a layer; `None` if there is no context."""
        if self.context_size is None:
            return None
        shape = (self.context_size, width)
        return self._add_kernel("context_kernel", shape, more_inputs=more_inputs, **kwargs)

    def _weight_seed(self):
        # Hashed, not seed + index: layers of seeds 0 and 1 must have no kernel in common.
        if self.seed is None:
            return None
        return int(np.random.SeedSequence([self.seed, len(self.weights)]).generate_state(1)[0])

    # --- Checks. ---

    def _checked_context_size(self, value):
        return vector_size(value, "context_size", self._title())

    def _title(self):
        return f"{type(self).__name__} '{self.name}'"

    def _check_input(self, shape):
        """Checks an input's static shape and returns the size of its last axis."""
        shape = tf.TensorShape(shape)
        size = self._input_size
        if shape.rank not in (None, self._input_rank):
            wanted = "[batch, n]" if self._input_rank == 2 else "[batch, H, W, C]"
            raise ValueError(
                f"{self._title()}: expected an input of shape {wanted}, got {shape}. It takes "
                "exactly one batch dimension: flatten others, or add one to a single event."
            )
        got = None if shape.rank is None else shape[-1]
        if size is None and not got:
            raise ValueError(
                f"{self._title()}: the last axis of the input must be known and not empty to make "
                f"the weights, got {shape}. Build it with a static size: build([None, ..., n])."
            )
        if size is not None and got not in (None, size):
            raise ValueError(
                f"{self._title()}: was built for inputs with last axis {size}, got {shape}. Use "
                "another layer for another size."
            )
        return got if size is None else size

    def _check_context(self, x, context):
        size = self.context_size
        if context is None:
            if size is not None:
                raise ValueError(
                    f"{self._title()}: a context of shape [batch, {size}] is required, got none. "
                    "Pass `context=`."
                )
            return
        if size is None:
            raise ValueError(
                f"{self._title()}: got a context of shape {context.shape}, but it was built "
                "without one and would ignore it. Leave it out, or set `context_size`."
            )
        shape = context.shape
        if shape.rank not in (None, 2) or (shape.rank == 2 and shape[1] not in (None, size)):
            raise ValueError(
                f"{self._title()}: expected a context of shape [batch, {size}], got {shape}. "
                "Reshape it, or set `context_size` to its last axis."
            )
        self._check_rows(x, shape)

    def _check_rows(self, x, shape):
        """Raises unless a context of this shape has a row for each input, or one for all."""
        if shape.rank is None or x.shape.rank is None:
            return
        rows, batch = shape[0], x.shape[0]
        if None not in (rows, batch) and rows not in (1, batch):
            raise ValueError(
                f"{self._title()}: expected a context with one row for each of the {batch} inputs "
                f"(or a single row for all), got {rows} rows. Repeat the shorter one."
            )
