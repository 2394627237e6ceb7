"""Trainings that have to give the same weights on any number of replicas.

    python strategy_cases.py STRATEGY FOLDER [CASE ...]

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


def glow(**kwargs):
    from tfp_flows import flows

    kwargs = {"num_levels": 1, "num_steps": 2, "hidden_filters": 4, "seed": 0, **kwargs}
    return flows.glow([4, 4, 1], **kwargs)


def make_optimizer(kind="SGD", rate=0.05, **kwargs):
    import keras

    if kind == "SGD":
        return keras.optimizers.SGD(rate, momentum=0.9, **kwargs)
    # With Adam's own epsilon its first steps divide rounding noise by rounding noise.
    return getattr(keras.optimizers, kind)(rate, epsilon=0.01, **kwargs)


def regularized():
    import keras
    import tensorflow_probability as tfp

    from tfp_flows import bijectors

    class Network(keras.layers.Layer):
        def build(self, input_shape):
            make = {"shape": (2, 4), "regularizer": "l2"}
            self.kernel = self.add_weight(
                initializer=keras.initializers.RandomNormal(0.0, 0.3, seed=0), **make
            )
            self.unused = self.add_weight(
                shape=(1,), initializer="zeros"
            )  # No loss reaches it: it stays as it is.

        def call(self, x):
            return tf.tanh(tf.matmul(x, tf.convert_to_tensor(self.kernel)))

    coupling = bijectors.AffineCoupling(Network(), np.array([True, True, False, False]))
    base = tfp.distributions.Sample(tfp.distributions.Normal(0.0, 1.0), [4])
    return tfp.distributions.TransformedDistribution(base, coupling)


def bounded():
    """A density drawn with noise of two kinds: learned dequantization of an augmented flow."""
    import tensorflow_probability as tfp

    from tfp_flows import bijectors, distributions, preprocessing

    tfd = tfp.distributions

    def normal(bijector, channels):
        base = tfd.Independent(tfd.Normal(tf.zeros([4, 4, channels]), 1.0), 3)
        return tfd.TransformedDistribution(base, bijector)

    joint = normal(bijectors.ActNorm(2), 2)
    density = distributions.Augmented(joint, normal(bijectors.Rescale([4, 4, 1]), 1))
    noise = glow(num_steps=1, context_size=16, base="logistic")
    dequantization = preprocessing.VariationalDequantization(noise, 17)
    return distributions.Surjected(density, dequantization)


def autoencoder():
    """Levels by way of latents: a flow in the prior, one in the posterior."""
    import keras

    from tfp_flows import distributions, flows

    def network(shape, seed):
        kernel = keras.initializers.GlorotUniform(seed)
        dense = keras.layers.Dense(int(np.prod(shape)), "tanh", kernel_initializer=kernel)
        return keras.Sequential([keras.layers.Flatten(), dense, keras.layers.Reshape(shape)])

    kwargs = {"num_layers": 1, "hidden_units": (8,), "activation": "tanh", "seed": 0}
    return distributions.VAE(
        flows.maf([2], **kwargs),
        network([3], 1),
        network([4, 4, 17], 2),
        flows.iaf([2], context_size=3, **kwargs),
        output=distributions.get_output("categorical", num_levels=17),
    )


def objective(name):
    """The objective of a case, and its flow."""
    from tfp_flows import flows, objectives

    def target(x):
        return -tf.reduce_sum((x - 1.0) ** 4, axis=-1)

    teacher = flows.planar([4], num_layers=1, seed=5)
    return {
        "flow_matching": objectives.FlowMatching,
        "noisy": lambda: objectives.NoisyLikelihood(0.3, drop_label=0.5),
        "elbo": lambda: objectives.ELBO(beta=0.5),
        "reverse_kl": lambda: objectives.ReverseKL(target, num_samples=13),
        "distillation": lambda: objectives.Distillation(teacher, num_samples=13, seed=3),
    }[name]()


def continuous():
    from tfp_flows import flows

    return flows.continuous([4], hidden_units=(8,), activation="tanh", seed=0)


@dataclasses.dataclass
class Case:
    """How a model is made and trained."""

    flow: callable = real_nvp
    objective: str | None = None
    optimizer: dict = dataclasses.field(default_factory=dict)
    rows: int = 64
    batch: int = 16
    epochs: int = 5
    compile: dict = dataclasses.field(default_factory=dict)
    integers: bool = False  # whose dequantization is the model's
    levels: bool = False  # whose dequantization, if any, is the distribution's
    context: bool = False
    weighted: bool = False
    validation: bool = False
    arrays: bool = False
    scores: bool = False
    on_workers: bool = True


CASES = {
    "even": Case(on_workers=False),
    # 61 = 3 * 16 + 13 rows: 7 and 6 on two replicas.
    "uneven": Case(rows=61, scores=True),
    # 65 = 4 * 16 + 1 rows: the second replica's last batch is empty.
    "empty": Case(rows=65, scores=True),
    "weights_context": Case(
        flow=lambda: real_nvp(context_size=3), rows=61, context=True, weighted=True, scores=True
    ),
    "clipnorm": Case(on_workers=False, rows=61, optimizer={"clipnorm": 0.05}),
    "global_clipnorm": Case(rows=61, optimizer={"global_clipnorm": 0.1}),
    "adam_clipvalue": Case(rows=61, optimizer={"kind": "Adam", "rate": 0.02, "clipvalue": 0.01}),
    "adamw_ema": Case(
        rows=61,
        optimizer={
            "kind": "AdamW",
            "rate": 0.02,
            "weight_decay": 0.1,
            "use_ema": True,
            "ema_momentum": 0.8,
        },
    ),
    "steps_per_execution": Case(rows=61, compile={"steps_per_execution": 3}),
    # Two replicas have another number of pieces each, or none, in the last batch.
    "micro_batches": Case(
        on_workers=False,
        flow=glow,
        rows=65,
        integers=True,
        optimizer={"rate": 0.005},
        compile={"micro_batch_size": 3},
    ),
    "eager": Case(on_workers=False, rows=61, compile={"run_eagerly": True}),
    "xla": Case(on_workers=False, rows=65, scores=True, compile={"jit_compile": True}),
    "batch_norm": Case(flow=lambda: maf(normalization="batch_norm"), rows=61),
    "images": Case(flow=glow, rows=65, integers=True, scores=True, optimizer={"rate": 0.005}),
    "bounded": Case(flow=bounded, rows=65, levels=True, scores=True, optimizer={"rate": 0.005}),
    "stacked": Case(
        on_workers=False,
        flow=lambda: glow(stacked=True),
        rows=65,
        integers=True,
        scores=True,
        optimizer={"rate": 0.005},
    ),
    "stacked_xla": Case(
        flow=lambda: real_nvp(num_couplings=4, stacked=True, context_size=3),
        rows=61,
        context=True,
        compile={"jit_compile": True},
    ),
    "arrays": Case(rows=61, arrays=True, validation=True),
    # A replica without rows adds no part of the regularizers.
    "regularizer": Case(flow=regularized, rows=65),
    "autoencoder": Case(
        on_workers=False,
        flow=autoencoder,
        objective="elbo",
        optimizer={"rate": 0.002},
        rows=65,
        levels=True,
    ),
    "flow_matching": Case(flow=continuous, objective="flow_matching", rows=61),
    "noisy": Case(
        on_workers=False,
        flow=lambda: real_nvp(num_couplings=1, context_size=3),
        objective="noisy",
        rows=61,
        context=True,
    ),
    # Of 13 rows a step 7 and 6.
    "reverse_kl": Case(
        on_workers=False,
        flow=lambda: real_nvp(num_couplings=1, actnorm=False),
        objective="reverse_kl",
        optimizer={"rate": 0.001},
    ),
    "distillation": Case(
        on_workers=False,
        flow=lambda: real_nvp(num_couplings=1, actnorm=False),
        objective="distillation",
    ),
}

# What the two strategies share is seen on replicas, which start in half the time.
ON_WORKERS = [name for name, case in CASES.items() if case.on_workers]


def train(case, strategy):
    """Returns weights, losses and scores of a case trained under a strategy."""
    from tfp_flows import FlowModel, preprocessing

    with strategy.scope():
        noise = preprocessing.UniformDequantization(17, seed=3) if case.integers else None
        aim = objective(case.objective) if case.objective else None
        model = FlowModel(case.flow(), dequantization=noise, objective=aim)
        model.compile(optimizer=make_optimizer(**case.optimizer), **case.compile)
    x = (IMAGES if case.integers or case.levels else X)[: case.rows]
    data = {"x": x}
    if case.context:
        data["context"] = CONTEXT[: case.rows]
    if case.weighted:
        data["sample_weight"] = WEIGHTS[: case.rows]
    dataset = tf.data.Dataset.from_tensor_slices(data).batch(case.batch)
    kwargs = {"validation_data": dataset} if case.validation else {}
    if not model.objective.needs_data:
        history = model.fit(steps_per_epoch=4, epochs=case.epochs, verbose=0)
    elif case.arrays:
        kwargs |= {"batch_size": case.batch, "shuffle": False}
        history = model.fit(x, epochs=case.epochs, verbose=0, **kwargs)
    else:
        history = model.fit(dataset, epochs=case.epochs, verbose=0, **kwargs)
    found = {f"weight_{n}": np.asarray(v) for n, v in enumerate(model.variables)}
    found.update({name: np.array(values) for name, values in history.history.items()})
    if case.scores:
        found["evaluate"] = np.array(model.evaluate(dataset, verbose=0))
        found["predict"] = model.predict(dataset.map(without_weight), verbose=0)
        found["log_prob"] = model.log_prob(x, data.get("context")).numpy()
    return found


def without_weight(data):
    return {name: value for name, value in data.items() if name != "sample_weight"}


def train_on_different_data(strategy):
    """Each of two workers has rows of its own, and takes half of every global batch of 16."""
    from tfp_flows import FlowModel, distribute

    first, second = X[:32], X[32:64] + 5.0
    with strategy.scope():
        model = FlowModel(maf(normalization="actnorm"))
        model.compile(optimizer=make_optimizer())
    cluster = distribute.read_cluster()
    if cluster is None:
        # Of its first rows, 128 or all, each worker makes its share of the moments.
        model.initialize(np.concatenate([first, second]))
        pairs = np.concatenate([first.reshape(4, 8, 4), second.reshape(4, 8, 4)], axis=1)
        dataset = tf.data.Dataset.from_tensor_slices(pairs.reshape(64, 4)).batch(16)
    else:
        options = tf.data.Options()
        policy = tf.data.experimental.AutoShardPolicy.OFF
        options.experimental_distribute.auto_shard_policy = policy
        rows = first if cluster.is_chief else second
        dataset = tf.data.Dataset.from_tensor_slices(rows).batch(16).with_options(options)
    history = model.fit(dataset, epochs=5, verbose=0)
    found = {f"weight_{n}": np.asarray(v) for n, v in enumerate(model.variables)}
    return {**found, "loss": np.array(history.history["loss"])}


def main(name, folder, *names):
    from tfp_flows import distribute

    strategy = distribute.make_strategy(replicas=2 if name == "mirrored" else None)
    if name == "device":
        strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    cluster = distribute.read_cluster()
    suffix = "" if cluster is None or cluster.is_chief else ".second"
    for case in names or (ON_WORKERS if name == "workers" else CASES):
        np.savez(os.path.join(folder, case + suffix), **train(CASES[case], strategy))
    if name in ("one", "workers"):
        found = train_on_different_data(strategy)
        np.savez(os.path.join(folder, "different_data" + suffix), **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
