"""The strategy that fits the machine."""

import tensorflow as tf

from tfp_flows.distribute.cluster import read_cluster, wait_for_peers


def make_strategy(*, replicas=None, timeout=60.0):
    """Makes the `tf.distribute.Strategy` that fits the machine and the environment.

    With several workers in `TF_CONFIG` it is a `MultiWorkerMirroredStrategy`, once all of them
    have been reached; else, with several devices, a `MirroredStrategy`; else the default one,
    which changes nothing. Call it before anything else of TensorFlow, build distribution, model
    and optimizer in its `scope()`, and `fit` as on one device:

    ```python
    strategy = tfp_flows.distribute.make_strategy()
    with strategy.scope():
        model = FlowModel(flows.glow([32, 32, 3], num_levels=3, num_steps=8, hidden_filters=128))
        model.compile(optimizer="adam")
    model.fit(images, batch_size=64 * strategy.num_replicas_in_sync)
    ```

    Args:
      replicas: `int >= 1`, devices of a single process. Default: all GPUs, or one CPU. Without
        GPUs several replicas share the CPU as logical devices, for trying things out.
      timeout: seconds to wait for the other workers. Default 60.

    Returns:
      A `tf.distribute.Strategy`.

    Raises:
      ValueError: if `TF_CONFIG` is malformed, there are fewer GPUs than replicas, or replicas
        are asked for of a worker.
      TimeoutError: if a worker was not reached in time.
      RuntimeError: if TensorFlow has started already, and the CPU cannot be divided any more.

    >>> make_strategy().num_replicas_in_sync
    1
    """
    if replicas is not None and (not isinstance(replicas, int) or replicas < 1):
        raise ValueError(f"make_strategy: replicas must be an integer >= 1, got {replicas!r}.")
    gpus = tf.config.list_physical_devices("GPU")
    if replicas is not None and gpus and replicas > len(gpus):
        raise ValueError(
            f"make_strategy: {replicas} replicas need as many GPUs, this machine has {len(gpus)}."
        )
    cluster = read_cluster()
    if cluster is not None:
        if replicas is not None:
            raise ValueError(
                f"make_strategy: got replicas={replicas} and several workers in TF_CONFIG. Of "
                "these each takes all GPUs of its machine, or one CPU: leave replicas out, or hide "
                "GPUs by CUDA_VISIBLE_DEVICES."
            )
        wait_for_peers(cluster, timeout)
        return tf.distribute.MultiWorkerMirroredStrategy()
    count = replicas or max(1, len(gpus))
    if count == 1:
        return tf.distribute.get_strategy()
    if gpus:
        return tf.distribute.MirroredStrategy([f"GPU:{n}" for n in range(count)])
    cpu = tf.config.list_physical_devices("CPU")[0]
    try:
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * count
        )
    except RuntimeError as error:
        raise RuntimeError(
            f"make_strategy: the CPU cannot be divided into {count} devices any more, because "
            "TensorFlow has started. Call make_strategy before anything else of TensorFlow."
        ) from error
    # The default, collectives, clashes between two strategies of one process on CPUs (TF 2.21).
    return tf.distribute.MirroredStrategy(
        [f"CPU:{n}" for n in range(count)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )
