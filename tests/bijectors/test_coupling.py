"""Couplings against a slow NumPy reference, and against `tfb.RealNVP`."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, elementwise, masks

tfb, tfd = tfp.bijectors, tfp.distributions
rng = np.random.default_rng(0)


class Recorder(keras.layers.Layer):
    """A linear conditioner of known weights that keeps what it was given."""

    def __init__(self, outputs, seed=0, **kwargs):
        super().__init__(dtype="float64", **kwargs)
        self.outputs, self.seen, self.calls = outputs, [], 0
        self._seed = seed

    def build(self, input_shape):
        n = input_shape[-1]
        values = np.random.default_rng(self._seed).normal(size=(n, self.outputs))
        self.kernel = self.add_weight(shape=(n, self.outputs), initializer="zeros")
        self.kernel.assign(0.3 * values)

    def call(self, x):
        self.calls += 1
        self.seen.append(x)
        return tf.tensordot(x, tf.convert_to_tensor(self.kernel), 1)


def reference(x, mask, kernel, elementwise_map, image_wide):
    """One event at a time, one entry at a time. The kernel acts on the last axis."""
    y, log_det = x.copy(), 0.0
    *positions, channels = mask.shape
    for at in np.ndindex(*positions):
        if image_wide:  # the conditioner sees the whole image, with zeros
            seen = [x[(*at, c)] if mask[(*at, c)] else 0.0 for c in range(channels)]
            changed = list(range(channels))
        else:
            seen = [x[(*at, c)] for c in range(channels) if mask[(*at, c)]]
            changed = [c for c in range(channels) if not mask[(*at, c)]]
        raw = np.asarray(seen) @ kernel
        for k, c in enumerate(changed):
            if mask[(*at, c)]:
                continue
            shift = raw[k]
            s = 0.0
            if elementwise_map == "affine":
                s = 3.0 * np.tanh(raw[len(changed) + k] / 3.0)
            y[(*at, c)] = x[(*at, c)] * np.exp(s) + shift
            log_det += s
    return y, log_det


def image(shape, seed):
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask.flat[0], mask.flat[-1] = True, False
    return mask


MASKS = {
    "halves": masks.halves(5),
    "halves_flipped": masks.halves(5, flip=True),
    "alternating": masks.alternating(6),
    "alternating_flipped": masks.alternating(5, flip=True),
    "explicit": masks.explicit([4, 0, 3], 6),
    "one_passes": masks.explicit([2], 4),
    "integers": np.array([0, 1, 1, 0]),
    "checkerboard": masks.checkerboard([3, 4, 2]),
    "checkerboard_flipped": masks.checkerboard([2, 3, 1], flip=True),
    "channel": masks.channel([2, 3, 5]),
    "channel_flipped": masks.channel([2, 2, 4], flip=True),
    "channels_apart": np.tile([True, False, True, False], (2, 2, 1)),
    "arbitrary_image": image((3, 2, 3), 1),
}


@pytest.mark.parametrize("elementwise_map", ["affine", "shift"])
@pytest.mark.parametrize("name", MASKS)
def test_against_reference(name, elementwise_map):
    mask = np.asarray(MASKS[name]).astype(bool)
    by_channel = (mask.reshape(-1, mask.shape[-1]) == mask.reshape(-1, mask.shape[-1])[0]).all()
    n = int((~mask.reshape(-1, mask.shape[-1])[0]).sum()) if by_channel else mask.shape[-1]
    conditioner = Recorder(n * (2 if elementwise_map == "affine" else 1))
    coupling = bijectors.Coupling(conditioner, MASKS[name], elementwise_map, dtype=tf.float64)
    x = rng.normal(size=(3, *mask.shape))
    y = coupling.forward(x)
    log_det = coupling.forward_log_det_jacobian(tf.constant(x), mask.ndim)
    kernel = conditioner.kernel.numpy()
    for row in range(3):
        wanted, wanted_log_det = reference(x[row], mask, kernel, elementwise_map, not by_channel)
        np.testing.assert_allclose(y[row], wanted, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(log_det[row], wanted_log_det, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(y.numpy()[:, mask], x[:, mask])
    np.testing.assert_allclose(coupling.inverse(tf.identity(y)), x, rtol=1e-10, atol=1e-12)


def test_conditioner_sees_only_what_passes():
    """Not even infinities: 0 * inf would be NaN."""
    mask = masks.checkerboard([2, 2, 1])
    conditioner = Recorder(2)
    coupling = bijectors.Coupling(conditioner, mask, "affine", dtype=tf.float64)
    x = np.where(mask, 1.0, np.inf)[np.newaxis]
    y = coupling.forward(x)
    np.testing.assert_array_equal(conditioner.seen[-1][0], np.where(mask, 1.0, 0.0))
    assert np.isfinite(y.numpy()[:, mask]).all()


def test_vector_halves_touch_only_their_half():
    conditioner = Recorder(4)
    coupling = bijectors.AffineCoupling(conditioner, masks.halves(4), dtype=tf.float64)
    coupling.forward(np.ones((3, 4)))
    assert conditioner.seen[-1].shape == (3, 2)


def test_agrees_with_tfb_real_nvp():
    """An independent implementation with the same weights; TFP masks the first entries."""
    kernel, bias = 0.3 * rng.normal(size=(3, 4)), rng.normal(size=4)
    conditioner = keras.layers.Dense(4, dtype="float64")
    for log_scale in ("exp", "tanh"):
        coupling = bijectors.AffineCoupling(
            conditioner, masks.explicit([0, 1, 2], 5), log_scale=log_scale, dtype=tf.float64
        )
        conditioner.set_weights([kernel, bias])

        def shift_and_log_scale(x, units, log_scale=log_scale, **condition):
            shift, raw = tf.split(tf.matmul(x, kernel) + bias, 2, axis=-1)
            return shift, raw if log_scale == "exp" else 3.0 * tf.tanh(raw / 3.0)

        peer = tfb.RealNVP(num_masked=3, shift_and_log_scale_fn=shift_and_log_scale)
        base = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), [5])
        ours, theirs = (tfd.TransformedDistribution(base, b) for b in (coupling, peer))
        x = tf.constant(rng.normal(size=(6, 5)) * 2.0)
        np.testing.assert_allclose(ours.log_prob(x), theirs.log_prob(x), rtol=1e-12)
        np.testing.assert_allclose(coupling.forward(x), peer.forward(x), rtol=1e-12)
        np.testing.assert_allclose(
            ours.sample(4, seed=[1, 2]), theirs.sample(4, seed=[1, 2]), rtol=1e-12
        )


@pytest.mark.parametrize("traced", [False, True])
def test_one_call_a_layer(traced):
    layers = [Recorder(4, name=f"layer_{n}") for n in range(3)]
    parts = [
        bijectors.AffineCoupling(layer, masks.halves(4, flip=bool(n % 2)), dtype=tf.float64)
        for n, layer in enumerate(layers)
    ]
    base = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), [4])
    x = tf.constant(rng.normal(size=(2, 4)))
    for chain in (bijectors.Chain(parts), tfb.Chain(parts), tfb.Invert(tfb.Chain(parts))):
        distribution = tfd.TransformedDistribution(base, chain)
        for act in (
            lambda d=distribution: d.log_prob(tf.identity(x)),
            lambda d=distribution: d.sample(2, seed=1),
            lambda d=distribution: d.experimental_sample_and_log_prob(2, seed=1),
            lambda c=chain: c.forward_log_det_jacobian(tf.identity(x), 1),
            lambda c=chain: c.inverse_log_det_jacobian(tf.identity(x), 1),
        ):
            for layer in layers:
                layer.calls = 0
            (tf.function(act, autograph=False) if traced else act)()
            assert [layer.calls for layer in layers] == [1, 1, 1]


def test_shared_conditioner():
    """One network in two couplings: each variable counts once, everywhere."""
    shared = Recorder(4)
    chain = bijectors.Chain(
        [
            bijectors.AffineCoupling(shared, masks.halves(4, flip=flip), dtype=tf.float64)
            for flip in (False, True)
        ]
    )
    assert len(chain.trainable_variables) == len(tfb.Invert(chain).trainable_variables) == 1
    x = rng.normal(size=(3, 4))
    np.testing.assert_allclose(chain.inverse(tf.identity(chain.forward(x))), x, rtol=1e-10)


def test_batch_ranks_and_seeds():
    def make():
        conditioner = conditioners.ConvNet(4, filters=4, zero_output=False, seed=3)
        return bijectors.AffineCoupling(conditioner, masks.channel([2, 2, 4]))

    coupling, again = make(), make()
    x = tf.random.stateless_normal([3, 5, 2, 2, 4], seed=[0, 0])
    y, log_det = coupling.forward(x), coupling.forward_log_det_jacobian(x, 3)
    assert y.shape == x.shape and log_det.shape == (3, 5)
    np.testing.assert_array_equal(again.forward(x), y)
    np.testing.assert_allclose(coupling.forward(tf.identity(x[1, 2])), y[1, 2], rtol=1e-5)
    assert coupling.forward_log_det_jacobian(tf.identity(x[0, 0]), 3).shape == ()
    np.testing.assert_allclose(
        coupling.forward_log_det_jacobian(x, 4), tf.reduce_sum(log_det, 1), rtol=1e-5
    )


# --- What is refused. ---


@pytest.mark.parametrize("units", [1, 3, 8])
def test_conditioner_of_the_wrong_size(units):
    with pytest.raises(
        ValueError,
        match=rf"AffineCoupling 'c': its conditioner 'net' must map \[batch, 2\] to \[batch, 4\], "
        rf"but gives \[batch, {units}\]. Set the size of its output",
    ):
        bijectors.AffineCoupling(keras.layers.Dense(units, name="net"), masks.halves(4), name="c")


def test_image_conditioner_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"\[batch, 4, 4, 2\] to \[batch, 4, 4, 4\], but gives"):
        bijectors.AffineCoupling(keras.layers.Conv2D(4, 3), masks.checkerboard([4, 4, 2]))


@pytest.mark.parametrize(
    ("layer", "mask", "kwargs", "message"),
    [
        (
            conditioners.MLP(4, name="net"),
            masks.checkerboard([4, 4, 2]),
            {},
            r"\[batch, 4, 4, 2\]: MLP 'net': expected .*For images take ConvNet or ResNet",
        ),
        (
            conditioners.ConvNet(4, filters=8, name="net"),
            masks.halves(4),
            {},
            r"\[batch, 2\]: ConvNet 'net': expected .*For vectors take MLP",
        ),
        (keras.layers.Conv2D(4, 3, name="net"), masks.halves(4), {}, r"\[batch, 2\]: Input 0"),
        (
            conditioners.MLP(4, name="net"),
            masks.halves(4),
            {"context_size": 3},
            r"\[batch, 2\] with a context \[batch, 3\]: MLP 'net': got a context .* built without",
        ),
        (
            keras.layers.Dense(4, name="net"),
            masks.halves(4),
            {"context_size": 3},
            r"\[batch, 2\] with a context \[batch, 3\]: Layer \"net\" expects 1 input",
        ),
    ],
)
def test_conditioner_that_takes_something_else(layer, mask, kwargs, message):
    with pytest.raises(
        ValueError, match=f"^Coupling 'c': its conditioner 'net' does not take {message}"
    ) as raised:
        bijectors.Coupling(layer, mask, name="c", **kwargs)
    assert "\x1b" not in str(raised.value), "Keras's escape codes"


def test_conditioner_that_is_no_layer():
    with pytest.raises(TypeError, match="must be a keras.layers.Layer .*got function"):
        bijectors.AffineCoupling(lambda x: x, masks.halves(4))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(4, bool), "the mask transforms nothing: all 4 entries are True"),
        (np.zeros((2, 2, 1), bool), "passes nothing through: all 4 entries are False"),
        (np.array([0, 1, 2]), "expected a Boolean mask, got int64 with entries that are neither"),
        (np.eye(2)[None, None], r"expected a mask of the event shape, .* got shape \[1, 1, 2, 2\]"),
    ],
)
def test_masks_that_are_refused(mask, message):
    with pytest.raises(ValueError, match=f"Coupling 'coupling': .*{message}"):
        bijectors.Coupling(keras.layers.Dense(2), mask)


def test_wrong_arguments():
    coupling = bijectors.AffineCoupling(keras.layers.Dense(4), masks.halves(4), name="c")
    x = np.zeros((3, 4), np.float32)
    for act in (coupling.forward, coupling.inverse):
        direction = act.__name__
        with pytest.raises(ValueError, match=rf"'c'.{direction}: expected shape \[\.\.\., 4\]"):
            act(x[:, :3])
        with pytest.raises(ValueError, match=r"expected shape \[\.\.\., 4\], got \[\]"):
            act(np.float32(0.0))
        for dtype in (np.float64, np.int32, np.float16):
            with pytest.raises(TypeError, match="expected float32, got .*Cast the argument"):
                act(x.astype(dtype))
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got bfloat16"):
        bijectors.AffineCoupling(keras.layers.Dense(4), masks.halves(4), dtype=tf.bfloat16)


def test_elementwise_by_name_and_object():
    by_name = bijectors.Coupling(keras.layers.Dense(4), masks.halves(4), "affine")
    assert by_name.elementwise == elementwise.Affine()
    with pytest.raises(ValueError, match="expected one of 'shift', 'affine'"):
        bijectors.Coupling(keras.layers.Dense(4), masks.halves(4), "affin")
