"""Loading a `.keras` file of a `FlowModel`, with an error of one line where it is none."""

import json
import os
import struct
import zipfile
import zlib

import keras
import tensorflow as tf

from tfp_flows.saving import bounds, weights
from tfp_flows.saving.messages import shortened

_MEMBERS = ("metadata.json", "config.json", "model.weights.h5")
_ASSETS = "assets/"
_MODEL = "tfp_flows>FlowModel"
_DAMAGED = "Copy it again from where it came from, or save the model again"
# What Keras, HDF5 and the parts of a model raise about a file whose zip archive is sound.
_ERRORS = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError, OSError, RuntimeError),
    *(MemoryError, OverflowError, tf.errors.OpError),
)
# What `zipfile` raises about an archive that is none, or was changed.
_NO_ARCHIVE = (
    *(zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, IndexError),
    *(zlib.error, struct.error),
)


def load(path, *, custom_objects=None, compile=True):
    """Loads the `FlowModel` that `FlowModel.save` wrote.

    The same as `keras.models.load_model(path)`, which loads such a file just as well, but it
    looks at the file first, every checksum included, and says what is wrong with it. No code
    from the file runs: classes and functions are looked up among those of Keras, TFP, this
    package, and those that were registered by `keras.saving.register_keras_serializable`. No
    other file is read, and nothing is built that is larger than the file accounts for.

    `keras.models.load_model` looks classes up, counts references and compares digests just the
    same; but it reads and unpacks the file before this package sees it, and does not know how
    large its weights are. Of a stranger's file take this function.

    Args:
      path: `str` or `os.PathLike`, a file that ends in `.keras`.
      custom_objects: dictionary of names and classes or functions that were not registered.
      compile: whether the model gets back its optimizer, with its state. Default: `True`.

    Returns:
      The `FlowModel`.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      ValueError: if it is a directory, another program's file, another model's, cut off,
        changed, or of a newer version of this package; if a class that it names is not known, or
        what it describes is larger than the weights that it holds.

    ```python
    model.save("moons.keras")
    again = tfp_flows.load("moons.keras")
    again.fit(x)  # as if there had been no save
    ```
    """
    path = os.fspath(path)
    member = _check(path, custom_objects or {})
    try:
        with weights.opened(member) as file:
            weights.check_bytes(file)
        with bounds.of_weights(len(member)), weights.already_checked():
            del member  # Keras reads it again.
            return keras.models.load_model(path, custom_objects=custom_objects, compile=compile)
    except _ERRORS as error:
        # Keras appends the whole configuration, which may be long.
        reason = str(error).split(" Full object config:")[0].rstrip(".")
        raise _refused(path, f"it cannot be loaded: {reason}") from error


def weights_member(path):
    """The weights in a `.keras` file of a `FlowModel`, as bytes, its checksums compared.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      ValueError: if it is no such file, cut off or changed.
    """
    return _open(path)[2]


def _check(path, custom_objects):
    """Refuses what is no `FlowModel`'s file; returns its weights member."""
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
        names, config, member = _open(path)
    except ValueError as error:
        raise _refused(path, str(error)) from error
    if not isinstance(config, dict):
        raise _refused(path, "its config.json describes no model: it was changed")
    name = config.get("registered_name") or config.get("class_name")
    kind = keras.saving.get_registered_object(str(name), custom_objects=custom_objects)
    flow_model = keras.saving.get_registered_object(_MODEL)
    if not (isinstance(kind, type) and issubclass(kind, flow_model)):
        raise _refused(
            path,
            f"expected a FlowModel, got a '{shortened(name, 100)}'. Other Keras models, and those "
            "that contain a FlowModel, are loaded by keras.models.load_model; a subclass of "
            "FlowModel must be registered by keras.saving.register_keras_serializable",
        )
    if "model.weights.h5" not in names:
        raise _refused(path, f"it holds no model.weights.h5. {_DAMAGED}")
    # Keras takes what is false for a model that was never compiled.
    if not config.get("compile_config") and config.get("compile_config") not in (None, {}):
        raise _refused(path, "its compile_config is damaged. Load it with compile=False")
    return member


def _open(path):
    """Names of the members, the configuration and the weights, with every checksum compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            return _read(path, archive)
    except _Refused:
        raise
    except _NO_ARCHIVE as error:
        size = os.path.getsize(path)
        with open(path, "rb") as file:
            # A zip archive's index is at its end: a file that was cut off still begins as one.
            cut = file.read(4) == b"PK\x03\x04"
        what = "it is cut off or damaged" if cut else "it is no zip archive, as .keras files are"
        raise _Refused(f"{what} ({size} bytes; {error}). {_DAMAGED}") from error


class _Refused(ValueError):
    """What is wrong with a file, without its name."""


def _read(path, archive):
    names = archive.namelist()
    strange = [n for n in names if n not in _MEMBERS and not _is_asset(n)]
    if "config.json" not in names or strange or len(set(names)) < len(names):
        raise _Refused(
            f"it is no file of Keras: it holds {', '.join(names[:5]) or 'nothing'}, expected "
            f"{', '.join(_MEMBERS)}"
        )
    # FlowModel.save compresses nothing, so a member can't unpack to more than the file has.
    if sum(info.file_size for info in archive.infolist()) > os.path.getsize(path):
        raise _Refused("it is compressed, which FlowModel.save never does: it was changed")
    damaged = archive.testzip()
    if damaged is not None:
        raise _Refused(f"the checksum of its {damaged} is wrong. {_DAMAGED}")
    member = archive.read("model.weights.h5") if "model.weights.h5" in names else b""
    try:
        return names, json.loads(archive.read("config.json")), member
    except (ValueError, RecursionError) as error:
        raise _Refused(f"its config.json is no JSON ({error}). {_DAMAGED}") from error


def _is_asset(name):
    """Whether Keras may unpack a member: below a folder of its own."""
    steps = name.replace("\\", "/").split("/")
    return name.startswith(_ASSETS) and ".." not in steps


def _refused(path, what):
    return ValueError(f"tfp_flows.load: '{shortened(path, 300)}': {shortened(what)}.")
