"""Trains a small flow on N logical CPUs and writes its weights; run by test_mirrored.py."""

import sys

import numpy as np
import tensorflow as tf


def main(replicas, path):
    devices = tf.config.list_physical_devices("CPU")
    configuration = [tf.config.LogicalDeviceConfiguration()] * replicas
    tf.config.set_logical_device_configuration(devices[0], configuration)
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy(
            [f"CPU:{n}" for n in range(replicas)],
            cross_device_ops=tf.distribute.ReductionToOneDevice(),
        )
    else:
        strategy = tf.distribute.get_strategy()

    import keras

    from tfp_flows import FlowModel, flows

    x = np.random.default_rng(0).normal(size=(45, 4)).astype("float32") * 2.0 + 1.0
    with strategy.scope():
        flow = flows.real_nvp([4], num_couplings=2, hidden_units=(8,), actnorm=True, seed=0)
        model = FlowModel(flow)
        # Not Adam: in its first steps it divides rounding noise by rounding noise.
        model.compile(optimizer=keras.optimizers.SGD(0.05, momentum=0.9))
    # 45 rows in batches of 16 and 2 replicas: the last batch is 13 rows, 7 and 6.
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(16)
    history = model.fit(dataset, epochs=7, verbose=0).history
    weights = [np.asarray(v) for v in model.trainable_variables]
    np.savez(path, *weights, loss=history["loss"])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
