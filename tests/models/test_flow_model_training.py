"""FlowModel: modes, optimizers, callbacks, and a loss that is not finite."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import C, X, compiled, fitted, gaussian, gaussian_nll, real_nvp, same, weights

from tfp_flows import bijectors, flows, masks
from tfp_flows.models.fused_adam import use_fused_update

tfb, tfd = tfp.bijectors, tfp.distributions


# --- Ways to run. ---


@pytest.mark.parametrize(
    "kwargs",
    [{"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": True}],
    ids=lambda kwargs: next(iter(kwargs)),
)
def test_modes_train_alike(kwargs):
    """40 rows in batches of 16: an uneven last batch, which steps_per_execution meets too."""
    wanted = weights(fitted(real_nvp(), X))
    model = compiled(real_nvp(), **kwargs)
    model.fit(X, epochs=2, shuffle=False, batch_size=16, verbose=0)
    same(weights(model), wanted, rtol=1e-4, atol=1e-6)


def test_float64_throughout():
    """Keras casts arrays to floatx, float32: they must arrive as they are."""
    x = np.random.default_rng(0).normal(size=(30, 2))
    model = compiled(gaussian(tf.float64), keras.optimizers.Adam(0.01))
    nll = gaussian_nll(x)
    np.testing.assert_allclose(model.predict(x, verbose=0), -nll, rtol=1e-13)
    np.testing.assert_allclose(model.log_prob(x), -nll, rtol=1e-13)
    model.fit(x, validation_data=(x,), batch_size=30, epochs=2, verbose=0)
    model.evaluate(x, verbose=0)
    assert {v.dtype.name for v in model.distribution.variables} == {"float64"}
    assert keras.config.floatx() == "float32"
    assert model.sample(2, seed=0).dtype == tf.float64
    with pytest.raises(TypeError, match="expected float64 data, got float32"):
        model.fit(x.astype("float32"), verbose=0)
    flow = compiled(real_nvp(dtype=tf.float64, context_size=3))
    flow.fit(x[:20], C[:20].astype("float64"), verbose=0)


def test_global_mixed_policy():
    """Conditioners may compute in bfloat16; data and densities stay in float32."""
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        network = keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(2)])
        base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
        flow = tfd.TransformedDistribution(base, bijectors.AffineCoupling(network, masks.halves(2)))
        model = compiled(flow)
        model.fit(X, verbose=0)
        assert network.compute_dtype == "bfloat16"
        assert model.log_prob(X).dtype == tf.float32
        assert model.predict(X, verbose=0).dtype == np.float32
        np.testing.assert_allclose(
            compiled(gaussian()).evaluate(X, verbose=0), gaussian_nll(X).mean(), rtol=1e-5
        )
    finally:
        keras.config.set_dtype_policy("float32")


# --- Optimizers. ---


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"beta_1": 0.5, "beta_2": 0.9, "epsilon": 1e-3},
        {"clipnorm": 0.1},
        {"weight_decay": 0.01},
        {"use_ema": True, "ema_momentum": 0.5},
        {"gradient_accumulation_steps": 2},
        {"learning_rate": keras.optimizers.schedules.ExponentialDecay(0.02, 2, 0.5)},
    ],
    ids=lambda kwargs: next(iter(kwargs), "default"),
)
def test_fused_adam_is_keras_adam(kwargs, dtype):
    start = [np.array([1.0, -2.0, 3.0]), np.array([[0.5]])]
    results = []
    for fused in (True, False):
        optimizer = keras.optimizers.Adam(**{"learning_rate": 0.02, **kwargs})
        if fused:
            use_fused_update(optimizer)
            assert "update_step" in vars(optimizer)
        variables = [keras.Variable(v, dtype=dtype.name) for v in start]
        for n in range(6):
            gradients = [tf.cast(np.cos(v.numpy() * (n + 1)), dtype) for v in variables]
            optimizer.apply_gradients(zip(gradients, variables, strict=True))
        if kwargs.get("use_ema"):
            optimizer.finalize_variable_values(variables)
        results.append([v.numpy() for v in [*variables, *optimizer.variables]])
    # 1 - 0.999^n: Keras rounds the betas to float32 first, also in float64, and so loses five
    # digits. The next test has the exact formula.
    same(*results, rtol=1e-4, atol=1e-8)
    assert not np.allclose(results[0][0], start[0])


def test_fused_adam_in_float64_by_hand():
    optimizer = keras.optimizers.Adam(0.25, beta_1=0.8, beta_2=0.95, epsilon=1e-6)
    use_fused_update(optimizer)
    variable = keras.Variable([1.0, -2.0], dtype="float64")
    x, m, v = np.array([1.0, -2.0]), 0.0, 0.0
    for n in range(1, 6):
        gradient = np.sin(n * x)
        optimizer.apply_gradients([(tf.sin(n * variable.value), variable)])
        m, v = 0.8 * m + 0.2 * gradient, 0.95 * v + 0.05 * gradient**2
        step = 0.25 * np.sqrt(1.0 - 0.95**n) / (1.0 - 0.8**n)
        x = x - step * m / (np.sqrt(v) + 1e-6)
        np.testing.assert_allclose(variable.value, x, rtol=1e-12)


def test_fused_adam_leaves_the_others_alone():
    class MyAdam(keras.optimizers.Adam):
        pass

    for optimizer in (
        keras.optimizers.Adam(amsgrad=True),
        keras.optimizers.AdamW(),
        MyAdam(),
        keras.optimizers.SGD(),
    ):
        use_fused_update(optimizer)
        assert "update_step" not in vars(optimizer)


def test_fused_adam_in_fit():
    """With `update_step` set back to Keras's own the same training gives the same weights."""
    results = []
    for fused in (True, False):
        model = compiled(real_nvp(), keras.optimizers.Adam(0.01))
        if not fused:
            del model.optimizer.update_step
        model.fit(X, batch_size=16, epochs=3, shuffle=False, verbose=0)
        results.append(weights(model))
    same(*results, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("scaled", ["factor", "LossScaleOptimizer"])
def test_loss_scaling_cancels(scaled):
    if scaled == "factor":
        optimizer = keras.optimizers.SGD(0.05, loss_scale_factor=128.0)
    else:
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.05))
    model = compiled(real_nvp(), optimizer)
    model.fit(X, batch_size=16, epochs=2, shuffle=False, verbose=0)
    same(weights(model), weights(fitted(real_nvp(), X)), rtol=1e-4, atol=1e-6)


# --- Callbacks. ---


def test_early_stopping_restores_the_best():
    model = compiled(gaussian(), keras.optimizers.SGD(0.2))
    far = X + 10.0  # validation gets worse as training goes on
    stop = keras.callbacks.EarlyStopping(patience=2, restore_best_weights=True)
    history = model.fit(X, validation_data=(far,), epochs=20, callbacks=[stop], verbose=0).history
    assert len(history["loss"]) < 20
    best = model.evaluate(far, verbose=0)
    np.testing.assert_allclose(best, min(history["val_loss"]), rtol=1e-5)


def test_model_checkpoint(tmp_path):
    path = tmp_path / "best.weights.h5"
    model = compiled(real_nvp())
    save = keras.callbacks.ModelCheckpoint(
        path, monitor="loss", save_best_only=True, save_weights_only=True
    )
    model.fit(X, epochs=2, callbacks=[save], verbose=0)
    other = compiled(real_nvp(seed=5))
    assert not np.allclose(other.log_prob(X), model.log_prob(X))
    other.load_weights(path)
    np.testing.assert_allclose(other.log_prob(X), model.log_prob(X), rtol=1e-6)


def test_ema():
    """After `fit` the weights are the average, and log_prob uses it."""
    kwargs = {"batch_size": 40, "epochs": 3, "shuffle": False, "verbose": 0}
    steps = []
    model = compiled(gaussian(), keras.optimizers.SGD(0.1))
    loc = next(v for v in model.distribution.trainable_variables if v.name == "loc:0")
    record = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: steps.append(loc.numpy())
    )
    model.fit(X, callbacks=[record], **kwargs)
    averaged = compiled(gaussian(), keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5))
    averaged.fit(X, **kwargs)
    got = next(v for v in averaged.distribution.trainable_variables if v.name == "loc:0")
    # Keras starts the average at the weights after the first step.
    wanted = steps[0]
    for value in steps[1:]:
        wanted = 0.5 * wanted + 0.5 * value
    np.testing.assert_allclose(got, wanted, rtol=1e-5)
    assert not np.allclose(got, steps[-1], rtol=1e-3)


# --- A loss that is not finite. ---


class Overflows(bijectors.Rescale):
    """exp(-log_scale) overflows at once, in the inverse direction."""

    def _inverse_and_log_det(self, y, context):
        return y * tf.exp(1000.0 * tf.square(self.log_scale) + 1000.0), tf.zeros([], y.dtype)


def exploding():
    good = bijectors.Rescale([2], name="good")
    bad = Overflows([2], name="bad_part")
    chain = bijectors.Chain([good, tfb.Invert(tfb.Invert(bijectors.Chain([bad])))])
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [2]), chain)


@pytest.mark.parametrize(
    "kwargs", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}], ids=["graph", "eager", "2"]
)
def test_nonfinite_loss_names_the_part(kwargs):
    model = compiled(exploding(), keras.optimizers.Adam(0.1), **kwargs)
    before = weights(model)
    with pytest.raises(
        FloatingPointError,
        match=r"not finite at step 0: the first part to go wrong is Overflows 'bad_part', whose "
        r"value is not finite in 16 of 16 rows .*last good step",
    ):
        model.fit(X, batch_size=16, verbose=0)
    same(before[:2], weights(model)[:2], rtol=0)
    assert all(np.isfinite(v).all() for v in weights(model)[:2])


def test_nonfinite_loss_under_xla():
    model = compiled(exploding(), keras.optimizers.Adam(0.1), jit_compile=True)
    before = [v.numpy().copy() for v in model.trainable_variables]
    with pytest.raises(FloatingPointError, match="step 0: the first part to go wrong is Overflows"):
        model.fit(X, batch_size=16, verbose=0)
    same(before, [v.numpy() for v in model.trainable_variables], rtol=0)


def test_nonfinite_loss_later_on():
    """The weights are those of the last good step, whatever the optimizer would have done."""
    x = X.copy()
    x[20:] = np.inf
    model = compiled(gaussian(), keras.optimizers.Adam(0.1))
    data = tf.data.Dataset.from_tensor_slices(x).batch(10)
    with pytest.raises(FloatingPointError, match="at step 2: 10 of 10 rows of the data itself"):
        model.fit(data, verbose=0)
    reference = compiled(gaussian(), keras.optimizers.Adam(0.1))
    reference.fit(X[:20], batch_size=10, shuffle=False, verbose=0)
    same(
        [v.numpy() for v in model.trainable_variables],
        [v.numpy() for v in reference.trainable_variables],
        rtol=1e-6,
    )


def test_nonfinite_for_other_reasons():
    def message(distribution, x=X, **kwargs):
        model = compiled(distribution)
        with pytest.raises(FloatingPointError) as error:
            model.fit(x, verbose=0, **kwargs)
        return str(error.value)

    spoilt = gaussian()
    spoilt.trainable_variables[0].assign([np.nan, 0.0])
    assert "holds values that are not finite" in message(spoilt)
    assert "sample weights" in message(gaussian(), sample_weight=np.full(40, np.nan, "float32"))
    uniform = tfd.TransformedDistribution(
        tfd.Sample(tfd.Uniform(-1.0, 1.0), [2]), tfb.Scale(tf.Variable(1.0))
    )
    assert "the base distribution 'SampleUniform" in message(uniform, 100.0 * X)
    glow = flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0)
    deep = glow.bijector.bijectors[-2].bijector.bijectors[1]
    assert isinstance(deep, bijectors.ActNorm)
    images = np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype("float32")
    model = compiled(glow)
    model.initialize(images)
    deep.log_scale.assign(-100.0 * tf.ones_like(deep.log_scale))
    with pytest.raises(FloatingPointError, match=f"ActNorm '{deep.name}', whose value is not"):
        model.fit(images, verbose=0)
