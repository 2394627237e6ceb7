"""Keras's private names that this package uses, each with what for and the versions it was seen in.

An upgrade of Keras has this one file to read. All of them are as here from Keras 3.12 to 3.15.
"""

import inspect

from keras.src.saving import saving_lib

# Writes a `.keras` archive to an open file: the public function takes paths alone, that end in
# `.keras`, and a file that is being written is to have no such name.
write_archive = saving_lib.save_model

# The HDF5 file that `save_own_variables` and `load_own_variables` are given. Its `h5_file` is the
# whole file, of which a layer is given its own part alone.
WeightsStore = saving_lib.H5IOStore


def write_weights(model, path, skip=()):
    """Writes a weights file under any name; `Model.save_weights` asks for `.weights.h5`.

    Args:
      model: the Keras model.
      path: `str`, the new file.
      skip: the objects whose weights are left out.
    """
    store = WeightsStore(path, mode="w")
    try:
        _walk(model, store, "", skip)
    finally:
        store.close()


class _Recorder(saving_lib.H5IOStore):
    """A store that gives what it is asked to keep to a function, and keeps nothing."""

    def __init__(self, visit):
        self._visit = visit  # Nothing of the store itself: it has no file.
        self._path = ""
        self._seen = {}

    def __bool__(self):
        return True

    def make(self, path, metadata=None):
        del metadata
        self._path = f"{path}/vars" if path else "vars"
        self._seen = {}
        return self

    def __setitem__(self, key, value):
        self._seen[key] = None
        self._visit(f"{self._path}/{key}", value)

    def __len__(self):
        return len(self._seen)

    def keys(self):
        """The names so far, as of the store's own group."""
        return self._seen.keys()

    def __contains__(self, key):
        return key in self._seen


def visit_weights(model, visit, prefix="", skip=()):
    """Calls `visit(path, value)` for every weight that Keras would write, by its path in the file.

    Args:
      model: the Keras model.
      visit: a function of a path and a value: a Keras variable, a tensor or an array.
      prefix: where in the file the model is.
      skip: the objects whose weights are left out.
    """
    _walk(model, _Recorder(visit), prefix, skip)


def prefix_of(store):
    """Where in its file the part is that a store gives to a layer: "" for the model itself."""
    return store._h5_entry_path or ""


def _walk(model, store, prefix, skip):
    saving_lib._save_state(
        model,
        weights_store=store,
        assets_store=None,
        inner_path=prefix,
        visited_saveables={id(part) for part in skip},
    )


def shape_of_new(initial_value):
    """Shape of a variable that Keras is about to make, before its value is; `None` if not known.

    To `tf.Variable` Keras gives a function of its own, which holds the `keras.Variable`.
    """
    if not inspect.isfunction(initial_value):
        return None
    maker = inspect.getclosurevars(initial_value).nonlocals.get("self")
    return getattr(maker, "_shape", None)
