"""Trains on images that are made as they are read, and says how memory grew."""

import json
import pathlib

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, distribute, preprocessing

BATCH, STEPS, SHAPE = 32, 200, (128, 128, 3)


def resident_mb():
    for line in pathlib.Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024


def image(number):
    return tf.cast(tf.fill(SHAPE, number % 256), tf.uint8)


def main():
    strategy = distribute.make_strategy(replicas=2)
    with strategy.scope():
        base = tfp.distributions.Sample(tfp.distributions.Normal(0.0, 1.0), SHAPE)
        flow = tfp.distributions.TransformedDistribution(base, bijectors.ActNorm(3))
        model = FlowModel(flow, dequantization=preprocessing.UniformDequantization(seed=0))
        model.compile(keras.optimizers.SGD(1e-9))
    dataset = tf.data.Dataset.range(BATCH * STEPS).map(image, num_parallel_calls=2).batch(BATCH)
    model.fit(dataset.take(20), verbose=0)
    before = resident_mb()
    peak = []
    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: peak.append(resident_mb())
    )
    model.fit(dataset, callbacks=[watch], verbose=0)
    size = BATCH * STEPS * SHAPE[0] * SHAPE[1] * SHAPE[2] / 1e6
    print(json.dumps({"megabytes_read": size, "megabytes_grown": max(peak) - before}), flush=True)


if __name__ == "__main__":
    main()
