"""What two workers write, say and do when one is lost; run by test_workers.py.

Each prints a line of JSON for each part.
"""

import json
import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import FlowModel, distribute, flows

STRATEGY = distribute.make_strategy()
WORKER = distribute.read_cluster().index
FOLDER = pathlib.Path(sys.argv[1])
X = np.random.default_rng(0).normal(size=(32, 2)).astype("float32")


def say(**what):
    print(json.dumps(what), flush=True)


def make():
    with STRATEGY.scope():
        found = FlowModel(flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0))
        found.compile("sgd")
    return found


def files():
    """Shuffled arrays, with every callback that writes; what each worker keeps is equal."""
    model = make()
    callbacks = [
        keras.callbacks.ModelCheckpoint(FOLDER / "last.keras"),
        keras.callbacks.ModelCheckpoint(FOLDER / "best.weights.h5", save_weights_only=True),
        keras.callbacks.CSVLogger(FOLDER / "log.csv"),
        keras.callbacks.BackupAndRestore(FOLDER / "backup", delete_checkpoint=False),
    ]
    model.fit(X, batch_size=8, epochs=2, callbacks=callbacks, verbose=2)
    say(weights=[v.numpy().tolist() for v in model.variables])
    # A worker is told the same seed, and the same step to go on from.
    model = make()
    history = model.fit(X, batch_size=8, epochs=3, callbacks=callbacks[-1:], verbose=0)
    say(resumed=len(history.history["loss"]))


def shards():
    """Files that are shared out among the workers, of unequal length: every row counts once."""
    paths = [str(FOLDER / f"{n}.rows") for n in range(2)]
    if WORKER == 0:
        for path, rows in zip(paths, (X[:21], X[21:]), strict=True):
            with tf.io.TFRecordWriter(path) as file:
                for row in rows:
                    file.write(row.tobytes())
        (FOLDER / "written").touch()
    while not (FOLDER / "written").exists():
        time.sleep(0.1)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.FILE
    dataset = (
        tf.data.Dataset.from_tensor_slices(paths)
        .interleave(tf.data.TFRecordDataset)
        .map(lambda row: tf.reshape(tf.io.decode_raw(row, tf.float32), [2]))
        .batch(8)
        .with_options(options)
    )
    model = make()
    seen = []
    history = model.fit(
        dataset,
        epochs=2,
        callbacks=[
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(float(model.metrics[0].count.numpy()))
            )
        ],
        verbose=0,
    )
    # Each of the two replicas has counted the rows of both.
    say(rows=[count / 2 for count in seen], losses=history.history["loss"])


def infinity():
    """One worker's data are bad; no worker takes the step."""
    model = make()
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    rows = X.copy()
    rows[3] = np.inf if WORKER == 0 else 0.0
    before = [v.numpy() for v in model.variables]
    try:
        model.fit(tf.data.Dataset.from_tensor_slices(rows).batch(8).with_options(options))
    except FloatingPointError as error:
        kept = all(np.array_equal(a, v) for a, v in zip(before, model.variables, strict=True))
        say(infinity=str(error), kept=kept)


class Leave(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if WORKER == 1 and batch == 2:
            os._exit(9)


def lost():
    """The other worker is gone in the middle of an epoch."""
    model = make()
    start = time.monotonic()
    try:
        model.fit(X, batch_size=8, epochs=50, callbacks=[Leave()], verbose=0)
    except RuntimeError as error:
        say(lost=str(error), seconds=time.monotonic() - start)
        os._exit(3)


if __name__ == "__main__":
    files()
    shards()
    infinity()
    lost()
