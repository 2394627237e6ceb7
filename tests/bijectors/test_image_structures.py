"""Squeeze, 1x1 convolution, ActNorm, rescaling, factor-out: against explicit loops and NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, saving

tfb = tfp.bijectors
rng = np.random.default_rng(0)


# --- Squeeze. ---


@pytest.mark.parametrize("order", ["glow", "diagonal"])
@pytest.mark.parametrize("shape", [(4, 6, 3), (2, 2, 1), (6, 2, 2)])
def test_squeeze_order(order, shape):
    height, width, channels = shape
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    y = bijectors.Squeeze(order).forward(x).numpy()
    assert y.shape == (2, height // 2, width // 2, 4 * channels)
    position = {(0, 0): 0, (1, 1): 1, (0, 1): 2, (1, 0): 3}
    for n, i, j, c in itertools.product(range(2), range(height), range(width), range(channels)):
        dy, dx = i % 2, j % 2
        glow, diagonal = 4 * c + 2 * dy + dx, position[dy, dx] * channels + c
        to = glow if order == "glow" else diagonal
        assert y[n, i // 2, j // 2, to] == x[n, i, j, c]
    np.testing.assert_array_equal(bijectors.Squeeze(order).inverse(tf.constant(y)), x)


def test_diagonal_order_factors_out_a_checkerboard():
    from tfp_flows import masks

    mask = masks.checkerboard([4, 4, 1]).astype(np.float32)
    y = bijectors.Squeeze("diagonal").forward(mask)
    np.testing.assert_array_equal(y[..., :2], np.ones((2, 2, 2)))
    np.testing.assert_array_equal(y[..., 2:], np.zeros((2, 2, 2)))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (1, 2, 3)])
def test_squeeze_batch_ranks(batch):
    x = rng.normal(size=(*batch, 2, 4, 1)).astype(np.float32)
    for order in ("glow", "diagonal"):
        squeeze = bijectors.Squeeze(order)
        y = squeeze.forward(x)
        assert y.shape == (*batch, 1, 2, 4)
        np.testing.assert_array_equal(squeeze.inverse(tf.identity(y)), x)
        assert squeeze.forward_log_det_jacobian(tf.constant(x), 3).shape == batch


@pytest.mark.parametrize("shape", [(3, 4, 1), (4, 5, 2)])
def test_odd_squeeze(shape):
    height, width, _ = shape
    with pytest.raises(
        ValueError,
        match=f"Squeeze 'squeeze'.forward: expected an even height and width, got {height} x "
        f"{width}. Pad or crop",
    ):
        bijectors.Squeeze().forward(np.zeros((2, *shape), np.float32))
    with pytest.raises(ValueError, match="multiple of 4 channels, got 6"):
        bijectors.Squeeze().inverse(np.zeros((2, 2, 2, 6), np.float32))
    with pytest.raises(ValueError, match="order must be 'glow' or 'diagonal', got 'spiral'"):
        bijectors.Squeeze("spiral")


@pytest.mark.parametrize("order", ["glow", "diagonal"])
def test_odd_squeeze_of_unknown_size(order):
    """With an even batch the reshape would fit, and mix pixels of different images."""
    squeeze = bijectors.Squeeze(order)
    spec = [tf.TensorSpec([None, None, None, 1], tf.float32)]
    forward = tf.function(squeeze.forward, input_signature=spec)
    x = rng.normal(size=(2, 4, 2, 1)).astype(np.float32)
    np.testing.assert_array_equal(forward(x), squeeze.forward(tf.constant(x)))
    for shape in [(2, 3, 4, 1), (2, 4, 3, 1)]:
        with pytest.raises(tf.errors.InvalidArgumentError, match="multiple of 2"):
            forward(np.zeros(shape, np.float32))
    spec = [tf.TensorSpec([None, 2, 2, None], tf.float32)]
    inverse = tf.function(squeeze.inverse, input_signature=spec)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        inverse(np.zeros((2, 2, 2, 6), np.float32))


# --- 1x1 convolution. ---


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("batch", [(5,), (3, 2, 4)])
def test_conv1x1_is_its_matrix(size, batch):
    conv = bijectors.InvertibleConv1x1(size, seed=1, dtype=tf.float64)
    for variable in conv.trainable_variables:
        variable.assign_add(0.3 * rng.normal(size=variable.shape))
    matrix = conv.matrix.numpy()
    x = rng.normal(size=(*batch, size))
    np.testing.assert_allclose(conv.inverse(x), x @ matrix.T, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        conv.forward(tf.constant(x)), x @ np.linalg.inv(matrix).T, rtol=1e-9, atol=1e-10
    )
    log_det = np.linalg.slogdet(matrix)[1]
    ndims = min(len(batch) + 1, 3) if len(batch) > 1 else 1
    positions = int(np.prod(x.shape[-ndims:-1]))
    np.testing.assert_allclose(
        conv.inverse_log_det_jacobian(tf.constant(x), ndims),
        np.full(x.shape[: x.ndim - ndims], positions * log_det),
        rtol=1e-10,
    )


def test_conv1x1_starts_as_a_rotation():
    matrix = bijectors.InvertibleConv1x1(6, seed=3, dtype=tf.float64).matrix.numpy()
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(6), atol=1e-12)
    assert np.abs(matrix - np.eye(6)).max() > 0.1
    again = bijectors.InvertibleConv1x1(6, seed=3, dtype=tf.float64).matrix
    np.testing.assert_array_equal(again, matrix)
    other = bijectors.InvertibleConv1x1(6, seed=4, dtype=tf.float64).matrix
    assert np.abs(matrix - other).max() > 0.1


def test_conv1x1_without_a_seed_follows_keras():
    def make():
        keras.utils.set_random_seed(5)
        return bijectors.InvertibleConv1x1(3).matrix.numpy()

    np.testing.assert_array_equal(make(), make())


def test_conv1x1_rotation_is_uniform():
    """Without the sign of QR's diagonal the first column would lean to one side."""
    first = [bijectors.InvertibleConv1x1(2, seed=s).matrix.numpy()[0, 0] for s in range(200)]
    assert abs(np.mean(first)) < 0.15
    assert abs(np.mean(np.square(first)) - 0.5) < 0.1


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: bijectors.ActNorm(2, log_scale=np.ones(1)), "log_scale must have the shape"),
        (lambda: bijectors.ActNorm(2, shift=np.ones([2, 1])), "shift must have the shape"),
        (lambda: bijectors.BatchNorm(2, variance=np.ones(1)), "variance must have the shape"),
        (
            lambda: bijectors.InvertibleConv1x1(
                2, lu=np.eye(3), log_scale=np.zeros(2), sign=np.ones(2), permutation=[0, 1]
            ),
            "lu must have the shape",
        ),
    ],
)
def test_variables_of_another_shape(make, message):
    """They would broadcast, and a log-det miss what they scale."""
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("size", [2.0, True, "2"])
@pytest.mark.parametrize(
    "kind", [bijectors.ActNorm, bijectors.BatchNorm, bijectors.InvertibleConv1x1]
)
def test_sizes_that_are_no_integers(kind, size):
    with pytest.raises(TypeError, match=f"{kind.__name__} '.*': size must be an integer >= 1"):
        kind(size)


def test_a_rate_slows_training_and_nothing_else():
    slow, plain = (bijectors.InvertibleConv1x1(4, seed=3, rate=rate) for rate in (0.25, 1.0))
    np.testing.assert_allclose(slow.matrix, plain.matrix, rtol=1e-6, atol=1e-7)
    for conv in (slow, plain):
        conv.lu.assign_add(tf.fill([4, 4], 0.1 / conv.rate))
        conv.log_scale.assign_add(tf.fill([4], 0.1 / conv.rate))
    np.testing.assert_allclose(slow.matrix, plain.matrix, rtol=1e-5, atol=1e-6)
    x = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    expected = np.linalg.slogdet(slow.matrix.numpy())[1]
    np.testing.assert_allclose(slow.inverse_log_det_jacobian(x, 1), expected, rtol=1e-5)
    np.testing.assert_allclose(slow.forward(slow.inverse(x)), x, rtol=1e-4, atol=1e-5)
    again = saving.rebuild(saving.describe(step=slow))["step"]
    assert again.rate == 0.25
    with pytest.raises(ValueError, match="rate must be"):
        bijectors.InvertibleConv1x1(4, rate=0.0)


def test_conv1x1_arguments():
    with pytest.raises(ValueError, match="InvertibleConv1x1 'c': size must be an integer >= 1"):
        bijectors.InvertibleConv1x1(0, name="c")
    with pytest.raises(ValueError, match="give all of lu, log_scale, sign and permutation"):
        bijectors.InvertibleConv1x1(2, lu=np.eye(2))
    with pytest.raises(ValueError, match="'c': seed must be an integer >= 0, got -1"):
        bijectors.InvertibleConv1x1(2, seed=-1, name="c")


# --- ActNorm and Rescale. ---


def test_actnorm_formula():
    log_scale, shift = rng.normal(size=3), rng.normal(size=3)
    actnorm = bijectors.ActNorm(3, log_scale=log_scale, shift=shift, dtype=tf.float64)
    x = rng.normal(size=(2, 4, 5, 3))
    np.testing.assert_allclose(actnorm.forward(x), x * np.exp(log_scale) + shift, rtol=1e-12)
    np.testing.assert_allclose(
        actnorm.forward_log_det_jacobian(tf.constant(x), 3), [20 * log_scale.sum()] * 2, rtol=1e-12
    )


def test_rescale_formula():
    log_scale = rng.normal(size=(2, 3))
    rescale = bijectors.Rescale([2, 3], log_scale=log_scale, dtype=tf.float64)
    x = rng.normal(size=(4, 2, 3))
    np.testing.assert_allclose(rescale.forward(x), x * np.exp(log_scale), rtol=1e-12)
    np.testing.assert_allclose(
        rescale.inverse_log_det_jacobian(tf.constant(x), 2), [-log_scale.sum()] * 4, rtol=1e-12
    )
    for shape in ([], [None], [2, 0]):
        with pytest.raises(ValueError, match="event_shape must be known and not empty"):
            bijectors.Rescale(shape)


def test_rescale_keeps_the_variable_that_it_is_given():
    positive = tfp.util.TransformedVariable([0.5, 1.0, 2.0], tfb.Softplus())
    x = rng.normal(size=(4, 3)).astype(np.float32)
    for log_scale in (positive, tf.Variable([0.5, 1.0, 2.0])):
        rescale = bijectors.Rescale([3], log_scale=log_scale)
        assert rescale.log_scale is log_scale and rescale.copy(name="b").log_scale is log_scale
        (variable,) = rescale.trainable_variables
        variable.assign_add([1.0, 0.0, 0.0])
        scales = tf.convert_to_tensor(log_scale)
        np.testing.assert_allclose(rescale.forward(x), x * np.exp(scales), rtol=1e-6)
        log_det = rescale.forward_log_det_jacobian(tf.constant(x), 1)
        np.testing.assert_allclose(log_det, [np.sum(scales)] * 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("log_scale", "error", "message"),
    [
        ([0.5], ValueError, r"must have the shape \[3\], got \[1\]"),
        (lambda: tf.Variable(0.5), ValueError, r"shape \[3\], got \[\]"),
        (lambda: tf.Variable(np.zeros(3)), TypeError, "must be float32, got float64"),
        (lambda: keras.Variable(np.zeros(3)), TypeError, "got a keras.Variable. Give its `value`"),
    ],
)
def test_log_scales_that_rescale_refuses(log_scale, error, message):
    """A smaller one would broadcast, and the log-det, a sum over it, be wrong."""
    with pytest.raises(error, match=f"Rescale 'rescale': log_scale .*{message}"):
        bijectors.Rescale([3], log_scale=log_scale() if callable(log_scale) else log_scale)


# --- Factor-out. ---


def inner(dtype=tf.float64):
    return bijectors.InvertibleConv1x1(2, seed=0, dtype=dtype)


def test_factor_out_keeps_all_latents():
    factor_out = bijectors.FactorOut(inner(), [3, 3, 5], num_kept=2)
    y = rng.normal(size=(4, 3, 3, 5))
    x = factor_out.inverse(y)
    np.testing.assert_allclose(x[..., :2], y[..., :2] @ inner().matrix.numpy().T, rtol=1e-10)
    np.testing.assert_array_equal(x[..., 2:], y[..., 2:])
    np.testing.assert_allclose(factor_out.forward(tf.identity(x)), y, rtol=1e-10, atol=1e-12)


def test_factor_out_prior_is_conditional():
    """`y2 | y1` is normal with the mean and scale that the conditioner gives for `y1`."""
    prior = keras.layers.Dense(4, dtype="float64", kernel_initializer="ones")
    factor_out = bijectors.FactorOut(inner(), [4], conditioner=prior)
    x = rng.normal(size=(3, 4))
    y = factor_out.forward(x).numpy()
    y1 = x[:, :2] @ np.linalg.inv(inner().matrix.numpy()).T
    total = y1.sum(axis=1, keepdims=True)
    log_scale = 3.0 * np.tanh(total / 3.0)
    np.testing.assert_allclose(y[:, :2], y1, rtol=1e-10)
    np.testing.assert_allclose(y[:, 2:], x[:, 2:] * np.exp(log_scale) + total, rtol=1e-10)
    np.testing.assert_allclose(
        factor_out.forward_log_det_jacobian(tf.constant(x), 1),
        2.0 * log_scale[:, 0] - np.linalg.slogdet(inner().matrix)[1],
        rtol=1e-10,
        atol=1e-12,
    )


def test_factor_out_inside_factor_out():
    deep = bijectors.FactorOut(bijectors.Rescale([1, 1, 1], log_scale=[[[1.0]]]), [1, 1, 2])
    outer = bijectors.FactorOut(deep, [1, 1, 4])
    y = outer.forward(np.ones((1, 1, 1, 4), np.float32))
    np.testing.assert_allclose(y.numpy().ravel(), [np.e, 1.0, 1.0, 1.0], rtol=1e-6)


def test_factor_out_arguments():
    with pytest.raises(ValueError, match=r"num_kept must be .* below the number of channels \(1\)"):
        bijectors.FactorOut(tfb.Identity(), [4, 4, 1])
    with pytest.raises(ValueError, match=r"number of channels \(4\), got 4"):
        bijectors.FactorOut(tfb.Identity(), [4], num_kept=4)
    with pytest.raises(ValueError, match="num_kept must be an integer.*got 1.5"):
        bijectors.FactorOut(tfb.Identity(), [4], num_kept=1.5)
    for unknown in [None, None, 4], [4.5], [], 4, tf.TensorShape(None), "4":
        with pytest.raises(ValueError, match="FactorOut 'f': event_shape must be known and"):
            bijectors.FactorOut(tfb.Identity(), unknown, name="f")
    with pytest.raises(TypeError, match="FactorOut 'f': expected a tfb.Bijector, got a function"):
        bijectors.FactorOut(lambda x: x, [4], name="f")
    for below in bijectors.ActNorm(3), bijectors.Chain([bijectors.ActNorm(3)]), bijectors.Squeeze():
        with pytest.raises(ValueError, match=r"FactorOut 'f': '.*is for events of shape .*\[2\]"):
            bijectors.FactorOut(below, [4], name="f")
    with pytest.raises(ValueError, match=r"'squeeze' must keep the event shape \[2, 2, 2\], but"):
        bijectors.FactorOut(bijectors.Squeeze(), [2, 2, 4])
    with pytest.raises(ValueError, match=r"must map \[batch, 2\] to \[batch, 4\]"):
        bijectors.FactorOut(inner(tf.float32), [4], conditioner=keras.layers.Dense(2))
    with pytest.raises(TypeError, match="'conv1x1' computes in float64, got dtype=float32"):
        bijectors.FactorOut(inner(), [4], dtype=tf.float32)
    x = np.ones((2, 4))
    np.testing.assert_array_equal(
        bijectors.FactorOut(tfb.Identity(), [4], dtype=tf.float64).forward(x), x
    )


# --- Chain. ---


def test_chain_of_stock_parts_alone():
    parts = [tfb.Shift([1.0, 2.0]), tfb.Permute([1, 0]), tfb.Scale([3.0, -4.0])]
    x = rng.normal(size=(5, 2)).astype(np.float32)
    ours, stock = bijectors.Chain(parts), tfb.Chain(parts)
    np.testing.assert_allclose(ours.forward(x), stock.forward(x), rtol=1e-6)
    np.testing.assert_allclose(
        ours.forward_log_det_jacobian(tf.constant(x), 1), np.full(5, np.log(12.0)), rtol=1e-6
    )


def test_chain_of_stock_parts_in_float64():
    chain = bijectors.Chain([tfb.Softplus(), tfb.Permute([1, 0])], dtype=tf.float64)
    x = np.array([[0.5, -1.0]])
    np.testing.assert_allclose(chain.forward(x), np.log1p(np.exp(x[:, ::-1])), rtol=1e-12)


def test_chain_takes_its_dtype_from_within_containers():
    conv = bijectors.InvertibleConv1x1(2, seed=0, dtype=tf.float64)
    for part in (tfb.Invert(conv), tfb.Chain([tfb.Identity(), conv])):
        assert bijectors.Chain([part, tfb.Identity()]).dtype == tf.float64
    blocks = tfb.Blockwise([conv, tfb.Identity()], block_sizes=[2, 1])
    assert bijectors.Chain([blocks]).forward(np.ones((2, 3))).dtype == tf.float64


def test_chain_with_a_batch_of_parameters():
    """As TFP does it, a batch of parameters makes a batch of log-dets."""
    for scale, x in (([1.0, 2.0, 3.0], 3.0), ([[2.0]], np.zeros((5, 1), np.float32))):
        ours, stock = (c([tfb.Scale(scale), tfb.Exp()]) for c in (bijectors.Chain, tfb.Chain))
        got, wanted = (c.forward_log_det_jacobian(tf.constant(x), 0) for c in (ours, stock))
        np.testing.assert_allclose(got, np.broadcast_to(wanted, got.shape), rtol=1e-6)
        assert got.shape == np.broadcast_shapes(np.shape(scale), np.shape(x))


def test_chain_event_shapes():
    chain = bijectors.Chain([tfb.Reshape([4, 4, 2], [32]), tfb.Identity()])
    assert chain.forward_event_shape([32]) == (4, 4, 2)
    assert chain.inverse_event_shape_tensor([4, 4, 2]).numpy().tolist() == [32]
    chain = bijectors.Chain([tfb.Invert(bijectors.Squeeze()), tfb.Identity()])
    assert chain.forward_event_shape([2, 2, 4]) == (4, 4, 1)
    assert chain.inverse_event_shape([4, 4, 1]) == (2, 2, 4)


def test_chain_arguments():
    with pytest.raises(ValueError, match="Chain 'c': expected at least one bijector, got none"):
        bijectors.Chain([], name="c")
    with pytest.raises(TypeError, match="expected tfb.Bijectors, got a Dense"):
        bijectors.Chain([keras.layers.Dense(2)])
    double = bijectors.Rescale([2], dtype=tf.float64, name="double")
    with pytest.raises(TypeError, match="different dtypes, {'single': 'float32', 'double': 'float"):
        bijectors.Chain([bijectors.Rescale([2], name="single"), double])
    with pytest.raises(TypeError, match="different dtypes, {'double': 'float64', 'itself': "):
        bijectors.Chain([double], dtype=tf.float32)
