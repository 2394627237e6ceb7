"""FlowModel: samples, and what it refuses."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import C, X, compiled, gaussian, real_nvp, same, weights

from tfp_flows import FlowModel, bijectors, flows, masks, preprocessing

tfb, tfd = tfp.bijectors, tfp.distributions


# --- Samples. ---


def test_sample_shapes_and_seeds():
    model = FlowModel(real_nvp())
    for n, shape in ((3, (3, 2)), ([2, 3], (2, 3, 2)), ((), (2,)), ([4, 2, 3], (4, 2, 3, 2))):
        assert model.sample(n, seed=1).shape == shape
        assert model.sample(tf.constant(n, tf.int32), seed=1).shape == shape
    a, b = model.sample(5, seed=1), model.sample(5, seed=1)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(FlowModel(real_nvp()).sample(5, seed=1), a)
    for other in (model.sample(5, seed=2), model.sample(5), model.sample(5, seed=[1, 1])):
        assert not np.allclose(a, other)
    assert not np.allclose(model.sample(5), model.sample(5))


def test_new_sizes_do_not_retrace():
    model = FlowModel(real_nvp())
    for n in range(2, 9):
        model.sample(n)
        model.log_prob(X[:n])
    counts = [f.experimental_get_tracing_count() for f in model._functions.values()]
    assert counts and max(counts) <= 2


def test_log_prob_of_any_rank():
    model = FlowModel(real_nvp(context_size=3))
    c = C[:12]
    wanted = model.log_prob(X[:12], c)
    for shape in ((3, 4), (2, 3, 2), (12,)):
        got = model.log_prob(X[:12].reshape(*shape, 2), c.reshape(*shape, 3))
        np.testing.assert_allclose(got, np.reshape(wanted, shape), rtol=1e-5)
    assert model.log_prob(X[0], C[0]).shape == ()
    np.testing.assert_allclose(model.log_prob(X[:3], C[1].tolist())[1], wanted[1], rtol=1e-5)


def test_temperature():
    model = FlowModel(gaussian())
    z = (model.sample(50, seed=1) - [0.3, -0.2]) / [1.5, 0.7]
    cold = (model.sample(50, seed=1, temperature=0.5) - [0.3, -0.2]) / [1.5, 0.7]
    np.testing.assert_allclose(cold, 0.5 * z, rtol=1e-4, atol=1e-6)
    shifted = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(5.0, 1.0), [2]), tfb.Scale(tf.Variable(1.0))
    )
    hot, plain = (FlowModel(shifted).sample(9, seed=1, temperature=t) for t in (2.0, 1.0))
    np.testing.assert_allclose(hot - 5.0, 2.0 * (plain - 5.0), rtol=1e-4, atol=1e-5)
    for temperature in (0.0, -1.0):
        with pytest.raises(ValueError, match="temperature must be > 0, got"):
            model.sample(1, temperature=temperature)
    with pytest.raises(ValueError, match="n must be at least 1, got 0"):
        model.sample(0)


def test_base_without_a_mean():
    base = tfd.Sample(tfd.StudentT(1.0, 0.0, 1.0), [2])
    model = FlowModel(tfd.TransformedDistribution(base, tfb.Scale(tf.Variable(2.0))))
    assert np.isfinite(model.sample(20, seed=0)).all()


def conditional():
    """x = context @ A + small noise: a row's context can be read off its samples."""
    layer = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)

    class FromContext(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layer

        def build(self, input_shape):
            self.dense.build((None, 3))

        def call(self, x, context):
            return 100.0 * self.dense(context)

    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    coupling = bijectors.AdditiveCoupling(FromContext(), masks.halves(2), context_size=3)
    return FlowModel(tfd.TransformedDistribution(base, coupling))


def test_conditional_samples_are_not_mixed():
    model = conditional()
    x = model.sample(40, seed=1, context=C)
    np.testing.assert_allclose(x[:, 1], 100.0 * C.sum(axis=1), atol=6.0)
    x = model.sample([7, 40], seed=1, context=C)
    np.testing.assert_allclose(x[..., 1], np.tile(100.0 * C.sum(axis=1), (7, 1)), atol=6.0)
    x = model.sample([40, 7], seed=1, context=C[:, np.newaxis])
    np.testing.assert_allclose(x[..., 1].numpy().T, np.tile(100.0 * C.sum(axis=1), (7, 1)), atol=6)
    x = model.sample(5, seed=1, context=C[3])
    np.testing.assert_allclose(x[:, 1], np.full(5, 100.0 * C[3].sum()), atol=6.0)
    for n, context in ((4, C[:3]), ((), C), ([40, 7], C)):
        with pytest.raises(ValueError, match="batch shape broadcasts to n"):
            model.sample(n, context=context)


# --- Bad input. ---


def bad_inputs():
    nan = X.copy()
    nan[7, 1] = np.nan
    spec = tf.data.Dataset.from_tensor_slices
    return {
        "float64": (X.astype("float64"), TypeError, "expected float32 data, got float64. Cast"),
        "integers": (X.astype("int32"), TypeError, "got int32 data, but a flow .*dequantization="),
        "uint8": (X.astype("uint8"), TypeError, "UniformDequantization"),
        "bool": (X > 0, TypeError, "got bool data"),
        "NaN": (nan, ValueError, "the data hold NaN in 1 of 40 rows, the first at row 7"),
        "NaN tensor": (tf.constant(nan), ValueError, "NaN in 1 of 40 rows, the first at row 7"),
        "event size": (X[:, :1], ValueError, r"expected data of shape \[batch, 2\], got \[40, 1\]"),
        "rank": (X[0], ValueError, r"got a single example of shape \[2\]. Add a batch axis"),
        "higher rank": (X[np.newaxis], ValueError, r"\[batch, 2\], got \[1, 40, 2\]"),
        "a context": ((X, C), ValueError, "got a context .or `y`., but no part"),
        "a key": ({"x": X, "label": C}, ValueError, "expected the keys 'x'.*got .'label', 'x'"),
        "no x": ({"context": C}, ValueError, "expected the keys 'x'"),
        "None": (None, ValueError, "no data: x is None"),
        "dataset float64": (spec(X.astype("float64")).batch(4), TypeError, "float32 data, got flo"),
        "dataset integers": (spec(X.astype("int32")).batch(4), TypeError, "dequantization="),
        "dataset shape": (spec(X[:, :1]).batch(4), ValueError, r"\[batch, 2\], got \[None, 1\]"),
        "dataset, no batches": (spec(X), ValueError, r"make batches: `dataset.batch\(n\)`"),
        "dataset context": (spec((X, C)).batch(4), ValueError, "got a context .or `y`., but no"),
    }


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict", "initialize"])
@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input(name, method):
    x, error, message = bad_inputs()[name]
    model = compiled(gaussian())
    before = weights(model)
    with pytest.raises(error, match=message):
        getattr(model, method)(x)
    same(before, weights(model))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (X.astype("float64"), TypeError, "expected float32 data, got float64"),
        (X.astype("int64"), TypeError, "dequantization="),
        (X[:, :1], ValueError, r"expected data of shape \[\.\.\., 2\], got \[40, 1\]"),
        (np.float32(0.0), ValueError, r"\[\.\.\., 2\], got \[\]"),
        (np.full((3, 2), np.nan, "float32"), ValueError, "NaN in 3 of 3 rows"),
        (np.full(2, np.nan, "float32"), ValueError, "NaN in"),
        (list(X), TypeError, r"got a list of 40. Stack them: np.stack\(x\)"),
        (np.array([["a", 1.0]], object), TypeError, "or holes: tables.TableFlow, which takes"),
    ],
)
def test_bad_input_of_log_prob(x, error, message):
    with pytest.raises(error, match=message):
        FlowModel(gaussian()).log_prob(x)


@pytest.mark.parametrize(
    ("event_shape", "shape", "remedy"),
    [
        ([4, 4, 1], [9, 4, 4], r"one channel: x\[..., None\]"),
        ([4, 2, 3], [9, 3, 4, 2], r"np.moveaxis\(x, 1, -1\)"),
        ([4, 4, 1], [9, 16], r"x.reshape\(-1, 4, 4, 1\)"),
        ([16], [9, 4, 4, 1], r"x.reshape\(-1, 16\)"),
        ([4, 2, 3], [9, 2, 4, 3], r"event_shape is x.shape\[1:\]"),
        ([16], [9, 15], r"event_shape is x.shape\[1:\]"),
    ],
)
def test_the_way_from_one_shape_to_another_is_said(event_shape, shape, remedy):
    model = compiled(tfd.Sample(tfd.Normal(tf.Variable(0.0), 1.0), event_shape))
    with pytest.raises(ValueError, match=remedy):
        model.evaluate(np.zeros(shape, "float32"))


@pytest.mark.parametrize("n", ["3", 2.0, [2.5], True])
def test_bad_numbers_of_samples(n):
    for draw in (FlowModel(gaussian()).sample, FlowModel(gaussian()).sample_and_log_prob):
        with pytest.raises(TypeError, match="n, how many samples, must be an int or a shape, got"):
            draw(n)


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (None, r"a context of shape \[\.\.\., 3\] is required, got none. Give it to log_prob and"),
        (C[:, :2], r"expected a context of shape \[\.\.\., 3\], got \[40, 2\]"),
        (
            np.where(np.arange(40)[:, None] == 5, np.nan, C),
            "context holds NaN in 1 of 40 rows, .*5",
        ),
    ],
)
def test_bad_context(context, message):
    model = compiled(real_nvp(context_size=3))
    for act in (
        lambda: model.fit(X, context, verbose=0),
        lambda: model.evaluate(X, context, verbose=0),
        lambda: model.log_prob(X, context),
        lambda: model.sample(40, context=context),
    ):
        with pytest.raises(ValueError, match=message):
            act()
    with pytest.raises(ValueError, match="is required, got none"):
        model.predict(X, verbose=0)


def test_bad_models():
    with pytest.raises(TypeError, match="expected a tfd.Distribution, got _?Scale"):
        FlowModel(tfb.Scale(2.0))
    with pytest.raises(
        ValueError, match=r"got 'Normal' of batch shape \[2\]. Make the batch a part"
    ):
        FlowModel(tfd.Normal(tf.Variable([0.0, 1.0]), 1.0))
    for extra in ("loss", "weighted_metrics"):
        with pytest.raises(ValueError, match=f"no `{extra}`: the loss is the negative log-l"):
            FlowModel(gaussian()).compile(**{extra: "mse"})


def test_uninitialized_actnorm():
    model = compiled(real_nvp(actnorm=True))
    for act in (
        lambda: model.log_prob(X),
        lambda: model.sample(1),
        lambda: model.predict(X),
        lambda: model.evaluate(X),
    ):
        with pytest.raises(
            ValueError, match=r"2 parts were never initialised.*ActNorm 'actnorm_0'"
        ):
            act()
    model.fit(X, verbose=0)
    assert np.isfinite(model.log_prob(X)).all()


def test_out_of_support_scores_minus_infinity():
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    chain = bijectors.Chain([preprocessing.Logit(1.0, alpha=0.0), bijectors.Rescale([2])])
    model = FlowModel(tfd.TransformedDistribution(base, chain))
    x = np.array([[0.5, 0.5], [1.5, 0.5], [0.5, -0.1], [-3.0, 9.0]], "float32")
    np.testing.assert_array_equal(np.isneginf(model.log_prob(x)), [False, True, True, True])
    assert not np.isnan(model.predict(x, verbose=0)).any()
    model.compile()
    with pytest.raises(FloatingPointError, match="Logit 'logit', whose log-det is not finite in 3"):
        model.fit(x, verbose=0)


def test_integers_with_dequantization():
    x = np.random.default_rng(0).integers(0, 4, size=(64, 2)).astype("uint8")
    base = tfd.Sample(tfd.Normal(0.0, 1.0), [2])
    scale = bijectors.Rescale([2], log_scale=[0.5, 0.5])
    distribution = tfd.TransformedDistribution(base, bijectors.Chain([tfb.Shift(2.0), scale]))

    def make():
        dequantization = preprocessing.UniformDequantization(4)
        model = FlowModel(distribution.copy(), dequantization=dequantization)
        model.compile(optimizer=keras.optimizers.SGD(0.0))
        return model

    losses = make().fit(x, epochs=3, verbose=0).history["loss"]
    assert len(set(losses)) == 3, "fresh noise every epoch"
    assert make().fit(x, epochs=3, verbose=0, shuffle=False).history["loss"] == pytest.approx(
        make().fit(x, epochs=3, verbose=0, shuffle=False).history["loss"]
    )
    model = make()
    assert model.evaluate(x, verbose=0) == model.evaluate(x, verbose=0)
    np.testing.assert_array_equal(model.log_prob(x), model.log_prob(x))
    data = tf.data.Dataset.from_tensor_slices(x).batch(16)
    assert np.isfinite(model.fit(data, verbose=0).history["loss"]).all()


def test_whole_numbers_stored_as_floats_are_warned_of():
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    x[:, 1] = np.round(3 * x[:, 1])
    model = compiled(flows.maf([3], num_layers=1, hidden_units=(8,), seed=0))
    with pytest.warns(UserWarning, match=r"1 of the 3 entries .* \(entry \[1\]\).*UniformDequant"):
        model.fit(x, verbose=0)
    x[:, 1] = 4.0  # A constant tells nothing.
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x, verbose=0)


def test_no_class_weight():
    with pytest.raises(ValueError, match="no class_weight: a density has no classes"):
        compiled(gaussian()).fit(X, class_weight={0: 1.0}, verbose=0)


def test_an_uninitialised_model_is_not_trained_on_a_batch():
    model = compiled(real_nvp(actnorm=True))
    with pytest.raises(ValueError, match="train_on_batch: 2 parts were never initialised"):
        model.train_on_batch(X)


def test_the_policy_reaches_nested_layers():
    network = keras.Sequential([keras.Input([1]), keras.layers.Dense(2)])
    mask = np.array([True, False])
    model = FlowModel(
        tfd.TransformedDistribution(
            tfd.Sample(tfd.Normal(0.0, 1.0), [2]), bijectors.AffineCoupling(network, mask)
        )
    )
    model.conditioner_policy = "mixed_bfloat16"
    assert model.conditioner_policy == "mixed_bfloat16"
    assert network.layers[-1].dtype_policy.name == "mixed_bfloat16"
    with pytest.raises(ValueError, match="a policy whose weights are float32.*got 'float64'"):
        model.conditioner_policy = "float64"


def test_discrete_data_suit_a_discrete_distribution():
    x = np.random.default_rng(0).integers(0, 2, size=(60, 3))
    model = compiled(flows.made([3], hidden_units=(8,), seed=0))
    model.fit(x, verbose=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.fit(x.astype("float32"), verbose=0)


@pytest.mark.parametrize("where", ["memory", "file"])
def test_a_cached_dataset_is_read_once(where, tmp_path):
    """A cache of which a part is read is thrown away, with a warning, and read again."""
    read = []

    def rows():
        for row in X:
            read.append(1)
            yield row

    source = tf.data.Dataset.from_generator(rows, output_signature=tf.TensorSpec([2]))
    cached = source.batch(10).cache(str(tmp_path / "rows") if where == "file" else "")
    model = compiled(real_nvp(actnorm=True))
    model.initialize(cached.prefetch(1))
    assert len(read) == len(X)
    model.fit(cached, epochs=2, verbose=0)
    model.predict(cached, verbose=0)
    assert len(read) == len(X)
    # In a pair of datasets, and never to the end of what has none.
    endless = tf.data.Dataset.from_tensors(C[:10]).repeat().cache()
    pairs = tf.data.Dataset.zip((source.batch(10).cache(), endless)).with_options(tf.data.Options())
    compiled(real_nvp(actnorm=True, context_size=3)).initialize(pairs)
    assert len(read) == 2 * len(X)
