"""Trainings that have to give the same weights on any number of replicas.

    python cases.py STRATEGY FOLDER [CASE ...]

Each case is trained for 20 steps or more under one strategy, `one` (no strategy), `device`
(OneDeviceStrategy), `mirrored` (two logical CPUs) or `workers` (MultiWorkerMirroredStrategy, by
TF_CONFIG), and writes its weights and losses to `FOLDER/CASE.npz`.
"""

import dataclasses
import os
import sys

import numpy as np
import tensorflow as tf

ROWS = np.random.default_rng(0)
X = (ROWS.normal(size=(67, 4)) * 2.0 + 1.0).astype("float32")
CONTEXT = ROWS.normal(size=(67, 3)).astype("float32")
WEIGHTS = ROWS.uniform(0.0, 2.0, size=67).astype("float32")
IMAGES = ROWS.integers(0, 17, size=(67, 4, 4, 1)).astype("uint8")


def real_nvp(**kwargs):
    from tfp_flows import flows

    kwargs = {"num_couplings": 2, "hidden_units": (8,), "actnorm": True, **kwargs}
    return flows.real_nvp([4], activation="tanh", seed=0, **kwargs)


def maf(**kwargs):
    from tfp_flows import flows

    return flows.maf([4], num_layers=2, hidden_units=(8,), activation="tanh", seed=0, **kwargs)


def glow():
    from tfp_flows import flows

    return flows.glow([4, 4, 1], num_levels=1, num_steps=2, hidden_filters=4, seed=0)


def sgd(rate=0.05, **kwargs):
    import keras

    # Not Adam: in its first steps it divides rounding noise by rounding noise.
    return keras.optimizers.SGD(rate, momentum=0.9, **kwargs)


@dataclasses.dataclass
class Case:
    """How a model is made and trained."""

    flow: callable = real_nvp
    optimizer: dict = dataclasses.field(default_factory=dict)
    rows: int = 64
    batch: int = 16
    epochs: int = 5
    compile: dict = dataclasses.field(default_factory=dict)
    integers: bool = False
    context: bool = False
    weighted: bool = False
    validation: bool = False
    arrays: bool = False


CASES = {
    "even": Case(),
    # 61 = 3 * 16 + 13 rows: 7 and 6 on two replicas.
    "uneven": Case(rows=61),
    # 65 = 4 * 16 + 1 rows: the second replica's last batch is empty.
    "empty": Case(rows=65),
    "weights": Case(rows=61, weighted=True),
    "context": Case(flow=lambda: real_nvp(context_size=3), rows=61, context=True),
    "weights_context": Case(
        flow=lambda: real_nvp(context_size=3), rows=61, context=True, weighted=True
    ),
    "clipnorm": Case(rows=61, optimizer={"clipnorm": 0.05}),
    "global_clipnorm": Case(rows=61, optimizer={"global_clipnorm": 0.1}),
    "clipvalue": Case(rows=61, optimizer={"clipvalue": 0.01}),
    "ema": Case(rows=61, optimizer={"use_ema": True, "ema_momentum": 0.8}),
    "steps_per_execution": Case(rows=61, compile={"steps_per_execution": 3}),
    "eager": Case(rows=61, compile={"run_eagerly": True}),
    "xla": Case(rows=65, compile={"jit_compile": True}),
    "validation": Case(rows=61, validation=True),
    "batch_norm": Case(flow=lambda: maf(normalization="batch_norm"), rows=61),
    "images": Case(flow=glow, rows=65, integers=True, optimizer={"rate": 0.005}),
    "arrays": Case(rows=61, arrays=True),
}


def train(case, strategy):
    """Returns weights, losses and scores of a case trained under a strategy."""
    from tfp_flows import FlowModel, preprocessing

    with strategy.scope():
        noise = preprocessing.UniformDequantization(17, seed=3) if case.integers else None
        model = FlowModel(case.flow(), dequantization=noise)
        model.compile(optimizer=sgd(**case.optimizer), **case.compile)
    x = (IMAGES if case.integers else X)[: case.rows]
    data = {"x": x}
    if case.context:
        data["context"] = CONTEXT[: case.rows]
    if case.weighted:
        data["sample_weight"] = WEIGHTS[: case.rows]
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(case.batch)
    kwargs = {"validation_data": dataset} if case.validation else {}
    if case.arrays:
        history = model.fit(x, batch_size=case.batch, shuffle=False, epochs=case.epochs, verbose=0)
    else:
        history = model.fit(dataset, epochs=case.epochs, verbose=0, **kwargs)
    found = {f"weight_{n}": np.asarray(v) for n, v in enumerate(model.variables)}
    found.update({name: np.array(values) for name, values in history.history.items()})
    found["evaluate"] = np.array(model.evaluate(dataset, verbose=0))
    found["predict"] = model.predict(dataset.map(without_weight), verbose=0)
    context = data.get("context")
    found["log_prob"] = model.log_prob(x, context).numpy()
    return found


def without_weight(data):
    return {name: value for name, value in data.items() if name != "sample_weight"}


def make_strategy(name):
    if name == "one":
        return tf.distribute.get_strategy()
    if name == "device":
        return tf.distribute.OneDeviceStrategy("CPU:0")
    if name == "workers":
        return tf.distribute.MultiWorkerMirroredStrategy()
    devices = tf.config.list_physical_devices("CPU")
    configuration = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(devices[0], configuration)
    return tf.distribute.MirroredStrategy(
        ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice()
    )


def main(strategy, folder, *names):
    strategy = make_strategy(strategy)
    for name in names or CASES:
        found = train(CASES[name], strategy)
        np.savez(os.path.join(folder, name), **found)
        print(name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
