"""bits_per_dim against closed forms."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.preprocessing import bits_per_dim

tfd = tfp.distributions


def test_a_uniform_density_over_8_bits_has_8_bits_in_either_unit():
    shape = [32, 32, 3]
    for width, scale in [(256.0, 1), (1.0, 256), (2.0, 128.0)]:
        uniform = tfd.Sample(tfd.Uniform(np.float64(0), np.float64(width)), shape)
        log_prob = uniform.log_prob(np.full(shape, 0.3))
        np.testing.assert_allclose(bits_per_dim(log_prob, shape, scale=scale), 8.0, rtol=1e-14)


def test_one_bit_is_a_fair_coin():
    assert bits_per_dim(np.log(0.5), []) == 1.0
    np.testing.assert_allclose(bits_per_dim(np.log([0.5, 0.25]), [1]), [1.0, 2.0])


def test_a_change_of_units_does_not_change_it():
    x = np.array([[3.0, 120.0, 250.0], [20.0, 90.0, 130.0]])
    original = tfd.MultivariateNormalDiag(np.full(3, 100.0), np.full(3, 60.0))
    divided = tfd.MultivariateNormalDiag(np.full(3, 100 / 256 - 0.5), np.full(3, 60 / 256))
    np.testing.assert_allclose(
        bits_per_dim(original.log_prob(x), original.event_shape),
        bits_per_dim(divided.log_prob(x / 256 - 0.5), [3], scale=256),
        rtol=1e-12,
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_types_and_shapes(dtype):
    log_prob = np.full([2, 3], -4.0, dtype)
    array, tensor = bits_per_dim(log_prob, [2]), bits_per_dim(tf.constant(log_prob), (2,))
    assert isinstance(array, np.ndarray) and array.dtype == dtype and array.shape == (2, 3)
    assert tf.is_tensor(tensor) and tensor.dtype == dtype
    np.testing.assert_array_equal(array, tensor)
    assert bits_per_dim(dtype(-1.0), [2], scale=np.float32(2)).dtype == dtype
    traced = tf.function(lambda v: bits_per_dim(v, [2]))
    np.testing.assert_array_equal(traced(log_prob), array)


def test_impossible_events():
    assert bits_per_dim(-np.inf, [3]) == np.inf
    assert np.isnan(bits_per_dim(np.nan, [3]))


def test_wrong_arguments():
    for shape in ([None, 3], None, [0, 3]):
        with pytest.raises(ValueError, match="fully known and not empty"):
            bits_per_dim(0.0, shape)
    for scale in (0, -1.0, np.inf, "256"):
        with pytest.raises(ValueError, match="scale must be a positive number"):
            bits_per_dim(0.0, [3], scale=scale)
    with pytest.raises(TypeError, match="log_prob must be floating, got int"):
        bits_per_dim(np.arange(3), [3])
