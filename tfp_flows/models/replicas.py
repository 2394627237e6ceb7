"""What a training step does on several replicas: sums over all of them, and one update.

Keras 3.15 divides each replica's loss by the number of replicas and clips before it reduces, so an
uneven batch, an empty replica or a clipped gradient gives other weights than one device would,
without a word. Here everything that a step divides by or clips is a sum over the global batch.
"""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import _private, bijectors

_SUPPORTED = (
    tf.distribute.OneDeviceStrategy,
    tf.distribute.MirroredStrategy,
    tf.distribute.MultiWorkerMirroredStrategy,
)


def check_strategy(strategy, title):
    """Refuses strategies under which the results would not be those of one device."""
    if isinstance(strategy, _SUPPORTED) or not tf.distribute.has_strategy():
        return
    raise ValueError(
        f"{title}: {type(strategy).__name__} is not supported: it does not keep a copy of every "
        "variable in step on every replica, so training would not give the weights that one "
        "device gives. Use tf.distribute.MirroredStrategy (several devices of one machine), "
        "MultiWorkerMirroredStrategy (several machines) or OneDeviceStrategy."
    )


def check_scope(strategy, variables, title):
    """Refuses variables that were made outside the strategy's scope."""
    for v in variables:
        if not strategy.extended.variable_created_in_scope(v):
            raise ValueError(
                f"{title}: the variable '{v.name}' was made outside the scope of the strategy "
                f"that the model is built under, {_name(strategy)}. Build the distribution, "
                "the model and the optimizer inside one `with strategy.scope():`."
            )


def check_same(made_under, strategy, title):
    """Refuses to train a model in another scope than the one that it was made in."""
    if made_under is not strategy:
        raise ValueError(
            f"{title}: the model was made under {_name(made_under)}, and this is the scope of "
            f"{_name(strategy)}. Build the distribution, the model and the optimizer inside one "
            "`with strategy.scope():`."
        )


def _name(strategy):
    name = type(strategy).__name__
    return "no strategy" if name == "_DefaultDistributionStrategy" else name


def check_optimizer(strategy, optimizer, distribution, jit_compile, title):
    """Refuses what cannot be made to give one device's result on several replicas."""
    own = _private.strategy_of(optimizer, strategy)
    if own is not strategy:
        raise ValueError(
            f"{title}: the optimizer '{optimizer.name}' was made under {_name(own)}, the model "
            f"under {_name(strategy)}. Make both inside one `with "
            "strategy.scope():`, or give the optimizer by its name."
        )
    count = strategy.num_replicas_in_sync
    if count == 1:
        return
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            f"{title}: gradient_accumulation_steps is not supported on {count} replicas: Keras "
            "applies the sum under a condition, in which replicas cannot meet. Use a larger batch, "
            "which the replicas divide, and micro_batch_size=... of compile if it does not fit."
        )
    if getattr(optimizer, "use_ema", False) and optimizer.ema_overwrite_frequency:
        raise ValueError(
            f"{title}: ema_overwrite_frequency is not supported on {count} replicas: Keras "
            "overwrites under a condition, in which replicas cannot meet. Leave it out: at the end "
            "of `fit` the weights are the averages."
        )
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            f"{title}: LossScaleOptimizer (float16) is not supported on {count} replicas. Use "
            "mixed_bfloat16, which needs no loss scaling."
        )
    if not _private.can_leave_out_reduction(optimizer):
        raise ValueError(
            f"{title}: Keras {keras.__version__}'s optimizers cannot be told that gradients are "
            f"summed over the {count} replicas already. Install keras>=3.12,<3.16."
        )
    norms = [p.name for p in distribution.submodules if isinstance(p, bijectors.BatchNorm)]
    if jit_compile and norms:
        raise ValueError(
            f"{title}: jit_compile=True is not supported on {count} replicas with BatchNorm "
            f"('{norms[0]}'): its moments are summed over the replicas in the middle of the step, "
            "which XLA cannot compile. Leave jit_compile out, or use ActNorm."
        )


def sum_over_replicas(values):
    """The sums of a structure of tensors over all replicas, in every replica; in a replica.

    `None` stays `None`.
    """
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    flat = tf.nest.flatten(values)
    there = [v for v in flat if v is not None]
    sums = iter(replica.all_reduce(tf.distribute.ReduceOp.SUM, there))
    return tf.nest.pack_sequence_as(values, [v if v is None else next(sums) for v in flat])


def of_each_replica(value):
    """The values of a scalar in all replicas, `[replicas]`, in every replica."""
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return value[tf.newaxis]
    # `where`, not a product: NaN in one replica must not reach the others' entries.
    mine = tf.range(replica.num_replicas_in_sync) == replica.replica_id_in_sync_group
    return sum_over_replicas(tf.where(mine, value, tf.zeros([], value.dtype)))


def replica_id():
    """Number of this replica among all, a tensor or 0."""
    replica = tf.distribute.get_replica_context()
    return 0 if replica is None else replica.replica_id_in_sync_group


def apply_summed(optimizer, gradients, variables):
    """Applies gradients that are sums over all replicas already: clipping sees the sums."""
    pairs = list(zip(gradients, variables, strict=True))
    if optimizer_replicas(optimizer) == 1:
        optimizer.apply_gradients(pairs)
        return
    with _private.without_reduction(optimizer):
        optimizer.apply_gradients(pairs)


def optimizer_replicas(optimizer):
    """Number of replicas that an optimizer was made for."""
    strategy = _private.strategy_of(optimizer)
    return 1 if strategy is None else strategy.num_replicas_in_sync


# --- Workers: processes of their own. ---


def replicas_here(strategy):
    """Number of replicas in this process."""
    # The default strategy has no devices to count.
    return 1 if strategy.num_replicas_in_sync == 1 else len(strategy.extended.worker_devices)


def num_workers(strategy):
    """Number of processes that train together."""
    return strategy.num_replicas_in_sync // replicas_here(strategy)


def worker_index(strategy):
    """Number of this process among them; 0 is the chief."""
    if num_workers(strategy) == 1:
        return 0
    return _private.worker_of(strategy)


def sum_over_workers(strategy):
    """A function that sums a tensor over the workers, in eager mode, or `None` for one worker."""
    if num_workers(strategy) == 1:
        return None
    local = replicas_here(strategy)

    # One trace for all shapes.
    @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)], autograph=False)
    def total(flat):
        def of_replica(flat):
            return sum_over_replicas(flat / local)

        return strategy.experimental_local_results(strategy.run(of_replica, args=(flat,)))[0]

    def sum_of(value):
        value = tf.convert_to_tensor(value)
        flat = total(tf.reshape(tf.cast(value, tf.float64), [-1]))
        return tf.cast(tf.reshape(flat, value.shape), value.dtype)

    return sum_of


def gather_over_workers(strategy, row):
    """The rows of integers of all workers, `[workers, len(row)]`, in every worker."""
    row = np.asarray(row, np.int64)
    add = sum_over_workers(strategy)
    if add is None:
        return row[np.newaxis]
    table = np.zeros((num_workers(strategy), len(row)), np.float64)  # Exact up to 2^53.
    table[worker_index(strategy)] = row
    return np.rint(add(table).numpy()).astype(np.int64)


def explain_lost_worker(strategy, error):
    """Raises a `RuntimeError` if an error means that another worker is gone."""
    lost = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
    if num_workers(strategy) > 1 and isinstance(error, lost):
        raise RuntimeError(
            f"FlowModel.fit: worker {worker_index(strategy)} of {num_workers(strategy)} lost "
            "another one. Start all of them again: with a keras.callbacks.BackupAndRestore they "
            "resume from the last backup that all have."
        ) from error
