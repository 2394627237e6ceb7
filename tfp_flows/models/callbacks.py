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
    if isinstance(callbacks, keras.callbacks.CallbackList):
        yield callbacks, None
        return
    callbacks = list(callbacks or []) if not _is_one(callbacks) else [callbacks]
    stock = [c for c in callbacks if isinstance(c, keras.callbacks.BackupAndRestore)]
    if len(stock) > 1:
        raise ValueError(f"FlowModel.fit: expected one BackupAndRestore, got {len(stock)}.")
    callbacks = [c for c in callbacks if c not in stock]
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
