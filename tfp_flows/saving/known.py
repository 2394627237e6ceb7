"""The classes and functions that a description may name."""

import functools
import inspect

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.elementwise import ElementwiseMap
from tfp_flows.saving.messages import shortened

tfb, tfd = tfp.bijectors, tfp.distributions

_REGISTERED = "registered:"
_LinearOperator = tf.linalg.LinearOperator
_Kernel = tfp.math.psd_kernels.PositiveSemidefiniteKernel
_DESCRIBABLE = (tfb.Bijector, tfd.Distribution, _LinearOperator, _Kernel, ElementwiseMap)

REMEDY = "Weights (`save_weights`, `tf.train.Checkpoint`) and `export` work without a description."


def name_of(kind):
    """The name of a class in a description, or `None` if it is not known."""
    if registered(kind):
        return _REGISTERED + keras.saving.get_registered_name(kind)
    return _names_of_classes().get(kind)


def class_of(name):
    """The class of a name in a description.

    Raises:
      ValueError: if no such class is known.
    """
    if not isinstance(name, str):
        raise ValueError(f"expected the name of a class, got {shortened(repr(name), 80)}")
    found = _classes().get(name)
    if name.startswith(_REGISTERED):
        found = keras.saving.get_registered_object(name.removeprefix(_REGISTERED))
        # Layers, too, are registered under names: they have a place of their own.
        if not isinstance(found, type) or issubclass(found, keras.layers.Layer):
            found = None
    if found is None:
        raise ValueError(
            f"the class '{shortened(name, 100)}' is not known here. If it is yours, import the "
            "module that registers it (`keras.saving.register_keras_serializable`) before loading"
        )
    return found


def registered(thing):
    """Whether a class or function was registered with Keras."""
    name = keras.saving.get_registered_name(thing)
    return keras.saving.get_registered_object(name) is thing


def name_of_function(function):
    """The name of a function in a description, or `None` if it is not known."""
    if registered(function):
        return _REGISTERED + keras.saving.get_registered_name(function)
    return _names_of_functions().get(_key(function))


def function_of(name):
    """The function of a name in a description.

    Raises:
      ValueError: if no such function is known.
    """
    found = None
    if isinstance(name, str) and name.startswith(_REGISTERED):
        found = keras.saving.get_registered_object(name.removeprefix(_REGISTERED))
        found = None if isinstance(found, type) else found
    elif isinstance(name, str):
        found = _functions().get(name)
    if found is None:
        raise ValueError(
            f"the function {shortened(repr(name), 100)} is not known here. If it is yours, "
            "import the module that registers it (`keras.saving.register_keras_serializable`) "
            "before loading"
        )
    return found


def arguments_of(thing):
    """The constructor arguments of an object, as a dictionary."""
    if registered(type(thing)):
        return dict(thing.get_config())
    arguments = {}
    accepted = _accepted(type(thing))
    for name, value in thing.parameters.items():
        if accepted is None or name in accepted:
            # A function that is the default comes back by itself, named or not.
            if not callable(value) or value is not _default_of(type(thing), name):
                arguments[name] = value
        elif value is not None and name != "parameters":
            raise ValueError(
                f"{type(thing).__name__} '{thing.name}' holds an argument '{name}' that its "
                f"constructor does not take. {REMEDY}"
            )
    return arguments


def _default_of(kind, name):
    """The default of a constructor's argument."""
    parameter = inspect.signature(kind.__init__).parameters.get(name)
    return None if parameter is None else parameter.default


def build(kind, arguments):
    """Builds an object of a known class."""
    if registered(kind):
        return kind.from_config(arguments)
    accepted = _accepted(kind)
    unknown = [] if accepted is None else sorted(set(arguments) - accepted)
    if unknown:
        raise ValueError(f"it takes no arguments {shortened(', '.join(unknown), 200)}")
    return kind(**arguments)


def _accepted(kind):
    """Names that a constructor takes, or `None` for any."""
    names = set()
    for base in kind.__mro__:  # What one passes on as `**kwargs` the next one names.
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(vars(base)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return names - {"self", "parameters"}
    return None


@functools.cache
def _classes():
    found = {}
    for prefix, module, base in (
        ("tfb", tfb, tfb.Bijector),
        ("tfd", tfd, tfd.Distribution),
        ("tf.linalg", tf.linalg, _LinearOperator),
        ("tfp.math.psd_kernels", tfp.math.psd_kernels, _Kernel),
    ):
        for name in dir(module):
            value = getattr(module, name)
            if isinstance(value, type) and issubclass(value, base):
                found[f"{prefix}.{name}"] = value
    for base in _DESCRIBABLE:
        found.update({f"tfp_flows.{kind.__name__}": kind for kind in _own_subclasses(base)})
    return found


def _own_subclasses(kind):
    """This package's classes below one that can be described: to subclass it is to register."""
    for below in kind.__subclasses__():
        yield from _own_subclasses(below)
        if below.__module__.startswith("tfp_flows."):
            yield below


@functools.cache
def _names_of_classes():
    names = {}
    for name, kind in _classes().items():
        names.setdefault(kind, name)
        # Around a part that is no composite tensor, `tfb.Chain(...)` gives a `_Chain`, its base.
        for base in kind.__mro__[1:]:
            if base.__name__ == f"_{kind.__name__}":
                names.setdefault(base, name)
    return names


@functools.cache
def _functions():
    found = {}
    for prefix, module in (("tf.math", tf.math), ("tf.nn", tf.nn)):
        for name in dir(module):
            value = getattr(module, name)
            if inspect.isfunction(inspect.unwrap(value)) and not name.startswith("_"):
                found[f"{prefix}.{name}"] = value
    found["tf.identity"] = tf.identity
    return found


@functools.cache
def _names_of_functions():
    names = {}
    for name, function in _functions().items():
        names.setdefault(_key(function), name)
    return names


def _key(function):
    try:
        return inspect.unwrap(function)
    except ValueError:
        return function
