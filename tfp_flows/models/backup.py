"""Backups that a training killed at any moment resumes from, to the weights it would have had.

`keras.callbacks.BackupAndRestore` (3.15) writes the weights and then, separately, how far they
are: killed in between, it repeats an epoch on weights that have seen it. It starts an epoch that
was half done from its beginning, in another order, and several workers write to one file. `fit`
puts a `Backup` in its place, which takes the same arguments.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import re
import shutil
import zlib

import keras
import numpy as np

from tfp_flows._files import remove_leftovers, written_whole
from tfp_flows.models import replicas
from tfp_flows.saving.messages import shortened

_FORMAT = 2  # 1 had no checksum of the description.
_CHECKSUM = "sha256"
_KEPT = 2  # Workers may be one backup apart when they are killed.
_STATE = re.compile(r"step-(\d{10})\.json")
# All that is written here, and nothing that others may write beside it.
_OWN = re.compile(r"\.?(step-\d{10})\.(json|weights\.h5|best-\d+\.npz)(\..*)?")
# What Keras's callbacks (EarlyStopping, ReduceLROnPlateau, ModelCheckpoint) have to remember.
_REMEMBERED = (
    "best",
    "wait",
    "cooldown_counter",
    "best_epoch",
    "stopped_epoch",
    "_batches_seen_since_last_saving",
    "_last_batch_seen",
)


@dataclasses.dataclass
class Progress:
    """How far a training is."""

    seed: int  # of the order of arrays
    data: str = ""  # what is known of the data, to tell others
    stopped: bool = False  # whether a callback has ended it
    peeked: bool = False  # whether a batch was drawn to initialise from
    first_epoch: int = 0  # `initial_epoch` of the first run
    epoch: int = 0  # the one that is being trained
    calls: int = 0  # of the training function in it
    steps_per_execution: int = 1
    steps_per_epoch: int | None = None
    metrics: list = dataclasses.field(default_factory=list)  # sums, inside an epoch


@dataclasses.dataclass
class Resumption:
    """What is left to skip of an interrupted epoch."""

    batches: int  # to drop from the data
    calls: int  # of the training function that were done
    metrics: list
    callbacks: list  # that have seen those calls

    def __post_init__(self):
        if self.calls:
            for callback in self.callbacks:
                callback.on_train_batch_begin = callback.on_train_batch_end = _nothing

    def skip(self):
        """Notes a call that was skipped."""
        self.calls -= 1
        if self.calls == 0:
            self._unmute("on_train_batch_begin")

    def end(self):
        """Lets the callbacks hear of the calls from now on."""
        for name in ("on_train_batch_begin", "on_train_batch_end"):
            self._unmute(name)

    def _unmute(self, name):
        for callback in self.callbacks:
            if vars(callback).get(name) is _nothing:
                delattr(callback, name)

    def catch_up(self, iterator, metrics):
        """Drops the data that were trained on, and puts back what the metrics had summed up."""
        with contextlib.suppress(StopIteration):
            for _ in range(self.batches):
                next(iterator)
        self.batches = 0
        for metric, values in zip(metrics, self.metrics, strict=False):
            for variable, value in zip(metric.variables, values, strict=True):
                variable.assign(value)
        self.metrics = []


def _nothing(*args, **kwargs):
    """What a callback does at a step that it has seen before the interruption."""


class Backup(keras.callbacks.Callback):
    """Does what `keras.callbacks.BackupAndRestore` says, exactly.

    A backup is a weights file and a description that is written after it and holds its checksum,
    and one of itself: without a sound description it does not exist. The last two are kept. On
    several workers each writes to a folder of its own, and all resume from the newest backup that
    all of them have. What is read lies in that folder, whatever a description says.

    Args:
      stock: the `BackupAndRestore` that the user gave.
      model: the `FlowModel`.
    """

    def __init__(self, stock, model):
        super().__init__()
        self.set_model(model)
        self._frequency = stock.save_freq
        self._delete = stock.delete_checkpoint
        self._root = pathlib.Path(os.path.abspath(os.fspath(stock.backup_dir)))
        self._worker = replicas.worker_index(model.distribute_strategy)
        several = replicas.num_workers(model.distribute_strategy) > 1
        self._folder = self._root / f"worker-{self._worker}" if several else self._root
        self._title = f"BackupAndRestore in '{self._root}'"
        self._restored = None
        self._since = 0
        self.callbacks = []  # the others, set by `fit`
        self.progress = None

    # --- Restoring. ---

    def restore(self):
        """Puts the newest backup's weights into the model; returns its `Progress` or `None`."""
        found = self._sound_states()
        step = self._agree(sorted(found, reverse=True))
        if step is None:
            return None
        folder, state = found[step]
        self._check(state)
        model = self.model
        try:
            model.load_weights(folder / state["weights"])
        except ValueError as error:
            raise ValueError(
                f"{self._title}: the backup is of another model: {shortened(error)} Build the "
                "model as it was, or give another directory."
            ) from error
        self._restored = folder, state
        return Progress(**state["progress"])

    def _sound_states(self):
        """Step -> (folder, description), of this worker's own or else of another's."""
        others = sorted(self._root.glob("worker-*"))
        for folder in dict.fromkeys([self._folder, *others, self._root]):
            found, damaged = {}, None
            for path in folder.glob("step-*.json"):
                name = _STATE.fullmatch(path.name)
                try:
                    if name:
                        found[int(name[1])] = folder, _read(path)
                except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
                    damaged = shortened(error, 500)
            if found:
                return found
            if damaged is not None:
                raise ValueError(
                    f"{self._title}: no backup in '{folder}' is whole ({damaged}). Remove the "
                    "directory to start afresh."
                )
        return {}

    def _agree(self, steps):
        """The newest step that all workers have."""
        mine = [*steps[:_KEPT], *[-1] * _KEPT][:_KEPT]
        rows = replicas.gather_over_workers(self.model.distribute_strategy, mine)
        common = set(rows[0]).intersection(*map(set, rows)) - {-1}
        if common:
            return int(max(common))
        if (rows == -1).all():
            return None
        raise ValueError(
            f"{self._title}: the workers have no backup in common; their newest steps are "
            f"{rows.max(axis=1).tolist()} (-1: none). Give all of them their own folders "
            f"'worker-N', or remove the directory everywhere to start afresh."
        )

    def _check(self, state):
        """Refuses a backup that this model could load, but not go on from."""
        if state["optimizer"] != _optimizer(self.model):
            raise ValueError(
                f"{self._title}: the backup has the optimizer {state['optimizer']}, the model "
                f"{_optimizer(self.model)}. Compile it as it was, or give another directory."
            )
        steps = state["progress"]["steps_per_execution"]
        if state["progress"]["calls"] and steps != self.model.steps_per_execution:
            raise ValueError(
                f"{self._title}: the backup was made inside an epoch with steps_per_execution="
                f"{steps}, the model has {self.model.steps_per_execution}. Compile it as it was."
            )

    # --- Keras's hooks. It is the last of the callbacks: the others have had their say. ---

    def on_train_begin(self, logs=None):
        """Gives the other callbacks back what they remembered."""
        if self._restored is None:
            return
        folder, state = self._restored
        for callback, kept in zip(self.callbacks, state["callbacks"], strict=False):
            if kept["class"] != type(callback).__name__:
                continue
            for name, value in kept["values"].items():
                setattr(callback, name, value)
            if kept["best_weights"]:
                with np.load(folder / kept["best_weights"]) as arrays:
                    callback.best_weights = [arrays[f"arr_{n}"] for n in range(len(arrays.files))]

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the epoch."""
        if epoch != self.progress.epoch:
            self.progress = dataclasses.replace(self.progress, epoch=epoch, calls=0, metrics=[])
        self._calls = 0

    def on_train_batch_end(self, batch, logs=None):
        """Saves every `save_freq` batches."""
        self._calls += 1
        if self._calls <= self.progress.calls:
            return  # Done before the interruption.
        self._since += self.model.steps_per_execution
        if self._frequency == "epoch" or self._since < self._frequency:
            return
        self._since = 0
        metrics = [[float(v.numpy()) for v in m.variables] for m in self.model.metrics]
        self._save(dataclasses.replace(self.progress, calls=self._calls, metrics=metrics))

    def on_epoch_end(self, epoch, logs=None):
        """Saves after an epoch."""
        self.progress = dataclasses.replace(
            self.progress,
            epoch=epoch + 1,
            calls=0,
            metrics=[],
            stopped=bool(self.model.stop_training),
        )
        if self._frequency == "epoch":
            self._save(self.progress)

    def on_train_end(self, logs=None):
        """Removes the backups of a training that is done."""
        if not self._delete:
            return
        # First all have to be here: a worker that is still on its way may yet be killed.
        replicas.gather_over_workers(self.model.distribute_strategy, [0])
        with contextlib.suppress(FileNotFoundError):
            # At once, for half of a backup would be taken for damage.
            trash = self._folder.with_name(f".{self._folder.name}.done")
            shutil.rmtree(trash, ignore_errors=True)
            self._folder.rename(trash)
            shutil.rmtree(trash, ignore_errors=True)
        if self._folder != self._root:
            with contextlib.suppress(OSError):  # Others are in it still, or have removed it.
                self._root.rmdir()

    # --- Saving. ---

    def _save(self, progress):
        self.model._check_sound()  # Else every restart would fail.
        step = int(self.model.optimizer.iterations.numpy())
        name = f"step-{step:010d}"
        weights = f"{name}.weights.h5"
        self.model.save_weights(self._folder / weights)
        files, callbacks = [weights], []
        for n, callback in enumerate(self.callbacks):
            kept = {"class": type(callback).__name__, "values": {}, "best_weights": None}
            for attribute in _REMEMBERED:
                value = getattr(callback, attribute, None)
                if isinstance(value, (int, float, np.number)):
                    kept["values"][attribute] = float(value) if attribute == "best" else int(value)
            if getattr(callback, "best_weights", None) is not None:
                kept["best_weights"] = f"{name}.best-{n}.npz"
                self._write(
                    kept["best_weights"], lambda f, c=callback: np.savez(f, *c.best_weights)
                )
                files.append(kept["best_weights"])
            callbacks.append(kept)
        state = {
            "format": _FORMAT,
            "weights": weights,
            "files": {file: _checksum(self._folder / file) for file in files},
            "optimizer": _optimizer(self.model),
            "progress": dataclasses.asdict(progress),
            "callbacks": callbacks,
        }
        state[_CHECKSUM] = _checksum_of_state(state)
        self._write(f"{name}.json", lambda file: file.write(json.dumps(state).encode()))
        self._remove_older(name)

    def _write(self, name, write):
        path = self._folder / name
        with (
            written_whole(path, owner=self._title, overwrite=True) as partial,
            open(partial, "wb") as file,
        ):
            write(file)

    def _remove_older(self, newest):
        remove_leftovers(self._folder)
        names = os.listdir(self._folder)
        states = sorted(name.removesuffix(".json") for name in names if _STATE.fullmatch(name))
        kept = [name for name in states if name <= newest][-_KEPT:]
        for name in names:
            own = _OWN.fullmatch(name)
            path = self._folder / name
            if own and (name.startswith(".") or own[1] not in kept) and path.is_file():
                path.unlink(missing_ok=True)


def _read(path):
    """A description, after a check that what it describes is there and whole."""
    state = json.loads(path.read_text())
    if state["format"] > _FORMAT:
        raise ValueError(f"'{path.name}' has the newer format {state['format']}")
    # Format 1, of version 0.1, has no checksum; one that is there counts.
    found = state.pop(_CHECKSUM, None)
    if found != _checksum_of_state(state) and (found is not None or state["format"] != 1):
        raise ValueError(f"'{path.name}' was changed")
    Progress(**state["progress"])
    files = [state["weights"], *(c["best_weights"] for c in state["callbacks"])]
    for name in filter(None, files):
        if name not in state["files"] or not _OWN.fullmatch(name):
            raise ValueError(f"'{path.name}' names a file '{name}' that is no part of a backup")
    for name, checksum in state["files"].items():
        if not _OWN.fullmatch(name) or _checksum(path.parent / name) != checksum:
            raise ValueError(f"'{name}' is not what '{path.name}' says")
    for callback in state["callbacks"]:
        if not set(callback["values"]) <= set(_REMEMBERED):
            raise ValueError(f"'{path.name}' sets what callbacks do not remember")
    return state


def _checksum_of_state(state):
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _checksum(path):
    value, size = 0, 0
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            value, size = zlib.crc32(part, value), size + len(part)
    return [size, value]


def _optimizer(model):
    model._build_optimizer()
    optimizer = model.optimizer
    return f"{type(optimizer).__name__} of {len(optimizer.variables)} variables"
