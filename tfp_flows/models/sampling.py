"""Seeds of samples."""

import tensorflow as tf


def stateless_seed(seed):
    """A pair of int32 from `None`, an `int` or a pair; in a replica of a strategy, one of its own.

    The same stateless seed would draw the same samples on every replica.
    """
    if seed is None:
        return tf.random.uniform([2], maxval=tf.int32.max, dtype=tf.int32)
    seed = tf.convert_to_tensor(seed)
    if seed.shape.rank == 0:
        high = seed // 2**32 if seed.dtype == tf.int64 else tf.zeros_like(seed)
        seed = tf.stack([high, seed])
    seed = tf.cast(seed, tf.int32)  # Of int64 the low half.
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return seed
    return tf.random.experimental.stateless_fold_in(seed, replica.replica_id_in_sync_group)
