"""How a training starts: afresh or where an interrupted one was, and from which data."""

import dataclasses
import warnings

import keras
import tensorflow as tf

from tfp_flows.models import datasets, replicas
from tfp_flows.models.backup import Progress, Resumption
from tfp_flows.models.inputs import first_batch, is_arrays


@dataclasses.dataclass
class Start:
    """A training as it starts: what Keras's `fit` takes, and what is skipped of its first epoch."""

    kwargs: dict  # all arguments of `keras.Model.fit`
    epochs: datasets.Epochs | None = None  # the data, if their iterators are counted
    resumption: Resumption | None = None  # of an interrupted training, while there is some left

    def skips(self, iterator, metrics):
        """Whether a call of the training function was done before the interruption."""
        if self.epochs is not None:
            self.epochs.use(iterator)
        if self.resumption is None:
            return False
        self.resumption.catch_up(iterator, metrics)
        if self.resumption.calls == 0:
            self.end()
            return False
        self.resumption.skip()
        return True

    def end(self):
        """Forgets what was to be skipped; the callbacks hear of all that comes."""
        if self.resumption is not None:
            self.resumption.end()
        self.resumption = None


def start(model, x, y, batch_size, backup, kwargs):
    """Restores, initialises, and finds the data from where the training goes on.

    Args:
      model: the `FlowModel`.
      x, y, batch_size: those of `fit`.
      backup: a `Backup`, or `None`.
      kwargs: the other arguments of `fit`.

    Returns:
      A `Start`.
    """
    strategy, kwargs = model.distribute_strategy, dict(kwargs)
    workers = replicas.num_workers(strategy)
    batch_size = (batch_size or 32) if is_arrays(x) else batch_size
    if backup is not None and not is_arrays(x) and not isinstance(x, tf.data.Dataset):
        raise ValueError(
            f"FlowModel.fit: got a BackupAndRestore and data of the type {type(x).__name__}, whose "
            "order cannot be taken up where it was. Give arrays or a tf.data.Dataset."
        )
    progress = None if backup is None else backup.restore()
    resumed = progress is not None
    data = _description(x, batch_size, kwargs.get("steps_per_epoch"))
    if not resumed:
        progress = _fresh(strategy, data, kwargs)
    elif progress.data != data:
        raise ValueError(
            f"FlowModel.fit: the backup is of a training on {progress.data}, and this is one on "
            f"{data}. Give it the same data and sizes, or another directory."
        )
    progress.steps_per_execution = model.steps_per_execution
    if model._uninitialized():
        training = 1.0 - (kwargs.get("validation_split") or 0.0)
        verbose = 0 if replicas.worker_index(strategy) else kwargs.get("verbose", "auto")
        batch = first_batch(x, y, model._example, batch_size, training)
        model.initialize(batch, verbose=verbose)
        progress.peeked = isinstance(x, tf.data.Dataset)
    steps = progress.steps_per_epoch
    repeatable = workers > 1 or backup is not None
    dtype = model._example.dtype
    if is_arrays(x):
        datasets.check_batch(batch_size, strategy.num_replicas_in_sync)
        if repeatable or steps is not None or datasets.cast_by_keras(x, dtype):
            x, kwargs = _dataset_of(x, y, batch_size, progress.seed, kwargs)
            y = batch_size = None
    validation = keras.utils.unpack_x_y_sample_weight(kwargs.get("validation_data"))
    if datasets.cast_by_keras(validation[0], dtype):
        size = kwargs.get("validation_batch_size") or batch_size
        kwargs["validation_data"] = datasets.in_order(*validation, size)
    if isinstance(x, tf.data.Dataset):
        datasets.check_batch(datasets.batch_of(x), strategy.num_replicas_in_sync)
        if resumed and progress.peeked:
            first_batch(x, y, model._example)  # It moves on a seeded shuffle.
        if steps is not None:
            # One iterator, whose position is known. Keras would cut the epoch at the data's end.
            x = x.repeat()
    if not is_arrays(x):
        # Keras warns, on every call, that its own default does not apply.
        kwargs.setdefault("shuffle", False)
    if workers > 1:
        x = datasets.sharded_by_data(x)
        kwargs["validation_data"] = datasets.sharded_by_data(kwargs.get("validation_data"))
    if replicas.worker_index(strategy):
        kwargs["verbose"] = 0  # The chief says it once.
    found, dropped = Start(kwargs), 0
    distributed = isinstance(x, tf.distribute.DistributedDataset)
    if distributed or (isinstance(x, tf.data.Dataset) and repeatable):
        found.epochs = x = datasets.Epochs(x, strategy)
        dropped = x.advance(progress)
        # Keras says so at every end of a dataset whose size it does not know.
        warnings.filterwarnings("ignore", "Your input ran out of data", UserWarning)
    if backup is not None:
        backup.progress = progress
    if resumed:
        stopped = kwargs.get("epochs", 1) if progress.stopped else 0
        kwargs["initial_epoch"] = max(progress.epoch, stopped)
        found.resumption = Resumption(dropped, progress.calls, progress.metrics, backup.callbacks)
    kwargs.update(x=x, y=y, batch_size=batch_size)
    return found


def _fresh(strategy, data, kwargs):
    """The progress of a training that begins."""
    # The chief's seed, for all workers need the same order.
    seed = replicas.gather_over_workers(strategy, [datasets.draw_seed()])[0, 0]
    progress = Progress(int(seed), data)
    if kwargs.get("steps_per_epoch") is not None:
        progress.steps_per_epoch = int(kwargs["steps_per_epoch"])
    progress.first_epoch = progress.epoch = int(kwargs.get("initial_epoch", 0))
    return progress


def _description(x, batch_size, steps_per_epoch):
    """What is known of the data, for comparing a resumed training with the interrupted one."""
    if is_arrays(x):
        rows = len(tf.nest.flatten(x)[0])
        found = f"{rows} rows in batches of {batch_size}"
    elif isinstance(x, tf.data.Dataset):
        size = int(x.cardinality())
        found = f"a dataset of {size if size >= 0 else 'any number of'} batches"
        found += f" of {datasets.batch_of(x) or 'any'} rows"
    else:
        found = f"a {type(x).__name__}"
    return found + (f", {steps_per_epoch} steps an epoch" if steps_per_epoch else "")


def _dataset_of(x, y, batch_size, seed, kwargs):
    """The arrays of `fit` as a dataset, and the arguments that are left for Keras."""
    kwargs = dict(kwargs)
    data = tuple(d for d in (x, y, kwargs.pop("sample_weight", None)) if d is not None)
    split = kwargs.pop("validation_split", None)
    if split and kwargs.get("validation_data") is None:
        data, kwargs["validation_data"] = datasets.split_rows(data, split)
    kwargs.setdefault("validation_batch_size", batch_size)
    shuffle = kwargs.pop("shuffle", True)
    data = data if len(data) > 1 else data[0]
    return datasets.of_arrays(data, batch_size, shuffle=shuffle, seed=seed), kwargs
