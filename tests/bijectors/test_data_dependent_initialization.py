"""ActNorm's first batch."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, flows

tfb, tfd = tfp.bijectors, tfp.distributions
initialize = bijectors.data_dependent_initialization

rng = np.random.default_rng(0)
X = rng.normal(size=(64, 3)) * [0.1, 1.0, 30.0] + [5.0, 0.0, -100.0]


def normalized(z):
    z = np.asarray(z).reshape(-1, np.shape(z)[-1])
    np.testing.assert_allclose(z.mean(axis=0), 0.0, atol=1e-9)
    np.testing.assert_allclose(z.var(axis=0), 1.0, atol=1e-4)


def actnorm(**kwargs):
    return bijectors.ActNorm(3, dtype=tf.float64, epsilon=1e-12, **kwargs)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("shape", [(64, 3), (4, 2, 8, 3), (2, 2, 16, 3)])
def test_zero_mean_and_unit_variance(direction, shape):
    bijector, x = actnorm(), tf.constant(X.reshape(shape))
    assert not bijector.initialized.numpy()
    with initialize():
        normalized(getattr(bijector, direction)(x))
    assert bijector.initialized.numpy()
    normalized(getattr(bijector, direction)(tf.identity(x)))


@pytest.mark.parametrize(
    "wrap", ["Invert", "Invert of Invert", "tfb.Chain", "Chain", "Invert Chain"]
)
def test_through_containers(wrap):
    bijector = actnorm()
    container = {
        "Invert": tfb.Invert(bijector),
        "Invert of Invert": tfb.Invert(tfb.Invert(bijector)),
        "tfb.Chain": tfb.Chain([bijector]),
        "Chain": bijectors.Chain([bijector]),
        "Invert Chain": tfb.Invert(bijectors.Chain([bijector])),
    }[wrap]
    with initialize():
        container.inverse(tf.constant(X))
    normalized(container.inverse(tf.constant(X)))


def test_each_of_a_chain_sees_what_the_others_put_out():
    parts = [actnorm(name="a"), tfb.Sinh(), actnorm(name="b")]
    distribution = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), [3]), bijectors.Chain(parts[::-1])
    )
    x = tf.constant(X)
    with initialize():
        distribution.log_prob(x)
    normalized(parts[2].inverse(x))
    normalized(distribution.bijector.inverse(tf.identity(x)))


def test_second_time_changes_nothing():
    bijector = actnorm()
    with initialize():
        bijector.inverse(tf.constant(X))
    before = [v.numpy() for v in bijector.variables]
    with initialize():
        bijector.inverse(tf.constant(2.0 * X + 1.0))
    for a, b in zip(before, bijector.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_nothing_without_the_context_manager():
    bijector = actnorm()
    bijector.inverse(tf.constant(X))
    tf.function(bijector.forward)(tf.constant(X))
    assert not bijector.initialized.numpy()
    np.testing.assert_array_equal(bijector.forward(tf.constant(X)), X)


def test_restored_from_a_checkpoint(tmp_path):
    bijector = actnorm()
    with initialize():
        bijector.inverse(tf.constant(X))
    path = tf.train.Checkpoint(root=bijector).write(str(tmp_path / "c"))
    other = actnorm()
    tf.train.Checkpoint(root=other).read(path).assert_consumed()
    with initialize():
        other.inverse(tf.constant(2.0 * X + 1.0))
    for a, b in zip(bijector.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_copies_and_clones():
    bijector = actnorm()
    copy = bijector.copy()
    with initialize():
        bijector.inverse(tf.constant(X))
    assert copy.initialized.numpy()
    normalized(copy.inverse(tf.constant(X)))
    assert not actnorm().initialized.numpy(), "two actnorms share nothing"


def test_inside_tf_function_raises():
    bijector = actnorm()
    with initialize(), pytest.raises(RuntimeError, match="eager mode only"):
        tf.function(bijector.inverse, autograph=False)(tf.constant(X))
    assert not bijector.initialized.numpy()

    @tf.function(autograph=False)
    def inside(x):
        with initialize():
            return bijector.inverse(x)

    with pytest.raises(RuntimeError, match="eager mode only"):
        inside(tf.constant(X))
    normalized_before = bijector.inverse(tf.constant(X))  # and the manager was left properly
    np.testing.assert_array_equal(normalized_before, X)


def test_nesting_raises():
    with initialize(), pytest.raises(RuntimeError, match="do not nest"), initialize():
        pass
    with initialize():
        pass


@pytest.mark.parametrize("bad", [np.nan, np.inf, "empty"])
def test_batch_without_moments(bad):
    x = X[:0] if bad == "empty" else np.where(np.arange(64)[:, np.newaxis] == 3, bad, X)
    bijector = actnorm(name="first")
    with initialize(), pytest.raises(ValueError, match="ActNorm 'first': cannot be initialised"):
        bijector.inverse(tf.constant(x))
    assert not bijector.initialized.numpy()
    np.testing.assert_array_equal(bijector.shift, np.zeros(3))


@pytest.mark.parametrize("make", [bijectors.ActNorm, bijectors.BatchNorm])
def test_single_position_has_no_variance(make):
    bijector = make(3, name="first")
    with initialize(), pytest.raises(ValueError, match="'first': cannot be .*Initialise from more"):
        bijector.inverse(tf.constant(X[:1], tf.float32))
    assert not bijector.initialized.numpy()
    with initialize():
        bijector.inverse(tf.constant(X, tf.float32))
        bijector.inverse(tf.constant(X[:1], tf.float32))  # It is not set again.
    assert bijector.initialized.numpy()


def test_batch_norm_refuses_a_batch_without_moments():
    bijector = bijectors.BatchNorm(3)
    with initialize(), pytest.raises(ValueError, match="not finite"):
        bijector.inverse(tf.fill([4, 3], np.nan))
    np.testing.assert_array_equal(bijector.mean, np.zeros(3))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_channel_starts_with_scale_one(dtype, direction):
    x = rng.normal(size=(99, 4)) * 3.0 + 1.0
    x[:, 1] = 0.0
    # A constant in units of 0.1 whose sum is rounded, and one that a computation has rounded.
    x[:, 2] = 12345.1
    x = x.astype(dtype)
    x[::2, 2] = np.nextafter(x[0, 2], np.inf, dtype=dtype)
    x[:, 3] = 0.1
    bijector = bijectors.ActNorm(4, dtype=dtype, name="a")
    with (
        initialize(),
        pytest.warns(
            UserWarning,
            match=r"ActNorm 'a': 3 of its 4 channels are constant.*\(channel \[1, 2, 3\]\)",
        ),
    ):
        z = getattr(bijector, direction)(tf.constant(x)).numpy()
    np.testing.assert_array_equal(bijector.log_scale.numpy()[1:], 0.0)
    np.testing.assert_allclose(z[:, 1:], 0.0, atol=1e-2)
    np.testing.assert_allclose(z[:, 0].std(), 1.0, rtol=1e-4)


def test_channels_that_hardly_vary_are_not_constant(recwarn):
    x = 1.0 + 1e-5 * rng.normal(size=(99, 1))
    bijector = bijectors.ActNorm(1)
    with initialize():
        z = bijector.inverse(tf.constant(x, tf.float32))
    assert 0.8 < z.numpy().std() < 1.0
    assert not [w for w in recwarn if "constant" in str(w.message)]


def test_images_with_a_black_border_start_sanely():
    x = np.zeros((64, 8, 8, 1), "float32")
    x[:, 2:-2, 2:-2] = rng.normal(size=(64, 4, 4, 1))
    model = FlowModel(flows.real_nvp(x.shape[1:], num_blocks=1, filters=4, seed=0))
    model.initialize(x)
    assert np.abs(model.log_prob(x)).max() < 1e4
    constant = np.full_like(x, 0.3)
    model = FlowModel(flows.glow(x.shape[1:], num_levels=2, num_steps=2, hidden_filters=4, seed=0))
    with pytest.warns(UserWarning, match="constant"):
        model.initialize(constant)
    assert np.abs(model.log_prob(constant)).max() < 1e4


def test_moments_of_several_workers_are_exact():
    """Sums over two halves of very different scale, as two workers would reduce them."""
    halves = [tf.constant(X[:10]), tf.constant(X[10:] * 4.0 + 2.0)]
    whole = np.concatenate(halves)
    sums = iter(
        [
            float(len(whole)),
            whole.sum(axis=0),
            ((whole - whole.mean(axis=0)) ** 2).sum(axis=0),
        ]
    )
    bijector = actnorm()
    with initialize(lambda local: tf.constant(next(sums), tf.float64)):
        bijector.inverse(halves[0])
    normalized(bijector.inverse(tf.constant(whole)))


def test_arguments():
    with pytest.raises(ValueError, match="ActNorm 'a': size must be an integer >= 1, got 0"):
        bijectors.ActNorm(0, name="a")
    with pytest.raises(TypeError, match="size must be an integer >= 1, got 2.5"):
        bijectors.ActNorm(2.5)
    with pytest.raises(ValueError, match="epsilon must be positive and finite, got 0"):
        bijectors.ActNorm(2, epsilon=0)


# --- Through FlowModel. ---


def glow():
    return flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4, seed=0)


def statistics_of(distribution, x):
    """What every ActNorm of a Glow puts out, by walking its levels."""
    out = []

    def walk(bijector, value):
        if isinstance(bijector, bijectors.Chain):
            for part in bijector.bijectors:
                value = walk(part, value)
            return value
        if isinstance(bijector, bijectors.FactorOut):
            walk(bijector.bijector, bijector.split(value)[0])
        value = bijector.inverse(tf.identity(value))
        if isinstance(bijector, bijectors.ActNorm):
            out.append(value.numpy().reshape(-1, value.shape[-1]))
        return value

    walk(distribution.bijector, tf.constant(x))
    return out


def test_model_initializes_every_actnorm():
    x = rng.normal(size=(128, 4, 4, 1)).astype("float32") * 9.0 + 3.0
    model = FlowModel(glow())
    with pytest.raises(ValueError, match="2 parts were never initialised from data.*'actnorm_1_0'"):
        model.log_prob(x)
    with pytest.raises(ValueError, match="FlowModel.sample: 2 parts were never initialised"):
        model.sample(1)
    model.initialize(x)
    outputs = statistics_of(model.distribution, x)
    assert len(outputs) == 2
    for out in outputs:
        np.testing.assert_allclose(out.mean(axis=0), 0.0, atol=1e-4)
        np.testing.assert_allclose(out.std(axis=0), 1.0, atol=1e-4)
    before = [v.numpy() for v in model.variables]
    model.initialize(10.0 * x)
    for a, b in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_weights_file_carries_the_flag(tmp_path):
    x = rng.normal(size=(32, 4, 4, 1)).astype("float32")
    model = FlowModel(glow())
    model.initialize(x)
    model.save_weights(tmp_path / "m.weights.h5")
    other = FlowModel(glow())
    other.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(other.log_prob(x), model.log_prob(x))
    other.initialize(10.0 * x)
    np.testing.assert_array_equal(other.log_prob(x), model.log_prob(x))


def test_fit_initializes_from_the_training_part_alone():
    """Of 600 rows the last half, held out by `validation_split`, is far away."""
    x = np.concatenate([rng.normal(size=(300, 3)), 1e4 + rng.normal(size=(300, 3))])
    bijector = bijectors.ActNorm(3)
    distribution = tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [3]), bijector)
    model = FlowModel(distribution)
    model.compile(optimizer="sgd")
    model.optimizer.learning_rate.assign(0.0)
    model.fit(x.astype("float32"), validation_split=0.5, verbose=0)
    np.testing.assert_allclose(bijector.shift, x[:300].mean(axis=0), atol=1e-3)
