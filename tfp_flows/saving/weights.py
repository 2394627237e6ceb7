"""What a weights file of a `FlowModel` holds beside the weights, and what is checked by it.

Keras keeps a model's weights in HDF5, which has no checksums: a flipped byte is another weight.
Beside them this keeps, in the model's own group,

    layout     a line for each weight: its name, its part, dtype and shape
    digests    a line for each array of the file: SHA-256 of its path, dtype, shape and bytes
    unrolled   of a model with steps in a loop: a line for each weight that it would have without
               it: the array that holds it, where in it, and its line of the layout

The first tells a file of another model by the part that differs, the second a damaged one. No
digest tells who wrote a file: whoever changes a weight on purpose can change its digest too.
"""

import contextlib
import contextvars
import hashlib
import io
import math
import re
import warnings

import h5py
import numpy as np
import tensorflow as tf

from tfp_flows import _private
from tfp_flows.saving.messages import shortened

_LAYOUT, _DIGESTS, _UNROLLED = "layout", "digests", "unrolled"
_DAMAGED = "Copy the file again from where it came from, or save it again"
# What h5py raises about a file whose inside is not what it should be.
_ERRORS = (OSError, RuntimeError, KeyError, TypeError, AttributeError, OverflowError, MemoryError)
# Nested layers of Keras make groups in groups, two or three each.
_DEEPEST = 64
# Bytes of a line of the layout or the digests: a name of a part and one of a variable.
_LONGEST_LINE = 4096

# A place in a stack, or in a stack of stacks; the whole is "-".
_INDEX, _NUMBER = re.compile(r"-|\d{1,9}(,\d{1,9})*"), re.compile(r"\d+")

_BFLOAT16 = tf.bfloat16.as_numpy_dtype

_checked = contextvars.ContextVar("tfp_flows_weights_checked", default=False)


# --- Writing. ---


def store_checks(model, store):
    """Puts the layout of a model, and the digests of its weights, into the model's own store."""
    store[_LAYOUT] = _as_array(model._layout())
    unrolled = model._unrolled_layout()
    if unrolled is not None:
        store[_UNROLLED] = _as_array(unrolled)
    # One that records is the walk below. Of a file that is cut into shards no store sees it all.
    if type(store) is _private.WeightsStore:
        lines = []
        _private.visit_weights(
            model,
            lambda path, value: lines.append(f"{_digest(path, _as_numpy(value))} {path}"),
            _private.prefix_of(store),
        )
        store[_DIGESTS] = _as_array(lines)


def _own(name, prefix=""):
    """Where in a file the `FlowModel` that is at a prefix keeps what it says of itself."""
    return f"{prefix}/vars/{name}" if prefix else f"vars/{name}"


def _as_array(lines):
    return np.frombuffer("\n".join(lines).encode(), np.uint8)


def _as_numpy(value):
    return value.numpy() if hasattr(value, "numpy") else np.asarray(value)


def _digest(path, array):
    kind = array.dtype.str if array.dtype.kind in "biufc" else array.dtype.name
    digest = hashlib.sha256(f"{path}\n{kind}\n{list(array.shape)}\n".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8))
    return digest.hexdigest()


# --- Reading. ---


@contextlib.contextmanager
def opened(file):
    """Opens the HDF5 file at a path, or in a file of bytes, for the checks below.

    Raises:
      ValueError: if it is none, or damaged; also for what is raised inside the block by h5py.
    """
    try:
        with h5py.File(io.BytesIO(file) if isinstance(file, bytes) else file, "r") as opened_file:
            yield opened_file
    except FileNotFoundError:
        raise
    except _ERRORS as error:
        raise ValueError(
            f"no weights file, or a damaged one: {shortened(error, 300)}. {_DAMAGED}."
        ) from error


@contextlib.contextmanager
def already_checked():
    """While it lasts, what Keras loads was found sound by `check_bytes`."""
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


def check_bytes(file, prefix=""):
    """Checks what a weights file says of itself: that it is self-contained, plain and undamaged.

    Args:
      file: an `h5py.File`, open for reading.
      prefix: where in it the `FlowModel` is.

    Raises:
      ValueError: if it refers to another file, holds more than it stores, or was changed.
    """
    if _checked.get():
        return
    found = _datasets(file)
    own = _own(_DIGESTS, prefix)
    if own not in found:
        if _own(_LAYOUT, prefix) in found:
            warnings.warn(
                "tfp_flows: the weights are unchecked: the file holds no digests, as files of "
                "version 0.1. Save it again to have them.",
                stacklevel=2,
            )
        return
    lines = dict(line.split(" ", 1)[::-1] for line in _text(found, own) if " " in line)
    under = f"{prefix}/" if prefix else ""
    for path, dataset in found.items():
        # A FlowModel inside this one has digests of its own.
        if not path.startswith(under) or path.endswith(f"vars/{_DIGESTS}"):
            continue
        if path not in lines:
            raise ValueError(f"the file holds '{path}', of which it has no digest. {_DAMAGED}.")
        if _digest(path, _value(dataset)) != lines[path]:
            raise ValueError(
                f"the file is damaged: '{path}' is not what was written: its digest differs. "
                f"{_DAMAGED}."
            )
    missing = sorted(set(lines) - set(found))
    if missing and not prefix:  # Inside another model some may be kept elsewhere.
        raise ValueError(f"the file is damaged: '{missing[0]}' is missing. {_DAMAGED}.")


def check_model(file, model, prefix="", skip=()):
    """Checks that the weights of a file are those of such a model, every one of them.

    Args:
      file: an `h5py.File` that `check_bytes` found sound.
      model: the `FlowModel`.
      prefix: where in it the `FlowModel` is.
      skip: parts that are not to be loaded.

    Raises:
      ValueError: naming the first weight that differs.
    """
    found = _datasets(file)
    own = _own(_LAYOUT, prefix)
    if own not in found:
        raise ValueError("the file holds no weights of a FlowModel.")
    compare_layout(_text(found, own), model._layout())
    wanted = {}
    _private.visit_weights(
        model, lambda path, value: wanted.setdefault(path, tuple(np.shape(value))), prefix, skip
    )
    in_file, here = _by_group(found), _by_group(wanted)
    for path, shape in wanted.items():
        group, _, name = path.rpartition("/")
        if name in (_LAYOUT, _UNROLLED):
            continue
        held = in_file.get(group, set())
        differs = "optimizer" in group.split("/") and len(held) != len(here[group])
        if differs and held == {str(n) for n in range(len(held))}:
            continue  # Of another optimizer, or none: Keras warns, and leaves it as it is.
        if path not in found:
            raise ValueError(
                f"the file lacks '{path}' of shape {list(shape)}, which the model has. {_DAMAGED}."
            )
        if found[path].shape != shape:
            raise ValueError(
                f"'{path}' has the shape {list(found[path].shape)} in the file and {list(shape)} "
                f"in the model. Build the model as it was when it was saved."
            )


def compare_layout(found, wanted):
    """Raises a `ValueError` unless the lines of a file's layout are those of a model."""
    for number, (line, own) in enumerate(zip(found, wanted, strict=False)):
        # Names may differ, the rest may not.
        if line.rsplit(":", 1)[-1] != own.rsplit(":", 1)[-1]:
            raise ValueError(
                f"the file holds the weights of another model. Weight {number} is "
                f"<{shortened(line, 300)}> there and <{shortened(own, 300)}> here. Build the model "
                "as it was when it was saved."
            )
    if len(found) != len(wanted):
        where, lines = ("there", found) if len(found) > len(wanted) else ("here", wanted)
        line = shortened(lines[min(len(found), len(wanted))], 300)
        raise ValueError(
            f"the file holds the weights of another model: {len(found)} of them, where this model "
            f"has {len(wanted)}. The first that is only {where}: <{line}>."
        )


def check_store(model, store):
    """As `check_bytes` and `check_model`, for what Keras gives to a model that it loads."""
    if type(store) is not _private.WeightsStore:
        if _LAYOUT not in set(store.keys()):
            raise ValueError("the file holds no weights of a FlowModel.")
        return compare_layout(_lines(np.asarray(store[_LAYOUT])), model._layout())
    prefix = _private.prefix_of(store)
    check_bytes(store.h5_file, prefix)
    return check_model(store.h5_file, model, prefix)


def has_loops(file):
    """Whether the model that a file was written by had steps in a loop."""
    return _own(_UNROLLED) in _datasets(file)


def has_layout_of(file, model):
    """Whether a file holds the weights of a model, in a loop where the model has them in one."""
    found = _datasets(file)
    own = _own(_LAYOUT)
    if own not in found:
        return True  # It holds none of any, which is said elsewhere.
    try:
        compare_layout(_text(found, own), model._layout())
    except ValueError:
        return False
    return True


def load_unrolled(file, entries):
    """Loads the weights of a model whose steps are in a loop in the file, or in the model.

    Args:
      file: an `h5py.File` that `check_bytes` found sound.
      entries: the weights that the model has without loops: each with its `line` of the layout, its
        `path` in a file, the `variable` that holds it, and its `index` there.

    Raises:
      ValueError: if the file holds those of another model; no weight is changed then.
    """
    found = _datasets(file)
    if _own(_UNROLLED) in found:
        split = [line.split(" ", 2) for line in _text(found, _own(_UNROLLED))]
        compare_layout([line[-1] for line in split], [entry.line for entry in entries])
        if any(len(line) != 3 or not _INDEX.fullmatch(line[1]) for line in split):
            raise ValueError(f"'{_own(_UNROLLED)}' does not say where the weights are. {_DAMAGED}.")
        places = [(path, tuple(map(int, _NUMBER.findall(index)))) for path, index, _ in split]
    else:
        compare_layout(_text(found, _own(_LAYOUT)), [entry.line for entry in entries])
        places = [(entry.path, ()) for entry in entries]
    read, values = {}, {}
    for entry, (path, index) in zip(entries, places, strict=True):
        if path not in read:
            if path not in found:
                raise ValueError(f"the file lacks '{path}'. {_DAMAGED}.")
            read[path] = _value(found[path])
        key = id(entry.variable)
        if key not in values:
            values[key] = entry.variable, np.zeros(entry.variable.shape, read[path].dtype), set()
        variable, value, filled = values[key]
        shape = tuple(variable.shape)[len(entry.index) :]
        if not _is_in(index, read[path]) or read[path].shape[len(index) :] != shape:
            raise ValueError(
                f"'{path}' has the shape {list(read[path].shape)} in the file, and <{entry.line}> "
                f"is to be in it. {_DAMAGED}."
            )
        if entry.index in filled and not np.array_equal(value[entry.index], read[path][index]):
            raise ValueError(
                f"<{entry.line}> differs from step to step in the file, and is the same in all "
                "steps of a loop. Load it into a model without the loop (stacked=False)."
            )
        filled.add(entry.index)
        value[entry.index] = read[path][index]
    for variable, value, _ in values.values():
        variable.assign(value)


def _is_in(index, array):
    return len(index) <= array.ndim and all(n < m for n, m in zip(index, array.shape, strict=False))


def holds_optimizer(file):
    """Whether an HDF5 file holds the state of a trained optimizer."""
    # Number of steps and learning rate alone: the optimizer of a model that never trained.
    return len(file.get("optimizer/vars", ())) > 2


def _by_group(paths):
    """Group -> the names in it."""
    groups = {}
    for path in paths:
        group, _, name = path.rpartition("/")
        groups.setdefault(group, set()).add(name)
    return groups


def _datasets(file):
    """Path -> dataset, of all that a file holds; a `ValueError` for what could lead out of it.

    Keras writes plain arrays in groups. Whatever else HDF5 can do is refused before it is read:
    links and storage in other files, arrays that are compressed or filled up when they are read,
    one array under many names, code that unpacks (a filter is a plug-in).
    """
    size = file.id.get_filesize()
    found, seen, total = {}, set(), 0
    groups = [("", file)]
    while groups:
        path, group = groups.pop()
        if path.count("/") > _DEEPEST:
            raise ValueError(f"the file's groups are more than {_DEEPEST} deep. {_DAMAGED}.")
        for name in group:
            inner = f"{path}{name}"
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise ValueError(
                    f"'{shortened(inner, 200)}' is a link ({type(link).__name__}), maybe to "
                    f"another file; expected an array or a group. {_DAMAGED}."
                )
            thing = group[name]
            address = h5py.h5o.get_info(thing.id).addr
            if address in seen:
                raise ValueError(
                    f"'{shortened(inner, 200)}' is there under another name, too. {_DAMAGED}."
                )
            seen.add(address)
            if isinstance(thing, h5py.Group):
                groups.append((f"{inner}/", thing))
            else:
                total += _plain_size(thing, shortened(inner, 200))
                found[inner] = thing
            if total > size:
                raise ValueError(
                    f"the arrays up to '{shortened(inner, 200)}' would need {total} bytes, and the "
                    f"file has {size}. {_DAMAGED}."
                )
    return found


def _plain_size(thing, path):
    """Bytes of an array that is stored in the file as it is in memory; else a `ValueError`."""
    if not isinstance(thing, h5py.Dataset):
        raise ValueError(f"'{path}' is a {type(thing).__name__}, expected an array. {_DAMAGED}.")
    if thing.external or thing.is_virtual:
        raise ValueError(
            f"'{path}' is stored in another file, expected an array of this one. {_DAMAGED}."
        )
    if thing.id.get_create_plist().get_nfilters():
        raise ValueError(f"'{path}' is compressed, which Keras never does. {_DAMAGED}.")
    if thing.shape is None or thing.dtype.kind not in "biufc" and not _is_bfloat16(thing):
        raise ValueError(f"'{path}' holds no numbers, expected an array of them. {_DAMAGED}.")
    size = math.prod(thing.shape) * thing.dtype.itemsize
    if size > thing.id.get_storage_size():
        raise ValueError(
            f"'{path}' of shape {shortened(list(thing.shape), 100)} would need {size} bytes, and "
            f"{thing.id.get_storage_size()} are stored. {_DAMAGED}."
        )
    return size


def _is_bfloat16(dataset):
    """Whether Keras would take the bytes, of which HDF5 knows no type, for bfloat16."""
    if dataset.dtype.kind != "V" or dataset.dtype.itemsize != 2 or "dtype" not in dataset.attrs:
        return False
    stored = dataset.attrs.get_id("dtype")
    return stored.shape == () and dataset.attrs["dtype"] == "bfloat16"


def _value(dataset):
    value = dataset[()]
    if dataset.dtype.kind == "V":
        value = np.asarray(value).view(_BFLOAT16)
    return np.asarray(value)


def _text(found, path):
    """The lines of a text that is kept as an array of bytes."""
    dataset = found[path]
    # Of a weight in a stack of many there is a line, too: the file's size alone bounds those.
    too_long = not path.endswith(_UNROLLED) and dataset.size > _LONGEST_LINE * (len(found) + 1)
    if dataset.dtype != np.uint8 or too_long:
        raise ValueError(
            f"'{path}' is no text of {len(found)} lines: {dataset.size} of {dataset.dtype}. "
            f"{_DAMAGED}."
        )
    return _lines(dataset[()])


def _lines(array):
    return bytes(np.asarray(array, np.uint8)).decode(errors="replace").splitlines()
