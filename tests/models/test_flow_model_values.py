"""FlowModel: what it checks of values, and the forms in which data may come."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import C, X, compiled, gaussian, gaussian_nll, real_nvp, same, weights

from tfp_flows import FlowModel, bijectors, flows, preprocessing
from tfp_flows.models.inputs import first_batch

tfb, tfd = tfp.bijectors, tfp.distributions


def unknown(x, rank=True):
    """A dataset whose element shapes are not known."""
    spec = tf.TensorSpec([None] * x.ndim if rank else None, x.dtype)
    return tf.data.Dataset.from_generator(
        lambda: (x[i : i + 8] for i in range(0, len(x), 8)), output_signature=spec
    )


class Table:
    """What pandas and torch have in common here."""

    def __init__(self, array):
        self.array, self.shape, self.dtype = array, array.shape, array.dtype

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.array, dtype)

    def __len__(self):
        return len(self.array)


# --- Sample weights. ---


def test_weights_of_any_form_count_rows():
    w = np.r_[np.ones(20), np.zeros(20)].astype("float32")
    nll = gaussian_nll(X)
    model = compiled(gaussian())
    for x, weight in (
        (X, w),
        (X, w[:, None]),
        (X, w.tolist()),
        (Table(X), w),
        (Table(X), Table(w[:, None])),
    ):
        found = model.evaluate(x, sample_weight=weight, verbose=0)
        np.testing.assert_allclose(found, (nll * w).mean(), rtol=1e-5)
        found = compiled(gaussian()).fit(x, sample_weight=weight, batch_size=40, verbose=0)
        np.testing.assert_allclose(found.history["loss"][0], (nll * w).mean(), rtol=1e-5)
    data = {"x": X, "sample_weight": w[:, None]}
    found = model.evaluate(tf.data.Dataset.from_tensor_slices(data).batch(16), verbose=0)
    np.testing.assert_allclose(found, (nll * w).mean(), rtol=1e-5)
    found = model.train_on_batch({"x": X, "sample_weight": w[:, None]})
    np.testing.assert_allclose(found, (nll * w).mean(), rtol=1e-5)


@pytest.mark.parametrize("weight", [np.ones(39), np.ones((40, 2)), 1.0, np.ones((1, 40))])
def test_weights_that_do_not_fit(weight):
    with pytest.raises(ValueError, match=r"a sample weight for each of the 40 rows.*got shape"):
        compiled(gaussian()).fit(X, sample_weight=weight)
    if np.ndim(weight) == 2 and len(weight) == 40:
        data = tf.data.Dataset.from_tensor_slices({"x": X, "sample_weight": weight}).batch(8)
        with pytest.raises(ValueError, match=r"one sample weight for each row.*\[None, 2\]"):
            compiled(gaussian()).fit(data, verbose=0)


def test_a_row_of_weight_zero_counts_for_nothing():
    model = compiled(tfd.TransformedDistribution(gaussian(), tfb.Exp()))
    x = np.exp(X[:4])
    x[1, 0] = -1.0
    weight = np.array([1, 0, 1, 1], "float32")
    rest = -model.log_prob(x[[0, 2, 3]]).numpy()
    found = model.evaluate(x, sample_weight=weight, verbose=0)
    np.testing.assert_allclose(found, rest.sum() / 4, rtol=1e-5)


# --- Forms of data. ---


def test_forms_of_the_same_data():
    model = compiled(real_nvp())
    wanted = model.log_prob(X).numpy()
    for x in ((X,), [X], X.tolist(), Table(X), {"x": Table(X)}):
        np.testing.assert_allclose(model.predict(x, verbose=0), wanted, rtol=1e-5)
        np.testing.assert_allclose(model.evaluate(x, verbose=0), -wanted.mean(), rtol=1e-5)
        still = compiled(real_nvp(), keras.optimizers.SGD(0.0))
        loss = still.fit(X, validation_data=(x,), verbose=0).history["val_loss"][0]
        np.testing.assert_allclose(loss, -wanted.mean(), rtol=1e-5)
        np.testing.assert_allclose(model.log_prob(x), wanted, rtol=1e-5)
    np.testing.assert_allclose(model.predict(X, 7, verbose=0), wanted, rtol=1e-5)
    np.testing.assert_allclose(model.evaluate(X, None, 7, verbose=0), -wanted.mean(), rtol=1e-5)
    conditional = compiled(real_nvp(context_size=3))
    wanted = conditional.log_prob(X, C)
    np.testing.assert_allclose(conditional.log_prob((X, C)), wanted)
    np.testing.assert_allclose(conditional.log_prob(X.tolist(), context=C.tolist()), wanted)
    with pytest.raises(ValueError, match="got two contexts"):
        conditional.evaluate({"x": X, "context": C}, C)
    with pytest.raises(ValueError, match=r"which has no rows"):
        model.fit(X[:0])
    with pytest.raises(TypeError, match="text or mixed columns"):
        model.fit(X.astype(object))


@pytest.mark.parametrize("rank", [True, False])
def test_shapes_that_are_known_when_a_step_runs(rank):
    for make in (real_nvp, lambda: flows.maf([2], hidden_units=(4,), seed=0)):
        known, found = compiled(make()), compiled(make())
        known.fit(tf.data.Dataset.from_tensor_slices(X).batch(8), verbose=0)
        found.fit(unknown(X, rank), verbose=0)
        same(weights(known), weights(found), rtol=1e-6)
        model = found
        wide = np.concatenate([X, X], axis=1)
        for method in ("fit", "evaluate", "predict"):
            message = r"expected data of shape \[batch, 2\], got \[8, 4\]"
            with pytest.raises(ValueError, match=message):
                getattr(model, method)(unknown(wide, rank), verbose=0)


# --- Values. ---


def test_integers_beyond_the_levels():
    levels = preprocessing.UniformDequantization(16, seed=0)
    model = FlowModel(flows.nice([4], hidden_units=(4,), seed=0), dequantization=levels)
    model.compile()
    x = np.random.default_rng(0).integers(0, 16, size=(40, 4)).astype("int32")
    model.fit(x, verbose=0)
    for bad in (np.where(x == x.max(), 16, x), x - 1):
        for data in (bad, tf.data.Dataset.from_tensor_slices(bad).batch(40)):
            for method in ("fit", "evaluate", "predict"):
                with pytest.raises(ValueError, match="expected integers from 0 to 15"):
                    getattr(model, method)(data, verbose=0)
        with pytest.raises(ValueError, match="expected integers from 0 to 15"):
            model.log_prob(bad)


def test_nan_in_a_dataset_or_a_batch():
    x = X.copy()
    x[9, 1] = np.nan
    model = compiled(gaussian())
    data = tf.data.Dataset.from_tensor_slices(x).batch(8)
    for act in (
        lambda: model.evaluate(data, verbose=0),
        lambda: model.predict(data, verbose=0),
        lambda: model.fit(X, validation_data=data, verbose=0),
        lambda: model.test_on_batch(x[8:16]),
        lambda: model.predict_on_batch(x[8:16]),
    ):
        with pytest.raises(ValueError, match="NaN in 1 of 8 rows, the first at row 1. Drop"):
            act()
    with pytest.raises(FloatingPointError, match="1 of 8 rows of the data itself.*Drop or fill"):
        model.train_on_batch(x[8:16])


def test_an_infinite_constant_is_no_spoilt_weight():
    far = tf.Variable(np.inf, trainable=False)
    base = tfd.Sample(tfd.TruncatedNormal(0.0, 1.0, -far, far), [2])
    flow = tfd.TransformedDistribution(base, tfb.Scale(tf.Variable(1.0)))
    flow.far = far
    assert any(v is far for v in flow.variables)
    model = compiled(flow)
    model.fit(X, verbose=0)
    far.assign(np.inf)
    model.trainable_variables[0].assign(np.nan)
    with pytest.raises(FloatingPointError, match="the variable 'Variable:0' of"):
        model.fit(X, verbose=0)


@pytest.mark.parametrize(
    ("make", "outside"),
    [
        (tfb.Sigmoid, [0.0, 1.0, 1.5, -2.0]),
        (tfb.Exp, [0.0, -2.0]),
        (tfb.Softplus, [0.0, -2.0]),
        (tfb.Tanh, [1.0, -1.5]),
        (lambda: tfb.Invert(tfb.Log()), [-2.0]),
        (lambda: tfb.Chain([tfb.Scale(2.0), tfb.Sigmoid()]), [2.5, -0.1]),
        (lambda: bijectors.Chain([tfb.Exp(), real_nvp().bijector]), [-2.0]),
        (lambda: tfb.Scale(1.0), []),
    ],
)
def test_outside_the_support_the_score_is_minus_infinity(make, outside):
    flow = tfd.TransformedDistribution(real_nvp(), make())
    model = compiled(flow)
    x = np.array([[0.5, 0.5], [0.25, 0.5]] + [[0.5, v] for v in [*outside, np.inf, -np.inf]])
    x = x.astype("float32")
    for scores in (model.log_prob(x), model.predict(x, verbose=0), model(x)):
        np.testing.assert_allclose(scores[:2], flow.log_prob(x[:2]), rtol=1e-5)
        assert (np.asarray(scores[2:]) == -np.inf).all()
    assert model.evaluate(x, verbose=0) == np.inf
    assert np.isnan(model(np.array([[np.nan, 0.5]], "float32"))).all()  # Nobody knows.
    if outside:
        with pytest.raises(FloatingPointError, match="look at their range") as error:
            model.fit(x[:-2], batch_size=2, shuffle=False, verbose=0)
        assert "Lower the learning rate" not in str(error.value)


# --- Initialisation, dtypes, seeds. ---


def test_initialized_from_several_batches_of_a_dataset():
    flow = real_nvp(actnorm=True)
    compiled(flow).fit(tf.data.Dataset.from_tensor_slices(X).batch(1), verbose=0)
    other = FlowModel(real_nvp(actnorm=True))
    other.initialize(tf.data.Dataset.from_tensor_slices(X).batch(3))
    wanted = FlowModel(real_nvp(actnorm=True))
    wanted.initialize(X)
    same(weights(other), weights(wanted), rtol=1e-6)

    class Loader:
        """As torch's: every loop over it starts anew, with lists of tensors."""

        def __iter__(self):
            return iter([[Table(X)]])

    FlowModel(flow := real_nvp(actnorm=True)).initialize(first_batch(Loader(), None, None))
    same([v.numpy() for v in flow.variables], [v.numpy() for v in wanted.distribution.variables])
    # To draw a batch of these would move on their order, and on replicas give none.
    distributed = tf.distribute.OneDeviceStrategy("/cpu:0").experimental_distribute_dataset(
        tf.data.Dataset.from_tensor_slices(X).batch(8)
    )
    with pytest.raises(TypeError, match="cannot take a first batch from a DistributedDataset"):
        compiled(real_nvp(actnorm=True)).fit(distributed)
    with pytest.raises(ValueError, match="the dataset is empty"):
        compiled(real_nvp(actnorm=True)).fit(tf.data.Dataset.from_tensor_slices(X[:0]).batch(2))


def test_an_uninitialized_model_scores_nothing():
    model = compiled(real_nvp(actnorm=True))
    larger = keras.Sequential([keras.Input([2]), model])
    for act in (model, model.test_on_batch, model.predict_on_batch, larger.predict):
        with pytest.raises(ValueError, match="never initialised"):
            act(X)
    model.initialize(X)
    np.testing.assert_allclose(larger.predict(X, verbose=0), model.log_prob(X), rtol=1e-5)
    assert larger.output_shape == (None,)


def test_training_inside_a_larger_model_draws_noise():
    images = np.random.default_rng(0).integers(0, 4, size=(40, 2)).astype("int32")
    flow = tfd.TransformedDistribution(real_nvp(), preprocessing.Logit(scale=4.0))
    dequantize = preprocessing.UniformDequantization(4, seed=0)
    model = FlowModel(flow, dequantization=dequantize)
    fixed = model(images)
    np.testing.assert_array_equal(model(images), fixed)
    draws = [model(images, training=True).numpy() for _ in range(2)]
    assert not np.allclose(draws[0], fixed) and not np.allclose(draws[0], draws[1])


def test_networks_in_float16_scale_the_loss():
    model = FlowModel(real_nvp())
    model.conditioner_policy = "mixed_float16"
    model.compile()
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    before = weights(model)
    model.fit(X, verbose=0, epochs=3)
    assert any(not np.array_equal(a, b) for a, b in zip(before, weights(model), strict=True))
    model.compile(auto_scale_loss=False)
    assert isinstance(model.optimizer, keras.optimizers.Adam)


def test_accumulated_steps_have_noise_of_their_own():
    seen = []

    class Spy(preprocessing.UniformDequantization):
        def draw_noise(self, shape, seed, event_shape):
            seen.append(seed.numpy().tolist())
            return super().draw_noise(shape, seed, event_shape)

    for scaled in (False, True):
        seen.clear()
        model = FlowModel(real_nvp(), dequantization=Spy(4, seed=0))
        optimizer = keras.optimizers.SGD(0.01, gradient_accumulation_steps=4)
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer
        model.compile(optimizer, run_eagerly=True)
        model.fit(np.ones((48, 2), "int32"), batch_size=6, verbose=0)
        assert len({tuple(seed) for seed in seen}) == len(seen) == 8


def test_large_seeds_differ_and_a_mean_that_does_not_exist_is_refused():
    model = FlowModel(real_nvp())
    draws = [model.sample(3, seed=seed).numpy() for seed in (1, 2**32 + 1, 2**40 + 1)]
    assert not np.allclose(draws[0], draws[1]) and not np.allclose(draws[1], draws[2])
    heavy = FlowModel(real_nvp(base=tfd.Sample(tfd.Cauchy(0.0, 1.0), [2])))
    with pytest.raises(ValueError, match="has no mean"):
        heavy.sample(2, temperature=0.5)

    @tf.function
    def at(temperature):
        return model.sample(3, seed=1, temperature=temperature)

    np.testing.assert_allclose(at(tf.constant(0.5)), model.sample(3, seed=1, temperature=0.5))


def test_no_rows_have_no_scores():
    glow = FlowModel(flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0))
    glow.initialize(np.random.default_rng(0).normal(size=(8, 4, 4, 1)).astype("float32"))
    assert glow.log_prob(np.zeros([0, 4, 4, 1], "float32")).shape == (0,)
    assert FlowModel(real_nvp()).log_prob(np.zeros([3, 0, 2], "float32")).shape == (3, 0)


def test_means_of_metrics_are_kept_in_float64():
    model = FlowModel(flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0))
    assert [m.dtype for m in model.metrics] == ["float64", "float64"]


def test_warns_of_pixels_divided_by_255():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(40, 2)).astype("float32") / np.float32(255.0)
    with pytest.warns(UserWarning, match="2 of the 2 entries of a row hold multiples of 1/255"):
        compiled(real_nvp()).fit(pixels, verbose=0)
    noisy = (pixels * 255.0 + rng.uniform(size=pixels.shape)).astype("float32") / 256.0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        compiled(real_nvp()).fit(noisy.astype("float32"), verbose=0)
