"""Loading a `.keras` file of a `FlowModel`, with an error of one line where it is none."""

import json
import os
import zipfile

import keras

_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_ASSETS = "assets/"
_MODEL = "tfp_flows>FlowModel"
_DAMAGED = "Copy it again from where it came from, or save the model again"
# What Keras, HDF5 and the parts of a model raise about a file whose zip archive is sound.
_ERRORS = (ValueError, TypeError, KeyError, AttributeError, OSError, RuntimeError)


def load(path, *, custom_objects=None, compile=True):
    """Loads the `FlowModel` that `FlowModel.save` wrote.

    The same as `keras.models.load_model(path)`, which loads such a file just as well, but it
    looks at the file first, every checksum included, and says what is wrong with it. No code
    from the file runs: classes and functions are looked up among those of Keras, TFP, this
    package, and those that were registered by `keras.saving.register_keras_serializable`.

    Args:
      path: `str` or `os.PathLike`, a file that ends in `.keras`.
      custom_objects: dictionary of names and classes or functions that were not registered.
      compile: whether the model gets back its optimizer, with its state. Default: `True`.

    Returns:
      The `FlowModel`.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      ValueError: if it is a directory, another program's file, another model's, cut off,
        changed, or of a newer version of this package; if a class that it names is not known.

    ```python
    model.save("moons.keras")
    again = tfp_flows.load("moons.keras")
    again.fit(x)  # as if there had been no save
    ```
    """
    path = os.fspath(path)
    _check(path, custom_objects or {})
    try:
        return keras.models.load_model(path, custom_objects=custom_objects, compile=compile)
    except _ERRORS as error:
        # Keras appends the whole configuration, which may be long.
        reason = str(error).split(" Full object config:")[0].rstrip(".")
        raise _refused(path, f"it cannot be loaded: {reason}") from error


def _check(path, custom_objects):
    if not os.path.exists(path):
        raise FileNotFoundError(f"tfp_flows.load: there is no file '{path}'.")
    if os.path.isdir(path):
        raise _refused(
            path,
            "expected a .keras file, got a directory. An export is loaded by "
            "tf.saved_model.load, a checkpoint by tf.train.Checkpoint",
        )
    if not path.endswith(".keras"):
        what = (
            "a weights file: build the model as it was and call its `load_weights`"
            if path.endswith(".weights.h5")
            else "another name: give the file its ending back, if FlowModel.save wrote it"
        )
        raise _refused(path, f"expected a path that ends in .keras, got {what}")
    try:
        with zipfile.ZipFile(path) as archive:
            names, config = _read(path, archive)
    except (zipfile.BadZipFile, EOFError, NotImplementedError) as error:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            # A zip archive's index is at its end: a file that was cut off still begins as one.
            cut = file.read(4) == b"PK\x03\x04"
        what = "it is cut off or damaged" if cut else "it is no zip archive, as .keras files are"
        raise _refused(path, f"{what} ({size} bytes; {error}). {_DAMAGED}") from error
    if not isinstance(config, dict):
        raise _refused(path, "its config.json describes no model: it was changed")
    name = config.get("registered_name") or config.get("class_name")
    kind = keras.saving.get_registered_object(str(name), custom_objects=custom_objects)
    flow_model = keras.saving.get_registered_object(_MODEL)
    if not (isinstance(kind, type) and issubclass(kind, flow_model)):
        raise _refused(
            path,
            f"expected a FlowModel, got a '{name}'. Other Keras models, and those that contain a "
            "FlowModel, are loaded by keras.models.load_model; a subclass of FlowModel must be "
            "registered by keras.saving.register_keras_serializable",
        )
    if "model.weights.h5" not in names:
        raise _refused(path, f"it holds no model.weights.h5. {_DAMAGED}")


def _read(path, archive):
    """Names of the members and the configuration, with every checksum compared."""
    names = archive.namelist()
    strange = [n for n in names if n not in _MEMBERS and not n.startswith(_ASSETS)]
    if "config.json" not in names or strange or len(set(names)) < len(names):
        raise _refused(
            path,
            f"it is no file of Keras: it holds {', '.join(names[:5]) or 'nothing'}, expected "
            f"{', '.join(_MEMBERS)}",
        )
    # FlowModel.save compresses nothing, so a member can't unpack to more than the file has.
    if sum(info.file_size for info in archive.infolist()) > os.path.getsize(path):
        raise _refused(path, "it is compressed, which FlowModel.save never does: it was changed")
    damaged = archive.testzip()
    if damaged is not None:
        raise _refused(path, f"the checksum of its {damaged} is wrong. {_DAMAGED}")
    try:
        return names, json.loads(archive.read("config.json"))
    except (ValueError, RecursionError) as error:
        raise _refused(path, f"its config.json is no JSON ({error}). {_DAMAGED}") from error


def _refused(path, what):
    return ValueError(f"tfp_flows.load: '{path}': {what}.")
