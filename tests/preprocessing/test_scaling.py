"""Standardize and center against NumPy and stock TFP bijectors."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import preprocessing
from tfp_flows.preprocessing import Standardize, bits_per_dim, center, scaling

tfb, tfd = tfp.bijectors, tfp.distributions

RNG = np.random.default_rng(0)
TABLE = RNG.normal([1.0, -200.0, 0.0], [0.1, 30.0, 1e4], (500, 3))
IMAGES = RNG.normal([1.0, 5.0], [2.0, 0.5], (50, 4, 6, 2))


@pytest.mark.parametrize("train", [TABLE, IMAGES, TABLE[:, 0]], ids=["table", "images", "list"])
def test_the_training_data_become_standard(train):
    standardize = Standardize.fit(train, dtype=tf.float64)
    axes = 0 if train.ndim < 3 else (0, 1, 2)
    np.testing.assert_allclose(standardize.mean, train.mean(axes))
    np.testing.assert_allclose(standardize.scale, train.std(axes))
    x = standardize.inverse(train).numpy()
    np.testing.assert_allclose(x.mean(axes), 0.0, atol=1e-12)
    np.testing.assert_allclose(x.std(axes), 1.0)
    np.testing.assert_allclose(standardize.forward(tf.identity(x)), train)


@pytest.mark.parametrize("train, event_ndims", [(TABLE, 1), (IMAGES, 3), (TABLE[:, 0], 0)])
def test_log_dets_are_those_of_stock_bijectors_and_of_autodiff(train, event_ndims):
    ours = Standardize.fit(train, dtype=tf.float64)
    stock = tfb.Chain([tfb.Shift(ours.mean), tfb.Scale(ours.scale)])
    value = train[:4]
    for method in ("forward_log_det_jacobian", "inverse_log_det_jacobian"):
        log_det = getattr(ours, method)(value, event_ndims)
        np.testing.assert_allclose(
            log_det, tf.broadcast_to(getattr(stock, method)(value, event_ndims), log_det.shape)
        )
        assert log_det.shape == [4]
    event = tf.constant(train[0])
    with tf.GradientTape() as tape:
        tape.watch(event)
        x = ours.inverse(tf.identity(event))
    jacobian = tf.reshape(tape.jacobian(x, event), [tf.size(event)] * 2)
    np.testing.assert_allclose(
        ours.inverse_log_det_jacobian(event, event_ndims), tf.linalg.slogdet(jacobian)[1]
    )


def test_log_prob_in_original_units():
    standardize = Standardize.fit(TABLE, dtype=tf.float64)
    base_distribution = tfd.MultivariateNormalDiag(np.zeros(3))
    density = tfd.TransformedDistribution(base_distribution, standardize)
    reference = tfd.MultivariateNormalDiag(TABLE.mean(0), TABLE.std(0))
    np.testing.assert_allclose(density.log_prob(TABLE), reference.log_prob(TABLE))


def test_sums_are_in_float64_and_in_chunks(monkeypatch):
    train = (1e4 + RNG.normal(size=(3000, 2))).astype(np.float32)
    whole = Standardize.fit(train)
    np.testing.assert_allclose(whole.scale, train.astype(np.float64).std(0), rtol=1e-12)
    monkeypatch.setattr(scaling, "_CHUNK", 14)
    chunked = Standardize.fit(train)
    np.testing.assert_allclose(chunked.mean, whole.mean, rtol=1e-14)
    np.testing.assert_allclose(chunked.scale, whole.scale, rtol=1e-12)


def test_constants_are_numpy_parameters_that_rebuild_it():
    standardize = Standardize.fit(tf.constant(TABLE, tf.float32), name="columns")
    assert not standardize.variables
    again = Standardize(**standardize.parameters)
    moved = standardize.copy(mean=np.zeros(3))
    np.testing.assert_array_equal(moved.mean, np.zeros(3))
    np.testing.assert_array_equal(moved.scale, standardize.scale)
    for mean, scale in [([0.0, 1.0], (1.0, 2.0)), (tf.zeros([2]), tf.ones([2])), (0, 1)]:
        parameters = Standardize(mean, scale).parameters
        assert {type(parameters[name]) for name in ("mean", "scale")} == {np.ndarray}
    y = TABLE[:3].astype(np.float32)
    np.testing.assert_array_equal(again.inverse(y), standardize.inverse(y))
    # No constant is left behind in the graph in which it was first used.
    for _ in range(2):
        tf.function(lambda v: standardize.inverse(v))(y)
    np.testing.assert_allclose(
        tf.function(standardize.inverse, jit_compile=True)(y), standardize.inverse(y), rtol=1e-5
    )


def test_columns_at_fault_are_named():
    bad = TABLE.copy()
    bad[:, 1] = 7.0
    with pytest.raises(ValueError, match=r"constant in the training data: column 1 .*Drop"):
        Standardize.fit(bad)
    bad[3, 0], bad[4, 2] = np.nan, np.inf
    with pytest.raises(ValueError, match="NaN or infinite values in columns 0, 2 "):
        Standardize.fit(bad)
    flat = IMAGES.copy()
    flat[..., 0] = 0.1
    with pytest.raises(ValueError, match="column 0 "):
        Standardize.fit(flat.astype(np.float32))
    with pytest.raises(ValueError, match="and 20 more"):
        Standardize.fit(np.ones((4, 30)))


def test_wrong_data():
    with pytest.raises(TypeError, match="expected floating data, got int64.*dequantize"):
        Standardize.fit(np.arange(6).reshape(3, 2))
    for train in (TABLE[:1], np.float64(3.0), np.zeros((4, 0))):
        with pytest.raises(ValueError, match="at least two rows"):
            Standardize.fit(train)


def test_wrong_constants():
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        Standardize([0.0, 1.0], [1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match="two arrays"):
        Standardize(np.zeros((2, 2)), np.ones((2, 2)))
    for mean, scale in [(0.0, 0.0), (0.0, -1.0), (np.nan, 1.0), (0.0, np.inf), (0.0, np.nan)]:
        with pytest.raises(ValueError, match="mean must be finite and scale positive"):
            Standardize(mean, scale)
    with pytest.raises(ValueError, match=r"expected shape \[..., 3\]"):
        Standardize.fit(TABLE).inverse(np.ones((5, 2), np.float32))


# --- center ---


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_center(dtype):
    centered = center(32, dtype=dtype)
    y = np.array([[0.0, 8.0, 32.0]], dtype.as_numpy_dtype)
    np.testing.assert_allclose(centered.inverse(y), [[-0.5, -0.25, 0.5]])
    np.testing.assert_allclose(centered.forward(centered.inverse(tf.identity(y))), y)
    np.testing.assert_allclose(
        centered.inverse_log_det_jacobian(y, 1), [-3 * np.log(32)], rtol=1e-6
    )


def test_center_keeps_bits_per_dim_in_original_units():
    half = np.float32(0.5)
    density = tfd.TransformedDistribution(tfd.Sample(tfd.Uniform(-half, half), [4, 4, 3]), center())
    y = np.full((2, 4, 4, 3), 200.5, np.float32)
    np.testing.assert_allclose(
        bits_per_dim(density.log_prob(y), density.event_shape), [8.0, 8.0], rtol=1e-6
    )


def test_center_wrong_arguments():
    with pytest.raises(TypeError, match="num_levels must be an integer"):
        center(256.0)
    with pytest.raises(ValueError, match="num_levels must be an integer >= 2, got 1"):
        center(1)


def test_public_names():
    assert all(hasattr(preprocessing, name) for name in preprocessing.__all__)
