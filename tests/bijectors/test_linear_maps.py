"""Reflections, rotations and periodic convolutions against dense matrices."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, flows
from tfp_flows.bijectors import Householder, InvertibleConv1x1, Orthogonal, PeriodicConvolution
from tfp_flows.conditioners import RowConvNet

tfd = tfp.distributions

rng = np.random.default_rng(0)


def test_householder_is_the_product_of_its_reflections():
    vectors = rng.normal(size=(3, 4))
    wanted = np.eye(4)
    for v in vectors:
        wanted = (np.eye(4) - 2.0 * np.outer(v, v) / (v @ v)) @ wanted
    found = Householder(4, vectors=vectors, dtype="float64")
    np.testing.assert_allclose(found.matrix, wanted, atol=1e-14)
    x = rng.normal(size=(2, 5, 4))
    np.testing.assert_allclose(found.forward(x), x @ wanted.T, atol=1e-14)
    nothing = Householder(4, vectors=np.zeros([1, 4]), dtype="float64")
    np.testing.assert_array_equal(nothing.matrix, np.eye(4))


def test_a_mean_is_mapped_by_linear_maps_alone():
    """TFP maps the base's mean where it is told that the Jacobian is constant."""
    base = tfd.MultivariateNormalDiag(tf.constant([1.0, 2.0]))
    turned = tfd.TransformedDistribution(base, Orthogonal(2, start=np.eye(2)[::-1]))
    np.testing.assert_array_equal(turned.mean(), [2.0, 1.0])
    for flow in (
        flows.nice([2], num_couplings=2, hidden_units=(4,)),
        flows.maf([2], num_layers=1, hidden_units=(4,), elementwise="shift"),
    ):
        for moment in (flow.mean, flow.mode, flow.covariance):
            with pytest.raises(NotImplementedError, match="non-affine"):
                moment()
    rows = bijectors.MaskedConvolution(RowConvNet(1, filters=2), [2, 1, 1], "shift")
    assert not rows.is_constant_jacobian


def test_orthogonal_is_cayleys_transform_and_stays_orthogonal():
    skew = rng.normal(size=6)
    a = np.zeros([4, 4])
    a[np.tril_indices(4, -1)] = skew
    a -= a.T
    rotation = np.linalg.qr(rng.normal(size=(4, 4)))[0]
    wanted = rotation @ (np.eye(4) - a) @ np.linalg.inv(np.eye(4) + a)
    found = Orthogonal(4, start=rotation, skew=skew, dtype="float64")
    np.testing.assert_allclose(found.matrix, wanted, atol=1e-14)
    assert not found.start.trainable and found.skew.trainable
    for dtype, tolerance in (("float32", 1e-5), ("float64", 1e-13)):
        far = Orthogonal(8, seed=0, skew=50.0 * rng.normal(size=28), dtype=dtype).matrix
        np.testing.assert_allclose(far @ tf.transpose(far), np.eye(8), atol=tolerance)
    # Q e^(-2 A) to first order: the gradient at the start is that of a rotation.
    small = Orthogonal(4, start=np.eye(4), skew=1e-6 * skew, dtype="float64").matrix
    np.testing.assert_allclose((small - np.eye(4)) / 1e-6, -2.0 * a, atol=1e-4)


@pytest.mark.parametrize(("shape", "size"), [((3, 4, 2), 3), ((5, 5, 1), 5), ((2, 3, 3), 1)])
def test_periodic_convolution_is_a_circulant_matrix(shape, size):
    height, width, channels = shape
    reach, kernel = size // 2, rng.normal(size=(size, size, channels, channels))
    places = np.arange(height * width * channels).reshape(shape)
    wanted = np.zeros([places.size] * 2)
    for h, w in np.ndindex(height, width):
        for a, b in np.ndindex(size, size):
            seen = places[(h + a - reach) % height, (w + b - reach) % width]
            wanted[np.ix_(places[h, w], seen)] += kernel[a, b].T
    found = PeriodicConvolution(shape, kernel_size=size, kernel=kernel, dtype="float64")
    y = rng.normal(size=(2, *shape))
    x, log_det = found.inverse_and_log_det(y)
    np.testing.assert_allclose(x, (y.reshape(2, -1) @ wanted.T).reshape(2, *shape), atol=1e-12)
    np.testing.assert_allclose(log_det, np.linalg.slogdet(wanted)[1], rtol=1e-12)
    solved = np.linalg.solve(wanted, y.reshape(2, -1).T).T.reshape(2, *shape)
    np.testing.assert_allclose(found.forward(y), solved, rtol=1e-8, atol=1e-8)


def test_periodic_convolution_of_one_tap_is_a_1x1_convolution():
    one = InvertibleConv1x1(3, seed=4, dtype="float64")
    other = PeriodicConvolution([2, 4, 3], kernel_size=1, seed=4, dtype="float64")
    y = tf.constant(rng.normal(size=(2, 2, 4, 3)))
    for wanted, got in zip(one.inverse_and_log_det(y), other.inverse_and_log_det(y), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-12)
    other.kernel.assign(tf.zeros_like(other.kernel))
    assert other.inverse_log_det_jacobian(y, 3).numpy().tolist() == [-np.inf] * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda seed: Householder(3, num_reflections=2, seed=seed),
        lambda seed: Orthogonal(3, seed=seed),
        lambda seed: PeriodicConvolution([3, 3, 3], seed=seed),
    ],
)
def test_in_a_loop_each_step_starts_by_itself(make):
    loop = bijectors.Repeat.like(make(1), [lambda seed: seed + 1])
    x = tf.random.stateless_normal([2, 3, 3, 3], [0, 1])
    wanted = make(1).forward(make(2).forward(x))
    np.testing.assert_allclose(loop.forward(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Householder(3, num_reflections=0), ValueError, "num_reflections must be an int"),
        (lambda: Householder(3, vectors=np.ones([2, 2])), ValueError, "vectors"),
        (lambda: Orthogonal(1), ValueError, "size must be an integer >= 2, got 1"),
        (lambda: Orthogonal(2, seed=0.5), TypeError, "seed must be an integer"),
        (
            lambda: Orthogonal(2, start=np.ones([2, 2])),
            ValueError,
            "start must be an orthogonal matrix, but .* by 2. Give the Q",
        ),
        (
            lambda: PeriodicConvolution([4, 4]),
            ValueError,
            r"must be \[H, W, C\], known and not empty, got \[4,",
        ),
        (
            lambda: PeriodicConvolution([4, 4, 1], kernel_size=2),
            ValueError,
            "kernel_size must be odd and at most the height and width 4 x 4, got 2",
        ),
        (lambda: PeriodicConvolution([4, 2, 1]), ValueError, "at most the height and width 4 x 2"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
