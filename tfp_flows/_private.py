"""Private names of Keras and TensorFlow that this package uses, each with what for.

An upgrade has this one file to read (and `bijectors/stock.py`, `bijectors/cache.py` for TFP). All
are as here from Keras 3.12 to 3.15 and in TensorFlow 2.20 and 2.21.
"""

import contextlib
import inspect

import keras
from keras.src.saving import saving_lib
from keras.src.utils import naming
from tensorflow.python import pywrap_tfe
from tensorflow.python.distribute.input_lib import DistributedDataset
from tensorflow.python.eager import record
from tensorflow.python.framework.auto_control_deps_utils import get_read_write_resource_inputs

__all__ = ["DistributedDataset", "record"]

# --- TensorFlow. `record` tells whether a gradient could be asked for, and `DistributedDataset` is
# the class by whose name Keras knows what it must not distribute again. ---


def no_tape():
    """Whether no `tf.GradientTape` is recording."""
    return pywrap_tfe.TFE_Py_TapeSetIsEmpty()


def tapes_of(tensor):
    """On how many tapes a tensor is: 0, 1, or 2 for several."""
    return pywrap_tfe.TFE_Py_TapeSetPossibleGradientTypes([tensor])


def writes_variables(operation):
    """Whether an operation of a graph assigns variables."""
    return bool(len(get_read_write_resource_inputs(operation)[1]))


def worker_of(strategy):
    """Number of this process among a strategy's; its resolver's `task_id` is 0 for two of them."""
    return strategy.extended._id_in_cluster


def caches_of(dataset):
    """The nearest `cache()` on each way from a dataset to its sources."""
    if type(dataset).__name__ == "CacheDataset":
        return [dataset]
    return [found for upstream in dataset._inputs() for found in caches_of(upstream)]


# --- Keras's optimizers. ---


def steps_of(optimizer):
    """Variable that counts steps; `iterations` counts the updates by accumulated gradients."""
    return getattr(optimizer, "inner_optimizer", optimizer)._iterations


def strategy_of(optimizer, default=None):
    """The strategy that an optimizer was made under."""
    return getattr(optimizer, "_distribution_strategy", default)


def can_leave_out_reduction(optimizer):
    """Whether `without_reduction` has something to replace."""
    return hasattr(optimizer, "_all_reduce_sum_gradients")


@contextlib.contextmanager
def without_reduction(optimizer):
    """Has an optimizer take gradients for sums over all replicas already."""
    # The replicas' threads come by here in turn, and meet inside `apply`: the last one of them
    # leaves after all have passed.
    optimizer._all_reduce_sum_gradients = list
    try:
        yield
    finally:
        vars(optimizer).pop("_all_reduce_sum_gradients", None)


def replace_update(optimizer, update_step, update_all):
    """Gives an optimizer another update of one variable, and another loop over them."""
    optimizer.update_step = update_step
    optimizer._distributed_tf_update_step = update_all


def update_all(optimizer, *args):
    """Adam's own loop over the variables."""
    keras.optimizers.Adam._distributed_tf_update_step(optimizer, *args)


def moments_of(optimizer, variable):
    """Adam's two slots of a variable."""
    index = optimizer._get_variable_index(variable)
    return optimizer._momentums[index].value, optimizer._velocities[index].value


# --- Keras's layers and files. ---


def layers_of(layer):
    """A layer and all that it is made of."""
    return layer._flatten_layers()


def is_random_state(variable):
    """Whether a Keras variable is the state of a `SeedGenerator`."""
    return variable.name == "seed_generator_state"


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


def paths_in_list(name, layers):
    """Where in a file Keras keeps the variables of layers in a list, by their identity.

    Args:
      name: that of the attribute of the model that holds the list.
      layers: the layers; one may be there several times, as layers like it would be.

    Returns:
      For each layer, a dictionary of paths.
    """
    counts, found = {}, []
    for layer in layers:
        kind = naming.to_snake_case(type(layer).__name__)
        number = counts[kind] = counts.get(kind, -1) + 1
        paths = {}
        prefix = f"{name}/{kind}_{number}" if number else f"{name}/{kind}"
        visit_weights(layer, lambda path, v, paths=paths: paths.setdefault(id(v), path), prefix)
        found.append(paths)
    return found


def paths_of(name, layer):
    """Pairs of a variable of a layer and where in a file Keras keeps it.

    Args:
      name: that of the attribute of the model that holds the layer.
      layer: the layer.
    """
    found = {}
    visit_weights(layer, lambda path, v: found.setdefault(id(v), path), name)
    return [(v, found[id(v)]) for v in layer.variables]


def in_order_of_file(layer):
    """The variables of a layer in the order in which Keras keeps them."""
    return layer._trainable_variables + layer._non_trainable_variables


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
