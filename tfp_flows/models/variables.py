"""The variables of a distribution, as Keras sees them."""

import dataclasses

import keras
import tensorflow as tf

from tfp_flows import _private
from tfp_flows.bijectors import FlowBijector, Network, Repeat
from tfp_flows.bijectors.unrolled import Place

# Where Keras keeps the raw variables in a file: as one of the model's layers.
_RAW = "layers/tensor_flow_variables/vars"


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


def check_optimizer_of_stacks(optimizer, distribution, title):
    """Refuses an optimizer to which a stack of weights is not what each of them is."""
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    repeats = repeats_of(distribution)
    if repeats and isinstance(inner, keras.optimizers.Muon):
        raise ValueError(
            f"{title}: Muon tells matrices by their rank, and in the loop '{repeats[0].name}' all "
            "weights of a kind are one variable: biases would be matrices, and kernels none. "
            "Build the flow with stacked=False (a Chain), or take another optimizer."
        )


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
            self.regularizer = _Regularizer(lambda: tf.add_n(each(regularizer)))
        constraint = getattr(pattern, "constraint", None)
        if constraint is not None:
            self.constraint = _Constraint(
                lambda: tf.reshape(tf.stack(each(constraint)), self.shape)
            )

    @property
    def trainable(self):
        """Whether it is trained: not if the layer that it follows is frozen."""
        return self._trainable and (self._pattern is None or self._pattern.trainable)

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)


# Keras before 3.13 takes no plain functions.
class _Regularizer(keras.regularizers.Regularizer):
    """What a function gives, of a variable that it knows."""

    def __init__(self, function):
        self._function = function

    def __call__(self, x):
        return self._function()


class _Constraint(keras.constraints.Constraint):
    """What a function gives, of a variable that it knows."""

    def __init__(self, function):
        self._function = function

    def __call__(self, w):
        return self._function()


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


def _line(name, variable, index=()):
    # Whole numbers were int32 in version 0.1.
    dtype = tf.as_dtype(variable.dtype).name.replace("int64", "int32")
    return f"{name}: {dtype} {list(variable.shape)[len(index) :]}"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A weight of a model as it would be if no steps were stacked."""

    line: str  # of the layout
    path: str  # in a weights file
    variable: tf.Variable  # in which it is now
    index: tuple  # where in it


def unrolled_layout_of(model):
    """The weights that a model would have if it had no steps in loops, in their order."""
    layers, kept = [], set()
    for module in [model.distribution, *model.distribution.submodules]:
        if isinstance(module, Place):
            layers += list(module.repeat.unrolled_layers())
        elif isinstance(module, Network) and id(module.layer) not in kept:
            kept.add(id(module.layer))
            values = [v.value for v in module.layer.variables]
            layers.append((module.layer, {id(v): (v, ()) for v in values}))
    paths = _private.paths_in_list("conditioners", [layer for layer, _ in layers])
    entries = []
    for (layer, places), known in zip(layers, paths, strict=True):
        for v in layer.variables:
            variable, index = places[id(v.value)]
            line = _line(f"{v.name} of a conditioner", variable, index)
            entries.append(Entry(line, known[id(v)], variable, index))
    if model._embedding is not None:
        network = model._embedding.layer
        for v, path in _private.paths_of("context_network", network):
            entries.append(Entry(_line(f"{v.name} of the context network", v), path, v.value, ()))
    return entries + _unrolled_raw_variables(model)


def _unrolled_raw_variables(model):
    owned = {id(v.value) for layer in model._networks for v in layer.variables}
    repeats, found = repeats_of(model.distribution), []
    for variable in model.distribution.variables:
        repeat = next((r for r in repeats if r.owns(variable)), None)
        if repeat is None:
            found.append((variable, variable, ()))
        elif variable is repeat.variables[0]:
            found += list(repeat.unrolled_variables())
    found = [entry for entry in found if id(entry[0]) not in owned]
    # Keras keeps what is trained before the rest.
    in_file = sorted(range(len(found)), key=lambda n: not found[n][0].trainable)
    paths = {n: f"{_RAW}/{place}" for place, n in enumerate(in_file)}
    return [
        Entry(_line(pattern.name.split(":")[0], variable, index), paths[n], variable, index)
        for n, (pattern, variable, index) in enumerate(found)
    ]


def paths_of(model):
    """Where a weights file of a model holds its variables, by the identity of their values."""
    found = {}
    for layer, paths in zip(
        model.conditioners,
        _private.paths_in_list("conditioners", model.conditioners),
        strict=True,
    ):
        found.update((id(v.value), paths[id(v)]) for v in layer.variables)
    if model._embedding is not None:
        for v, path in _private.paths_of("context_network", model._embedding.layer):
            found[id(v.value)] = path
    for n, v in enumerate(_private.in_order_of_file(model.other_variables)):
        found[id(v.value)] = f"{_RAW}/{n}"
    return found
