"""The variables of a distribution, as Keras sees them."""

import keras
import tensorflow as tf

from tfp_flows.bijectors import FlowBijector, Network, Repeat


def conditioners_of(distribution):
    """The Keras layers inside a distribution, each once, in the order of its parts."""
    layers = {}
    for module in [distribution, *distribution.submodules]:
        if isinstance(module, Network):
            layers.setdefault(id(module.layer), module.layer)
    return list(layers.values())


def repeats_of(distribution):
    """The loops in a distribution. What is inside their steps is none of its parts."""
    return [module for module in distribution.submodules if isinstance(module, Repeat)]


@keras.saving.register_keras_serializable(package="tfp_flows")
class TensorFlowVariables(keras.layers.Layer):
    """Holds the raw `tf.Variable`s of a distribution as Keras variables.

    A `keras.Variable` around a `tf.Variable` of the same dtype shares its storage, so training
    one trains the other.

    Args:
      variables: the variables.
      dtype: that of the distribution.
      layer_variables: pairs of one of them and the variable of a Keras layer that it stacks:
        frozen and regularized as that one is, step by step.
    """

    def __init__(self, variables, dtype, layer_variables=()):
        super().__init__(name="tensorflow_variables", dtype=dtype)
        self.wrapped = [_wrap(v) for v in variables]
        # Keras has listed them by now, in an order that no freezing changes: that of files.
        wrapped = {id(v.value): v for v in self.wrapped}
        for stack, pattern in layer_variables:
            wrapped[id(stack)].follow(pattern)
        self.built = True


class _Wrapped(keras.Variable):
    """A Keras variable around a `tf.Variable`, which may follow that of a layer."""

    _pattern = None

    def follow(self, pattern):
        """Is trained, regularized and constrained as `pattern`, of which it is a stack."""
        self._pattern = pattern
        shape = tuple(pattern.shape)

        def each(function):
            parts = tf.unstack(tf.reshape(self.value, [-1, *shape]))
            return [function(part) for part in parts]

        regularizer = getattr(pattern, "regularizer", None)
        if regularizer is not None:
            self.regularizer = lambda _: tf.add_n(each(regularizer))
        constraint = getattr(pattern, "constraint", None)
        if constraint is not None:
            self.constraint = lambda _: tf.reshape(tf.stack(each(constraint)), self.shape)

    @property
    def trainable(self):
        """Whether it is trained: not if the layer that it follows is frozen."""
        return self._trainable and (self._pattern is None or self._pattern.trainable)

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)


def raw_variables_of(distribution, layers):
    """The `tf.Variable`s of a distribution that belong to none of the Keras layers."""
    owned = {id(v.value) for layer in layers for v in layer.variables}
    return [v for v in distribution.variables if id(v) not in owned]


def _wrap(variable):
    # Keras copies, without a word, where the dtype differs: name the variable's own.
    wrapped = _Wrapped(
        variable,
        dtype=variable.dtype.name,
        trainable=variable.trainable,
        autocast=False,
        name=variable.name.split(":")[0].replace("/", "_"),
    )
    if wrapped.value is not variable:
        raise RuntimeError(
            f"Keras {keras.__version__} copied the variable '{variable.name}' instead of sharing "
            "it, so training would not reach the distribution. Install keras>=3.12."
        )
    return wrapped


def actnorms_of(distribution):
    """The parts that are initialised from data, as ActNorm is."""
    return [module for module in distribution.submodules if flags_of(module)]


def flags_of(part):
    """The variables that say whether a part was initialised from data; empty for most."""
    flags = tf.nest.flatten(getattr(part, "initialized", None))
    return [flag for flag in flags if isinstance(flag, tf.Variable)]


def layout_of(model):
    """A line for each weight of a model, in their order: the part it is in, dtype and shape."""
    owners = {}
    for part in model.distribution.submodules:
        if isinstance(part, FlowBijector):
            for network in part.submodules:
                if isinstance(network, Network):
                    # Of nested ones the inner, which comes later, has the say.
                    owners[id(network.layer)] = f"{type(part).__name__} '{part.name}'"
    lines = []
    for layer in model.conditioners:
        owner = f"the conditioner of {owners.get(id(layer), 'a part')}"
        lines += [_line(f"{v.name} of {owner}", v) for v in layer.variables]
    if model._embedding is not None:
        network = model._embedding.layer
        lines += [_line(f"{v.name} of the context network", v) for v in network.variables]
    return lines + [_line(v.value.name.split(":")[0], v) for v in model.other_variables.wrapped]


def _line(name, variable):
    return f"{name}: {variable.dtype} {list(variable.shape)}"
