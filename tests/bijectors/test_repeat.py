"""Steps in a loop are steps one after another."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, conditioners, masks
from tfp_flows.bijectors import Repeat

tfb, tfd = tfp.bijectors, tfp.distributions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))
CONTEXT = RNG.normal(size=(5, 2))


def network(seed=0, dtype="float64", **kwargs):
    return conditioners.MLP(
        4, hidden_units=(5,), activation="tanh", zero_output=False, seed=seed, dtype=dtype, **kwargs
    )


def step(seed=0, dtype="float64", layer=None, **kwargs):
    """One of a normalization, a rotation and a coupling, all with weights of their own."""
    rng = np.random.default_rng(seed)
    shift, log_scale = rng.normal(size=(2, 4), scale=0.2)
    layer = layer or network(seed, dtype, **kwargs)
    return bijectors.Chain(
        [
            bijectors.ActNorm(4, shift=shift, log_scale=log_scale, dtype=dtype),
            bijectors.InvertibleConv1x1(4, seed=seed, dtype=dtype),
            bijectors.AffineCoupling(layer, masks.halves(4), dtype=dtype),
        ]
    )


def steps(num, **kwargs):
    return [step(seed, **kwargs) for seed in range(num)]


def stacked(chain, num):
    """The gradients of a chain's trainable variables, as those of its stacks."""
    size = len(chain) // num
    return [np.stack([chain[k * size + n] for k in range(num)]) for n in range(size)]


def gradients(bijector, inverse, x, context=None):
    sources = [x] if context is None else [x, context]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        act = bijector.inverse_and_log_det if inverse else bijector.forward_and_log_det
        value, log_det = act(x, context)
        loss = tf.reduce_sum(tf.sin(value)) + tf.reduce_sum(tf.cos(log_det))
    found = tape.gradient(loss, [sources, bijector.trainable_variables])
    return value, log_det, *found


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("inverse", [True, False])
def test_values_and_gradients_are_those_of_the_chain(inverse, recompute):
    chain = bijectors.Chain(steps(4, context_size=2))
    repeat = Repeat.of(steps(4, context_size=2), recompute=recompute)
    x, context = tf.constant(X), tf.constant(CONTEXT)
    one_by_one = gradients(chain, inverse, x, context)
    for run in (gradients, tf.function(gradients)):
        value, log_det, of_sources, of_weights = run(repeat, inverse, x, context)
        np.testing.assert_allclose(value, one_by_one[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(log_det, one_by_one[1], rtol=1e-12, atol=1e-14)
        for got, wanted in zip(of_sources, one_by_one[2], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)
        for got, wanted in zip(of_weights, stacked(one_by_one[3], 4), strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-11, atol=1e-13)


def test_second_derivatives():
    def curvature(bijector):
        x = tf.constant(X[:2])
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                value, log_det = bijector.inverse_and_log_det(x)
                loss = tf.reduce_sum(tf.sin(value)) + tf.reduce_sum(log_det)
            slope = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(slope, x)

    wanted = curvature(bijectors.Chain(steps(3)))
    np.testing.assert_allclose(curvature(Repeat.of(steps(3))), wanted, rtol=1e-10)


class InTraining(bijectors.FlowBijector):
    """Scales in training alone."""

    log_scale = bijectors.Weight("Variable.")

    def __init__(self, *, log_scale=None, **kwargs):
        super().__init__(event_shape=[4], is_constant_jacobian=True, dtype="float64", **kwargs)
        self.add_weight("log_scale", log_scale, [], 0.3)

    def _forward_and_log_det(self, x, context):
        scale = self.log_scale * float(bijectors.in_training_mode())
        return x * tf.exp(scale), 4.0 * scale

    def _inverse_and_log_det(self, y, context):
        scale = self.log_scale * float(bijectors.in_training_mode())
        return y * tf.exp(-scale), -4.0 * scale


@pytest.mark.parametrize("recompute", [True, False])
def test_the_way_back_is_in_the_mode_of_the_way_there(recompute):
    repeat = Repeat(InTraining(), 3, recompute=recompute)

    @tf.function(autograph=False)
    def slope():
        with tf.GradientTape() as tape, bijectors.training_mode():
            log_det = repeat.inverse_and_log_det(tf.constant(X))[1]
        return tape.gradient(log_det, repeat.trainable_variables)[0]

    np.testing.assert_allclose(slope(), [-4.0 * len(X)] * 3)


def test_the_step_is_traced_once_each_way():
    """Whatever the number of steps, and once more for the way back."""
    layer = network()
    repeat, calls = Repeat(step(layer=layer), 50), []
    layer.call, call = (
        (lambda *args, **kwargs: calls.append(1) or call(*args, **kwargs)),
        layer.call,
    )
    tf.function(gradients, autograph=False).get_concrete_function(repeat, True, tf.constant(X))
    assert len(calls) == 2


def test_loops_in_loops_and_in_containers():
    def inner(seed):
        return Repeat.of([step(seed), step(seed + 1)])

    nested = Repeat.of([inner(0), inner(2), inner(4)])
    chain = bijectors.Chain(steps(6))
    x = tf.constant(X)
    one_by_one = gradients(chain, True, x)
    for run in (gradients, tf.function(gradients)):
        value, log_det, _, of_weights = run(nested, True, x)
        np.testing.assert_allclose(value, one_by_one[0], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(log_det, one_by_one[1], rtol=1e-12, atol=1e-14)
        for got, wanted in zip(of_weights, stacked(one_by_one[3], 6), strict=True):
            np.testing.assert_allclose(np.reshape(got, wanted.shape), wanted, atol=1e-12)
    wide = tf.concat([x, x], axis=-1)
    for bijector, reference in (
        (bijectors.FactorOut(Repeat.of(steps(2)), [8]), bijectors.Chain(steps(2))),
        (tfb.Chain([tfb.Invert(Repeat.of(steps(2)))]), tfb.Invert(bijectors.Chain(steps(2)))),
    ):
        value = wide if isinstance(bijector, bijectors.FactorOut) else x
        np.testing.assert_allclose(
            bijector.inverse(tf.identity(value))[..., :4], reference.inverse(x), rtol=1e-12
        )


def test_each_step_is_in_reach():
    repeat, one_by_one = Repeat.of(steps(3)), steps(3)
    x = tf.constant(X)
    assert len(repeat.steps) == repeat.num == 3
    for mine, theirs in zip(repeat.steps, one_by_one, strict=True):
        np.testing.assert_array_equal(mine.inverse(x), theirs.inverse(x))
        np.testing.assert_array_equal(mine.forward(x), theirs.forward(x))
    repeat.trainable_variables[0].assign_add(tf.ones([3, 4], tf.float64))
    assert not np.allclose(repeat.steps[1].inverse(x), one_by_one[1].inverse(x))


# --- What the steps start from. ---


def values(repeat):
    return [v.numpy() for v in repeat.variables]


def test_the_steps_start_differently_and_by_the_seed():
    def make(**kwargs):
        return Repeat(step(), 3, **kwargs)

    for kwargs in ({}, {"seed": 1}):
        repeat, again = make(**kwargs), make(**kwargs)
        for a, b in zip(values(repeat), values(again), strict=True):
            np.testing.assert_array_equal(a, b)
        for variable, first in zip(repeat.variables, step().variables, strict=True):
            np.testing.assert_array_equal(variable[0], first)
            drawn = any(name in variable.name for name in ("kernel", "lu", "log_scale"))
            if drawn and "actnorm" not in variable.name:
                assert not np.allclose(variable[1], variable[0]), variable.name
                assert not np.allclose(variable[1], variable[2]), variable.name
    kernels = [next(v for v in make(seed=s).variables if "kernel" in v.name) for s in (1, 2)]
    assert not np.allclose(kernels[0][1], kernels[1][1])
    # A rotation stays one.
    conv = Repeat(bijectors.InvertibleConv1x1(4, seed=0, dtype="float64"), 3)
    for part in conv.steps:
        jacobian = part.forward(np.eye(4)).numpy()
        np.testing.assert_allclose(jacobian @ jacobian.T, np.eye(4), atol=1e-12)


def test_layers_without_a_seed_draw_afresh():
    layer = keras.layers.Dense(4, dtype="float64")
    repeat = Repeat(bijectors.AffineCoupling(layer, masks.halves(4), dtype="float64"), 3)
    kernel = next(v for v in repeat.variables if v.shape[1:] == (2, 4))
    assert len(np.unique(kernel.numpy())) == 24


def test_loops_in_loops_start_differently():
    kernel = next(v for v in Repeat(Repeat(step(), 2), 3).variables if v.shape == (3, 2, 2, 5))
    assert len(np.unique(kernel.numpy())) == kernel.numpy().size


# --- Data-dependent initialisation. ---


def fresh_steps(num):
    parts = steps(num)
    for part in parts:
        norm = part.bijectors[0]
        norm.shift.assign(tf.zeros_like(norm.shift))
        norm.log_scale.assign(tf.zeros_like(norm.shift))
    return parts


@pytest.mark.parametrize("inverse", [True, False])
def test_initialisation_is_that_of_the_chain(inverse):
    x = tf.constant(3.0 * RNG.normal(size=(64, 4)) + 1.0)
    chain, repeat = bijectors.Chain(fresh_steps(3)), Repeat.of(fresh_steps(3))
    for bijector in (chain, repeat):
        with bijectors.data_dependent_initialization():
            (bijector.inverse if inverse else bijector.forward)(tf.identity(x))
    assert all(flag.numpy().all() for flag in repeat.initialized)
    for got, wanted in zip(values(repeat), stacked(values(chain), 3), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12)
    before = values(repeat)
    with bijectors.data_dependent_initialization():
        repeat.inverse(2.0 * x)
    for got, wanted in zip(values(repeat), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_pass_that_fails_sets_nothing():
    repeat = Repeat.of(fresh_steps(3))
    before = values(repeat)
    with (
        bijectors.data_dependent_initialization(),
        pytest.raises(ValueError, match="not finite"),
    ):
        repeat.inverse(tf.fill([4, 4], tf.constant(np.nan, tf.float64)))
    for got, wanted in zip(values(repeat), before, strict=True):
        np.testing.assert_array_equal(got, wanted)


# --- In a FlowModel. ---


def model_of(bijector, size=4):
    base = tfd.Independent(tfd.Normal(tf.zeros([size]), 1.0), 1)
    return FlowModel(tfd.TransformedDistribution(base, bijector))


DATA = RNG.normal(size=(32, 4)).astype("float32")


def coupling(layer):
    return bijectors.AffineCoupling(layer, masks.halves(4))


def dense(**kwargs):
    return keras.layers.Dense(4, kernel_initializer=keras.initializers.GlorotNormal(1), **kwargs)


def test_frozen_layers_stay():
    layer = network(dtype="float32")
    model = model_of(Repeat(step(layer=layer, dtype="float32"), 3))
    trainable = len(model.trainable_variables)
    layer.trainable = False
    assert len(model.trainable_variables) == trainable - len(
        layer.trainable_weights or layer.weights
    )
    before = {v.name: v.numpy() for v in model.distribution.variables}
    model.compile(keras.optimizers.SGD(0.1))
    model.fit(DATA, epochs=1, verbose=0)
    moved = {v.name: not np.array_equal(before[v.name], v) for v in model.distribution.variables}
    assert not any(moved[name] for name in moved if "mlp" in name)
    assert all(moved[name] for name in moved if "actnorm" in name)
    layer.trainable = True
    assert len(model.trainable_variables) == trainable


@keras.saving.register_keras_serializable(package="test_repeat")
class Largest(keras.regularizers.Regularizer):
    """No sum over entries: of a whole stack it would be another."""

    def __call__(self, kernel):
        return tf.reduce_max(tf.abs(kernel))

    def get_config(self):
        return {}


class OfNoFile(keras.regularizers.Regularizer):
    """Without a `get_config`."""

    def __call__(self, kernel):
        return tf.nn.l2_loss(kernel)


class Noise(keras.layers.Layer):
    """Weights times zeros and ones, drawn for every row and entry."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(3)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(2,), initializer="ones")

    def call(self, x, training=False):
        kept = tf.ones_like(x[:, :1]) * self.kernel
        return keras.random.dropout(kept, 0.5, seed=self.seed_generator) if training else kept


@pytest.mark.parametrize("recompute", [True, False])
@pytest.mark.parametrize("nested", [False, True])
def test_dropout_draws_for_each_step_and_the_same_on_the_way_back(recompute, nested):
    # A step adds, to two entries, what is left of its weights: its derivative says what that was.
    part = bijectors.AdditiveCoupling(Noise(), np.array([True, True, False, False]))
    repeat = Repeat(part, 6, recompute=recompute)
    if nested:
        repeat = Repeat(repeat, 1, recompute=recompute)
    weight = repeat.trainable_variables[0]
    weight.assign(tf.reshape(tf.repeat(2.0 ** tf.range(6.0), 2), weight.shape))

    @tf.function
    def act(x):
        with tf.GradientTape() as tape, bijectors.training_mode():
            y = repeat.forward(x)[:, 2:]
        return y, tape.gradient(y, weight)

    x = tf.zeros([7, 4])
    y, gradient = act(x)
    # Kept entries are doubled: the bits of y / 2 say which steps kept this entry.
    kept = (y.numpy().astype(int)[..., np.newaxis] // 2 >> np.arange(6)) & 1
    np.testing.assert_array_equal(y, 2 * (kept * 2 ** np.arange(6)).sum(-1))
    np.testing.assert_array_equal(np.reshape(gradient, [6, 2]), 2 * kept.sum(0).T)
    assert len({k.tobytes() for k in np.moveaxis(kept, -1, 0)}) == 6
    assert not np.array_equal(act(x)[0], y)
    np.testing.assert_array_equal(repeat.forward(x + 0.0)[:, 2:], 63.0)


def test_regularizers_and_constraints_are_of_each_step():
    layer = dense(kernel_regularizer=Largest(), kernel_constraint=keras.constraints.MaxNorm(0.5))
    model = model_of(Repeat(coupling(layer), 3))
    kernel = next(v for v in model.distribution.variables if v.shape == (3, 2, 4))
    wanted = np.abs(kernel.numpy()).max(axis=(1, 2)).sum()
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), wanted, rtol=1e-6)
    model.compile(keras.optimizers.SGD(0.0))
    model.fit(DATA, epochs=1, verbose=0)
    norms = np.linalg.norm(kernel.numpy(), axis=1)
    assert norms.max() <= 0.5 + 1e-6 and (norms > 0.3).any()


def test_an_optimizer_of_matrices_is_refused():
    model = model_of(Repeat(coupling(network(dtype="float32")), 3))
    for muon in (
        keras.optimizers.Muon(),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Muon()),
    ):
        with pytest.raises(ValueError, match="Muon tells matrices by their rank.* stacked=False"):
            model.compile(muon)
    model_of(coupling(network(dtype="float32"))).compile("muon")


def test_the_policy_reaches_the_pattern():
    layer = network(dtype="float32")
    model = model_of(Repeat(coupling(layer), 3))
    full = model.log_prob(DATA).numpy()
    assert model.conditioner_policy == "float32"
    model.conditioner_policy = "mixed_bfloat16"
    assert layer.compute_dtype == "bfloat16"
    half = model.log_prob(DATA).numpy()
    assert 1e-6 < np.abs(half - full).max() < 0.5


def test_diagnosis_names_the_step():
    model = model_of(Repeat(step(dtype="float32"), 5, name="deep"))
    log_scale = next(v for v in model.distribution.variables if "actnorm/log_scale" in v.name)
    log_scale.assign(tf.tensor_scatter_nd_update(log_scale, [[3, 0]], [-200.0]))
    model.initialize(DATA)
    log_scale.assign(tf.tensor_scatter_nd_update(log_scale, [[3, 0]], [-200.0]))
    model.compile(keras.optimizers.SGD(0.0))
    with pytest.raises(FloatingPointError, match=r"first part to go wrong is .*'deep_3_actnorm'"):
        model.fit(DATA, epochs=1, verbose=0)


def test_an_autoregressive_step_in_both_directions(tmp_path):
    """Its sequential direction reads the kernels past the layer's call."""

    def layer(seed):
        made = conditioners.MADE(4, 2, hidden_units=(6,), order="random", degrees="random", seed=7)
        kernels = np.random.default_rng(seed)
        autoregressive = bijectors.MaskedAutoregressive(made)
        for v in autoregressive.trainable_variables:
            v.assign(kernels.normal(size=v.shape, scale=0.3))
        return autoregressive

    repeat = Repeat.of([layer(n) for n in range(3)])
    chain = bijectors.Chain([layer(n) for n in range(3)])
    x = tf.constant(X, tf.float32)
    for direction in ("forward", "inverse"):
        got, wanted = (getattr(b, direction)(tf.identity(x)) for b in (repeat, chain))
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)
    # A restored order is that of the file, not the one that the new model has drawn.
    made = conditioners.MADE(4, 2, hidden_units=(6,), order="random", zero_output=False)
    model = model_of(Repeat(bijectors.MaskedAutoregressive(made), 2))
    model.save(tmp_path / "m.keras")
    loaded = tfp_flows.load(tmp_path / "m.keras")
    np.testing.assert_array_equal(loaded.log_prob(DATA), model.log_prob(DATA))


def test_a_wide_autoregressive_step():
    """Its products with halved masks have a gradient of their own, in the gradient of a loop."""
    x, found = tf.constant(X, tf.float32), []
    for recompute in (True, False):
        made = conditioners.MADE(4, 2, hidden_units=(256, 256), seed=1, zero_output=False)
        repeat = Repeat(bijectors.MaskedAutoregressive(made), 2, recompute=recompute)
        found.append(tf.function(gradients)(repeat, True, x))
    for got, wanted in zip(*map(tf.nest.flatten, found), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


# --- What cannot be in it. ---


class Stateful(bijectors.FlowBijector):
    """Counts its calls."""

    calls = bijectors.Weight("Variable.")

    def __init__(self, *, calls=None, **kwargs):
        super().__init__(event_shape=[4], is_constant_jacobian=True, **kwargs)
        self.add_weight("calls", calls, [])

    def _forward_and_log_det(self, x, context):
        return x, tf.zeros([])

    def _inverse_and_log_det(self, y, context):
        self.calls.assign(self.calls + 1.0)
        return y, tf.zeros([])


def sequential(*layers):
    return keras.Sequential([keras.Input([2]), keras.layers.Dense(4), *layers])


@pytest.mark.parametrize(
    "part, message",
    [
        (lambda: bijectors.BatchNorm(4), "BatchNorm .*cannot be repeated .*assigns a variable"),
        (Stateful, "Stateful .*cannot be repeated .*assigns a variable"),
        (lambda: coupling(sequential(keras.layers.BatchNormalization())), "assigns a variable"),
        (lambda: coupling(dense(activity_regularizer="l2")), "adds a loss"),
        (bijectors.Squeeze, "must keep the shape of its events, but Squeeze"),
        (lambda: tfb.Reshape([2, 2], [4]), "must keep the shape of its events"),
        (lambda: tfb.Exp(), "Exp 'exp' has no variables: .* Use a Chain"),
        (lambda: tfb.Scale(tf.Variable(2.0)), "'Variable.*' of Scale 'scale' cannot be stacked"),
        (
            lambda: bijectors.Rescale(
                [4], log_scale=tfp.util.TransformedVariable(np.ones(4, "float32"), tfb.Exp())
            ),
            "of Rescale 'rescale' cannot be stacked",
        ),
        (
            lambda: coupling(dense(kernel_regularizer=OfNoFile())),
            "layer 'dense.*' cannot be drawn anew from its configuration",
        ),
    ],
)
def test_steps_that_are_refused(part, message):
    with pytest.raises(ValueError, match=message) as error:
        Repeat(part(), 2)
    assert "\n" not in str(error.value)


def test_built_steps_are_refused_too():
    with pytest.raises(ValueError, match="BatchNorm .*cannot be repeated"):
        Repeat.of([bijectors.BatchNorm(4), bijectors.BatchNorm(4)])


def test_arguments():
    with pytest.raises(ValueError, match="Repeat 'repeat': num must be an integer >= 1, got 0"):
        Repeat(step(), 0)
    with pytest.raises(TypeError, match="num must be an integer >= 1, got 1.5"):
        Repeat(step(), 1.5)
    with pytest.raises(TypeError, match="expected a tfb.Bijector, got a Dense"):
        Repeat(keras.layers.Dense(2), 2)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        Repeat(step(), 2, seed=-1)
    four = Repeat(step(), 4)
    with pytest.raises(ValueError, match=r"weights are those of 4 steps .*Build it with num=4"):
        Repeat(step(), 3, weights=four.parameters["weights"])
    with pytest.raises(ValueError, match="weights of another step: expected 3 stacks, got 11"):
        Repeat(bijectors.ActNorm(4), 4, weights=four.parameters["weights"])
    with pytest.raises(ValueError, match="expected at least one bijector"):
        Repeat.of([])
    with pytest.raises(ValueError, match="variables of step 1, .* are not like those of step 0"):
        Repeat.of([bijectors.ActNorm(4), bijectors.ActNorm(3)])
    orders = [
        bijectors.MaskedAutoregressive(conditioners.MADE(4, 2, hidden_units=(6,), order=order))
        for order in ("left-to-right", "right-to-left")
    ]
    with pytest.raises(ValueError, match="a period of several steps is a Chain"):
        Repeat.of(orders)
