"""Dequantized integers floor back, with fresh and repeatable noise."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from tfp_flows.preprocessing import UniformDequantization

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 1)).astype(np.uint8)


def test_noise_is_uniform_and_independent_of_the_value():
    dequantize = UniformDequantization(256)
    x = np.repeat(np.array([[0], [1], [128], [255]], np.uint8), 20_000, axis=1)
    noise = dequantize(x, seed=0).numpy().astype(np.float64) - x
    for row in noise:
        assert stats.kstest(row, "uniform").pvalue > 1e-4
    assert np.all(np.abs(np.corrcoef(noise) - np.eye(4)) < 0.03)


@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_the_largest_noise_does_not_round_up(dtype, monkeypatch):
    # The largest number that tf.random gives, in every draw: x + u would be x + 1 from x = 1 on.
    bits = 23 if dtype == tf.float32 else 52
    monkeypatch.setattr(
        tf.random,
        "stateless_uniform",
        lambda shape, seed, dtype: tf.fill(shape, tf.cast(1.0 - 2.0**-bits, dtype)),
    )
    x = np.arange(65536)
    dequantize = UniformDequantization(65536, dtype=dtype)
    y = dequantize(x, seed=0).numpy()
    np.testing.assert_array_equal(np.floor(y), x)
    np.testing.assert_array_equal(dequantize.quantize(y), x)
    # Nothing is lost: at most one float lies between y and the next integer.
    np.testing.assert_array_less(x + 1.0 - y, 2.01 * np.spacing(np.maximum(y, 0.5)))


@pytest.mark.parametrize("num_levels", [2, 32, 256, 1000, 65536])
def test_floors_back(num_levels):
    dequantize = UniformDequantization(num_levels)
    x = np.random.default_rng(0).integers(0, num_levels, 100_000)
    y = dequantize(x, seed=(1, 2))
    assert y.dtype == tf.float32 and float(tf.reduce_max(y)) < num_levels
    back = dequantize.quantize(y)
    assert back.dtype == (tf.uint8 if num_levels <= 256 else tf.int32)
    np.testing.assert_array_equal(back, x)


def test_the_seed_of_the_call_decides():
    first, other = UniformDequantization(256, seed=0), UniformDequantization(256, seed=1)
    y = first(IMAGES, seed=(3, 4))
    np.testing.assert_array_equal(y, other(IMAGES, seed=tf.constant([3, 4])))
    np.testing.assert_array_equal(y, tf.function(first)(IMAGES, seed=tf.constant([3, 4])))
    np.testing.assert_array_equal(first(IMAGES, seed=7), first(IMAGES, seed=(7, 0)))
    for seed in [(3, 5), (4, 4), 3]:
        assert np.mean(first(IMAGES, seed=seed) == y) < 0.01


def test_unknown_shapes_and_xla():
    dequantize = UniformDequantization(256)
    for jit in (False, True):
        shape = [None, 4, 4, 1] if not jit else IMAGES.shape
        f = tf.function(
            lambda x, s: dequantize(x, seed=s),
            input_signature=[tf.TensorSpec(shape, tf.uint8), tf.TensorSpec([2], tf.int32)],
            jit_compile=jit,
        )
        np.testing.assert_array_equal(np.floor(f(IMAGES, [0, 1])), IMAGES)


# --- The noise of scores. ---


def test_shared_noise_is_the_same_for_every_event_wherever_it_stands():
    dequantize = UniformDequantization(256)
    y = dequantize.shared_noise(IMAGES, event_shape=[4, 4, 1]).numpy()
    np.testing.assert_array_equal(np.floor(y), IMAGES)
    noise = y.astype(np.float64) - IMAGES
    # The same but for the digits that a float32 has left at 255.
    np.testing.assert_allclose(noise, np.broadcast_to(noise[:1], noise.shape), atol=3e-5)
    order = np.random.default_rng(1).permutation(len(IMAGES))
    again = dequantize.shared_noise(IMAGES[order].reshape(5, 8, 4, 4, 1), event_shape=[4, 4, 1])
    np.testing.assert_array_equal(np.reshape(again, y.shape), y[order])


def test_shared_noise_is_uniform_over_entries_and_over_seeds():
    dequantize = UniformDequantization(256)
    for x, shape, seeds in [(np.zeros(20_000, int), [20_000], 1), (np.zeros([1], int), [1], 3000)]:
        noise = [dequantize.shared_noise(x, event_shape=shape, seed=k) for k in range(seeds)]
        assert stats.kstest(np.ravel(noise), "uniform").pvalue > 1e-3


def test_shared_noise_is_the_same_in_every_mode_and_version():
    dequantize, images = UniformDequantization(256), IMAGES[:, :1, :2]
    wanted = dequantize.shared_noise(images, event_shape=[1, 2, 1])
    np.testing.assert_allclose((wanted - images)[0, 0, :, 0], [0.5488135, 0.71518937], atol=3e-5)
    for jit in (False, True):
        f = tf.function(
            lambda x: dequantize.shared_noise(x, event_shape=[1, 2, 1]), jit_compile=jit
        )
        np.testing.assert_array_equal(f(images), wanted)


def test_shared_noise_has_the_constructors_seed_by_default():
    def scored(own, **kwargs):
        dequantize = UniformDequantization(256, seed=own)
        return dequantize.shared_noise(IMAGES, event_shape=[4, 4, 1], **kwargs).numpy()

    np.testing.assert_array_equal(scored(None), scored(0))
    np.testing.assert_array_equal(scored(5), scored(1, seed=5))
    assert np.mean(scored(5) == scored(0)) < 0.01


def test_shared_noise_refuses():
    dequantize = UniformDequantization(32)
    x = np.zeros([3, 4], int)
    for shape in ([None], None):
        with pytest.raises(ValueError, match="event_shape must be fully known"):
            dequantize.shared_noise(x, event_shape=shape)
    # Both would be broadcast.
    for bad, shape in [(x[:, :1], [4]), (x, [3, 3, 4])]:
        with pytest.raises(ValueError, match=r"expected x of shape \[\.\.\., .*4\], got"):
            dequantize.shared_noise(bad, event_shape=shape)
    with pytest.raises(ValueError, match="Seed must be between 0"):
        dequantize.shared_noise(x, event_shape=[4], seed=-1)
    with pytest.raises(ValueError, match=r"integers in \[0, 32\)"):
        dequantize.shared_noise(x + 32, event_shape=[4])
    with pytest.raises(TypeError, match="got float64"):
        dequantize.shared_noise(x / 2, event_shape=[4])


def test_quantize_clips_samples():
    dequantize = UniformDequantization(32)
    np.testing.assert_array_equal(
        dequantize.quantize([-3.0, -0.1, 0.0, 5.99, 31.99, 32.0, 300.0]), [0, 0, 0, 5, 31, 31, 31]
    )


# --- tf.data ---


def epochs(dataset, count=2):
    return [np.concatenate(list(dataset.as_numpy_iterator())) for _ in range(count)]


def test_datasets_have_fresh_noise_each_epoch_that_a_seed_repeats():
    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8)

    def run(seed):
        return epochs(UniformDequantization(256, seed=seed).map_dataset(images), 3)

    first = run(1)
    for y in first:
        np.testing.assert_array_equal(np.floor(y), IMAGES)
    noise = [y - np.floor(y) for y in first]
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        assert np.mean(noise[i] == noise[j]) < 0.01
    # Neither do the batches of an epoch share their noise.
    assert np.mean(noise[0][:8] == noise[0][8:16]) < 0.01
    np.testing.assert_array_equal(first, run(1))
    for seed in (2, None):
        assert np.mean(np.equal(first, run(seed))) < 0.01


def test_the_enumerate_recipe_that_the_documentation_warns_of():
    dequantize = UniformDequantization(256)

    def step(i, x):
        return dequantize(x, seed=tf.stack([1, tf.cast(i, tf.int32)]))

    images = tf.data.Dataset.from_tensor_slices(IMAGES).batch(8)
    a, b = epochs(images.enumerate().map(step))
    np.testing.assert_array_equal(a, b)
    (both,) = epochs(images.repeat(2).enumerate().map(step), 1)
    assert np.mean(both[:40] == both[40:]) < 0.01


def test_structures_of_elements():
    dequantize = UniformDequantization(256, seed=0)
    labels = np.arange(40)
    pairs = dequantize.map_dataset(tf.data.Dataset.from_tensor_slices((IMAGES, labels)))
    x, label = next(iter(pairs.skip(5)))
    np.testing.assert_array_equal(np.floor(x), IMAGES[5])
    assert label == 5
    dicts = tf.data.Dataset.from_tensor_slices({"x": IMAGES, "context": labels})
    element = next(iter(dequantize.map_dataset(dicts)))
    assert element["x"].dtype == tf.float32 and element["context"] == 0
    with pytest.raises(ValueError, match=r"key 'x', got the keys \['image'\]"):
        dequantize.map_dataset(tf.data.Dataset.from_tensor_slices({"image": IMAGES}))
    with pytest.raises(TypeError, match="expected a tf.data.Dataset, got ndarray"):
        dequantize.map_dataset(IMAGES)


def test_keras_serialization():
    config = keras.saving.serialize_keras_object(
        UniformDequantization(32, seed=3, dtype=tf.float64)
    )
    again = keras.saving.deserialize_keras_object(config)
    assert isinstance(again, UniformDequantization)
    assert again.get_config() == {"num_levels": 32, "seed": 3, "dtype": "float64"}
    assert again(np.array([1]), seed=0).dtype == tf.float64


# --- Wrong arguments. ---


@pytest.mark.parametrize("bad", [[-1, 3], [0, 32], [300, 2]])
def test_values_out_of_range(bad):
    with pytest.raises(ValueError, match=r"integers in \[0, 32\), got values from -?\d+ to"):
        UniformDequantization(32)(np.array(bad), seed=0)


def test_floats_are_refused_in_eager_mode_and_in_graphs():
    dequantize = UniformDequantization(256)
    for f in (dequantize, tf.function(dequantize)):
        with pytest.raises(TypeError, match="got float32.*tf.cast"):
            f(tf.ones([3]), seed=0)
    with pytest.raises(TypeError, match="expected floating data, got uint8"):
        dequantize.quantize(IMAGES)


def test_a_call_needs_a_seed():
    with pytest.raises(TypeError, match="seed"):
        UniformDequantization(256, seed=0)(IMAGES)


def test_wrong_options():
    for num_levels in (1, 65537):
        with pytest.raises(ValueError, match="num_levels must be an integer from 2 to 65536"):
            UniformDequantization(num_levels)
    with pytest.raises(TypeError, match="num_levels must be an integer.*float"):
        UniformDequantization(256.0)
    with pytest.raises(ValueError, match="seed must be an integer from 0"):
        UniformDequantization(256, seed=-1)
    with pytest.raises(TypeError, match="seed must be an integer"):
        UniformDequantization(256, seed=(1, 2))
    with pytest.raises(ValueError, match="float32 or float64, got bfloat16"):
        UniformDequantization(256, dtype=tf.bfloat16)
