"""What the configuration of a Keras layer may name."""

import keras

# Where Keras looks a function up that its configuration gives by name alone.
_BUILT_IN = (
    keras.activations,
    keras.constraints,
    keras.initializers,
    keras.losses,
    keras.metrics,
    keras.regularizers,
)


def check_layer_config(config, where):
    """Raises unless everything that a layer's configuration names can be found when loading.

    Keras finds its own classes, and those that were registered. It writes the code of a lambda
    into the file, and would look an unregistered class up by its name; neither is done here.

    Args:
      config: what `keras.saving.serialize_keras_object(layer)` returned, or the same from a file.
      where: the layer, for messages.

    Raises:
      ValueError: naming what is not known.
    """
    if isinstance(config, (list, tuple)):
        for entry in config:
            check_layer_config(entry, where)
    if not isinstance(config, dict):
        return
    if "class_name" in config and "config" in config:
        _check_named(config, where)
    elif set(config) == {"value"} and isinstance(config["value"], (list, tuple)):
        _refuse_lambda(where)  # So it is written where an activation is expected.
    for entry in config.values():
        check_layer_config(entry, where)


def _check_named(config, where):
    name = config["class_name"]
    if name == "__lambda__":
        _refuse_lambda(where)
    if isinstance(name, str) and name.startswith("__"):
        return  # Keras's notation for tensors, slices and the like.
    is_function = name == "function"
    looked_up = config["config"] if is_function else config.get("registered_name") or name
    module = config.get("module")
    if str(module).split(".")[0] == "keras":
        return
    if isinstance(looked_up, str):
        if keras.saving.get_registered_object(looked_up) is not None:
            return
        if is_function and module == "builtins" and any(hasattr(m, looked_up) for m in _BUILT_IN):
            return
    raise ValueError(
        f"{where} uses {looked_up!r}, which is neither Keras's nor registered. Decorate it with "
        "@keras.saving.register_keras_serializable(package='mine')"
    )


def _refuse_lambda(where):
    raise ValueError(
        f"{where} holds a lambda, and loading it would run code from the file. Name the function "
        "and register it by keras.saving.register_keras_serializable"
    )
