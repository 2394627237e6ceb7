"""How a bijector holds and calls a Keras layer."""

import contextlib
import inspect

import keras
import tensorflow as tf

from tfp_flows._private import is_random_state
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.modes import AssignedInCall, in_training_mode, substitutes


class Network(tf.Module):
    """A built Keras 3 layer as a part of a `tf.Module`.

    A Keras 3 layer is no `tf.Module`, and its variables are wrappers, so a bijector that just
    stores one lists no variables and a checkpoint finds none. This module keeps the layer out
    of TensorFlow's sight and lists the raw `tf.Variable`s instead: bijectors, chains,
    distributions and `tf.train.Checkpoint` then see each of them once.

    Args:
      layer: `keras.layers.Layer` or callable Keras model. It is built here, by one call on
        zeros, if it was not. It is called as `layer(x)`, with a context as
        `layer(x, context=context)` or, if its `call` has no such argument, as
        `layer([x, context])`.
      input_shape: shape of one input event, without the batch axis.
      output_shape: the shape of one output event that the bijector needs.
      owner: name of the bijector, for messages.
      context_size: what context the layer takes, as `FlowBijector` has it, or `None`.
      dtype: dtype of the bijector, to which the output is cast.

    Raises:
      TypeError: if `layer` is no Keras layer.
      ValueError: if the layer does not take such an input or context, or its output has another
        shape than `output_shape`.

    >>> layer = keras.layers.Dense(2)
    >>> network = Network(layer, input_shape=[3], output_shape=[2], owner="mine", dtype="float32")
    >>> network(tf.ones([5, 4, 3])).shape, len(network.trainable_variables)
    (TensorShape([5, 4, 2]), 2)
    """

    def __init__(self, layer, *, input_shape, output_shape, owner, context_size=None, dtype):
        super().__init__(name=f"{layer.name}_network" if hasattr(layer, "name") else None)
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                f"{owner}: the conditioner must be a keras.layers.Layer (Keras 3), got "
                f"{type(layer).__name__}. Wrap a function in a Layer subclass."
            )
        self.layer = self._no_dependency(layer)
        self._shapes = self._no_dependency((tuple(input_shape), tuple(output_shape)))
        self._context_shapes = self._no_dependency(contexts.shapes_of(context_size, owner))
        self._dtype = tf.as_dtype(dtype)
        self._by_keyword = context_size is not None and _takes_context(layer)
        self._check_output(owner)
        # The raw variables: what tf.Module and tf.train.Checkpoint track.
        self._raw_variables = [v.value for v in layer.variables]

    def __call__(self, x, context=None):
        """Calls the layer on `[..., *input_shape]` with any batch dimensions."""
        event_in, event_out = self._shapes
        batch_rank = None if x.shape.rank is None else x.shape.rank - len(event_in)
        shapes = self._context_shapes
        if batch_rank == 1 and context is None:
            return self._call_layer(x, None)
        ranks = contexts.each(lambda c, shape: c.shape.rank - len(shape), context, shapes)
        if batch_rank == 1 and set(tf.nest.flatten(ranks)) == {1}:
            # The common case: Keras layers take just one batch dimension.
            context = contexts.each(lambda c, _: _match_rows(c, x), context, shapes)
            return self._call_layer(x, context)
        batch = tf.shape(x)[: tf.rank(x) - len(event_in)]

        def flat(tensor, shape):
            sizes = _sizes(tensor, len(shape))
            tensor = tf.broadcast_to(tensor, tf.concat([batch, sizes], 0))
            return tf.reshape(tensor, tf.concat([[-1], sizes], 0))

        context = contexts.each(flat, context, self._context_shapes)
        sizes = [-1] + _sizes(x, len(event_in))
        out = self._call_layer(tf.reshape(x, sizes), context)
        out_sizes = _sizes(out, len(event_out))
        static = None if batch_rank is None else x.shape[:batch_rank]
        out = tf.reshape(out, tf.concat([batch, out_sizes], 0))
        if static is not None:
            out.set_shape(static.concatenate(out.shape[-len(event_out) :]))
        return out

    @property
    def context_shapes(self):
        """Shape of the layer's context, a dictionary of them by name, or `None`."""
        return self._context_shapes

    def _call_layer(self, x, context):
        # So that Dropout, and whatever else tells training from inference, does so in `fit`.
        training = in_training_mode()
        with self.reading():
            if context is None:
                out = self.layer(x, training=training)
            elif self._by_keyword:
                out = self.layer(x, context=context, training=training)
            else:
                out = self.layer([x, context], training=training)
        # A conditioner may compute in bfloat16; the bijector never does.
        return tf.cast(out, self._dtype)

    def reading(self):
        """Has the layer read the values that `modes.reading` gives its variables, in a block."""
        values = substitutes()
        return _stateless(self.layer, values) if values else contextlib.nullcontext()

    def redrawn(self, reseed):
        """What the variables of another layer like this one would start from.

        Args:
          reseed: function from a seed in the layer's configuration, or `None`, to another.

        Returns:
          Pairs of a variable and an array; of floating ones, others are not drawn at random.

        Raises:
          ValueError: if the layer cannot be built from its configuration.
        """
        layer = self.layer
        try:
            other = type(layer).from_config(_reseeded(layer.get_config(), reseed))
            if not other.built:
                other.build_from_config(layer.get_build_config())
        except (NotImplementedError, TypeError, ValueError) as error:
            why = str(error).splitlines()[-1][:200]
            raise ValueError(
                f"the layer '{layer.name}' cannot be drawn anew from its configuration ({why}). "
                "Give it a get_config, register its functions with Keras, or stack layers that "
                "were drawn one by one (Repeat.of)."
            ) from error
        pairs = zip(layer.variables, other.variables, strict=True)
        return [(v.value, w.numpy()) for v, w in pairs if v.value.dtype.is_floating]

    def _check_output(self, owner):
        event_in, event_out = self._shapes
        with tf.init_scope():
            x = tf.zeros((1, *(4 if n is None else n for n in event_in)), self._dtype)
            context = None
            if self._context_shapes is not None:
                context = contexts.each(
                    lambda _, shape: tf.zeros((1, *(n or 4 for n in shape)), self._dtype),
                    self._context_shapes,
                    self._context_shapes,
                )
            try:
                out = self._call_layer(x, context)
            except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
                raise ValueError(self._refusal(error, owner)) from error
        if not out.shape[1:].is_compatible_with(event_out):
            raise ValueError(
                f"{owner}: its conditioner '{self.layer.name}' must map "
                f"[batch, {_text(event_in)}] to [batch, {_text(event_out)}], but gives "
                f"[batch, {_text(out.shape[1:])}]. Set the size of its output."
            )

    def _refusal(self, error, owner):
        """Says which bijector's layer has refused what it was given, and why."""
        if error.__suppress_context__ and error.__context__ is not None:
            # What was raised, of which Keras makes an error that lists the arguments' values.
            error = error.__context__
        event_in = self._shapes[0]
        given, remedy = f"[batch, {_text(event_in)}]", ""
        if self._context_shapes is not None:
            given += f" with a context {contexts.text(self._context_shapes)}".replace(
                "...", "batch"
            )
            if isinstance(self.layer, keras.Sequential):
                error = (
                    "a Sequential has one input. Make a keras.Model([x, context], out) of it, or "
                    "wrap it in a Layer whose `call(x, context)` gives it both, concatenated."
                )
        rank = len(event_in) + 1
        if getattr(self.layer, "_input_rank", rank) != rank:
            kinds = {2: "vectors take MLP", 4: "images take ConvNet or ResNet"}
            remedy = f" For {kinds[rank]} of tfp_flows.conditioners." if rank in kinds else ""
        return (
            f"{owner}: its conditioner '{self.layer.name}' does not take {given}: {error}{remedy}"
        )


@contextlib.contextmanager
def _stateless(layer, values):
    mapping = [(v, values[id(v.value)]) for v in layer.variables if id(v.value) in values]
    with keras.StatelessScope(state_mapping=mapping, collect_losses=True) as scope:
        given = dict(scope.state_mapping)
        yield
    # What a layer assigns or adds in here would be lost without a word.
    for v in layer.variables:
        if scope.state_mapping.get(id(v)) is given.get(id(v)):
            continue
        if id(v) not in given or not is_random_state(v):  # Which is given anew at every call.
            raise AssignedInCall(f"'{v.path}' of the layer '{layer.name}' is assigned")
    if scope.losses:
        raise AssignedInCall(f"the layer '{layer.name}' adds a loss")


def _reseeded(config, reseed):
    """A configuration with other seeds, wherever in it they are."""
    if isinstance(config, dict):
        return {
            name: reseed(value)
            if name == "seed" and isinstance(value, (int, type(None)))
            else _reseeded(value, reseed)
            for name, value in config.items()
        }
    if isinstance(config, (list, tuple)):
        return type(config)(_reseeded(value, reseed) for value in config)
    return config


def _takes_context(layer):
    try:
        parameters = inspect.signature(layer.call).parameters
    except (TypeError, ValueError):
        return False
    return "context" in parameters


def _match_rows(context, x):
    if context.shape[0] == x.shape[0] and x.shape[0] is not None:
        return context
    # One row of context serves the whole batch; an unknown batch size may be either.
    event = _sizes(context, context.shape.rank - 1)
    return tf.broadcast_to(context, tf.concat([tf.shape(x)[:1], event], 0))


def _sizes(x, ndims):
    static = x.shape[-ndims:]
    if static.is_fully_defined():
        return static.as_list()
    dynamic = tf.shape(x)
    return [
        dynamic[n - ndims + tf.size(dynamic)] if static[n] is None else static[n]
        for n in range(ndims)
    ]


def _text(shape):
    return ", ".join("?" if n is None else str(n) for n in shape)
