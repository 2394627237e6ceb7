"""A gradient that is not finite while the loss is reaches no weight, slot, average or backup."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import X, compiled, gaussian, real_nvp, same, weights

from tfp_flows import bijectors, flows, masks
from tfp_flows.bijectors.road import Road
from tfp_flows.models import diagnosis

tfb, tfd = tfp.bijectors, tfp.distributions

# An entry of exactly 0 gives the network below an infinite gradient, and a finite loss.
POISON = X.copy()
POISON[20:, 0] = 0.0


class Root(keras.layers.Layer):
    """Parameters from the root of the weighted input, whose slope at 0 is infinite."""

    def build(self, input_shape):
        self.factor = self.add_weight(name="factor", shape=(1,), initializer="ones")
        self.offset = self.add_weight(name="offset", shape=(2,), initializer="zeros")

    def call(self, x):
        return 0.1 * tf.sqrt(tf.abs(x * self.factor)) + self.offset


def steep():
    """From data to latent: a sound part, the steep one, a sound one."""
    chain = bijectors.Chain(
        [
            bijectors.Rescale([2], name="near_the_data"),
            bijectors.AffineCoupling(Root(), masks.halves(2), name="steep"),
            tfb.Invert(bijectors.Chain([bijectors.Rescale([2], name="near_the_latent")])),
        ]
    )
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)


def state(model):
    """All that a step may change: weights, slots, averages, accumulators, counts."""
    return [v.numpy() for v in [*model.variables, *model.optimizer.variables]]


def in_order(x):
    return tf.data.Dataset.from_tensor_slices(x).batch(10)


WAYS = {
    "graph": {},
    "run_eagerly": {"run_eagerly": True},
    "jit_compile": {"jit_compile": True},
    "steps_per_execution": {"steps_per_execution": 4},
    "micro_batch_size": {"micro_batch_size": 6},
}
OPTIMIZERS = {
    "adam": {},
    "clipped": {"global_clipnorm": 1.0},
    "averaged": {"use_ema": True},
    "accumulated": {"gradient_accumulation_steps": 2},
}


@pytest.mark.parametrize(
    "way, optimizer",
    [(way, "adam") for way in WAYS] + [("graph", name) for name in OPTIMIZERS if name != "adam"],
)
def test_the_step_is_not_taken(way, optimizer):
    """Two good batches, then two bad ones: the state is that of a training on the good ones."""

    def make():
        optimizer_ = keras.optimizers.Adam(0.01, **OPTIMIZERS[optimizer])
        return compiled(steep(), optimizer_, **WAYS[way])

    model = make()
    step = 1 if optimizer == "accumulated" else 2  # Updates, not steps.
    with pytest.raises(
        FloatingPointError,
        match=rf"the gradient is not finite at step {step}: that of the variable '.*factor.*' of "
        "AffineCoupling 'steep' and of 1 more, .*last good step.*infinite slope",
    ):
        model.fit(in_order(POISON), verbose=0)
    reference = make()
    reference.make_train_function()
    iterator = iter(in_order(POISON[:20]).take(2))
    for _ in range(1 if way == "steps_per_execution" else 2):
        reference.train_function(iterator)
    same(state(model), state(reference), rtol=1e-6, atol=1e-7)


def test_values_whose_square_overflows_count_as_infinite():
    """Adam keeps squares, and clipping sums them: both would be infinite."""

    narrow = tfd.Sample(tfd.Normal(0.0, 1e-12), [2])
    flow = tfd.TransformedDistribution(narrow, bijectors.Rescale([2], name="tight"))
    model = compiled(flow, keras.optimizers.Adam(0.01))
    model.make_train_function()
    before = state(model)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 0: .*'tight'"):
        model.fit(X, verbose=0)
    same(state(model), before, rtol=0)


def test_variables_without_a_gradient():
    """They have no place among the sums of squares, and the right one is named."""
    flow = steep()
    unused = tf.Variable([1.0, 2.0], name="unused")
    flow.bijector.bijectors[0].unused = unused
    model = compiled(flow, keras.optimizers.SGD(0.01))
    assert len(model.trainable_variables) == 5
    with (
        pytest.warns(UserWarning, match="unused"),
        pytest.raises(FloatingPointError, match="factor.*'steep' and of 1 more"),
    ):
        model.fit(POISON[20:], verbose=0)
    np.testing.assert_array_equal(unused, [1.0, 2.0])


def test_loss_scaling_skips_the_step_and_goes_on():
    inner = keras.optimizers.SGD(0.01)
    model = compiled(steep(), keras.optimizers.LossScaleOptimizer(inner, initial_scale=4.0))
    model.fit(in_order(POISON[:20]), verbose=0)
    after_the_good = [v.numpy() for v in model.trainable_variables]
    model.fit(in_order(POISON[20:]), verbose=0)
    same([v.numpy() for v in model.trainable_variables], after_the_good, rtol=0)
    assert float(model.optimizer.dynamic_scale) == 1.0  # halved twice


def test_the_part_closest_to_the_latent_is_named():
    """Whatever order the variables come in: those closer to the data are victims."""
    glow = flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0)
    parts = list(diagnosis._in_order(Road(glow).steps))
    names = [part.name for part in parts]
    assert names.index("coupling_1_0") < names.index("factor_out_1") < names.index("coupling_2_0")
    deep = [p for p in parts if p.name == "coupling_2_0"][0].trainable_variables
    others = [v for v in glow.trainable_variables if not any(v is d for d in deep)]
    for variables in ([*deep, *others], [*others, *deep]):
        found, _ = diagnosis.explain_gradients(Road(glow), variables)
        assert "of Coupling 'coupling_2_0' and of" in found
    inverted = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(0.0, 1.0), [2]),
        tfb.Invert(bijectors.Chain([bijectors.Rescale([2], name=n) for n in "ab"])),
    )
    found, _ = diagnosis.explain_gradients(Road(inverted), inverted.trainable_variables)
    assert "of Rescale 'a'" in found


def backup(folder):
    return keras.callbacks.BackupAndRestore(folder, save_freq=1, delete_checkpoint=False)


def test_a_backup_is_sound_and_a_training_goes_on_from_it(tmp_path):
    def fit(x, **kwargs):
        model = compiled(steep(), keras.optimizers.Adam(0.01, use_ema=True))
        model.fit(in_order(x), epochs=2, verbose=0, **kwargs)
        return state(model)

    mended = np.where(POISON == 0.0, np.float32(0.3), POISON)
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 2"):
        fit(POISON, callbacks=[backup(tmp_path)])
    assert sorted(p.name for p in tmp_path.glob("*.json")) == [
        "step-0000000001.json",
        "step-0000000002.json",
    ]
    with pytest.raises(FloatingPointError, match="gradient is not finite at step 2"):
        fit(POISON, callbacks=[backup(tmp_path)])  # It resumes, and meets the same batch.
    same(fit(mended, callbacks=[backup(tmp_path)]), fit(mended), rtol=1e-6, atol=1e-7)


# --- Values that finite gradients spoil. ---


def test_weights_that_an_update_spoilt(tmp_path):
    """By an optimizer that divides by 0: `fit` does not end, and no backup is written."""
    model = compiled(gaussian(), keras.optimizers.SGD(1e38))
    with pytest.raises(FloatingPointError, match="the variable '.*' of .* not finite.*rate"):
        model.fit(X[:10], batch_size=10, verbose=0, callbacks=[backup(tmp_path)])
    assert not list(tmp_path.glob("*.json"))


def test_what_adafactor_needs_is_said():
    """Its default epsilon_1, 1e-30, is lost in float32 where neither row nor column moves."""
    mask = tf.constant([[0.0, 0.0], [0.0, 1.0]])

    class Corner(keras.layers.Layer):
        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(2, 2), initializer="ones")

        def call(self, x):
            return 0.1 * tf.matmul(tf.concat([x, x], -1), mask * self.kernel)

    def fit(**kwargs):
        coupling = bijectors.AffineCoupling(Corner(), masks.halves(2))
        flow = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), coupling)
        model = compiled(flow, keras.optimizers.Adafactor(1e-3, **kwargs))
        model.fit(X[:10], batch_size=10, verbose=0)

    with pytest.raises(FloatingPointError, match="give it epsilon_1=1e-15"):
        fit()
    fit(epsilon_1=1e-15)


def test_a_sound_training_is_as_before():
    model = compiled(real_nvp(), keras.optimizers.Adam(0.01))
    model.fit(X, epochs=2, batch_size=16, verbose=0)
    assert all(np.isfinite(v).all() for v in weights(model))
