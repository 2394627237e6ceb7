"""Trains a MAF with batch normalization on N logical CPUs; run by test_batch_norm.py."""

import sys

import numpy as np
import tensorflow as tf


def main(replicas, path):
    devices = tf.config.list_physical_devices("CPU")
    configuration = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(devices[0], configuration)
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy(
            [f"CPU:{n}" for n in range(replicas)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )

    import keras

    from tfp_flows import FlowModel, flows

    x = np.random.default_rng(0).normal(size=(45, 4)).astype("float32") * 2.0 + 1.0
    with strategy.scope():
        flow = flows.maf([4], num_layers=2, hidden_units=(8,), normalization="batch_norm", seed=0)
        model = FlowModel(flow)
        model.compile(optimizer=keras.optimizers.SGD(0.05))
    # 45 rows in batches of 16 and 2 replicas: the last batch is 13 rows, 7 and 6.
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(16)
    model.fit(dataset, epochs=3, verbose=0)
    np.savez(path, *[np.asarray(v) for v in model.variables], log_prob=model.log_prob(x).numpy())


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
