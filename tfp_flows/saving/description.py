"""A distribution as JSON, and back."""

import base64
import binascii
import math
import types
import warnings
import zlib

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.saving import bounds, known
from tfp_flows.saving.layers import check_layer_config
from tfp_flows.saving.messages import shortened
from tfp_flows.version import __version__

FORMAT_VERSION = 1
_FORMAT = "tfp_flows model"
_REFUSED = "FlowModel: no file can describe this model"

# A variable of more entries than this is described by its shape alone: Keras's weights hold it.
_MAX_VALUES = 2**16

# Packed arrays that are larger are not packed where they would shrink to almost nothing: such a one
# is taken for an attack when there are many.
_SMALL = 2**16
# What the constructors of parts, and the steps to them, raise for arguments that are not theirs.
_WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, MemoryError, RecursionError)

_Deferred = tfp.util.DeferredTensor
_Transformed = tfp.util.TransformedVariable


def describe(**roots):
    """Describes objects in JSON: dictionaries, lists, strings and numbers.

    Args:
      **roots: what is to be described, by name: distributions, bijectors, variables, Keras layers,
        registered objects of your own, arrays, numbers, strings; tuples, lists and dictionaries
        of them.

    Returns:
      A dictionary for `rebuild`. Its `"parts"` are in the order in which they are built, and
      refer to each other by number, so that what is shared is there once.

    Raises:
      ValueError: naming the part that cannot be described: a lambda, a class that is not
        registered, a tensor of a graph.

    >>> import tensorflow_probability as tfp
    >>> description = describe(bijector=tfp.bijectors.Scale(2.0), size=3)
    >>> sorted(rebuild(description))
    ['bijector', 'size']
    """
    encoder = _Encoder()
    values = {name: encoder.value(value, f"`{name}`") for name, value in roots.items()}
    return {
        "format": _FORMAT,
        "format_version": FORMAT_VERSION,
        "tfp_flows": __version__,
        "parts": encoder.parts,
        "roots": values,
    }


def rebuild(description):
    """Builds what `describe` described.

    Variables have their values at the time of the description, up to 65,536 entries, and zeros
    beyond; Keras layers have fresh weights. `keras.models.load_model` sets them all afterwards.

    Args:
      description: what `describe` returned, or the same read from a file.

    Returns:
      A dictionary of the objects, by the names given to `describe`.

    Raises:
      ValueError: for anything else, a newer format, a class that is not known, parts that nothing
        refers to, or that would become larger than their file accounts for.

    >>> rebuild(describe(shape=(4, 4, 1)))
    {'shape': (4, 4, 1)}
    """
    if not isinstance(description, dict) or description.get("format") != _FORMAT:
        raise ValueError(
            "FlowModel: this is no description of a FlowModel: the file was written by another "
            "program, or was changed."
        )
    version = description.get("format_version")
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise ValueError(
            f"FlowModel: the file has format version {shortened(repr(version), 40)}, written by "
            f"tfp_flows {shortened(repr(description.get('tfp_flows')), 40)}; tfp_flows "
            f"{__version__} reads up to version "
            f"{FORMAT_VERSION}. Install the newer tfp_flows."
        )
    parts, roots = description.get("parts"), description.get("roots")
    if not isinstance(parts, list) or not isinstance(roots, dict):
        raise ValueError("FlowModel: the file is damaged: its parts are missing.")
    try:
        bounds.check(parts, roots)
    except ValueError as error:
        raise ValueError(f"FlowModel: the file is damaged: {error}.") from error
    decoder = _Decoder()
    for number, part in enumerate(parts):
        try:
            decoder.parts.append(decoder.part(part))
        except _WRONG as error:
            label = part.get("class") or part.get("kind") if isinstance(part, dict) else part
            raise ValueError(
                f"FlowModel: part {number} of the file, {shortened(repr(label), 100)}, cannot be "
                f"built: {shortened(error)}."
            ) from error
    try:
        return {name: decoder.value(value) for name, value in roots.items()}
    except _WRONG as error:
        raise ValueError(f"FlowModel: the file is damaged: {shortened(error)}.") from error


class _Encoder:
    """Turns objects into JSON; `parts` grows on the way."""

    def __init__(self):
        self.parts = []
        self._numbers = {}  # By identity, or by content for arrays.
        self._kept = []  # Keeps the objects alive, so that no id comes twice.

    def value(self, value, where):
        if value is None or isinstance(value, (bool, str)):
            return value
        if isinstance(value, int):
            return int(value)
        if isinstance(value, np.generic):
            return {"$scalar": [value.dtype.name, _number(value.item())]}
        if isinstance(value, float):
            return _number(value)
        if isinstance(value, tf.DType):
            return {"$dtype": value.name}
        if isinstance(value, np.dtype):
            return {"$numpy_dtype": value.name}
        if isinstance(value, type) and issubclass(value, np.generic):
            return {"$numpy_type": np.dtype(value).name}
        if isinstance(value, tf.TensorShape):
            return {"$shape": None if value.rank is None else value.as_list()}
        if isinstance(value, tuple):
            if hasattr(value, "_fields"):
                self._refuse(where, "a namedtuple")
            return {"$tuple": [self.value(v, f"{where}[{i}]") for i, v in enumerate(value)]}
        if isinstance(value, list):
            return [self.value(v, f"{where}[{i}]") for i, v in enumerate(value)]
        if isinstance(value, dict):
            return {
                "$dict": [
                    [self.value(k, where), self.value(v, f"{where}[{k!r}]")]
                    for k, v in value.items()
                ]
            }
        if isinstance(value, (types.FunctionType, types.BuiltinFunctionType, types.MethodType)):
            return self._function(value, where)
        return {"$part": self._number_of(value, where)}

    def _function(self, function, where):
        name = known.name_of_function(function)
        if name is None:
            what = getattr(function, "__qualname__", repr(function))
            code = getattr(function, "__code__", None)
            place = f" at {code.co_filename}:{code.co_firstlineno}" if code else ""
            self._refuse(
                where,
                f"the function {what}{place}, which is not a file's to keep. Use a function of "
                "tf.math or tf.nn, or name it and register it by "
                "keras.saving.register_keras_serializable",
            )
        return {"$function": name}

    def _refuse(self, where, what):
        raise ValueError(f"{_REFUSED}: {where} is {what}. {known.REMEDY}")

    def _number_of(self, value, where):
        key = id(value)
        if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
            key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._numbers:
            part = self._part(value, where)
            self._kept.append(value)
            self.parts.append(part)
            self._numbers[key] = len(self.parts) - 1
        return self._numbers[key]

    def _part(self, value, where):
        if isinstance(value, tf.Variable):
            return self._variable(value, where)
        if isinstance(value, keras.layers.Layer):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Of a lambda, which is refused below.
                config = keras.saving.serialize_keras_object(value)
            try:
                check_layer_config(config, f"{where} (the layer '{value.name}')")
            except ValueError as error:
                raise ValueError(f"{_REFUSED}: {error}. {known.REMEDY}") from None
            return {"kind": "layer", "config": config}
        if isinstance(value, _Deferred):
            return self._deferred(value, where)
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufc":
                self._refuse(where, f"an array of dtype {value.dtype}")
            return {"kind": "array", **_pack(value)}
        if isinstance(value, tf.Tensor):
            if not hasattr(value, "numpy"):
                self._refuse(where, f"the tensor '{value.name}' of a graph. Build it eagerly")
            return {"kind": "tensor", **_pack(value.numpy(), value.dtype)}
        name = known.name_of(type(value))
        if name is None:
            kind = type(value)
            self._refuse(
                where,
                f"of the class {kind.__module__}.{kind.__qualname__}, which is not known. Register "
                "it: @keras.saving.register_keras_serializable(package='mine'); a bijector that "
                "is no FlowBijector needs get_config and from_config for it",
            )
        title = f"{type(value).__name__} '{getattr(value, 'name', '')}'"
        arguments = {
            argument: self.value(v, f"argument `{argument}` of {title}")
            for argument, v in known.arguments_of(value).items()
        }
        return {"kind": "object", "class": name, "arguments": arguments}

    def _variable(self, value, where):
        if not value.shape.is_fully_defined():
            self._refuse(where, f"the variable '{value.name}' of shape {value.shape}, not known")
        described = {
            "kind": "variable",
            "name": value.name.split(":")[0],
            "dtype": value.dtype.name,
            "shape": value.shape.as_list(),
            "trainable": bool(value.trainable),
        }
        for option, default in (("synchronization", "AUTO"), ("aggregation", "NONE")):
            setting = getattr(value, option).name
            if setting != default:
                described[option] = setting
        if value.shape.num_elements() <= _MAX_VALUES:
            described["value"] = _pack(tf.convert_to_tensor(value).numpy(), value.dtype)
        return described

    def _deferred(self, value, where):
        where = f"`{{}}` of the {type(value).__name__} in {where}"
        found = {"pretransformed_input": value.pretransformed_input}
        if isinstance(value, _Transformed):
            kind, found["bijector"] = "transformed_variable", value.bijector
        else:
            kind, transform = "deferred_tensor", value.transform_fn
            if isinstance(getattr(transform, "__self__", None), tfp.bijectors.Bijector):
                transform = transform.__self__  # It gives the `forward` of a bijector.
            found.update(
                transform_fn=transform,
                dtype=value.dtype,
                shape=value.shape,
                also_track=value.also_track,
            )
        arguments = {name: self.value(v, where.format(name)) for name, v in found.items()}
        return {"kind": kind, "arguments": arguments}


class _Decoder:
    """Builds the parts, in order; a part may refer to earlier ones alone."""

    def __init__(self):
        self.parts = []

    def value(self, value):
        if value is None or isinstance(value, (bool, str, int, float)):
            return value
        if isinstance(value, list):
            return [self.value(v) for v in value]
        if not isinstance(value, dict) or len(value) != 1:
            raise ValueError(f"expected a value, got {shortened(value, 80)}")
        ((tag, content),) = value.items()
        if tag == "$part":
            if type(content) is not int or not 0 <= content < len(self.parts):
                raise ValueError(f"there is no part {content!r} before it")
            return self.parts[content]
        if tag == "$tuple":
            return tuple(self.value(v) for v in content)
        if tag == "$dict":
            return {self.value(k): self.value(v) for k, v in content}
        if tag == "$dtype":
            return tf.as_dtype(content)
        if tag == "$numpy_dtype":
            return _numpy_dtype(content)
        if tag == "$numpy_type":
            return _numpy_dtype(content).type
        if tag == "$shape":
            return tf.TensorShape(content)
        if tag == "$float":
            return float(content)
        if tag == "$scalar":
            return _numpy_dtype(content[0]).type(self.value(content[1]))
        if tag == "$function":
            return known.function_of(content)
        raise ValueError(f"'{shortened(tag, 80)}' means nothing here")

    def part(self, part):
        kind = part["kind"]
        if kind == "object":
            arguments = {name: self.value(v) for name, v in part["arguments"].items()}
            return known.build(known.class_of(part["class"]), arguments)
        if kind == "variable":
            return _new_variable(part)
        if kind == "layer":
            check_layer_config(part["config"], "the layer")
            layer = keras.saving.deserialize_keras_object(part["config"])
            if not isinstance(layer, keras.layers.Layer):
                raise ValueError(f"expected a Keras layer, got a {type(layer).__name__}")
            return layer
        if kind == "array":
            return _unpack(part)
        if kind == "tensor":
            return tf.constant(_unpack(part), tf.as_dtype(part["dtype"]))
        if kind in ("deferred_tensor", "transformed_variable"):
            arguments = {name: self.value(v) for name, v in part["arguments"].items()}
            if kind == "deferred_tensor":
                return _Deferred(**arguments)
            # With the untransformed variable given, no initial value is looked at.
            return _Transformed(None, **arguments)
        raise ValueError(f"parts of the kind {shortened(repr(kind), 80)} are not known")


def _number(value):
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": str(value)}
    if isinstance(value, complex):
        raise ValueError(f"{_REFUSED}: a complex number. Give a real one.")
    return value


def _pack(array, dtype=None):
    """An array as text; nothing but numbers and truth values."""
    array = np.asarray(array)
    name = array.dtype.name if dtype is None else dtype.name
    if name == "bfloat16":
        array = array.astype(np.float32)
    content = np.ascontiguousarray(array).tobytes()
    data = zlib.compress(content, 6)
    if len(content) > max(_SMALL, bounds.PACKED_RATIO * len(data)):
        data = zlib.compress(content, 0)
    return {
        "dtype": name,
        "shape": list(array.shape),
        "data": base64.b64encode(data).decode("ascii"),
    }


def _unpack(packed):
    name, shape = packed["dtype"], packed["shape"]
    dtype = np.dtype(np.float32) if name == "bfloat16" else _numpy_dtype(name)
    if not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{shape} is no shape")
    size = math.prod(shape) * dtype.itemsize
    try:
        compressed = base64.b64decode(packed["data"], validate=True)
        # No more than is due, whatever the compressed data would like to become.
        data = zlib.decompressobj().decompress(compressed, size + 1)
    except (binascii.Error, zlib.error) as error:
        raise ValueError(f"its numbers are damaged ({error})") from error
    if len(data) != size:
        raise ValueError(f"expected {size} bytes for the shape {shape}, got {len(data)} or more")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _numpy_dtype(name):
    dtype = np.dtype(str(name))
    if dtype.kind not in "biufc":
        raise ValueError(f"arrays of dtype {name!r} are not allowed")
    return dtype


def _new_variable(part):
    dtype, shape = tf.as_dtype(part["dtype"]), tf.TensorShape(part["shape"])
    if "value" in part:
        initial = _unpack(part["value"])
        if list(initial.shape) != part["shape"]:
            raise ValueError(f"its value has shape {list(initial.shape)}, not {part['shape']}")
    else:
        initial = np.zeros(shape, bool if dtype == tf.bool else np.float32)
    options = {}
    if "synchronization" in part:
        options["synchronization"] = tf.VariableSynchronization[part["synchronization"]]
    if "aggregation" in part:
        options["aggregation"] = tf.VariableAggregation[part["aggregation"]]
    return tf.Variable(
        tf.cast(initial, dtype),
        trainable=bool(part["trainable"]),
        name=str(part["name"]),
        **options,
    )
