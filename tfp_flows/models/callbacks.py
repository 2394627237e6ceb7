"""What `fit` does to the callbacks that it is given."""

import contextlib
import os
import shutil

import keras

from tfp_flows.models import replicas
from tfp_flows.models.backup import Backup

# They write files and read no variables: one worker does it for all.
_OF_THE_CHIEF = (keras.callbacks.CSVLogger, keras.callbacks.TensorBoard)


@contextlib.contextmanager
def adapted(callbacks, model):
    """Callbacks that are right for one process or several, and the `Backup` among them.

    A `BackupAndRestore` becomes a `Backup`, and the last. On workers but the chief,
    a `ModelCheckpoint` writes beside its path, for all have to take part in a save, and what it
    wrote is removed in the end; `CSVLogger` and `TensorBoard` are left out.

    Yields:
      The callbacks, and a `Backup` or `None`.
    """
    workers = replicas.num_workers(model.distribute_strategy)
    if isinstance(callbacks, keras.callbacks.CallbackList):
        if workers > 1 or any(map(_is_backup, callbacks.callbacks)):
            raise ValueError(
                "FlowModel.fit: got a CallbackList, whose callbacks cannot be made to work on "
                "several workers or to resume exactly. Give the callbacks as a list."
            )
        yield callbacks, None
        return
    callbacks = list(callbacks or []) if not _is_one(callbacks) else [callbacks]
    stock = list(filter(_is_backup, callbacks))
    if len(stock) > 1:
        raise ValueError(f"FlowModel.fit: expected one BackupAndRestore, got {len(stock)}.")
    callbacks = [c for c in callbacks if c not in stock]
    swaps = [c for c in callbacks if isinstance(c, keras.callbacks.SwapEMAWeights)]
    if stock and any(c.swap_on_epoch for c in swaps):
        raise ValueError(
            "FlowModel.fit: SwapEMAWeights(swap_on_epoch=True) would have BackupAndRestore keep "
            "the averages for the weights. Leave swap_on_epoch out."
        )
    worker = replicas.worker_index(model.distribute_strategy)
    moved, scratch = [], set()
    if worker:
        callbacks = [c for c in callbacks if not isinstance(c, _OF_THE_CHIEF)]
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.ModelCheckpoint):
                moved.append((callback, callback.filepath))
                folder, name = os.path.split(os.path.abspath(callback.filepath))
                scratch.add(os.path.join(folder, f".worker-{worker}"))
                callback.filepath = os.path.join(folder, f".worker-{worker}", name)
    backup = None
    if stock:
        backup = Backup(stock[0], model)
        backup.callbacks = list(callbacks)
        callbacks.append(backup)
    try:
        yield callbacks, backup
    finally:
        for callback, path in moved:
            callback.filepath = path
        for folder in scratch:
            shutil.rmtree(folder, ignore_errors=True)


def _is_one(callbacks):
    return isinstance(callbacks, keras.callbacks.Callback)


def _is_backup(callback):
    return isinstance(callback, keras.callbacks.BackupAndRestore)
