"""Data for training that can be repeated: on several workers, and after an interruption."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._private import DistributedDataset
from tfp_flows.models import replicas
from tfp_flows.models.inputs import is_arrays


def of_arrays(data, batch_size, *, shuffle, seed):
    """Batches of arrays in an order that follows from the seed and the number of the epoch.

    Keras's own shuffles by TensorFlow's global state: in another order on every worker, and in
    another after a resumption.

    Args:
      data: structure of arrays with equal numbers of rows.
      batch_size: `int >= 1`.
      shuffle: whether every epoch has an order of its own.
      seed: `int`.

    Returns:
      `tf.data.Dataset`; its n-th iterator goes through the n-th epoch.
    """
    rows = len(tf.nest.flatten(data)[0])
    order = tf.data.Dataset.range(rows)
    if shuffle:
        order = order.shuffle(rows, seed=seed, reshuffle_each_iteration=True)
    # One copy of the data in the graph's memory, not one in every element.
    tensors = tf.nest.map_structure(tf.convert_to_tensor, data)
    held = tf.data.Dataset.from_tensors(tensors).repeat()
    return (
        tf.data.Dataset.zip((order.batch(batch_size), held))
        .map(
            lambda rows, data: tf.nest.map_structure(lambda a: tf.gather(a, rows), data),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
        .prefetch(tf.data.AUTOTUNE)
    )


def cast_by_keras(x, dtype):
    """Whether Keras (3.15) would cast arrays of the model's dtype to another, its global floatx."""
    return is_arrays(x) and keras.config.floatx() != dtype.name


def in_order(x, y, weight, batch_size):
    """Batches of arrays as they are, which Keras does not cast."""
    data = tuple(d for d in (x, y, weight) if d is not None)
    data = data if len(data) > 1 else data[0]
    return of_arrays(data, batch_size or 32, shuffle=False, seed=0)


def split_rows(data, fraction):
    """The first rows of a structure of arrays and the last `fraction` of them, as Keras splits."""
    rows = len(tf.nest.flatten(data)[0])
    first = math.floor(rows * (1.0 - fraction))
    if not 0 < first < rows:
        raise ValueError(
            f"FlowModel.fit: validation_split={fraction} of {rows} rows leaves no rows on one "
            "side. Choose a fraction between 0 and 1 that does, or pass validation_data."
        )
    return (
        tf.nest.map_structure(lambda a: a[:first], data),
        tf.nest.map_structure(lambda a: a[first:], data),
    )


def sharded_by_data(dataset):
    """The dataset, with every worker taking its share of each batch unless the user said else.

    TensorFlow's default shards by files where there are enough: other batches than one device
    would see. What is no `tf.data.Dataset` is returned as it is.
    """
    if not isinstance(dataset, tf.data.Dataset):
        return dataset
    options = dataset.options()
    policy = tf.data.experimental.AutoShardPolicy
    if options.experimental_distribute.auto_shard_policy == policy.AUTO:
        options = tf.data.Options()
        options.experimental_distribute.auto_shard_policy = policy.DATA
        dataset = dataset.with_options(options)
    return dataset


def check_batch(batch, count):
    """Refuses a global batch that leaves some of the replicas without a row."""
    if batch is not None and batch < count:
        raise ValueError(
            f"FlowModel.fit: a global batch of {batch} rows is smaller than the number of "
            f"replicas, {count}: some would never have anything to do. `batch_size` is that of all "
            f"replicas together: make it at least {count}, better a multiple of it."
        )


def batch_of(dataset):
    """Rows of a dataset's batches, or `None` where they are not fixed."""
    shape = tf.nest.flatten(dataset.element_spec)[0].shape
    return shape[0] if shape.rank else None


class Epochs(DistributedDataset):
    """A dataset that gives one iterator for each epoch, however often Keras asks for one.

    Every iterator of a dataset moves on the seeds of its `shuffle(seed=...)`, and Keras (3.15)
    makes one or two an epoch, so that the order of an epoch would not follow from its number.

    Args:
      dataset: `tf.data.Dataset`, or one that is distributed already.
      strategy: the `tf.distribute.Strategy` to train under.
    """

    # Keras (3.15) knows datasets by the names of their classes, and distributes none of this one
    # again. Nothing of it is used but what is defined here.
    def __init__(self, dataset, strategy):
        self._size = _steps(dataset, strategy)
        if isinstance(dataset, tf.data.Dataset):
            dataset = strategy.experimental_distribute_dataset(dataset)
        self._dataset = dataset
        self._unused = None

    @property
    def element_spec(self):
        """That of the dataset."""
        return self._dataset.element_spec

    @property
    def cardinality(self):
        """Number of steps, negative if infinite or unknown."""
        return self._size

    def __iter__(self):
        if self._unused is None:
            self._unused = iter(self._dataset)
        return self._unused

    def use(self, iterator):
        """Notes that an iterator is being read."""
        if iterator is self._unused:
            self._unused = None

    def advance(self, progress):
        """Goes to the point that a training had reached.

        To make an iterator reads nothing. What the training had read of its last iterator has to
        be read again.

        Args:
          progress: `backup.Progress`.

        Returns:
          How many batches of the next iterator are to be dropped.
        """
        steps, done = progress.steps_per_epoch, progress.calls * progress.steps_per_execution
        epochs = progress.epoch - progress.first_epoch
        if steps is not None:
            # One iterator goes on from epoch to epoch; the last call takes all its steps.
            per_call = progress.steps_per_execution
            return epochs * -(-steps // per_call) * per_call + done
        for _ in range(epochs):
            iter(self._dataset)
        return done


def _steps(dataset, strategy):
    if not isinstance(dataset, tf.data.Dataset):
        return tf.data.UNKNOWN_CARDINALITY
    size = int(dataset.cardinality())
    policy = dataset.options().experimental_distribute.auto_shard_policy
    by_data = policy == tf.data.experimental.AutoShardPolicy.DATA
    # Other policies divide other things than batches.
    known = size < 0 or by_data or replicas.num_workers(strategy) == 1
    return size if known else tf.data.UNKNOWN_CARDINALITY


def draw_seed():
    """A seed from NumPy's global state, which `keras.utils.set_random_seed` seeds."""
    return int(np.random.randint(2**31))
