"""What the configuration of a Keras layer or optimizer may name."""

import keras

from tfp_flows.saving.messages import shortened

# Keras's layers that compute, from their inputs and weights alone. Left out are those that load a
# program (TFSMLayer, TorchModuleWrapper, JaxLayer, FlaxLayer), run Python that a file brings
# (Lambda), read a vocabulary's file (the lookups, TextVectorization), or belong to a pipeline of
# images rather than to a network.
_LAYERS = """
Activation ActivityRegularization AdaptiveAveragePooling1D AdaptiveAveragePooling2D
AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D Add
AdditiveAttention AlphaDropout Attention Average AveragePooling1D AveragePooling2D
AveragePooling3D BatchNormalization Bidirectional CategoryEncoding Concatenate Conv1D
Conv1DTranspose Conv2D Conv2DTranspose Conv3D Conv3DTranspose ConvLSTM1D ConvLSTM2D ConvLSTM3D
Cropping1D Cropping2D Cropping3D Dense DepthwiseConv1D DepthwiseConv2D Dot Dropout ELU
EinsumDense Embedding Flatten GRU GRUCell GaussianDropout GaussianNoise
GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
GlobalMaxPooling2D GlobalMaxPooling3D GroupNormalization GroupQueryAttention Identity
InputLayer LSTM LSTMCell LayerNormalization LeakyReLU Masking MaxPooling1D MaxPooling2D
MaxPooling3D Maximum Minimum MultiHeadAttention Multiply Normalization PReLU Permute
RMSNormalization RNN ReLU RepeatVector Rescaling Reshape ReversibleEmbedding SeparableConv1D
SeparableConv2D SimpleRNN SimpleRNNCell Softmax SpatialDropout1D SpatialDropout2D
SpatialDropout3D SpectralNormalization StackedRNNCells Subtract TimeDistributed
UnitNormalization UpSampling1D UpSampling2D UpSampling3D ZeroPadding1D ZeroPadding2D
ZeroPadding3D
"""
# Module, as a file names it -> names, or the class that what is named there must be.
_ALLOWED = {
    "keras.layers": frozenset(_LAYERS.split()),
    "keras": frozenset({"DTypePolicy", "Model", "Sequential"}),
    "keras.models": frozenset({"Model", "Sequential"}),
    "keras.src.models.functional": frozenset({"Functional"}),
    "keras.dtype_policies": keras.dtype_policies.DTypePolicy,
    "keras.initializers": keras.initializers.Initializer,
    "keras.regularizers": keras.regularizers.Regularizer,
    "keras.constraints": keras.constraints.Constraint,
}
_OPTIMIZERS = {
    "keras.optimizers": keras.optimizers.Optimizer,
    "keras.optimizers.schedules": keras.optimizers.schedules.LearningRateSchedule,
}
# Steps of a functional model that are written as `a + b`, `keras.ops.tanh(a)`.
_OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("numpy", "nn", "math", "linalg"))
# Where functions may come from: mathematics, without a way to a file or the network.
_FUNCTIONS = {
    "keras.activations": keras.activations,
    "keras.initializers": keras.initializers,
    "keras.regularizers": keras.regularizers,
    "keras.constraints": keras.constraints,
    "keras.ops": keras.ops,
}
# Where Keras looks a function up that its configuration gives by name alone.
_BUILT_IN = (
    keras.activations,
    keras.constraints,
    keras.initializers,
    keras.losses,
    keras.metrics,
    keras.regularizers,
)
# Keras's notation for values, none of which names a class.
_VALUES = frozenset({"__keras_tensor__", "__tensor__", "__numpy__", "__bytes__"})
_NESTED_VALUES = frozenset({"__ellipsis__", "__slice__"})


def check_layer_config(config, where):
    """Raises unless everything that a layer's configuration names may be found when loading.

    That is Keras's plain computing layers, its initializers, activations and the like, and what
    was registered. Keras writes the code of a lambda into the file, would look an unregistered
    class up by its name, and lets a file name layers that load other programs; none of this is
    done here, whatever the version of Keras allows.

    Args:
      config: what `keras.saving.serialize_keras_object(layer)` returned, or the same from a file.
      where: the layer, for messages.

    Raises:
      ValueError: naming what is not known or not allowed.
    """
    _check(config, where, _ALLOWED)


def check_optimizer_config(config, where):
    """As `check_layer_config`, for an optimizer: Keras's, its schedules, and registered ones."""
    if isinstance(config, str):
        config = {"module": "keras.optimizers", "class_name": config, "config": {}}
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise ValueError(f"{where}: expected the description of one, got {shortened(config, 80)!r}")
    _check(config, where, {**_ALLOWED, **_OPTIMIZERS})


def _check(config, where, allowed):
    rest = [config]
    while rest:  # Not by recursion: a file may nest as deep as it likes.
        config = rest.pop()
        if isinstance(config, (list, tuple)):
            rest.extend(config)
        elif isinstance(config, dict):
            if "class_name" in config and "config" in config:
                _check_named(config, where, allowed)
            elif set(config) == {"value"} and isinstance(config["value"], (list, tuple)):
                _refuse_lambda(where)  # So it is written where an activation is expected.
            rest.extend(config.values())


def _check_named(config, where, allowed):
    name, module = config["class_name"], config.get("module")
    if name == "__lambda__":
        _refuse_lambda(where)
    if name in _VALUES | _NESTED_VALUES if isinstance(name, str) else False:
        return
    is_function = name == "function"
    looked_up = config["config"] if is_function else config.get("registered_name") or name
    if isinstance(looked_up, str):
        if _is_registered(config, looked_up, is_function):
            return
        if _is_allowed(module, name, looked_up, is_function, allowed):
            return
    named = shortened(f"{looked_up!r}", 200)
    if str(module).split(".")[0] == "keras":
        raise ValueError(
            f"{where} uses Keras's {named} of {shortened(module, 100)}, which a file may not name: "
            "it is no plain computing layer. Make it a part of a registered layer of your own"
        )
    raise ValueError(
        f"{where} uses {named}, which is neither Keras's nor registered. Decorate it with "
        "@keras.saving.register_keras_serializable(package='mine')"
    )


def _is_registered(config, looked_up, is_function):
    # Where a class has no registered name, Keras looks for it in the module that is named.
    if not is_function and config.get("registered_name", looked_up) != looked_up:
        return False
    return keras.saving.get_registered_object(looked_up) is not None


def _is_allowed(module, name, looked_up, is_function, allowed):
    if not isinstance(module, str) or not isinstance(name, str):
        return False
    if is_function:
        if module == "builtins":
            return any(hasattr(m, looked_up) for m in _BUILT_IN)
        found = getattr(_FUNCTIONS.get(module), looked_up, None)
        return callable(found) and not isinstance(found, type)
    if module in _OPERATIONS:
        return True  # Keras takes classes of operations from there alone.
    rule = allowed.get(module)
    if rule is None or isinstance(rule, frozenset):
        return rule is not None and name in rule
    found = getattr(keras, module.removeprefix("keras.").split(".")[0])
    for step in module.removeprefix("keras.").split(".")[1:]:
        found = getattr(found, step)
    found = getattr(found, name, None)
    return isinstance(found, type) and issubclass(found, rule)


def _refuse_lambda(where):
    raise ValueError(
        f"{where} holds a lambda, and loading it would run code from the file. Name the function "
        "and register it by keras.saving.register_keras_serializable"
    )
