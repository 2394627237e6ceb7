"""tfp_flows by its public names."""

import contextlib
import time

import keras
import tensorflow as tf

from peers import stepping, works
from tfp_flows import FlowModel, elementwise, flows

LEARNING_RATE = 1e-3


def make_distribution(work, options):
    """Returns the recipe of `work`."""
    if work.name == "glow":
        return flows.glow(
            (32, 32, 3), num_levels=3, num_steps=options["glow_steps"], hidden_filters=128, seed=0
        )
    if work.name == "realnvp":
        return flows.real_nvp([63], num_couplings=10, hidden_units=(512, 512), seed=0)
    if work.name == "spline":
        return flows.real_nvp(
            [16],
            num_couplings=6,
            hidden_units=(128, 128),
            # Alone, as the peers have it: by name it comes with an affine map.
            elementwise=elementwise.RationalQuadraticSpline(num_bins=works.SPLINE_BINS),
            seed=0,
        )
    num_layers, hidden_units = works.MAF_SIZES[work.name]
    return flows.maf(
        [work.event_shape[0]], num_layers=num_layers, hidden_units=hidden_units, seed=0
    )


class FitContender(stepping.TensorFlowContender):
    """What a Keras user sees: `FlowModel`, `fit`, `sample` and `log_prob`."""

    def __init__(self, work, xla, options):
        super().__init__(work, xla, options)
        data = works.make_batches(work)
        if options["variant"] == "ours_bf16":
            keras.config.set_dtype_policy("mixed_bfloat16")
        mirrored = options["variant"] == "ours_mirrored"
        strategy = tf.distribute.MirroredStrategy() if mirrored else None
        with strategy.scope() if strategy else contextlib.nullcontext():
            distribution = make_distribution(work, options)
            self.model = model = FlowModel(distribution)
            model.initialize(data[0])
            optimizer = keras.optimizers.Adam(LEARNING_RATE)
            if xla is not None:
                model.compile(optimizer=optimizer, jit_compile=xla)
            else:
                model.compile(optimizer=optimizer)
        if xla is None and model.jit_compile:
            self.notes = "compile() chose XLA for the training step"
        # TF 2.21 waits at the end of an endless iterator until its tuning thread wakes, after 10,
        # 20, 40, ... ms: up to half the time of a fit of 20 steps, and nothing of a long one.
        options = tf.data.Options()
        options.autotune.enabled = False
        dataset = tf.data.Dataset.from_tensor_slices(data).cache().repeat()
        self.dataset = dataset.with_options(options)
        x = tf.constant(data[0])
        density, draw = model.log_prob, lambda: model.sample(work.sample)
        if xla:
            # The model's own methods run as graphs.
            density = tf.function(distribution.log_prob, jit_compile=True)
            draw = tf.function(lambda: distribution.sample(work.sample), jit_compile=True)
        self.calls = {
            "train": lambda: self.fit(1),
            "log_prob": lambda: keras.ops.convert_to_numpy(density(x)),
            "sample": lambda: keras.ops.convert_to_numpy(draw()),
        }

    def fit(self, steps):
        """Runs one epoch of `steps` steps."""
        self.model.fit(self.dataset, steps_per_epoch=steps, epochs=1, verbose=0)

    def time_calls(self, cell, num):
        """Times `fit` as a whole: one figure, the time of an epoch over its steps."""
        if cell != "train":
            return super().time_calls(cell, num)
        num = max(num, 20)
        start = time.perf_counter()
        self.fit(num)
        return [(time.perf_counter() - start) * 1e3 / num]


class FunctionContender(stepping.FunctionContender):
    """The same distribution in hand-written `tf.function`s, as TFP is measured."""

    def __init__(self, work, xla, options):
        super().__init__(work, xla, options)
        distribution = make_distribution(work, options)
        FlowModel(distribution).initialize(works.make_batches(work, 1)[0])
        variables = list(distribution.trainable_variables)
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        optimizer.build(variables)
        self.set_up(distribution.log_prob, distribution.sample, variables, optimizer.apply)
