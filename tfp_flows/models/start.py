"""How a training starts: afresh or where an interrupted one was, and from which data."""

import dataclasses
import warnings

import tensorflow as tf

from tfp_flows.models import datasets, replicas
from tfp_flows.models.backup import Progress, Resumption
from tfp_flows.models.inputs import first_batch, is_arrays


def start(model, x, y, batch_size, backup, kwargs):
    """Restores, initialises, and returns the data from where the training goes on.

    Args:
      model: the `FlowModel`.
      x, y, batch_size: those of `fit`.
      backup: a `Backup`, or `None`.
      kwargs: the other arguments of `fit`, which are changed in place.

    Returns:
      `x`, `y` and `batch_size` for Keras.
    """
    strategy = model.distribute_strategy
    workers = replicas.num_workers(strategy)
    progress = None if backup is None else backup.restore()
    resumed = progress is not None
    if not resumed:
        # The chief's, for all workers need the same order.
        seed = replicas.gather_over_workers(strategy, [datasets.draw_seed()])[0, 0]
        progress = Progress(int(seed), steps_per_execution=model.steps_per_execution)
        progress.steps_per_epoch = kwargs.get("steps_per_epoch")
        progress.first_epoch = progress.epoch = kwargs.get("initial_epoch", 0)
    if model._uninitialized():
        training = 1.0 - (kwargs.get("validation_split") or 0.0)
        model.initialize(first_batch(x, y, batch_size, training))
        progress.peeked = isinstance(x, tf.data.Dataset)
    repeatable = workers > 1 or backup is not None
    if is_arrays(x):
        batch_size = batch_size or 32
        datasets.check_batch(batch_size, strategy.num_replicas_in_sync)
        if repeatable:
            x = _dataset_of(x, y, batch_size, progress.seed, kwargs)
            y = batch_size = None
    if isinstance(x, tf.data.Dataset):
        datasets.check_batch(datasets.batch_of(x), strategy.num_replicas_in_sync)
        # Keras warns, on every call, that its own default does not apply to datasets.
        kwargs.setdefault("shuffle", False)
    if workers > 1:
        x = datasets.sharded_by_data(x)
        kwargs["validation_data"] = datasets.sharded_by_data(kwargs.get("validation_data"))
    if replicas.worker_index(strategy):
        kwargs["verbose"] = 0  # The chief says it once.
    dropped = 0
    distributed = isinstance(x, tf.distribute.DistributedDataset)
    if distributed or (isinstance(x, tf.data.Dataset) and repeatable):
        if resumed and progress.peeked:
            iter(x)
        if progress.steps_per_epoch is not None and not distributed:
            x = x.repeat()  # As Keras does, with an iterator whose position it keeps.
        model._epochs = x = datasets.Epochs(x, strategy)
        dropped = x.advance(progress)
        # Keras says so at every end of a dataset whose size it does not know.
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
    if backup is not None:
        backup.progress = dataclasses.replace(progress)
    if resumed:
        kwargs["initial_epoch"] = progress.epoch
        model._resumption = Resumption(dropped, progress.calls, progress.metrics)
    return x, y, batch_size


def _dataset_of(x, y, batch_size, seed, kwargs):
    """The arrays of `fit` as a dataset; what it takes over from Keras leaves `kwargs`."""
    data = tuple(d for d in (x, y, kwargs.pop("sample_weight", None)) if d is not None)
    split = kwargs.pop("validation_split", None)
    if split and kwargs.get("validation_data") is None:
        data, kwargs["validation_data"] = datasets.split_rows(data, split)
    kwargs.setdefault("validation_batch_size", batch_size)
    shuffle = kwargs.pop("shuffle", True)
    data = data if len(data) > 1 else data[0]
    return datasets.of_arrays(data, batch_size, shuffle=shuffle, seed=seed)
