"""Planar, radial and Sylvester flows against closed forms and SciPy."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, conditioners, flows, objectives

tfb = tfp.bijectors
F64 = tf.float64


def softplus(x):
    return np.logaddexp(0.0, x)


def planar_formula(x, w, u, b):
    """Rezende and Mohamed's equation 10 with the bent u."""
    s = w @ u
    m = 0.999 * softplus(s + np.log(np.e - 1)) + 0.001 - 1
    bent = u + (m - s) * w / (w @ w)
    return x + bent * np.tanh(x @ w + b)[:, None], bent


def test_planar_is_the_formula():
    rng = np.random.default_rng(0)
    x, w, u = rng.normal(size=(5, 3)), rng.normal(size=3), 2.0 * rng.normal(size=3)
    planar = bijectors.Planar(3, w=w, u=u, b=0.3, dtype=F64)
    wanted, bent = planar_formula(x, w, u, 0.3)
    np.testing.assert_allclose(planar.forward(x), wanted, rtol=1e-12)
    slope = 1 + (w @ bent) / np.cosh(x @ w + 0.3) ** 2
    np.testing.assert_allclose(planar.forward_log_det_jacobian(x), np.log(slope), rtol=1e-10)


@pytest.mark.parametrize("size", [-50.0, -1.0, 0.0, 1.0, 50.0])
def test_planar_is_a_bijection_whatever_its_parameters(size):
    """Where u points against w, far out and for a scalar, whose root SciPy finds as well."""
    planar = bijectors.Planar(1, w=[2.0], u=[size], b=-0.5, dtype=F64)
    y = np.array([[-1e3], [-3.0], [0.0], [0.1], [1e3]])
    x = planar.inverse(y).numpy()
    np.testing.assert_allclose(planar.forward(tf.identity(x)), y, rtol=0, atol=1e-12 * 1e3)

    def residual(point, wanted):
        return planar.forward(np.array([[point]])).numpy()[0, 0] - wanted

    roots = [
        scipy.optimize.brentq(residual, v - 99, v + 99, args=(v,), xtol=1e-14) for v in y[:, 0]
    ]
    np.testing.assert_allclose(x[:, 0], roots, rtol=1e-12, atol=1e-10)


def test_planar_without_a_direction_is_a_shift():
    planar = bijectors.Planar(2, w=[0.0, 0.0], u=[1.0, 2.0], b=0.5)
    variables = planar.trainable_variables
    with tf.GradientTape() as tape:
        y = planar.forward(tf.zeros([1, 2]))
        total = tf.reduce_sum(y) + tf.reduce_sum(planar.forward_log_det_jacobian(tf.zeros([1, 2])))
    np.testing.assert_allclose(y[0], np.tanh(0.5) * np.array([1.0, 2.0]), rtol=1e-6)
    assert all(np.isfinite(g.numpy()).all() for g in tape.gradient(total, variables))


def make_planar(**kwargs):
    return bijectors.Planar(3, u=[-1.0, 2.0, 0.5], b=0.2, seed=1, dtype=F64, **kwargs)


def make_sylvester(**kwargs):
    r = [0.9, -0.5, 0.3, 0.7, -1.5, 0.2]
    return bijectors.Sylvester(3, r=r, num_directions=3, seed=1, dtype=F64, **kwargs)


@pytest.mark.parametrize("make", [make_planar, make_sylvester])
def test_gradients_of_the_inverse_are_those_of_the_solution(make):
    """By the parameters against differences, and second ones by the argument."""
    bijector, y = make(), tf.constant(np.random.default_rng(2).normal(size=(2, 3)), F64)
    weights = tf.constant(np.random.default_rng(3).normal(size=(2, 3)), F64)

    def value():
        return tf.reduce_sum(weights * bijector.inverse(tf.identity(y)))

    variables = bijector.trainable_variables
    with tf.GradientTape() as tape:
        target = value()
    for variable, gradient in zip(variables, tape.gradient(target, variables), strict=True):
        kept = variable.numpy()
        direction = np.random.default_rng(4).normal(size=kept.shape)
        ends = []
        for step in (1e-5, -1e-5):
            variable.assign(kept + step * direction)
            ends.append(value().numpy())
        variable.assign(kept)
        wanted = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(np.sum(gradient * direction), wanted, rtol=1e-6, atol=1e-8)

    def slope(point):
        with tf.GradientTape() as tape:
            tape.watch(point)
            target = tf.reduce_sum(weights * bijector.inverse(point))
        return tape.gradient(target, point)

    with tf.GradientTape() as tape:
        tape.watch(y)
        first = slope(y)[:, 0]
    second = tape.gradient(first, y)
    step = 1e-5 * np.eye(3)[1]
    wanted = (slope(y + step)[:, 0] - slope(y - step)[:, 0]) / 2e-5
    np.testing.assert_allclose(second[:, 1], wanted, rtol=1e-6, atol=1e-8)


def test_radial_is_the_formula():
    rng = np.random.default_rng(0)
    x, center = rng.normal(size=(6, 3)), rng.normal(size=3)
    x[0] = center
    radial = bijectors.Radial(3, center=center, alpha=0.3, beta=-2.0, dtype=F64)
    a = softplus(0.3 + np.log(np.e - 1))
    b = a * (softplus(-2.0 + np.log(np.e - 1)) - 1)
    h = 1 / (a + np.linalg.norm(x - center, axis=1, keepdims=True))
    y = radial.forward(x)
    np.testing.assert_allclose(y, x + b * h * (x - center), rtol=1e-12)
    np.testing.assert_allclose(radial.inverse(tf.identity(y)), x, rtol=1e-12, atol=1e-15)
    assert radial.solved_direction is None
    far = np.full((1, 3), 1e8)
    np.testing.assert_allclose(radial.inverse(radial.forward(far) + 0.0), far, rtol=1e-14)


def test_sylvester_of_one_direction_is_planar():
    """With u along w."""
    q = np.array([[0.6], [0.8]])
    sylvester = bijectors.Sylvester(2, num_directions=1, q=q, r=[0.4], s=[-1.1], b=[0.2], dtype=F64)
    bound = np.sqrt(0.999)
    r, s = bound * np.tanh(0.4), bound * np.tanh(-1.1)
    x = np.random.default_rng(0).normal(size=(5, 2))
    pre = s * (x @ q) + 0.2
    np.testing.assert_allclose(sylvester.forward(x), x + r * np.tanh(pre) @ q.T, rtol=1e-12)
    log_det = np.log(1 + r * s / np.cosh(pre[:, 0]) ** 2)
    np.testing.assert_allclose(sylvester.forward_log_det_jacobian(x), log_det, rtol=1e-10)


@pytest.mark.parametrize(
    "kwargs", [{"num_directions": 3}, {"kind": "householder"}, {"kind": "triangular"}]
)
def test_sylvester_far_out_and_steep(kwargs):
    """Raw parameters of 50, where its diagonals are at their bounds."""
    rng = np.random.default_rng(0)
    sylvester = bijectors.Sylvester(4, seed=0, dtype=F64, **kwargs)
    for variable in sylvester.trainable_variables:
        if "/q" not in variable.name:
            variable.assign(50.0 * rng.choice([-1.0, 1.0], size=variable.shape))
    x = 1e3 * rng.uniform(-1, 1, size=(20, 4))
    back = sylvester.inverse(tf.identity(sylvester.forward(x)))
    # Each entry multiplies the error of those after it by up to 50 / 0.001.
    assert np.isfinite(back).all() and np.median(abs(back - x)) < 1e-9


def test_orthonormal_columns_move_without_jumps():
    """A sign of LAPACK's jumps where an entry of the matrix changes its own."""
    r = [0.9, 0.5, 0.7]
    starts = [[[e, 1.0], [1.0, 0.5], [0.3, -1.0]] for e in (1e-9, -1e-9)]
    x = tf.constant([[0.3, -0.2, 0.8]], F64)
    values = [
        bijectors.Sylvester(3, q=q, r=r, b=[0.5, -0.3], num_directions=2, seed=0, dtype=F64)
        .forward(x)
        .numpy()
        for q in starts
    ]
    np.testing.assert_allclose(*values, atol=1e-7)


@pytest.mark.parametrize("recipe", [flows.planar, flows.sylvester])
@pytest.mark.parametrize("closed", ["forward", "inverse"])
def test_recipes(recipe, closed):
    flow = recipe([3], num_layers=2, closed=closed, base="logistic", context_size=2, seed=0)
    base = tfp.distributions.Independent(tfp.distributions.Logistic(tf.zeros(3), 1.0), 1)
    x, context = tf.random.stateless_normal([4, 3], [0, 1]), tf.ones([4, 2])
    # A fresh one is its base.
    np.testing.assert_allclose(flow.log_prob(x, context=context), base.log_prob(x), rtol=1e-5)
    lines = []
    model = FlowModel(flow)
    model.summary(print_fn=lines.append)
    solves = "log_prob solves" if closed == "forward" else "sample solves"
    assert sum(solves in line for line in lines) == 2
    assert model.sample(4, seed=0, context=context).shape == (4, 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bijectors.Planar(0), "size must be an integer >= 1, got 0"),
        (lambda: bijectors.Planar(2, w=[1.0]), r"w must have the shape \[2\], got \[1\]"),
        (lambda: bijectors.Planar(2, context_size=3), "go together, got no conditioner"),
        (lambda: bijectors.Radial(2, conditioner=conditioners.MLP(4)), "got no context_size"),
        (
            lambda: bijectors.Planar(2, conditioner=conditioners.MLP(4), context_size=3),
            r"must map \[batch, 3\] to \[batch, 5\], but gives \[batch, 4\]",
        ),
        (
            lambda: bijectors.Planar(2, conditioner=conditioners.MLP(5), context_size=[3, 1]),
            "expected a context that is a vector",
        ),
        (lambda: bijectors.Sylvester(2, num_directions=3), "at most the size 2 of an event, got 3"),
        (lambda: bijectors.Sylvester(2, kind="qr"), "kind must be one of"),
        (lambda: bijectors.Sylvester(2, flip=True), "flip is for kind='triangular'"),
        (lambda: bijectors.Sylvester(2, kind="triangular", q=[1.0]), "has no q"),
        (lambda: flows.planar([2, 2, 1]), r"event_shape must be \[D\]"),
        (lambda: flows.planar([2], hidden_units=(4,)), "and no context_size"),
        (lambda: flows.planar([2], closed="both"), "closed must be one of"),
    ],
)
def test_bad_input(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


class NoInverse(bijectors.FlowBijector):
    """x + tanh(x) / 2 and no word on how back."""

    def __init__(self, **kwargs):
        super().__init__(event_shape=[2], **kwargs)

    def _forward_and_log_det(self, x, context):
        y = tf.tanh(x)
        return x + 0.5 * y, tf.reduce_sum(tf.math.log(1.5 - 0.5 * y**2), axis=-1)

    def _inverse_and_log_det(self, y, context):
        raise NotImplementedError("NoInverse has no inverse: sample from it.")


def test_a_direction_that_is_refused(tmp_path):
    """The model says so, samples, trains by what it has, and exports that alone."""
    base = tfp.distributions.MultivariateNormalDiag(tf.Variable([0.0, 0.0]), [1.0, 1.0])
    flow = tfp.distributions.TransformedDistribution(base, NoInverse())
    target = objectives.ReverseKL(tfp.distributions.MultivariateNormalDiag([1.0, 2.0]))
    model = FlowModel(flow, objective=target)
    model.compile(optimizer=keras.optimizers.SGD(0.1))
    first, last = model.fit(steps_per_epoch=20, epochs=2, verbose=0).history["loss"]
    assert last < first
    with pytest.raises(NotImplementedError, match="NoInverse has no inverse"):
        model.log_prob(tf.zeros([1, 2]))
    model.export(tmp_path / "served")
    loaded = tf.saved_model.load(tmp_path / "served")
    assert sorted(loaded.signatures) == ["forward", "sample", "sample_and_log_prob"]
    samples = loaded.sample(tf.constant(3), tf.constant([0, 1]))["samples"]
    np.testing.assert_allclose(samples, model.sample(3, seed=[0, 1]), rtol=1e-6)


def test_repeated_layers_start_from_draws_of_their_own():
    """But from what they were given, and from fixed starts, as the first one."""
    for layer, drawn in (
        (bijectors.Planar(2, seed=0), "w"),
        (bijectors.Radial(2, seed=0), "center"),
        (bijectors.Sylvester(2, seed=0), "s q"),
    ):
        repeat = bijectors.Repeat(layer, 2)
        for stack in repeat.variables:
            first, second = stack.numpy()
            name = stack.name.split(":")[0].rpartition("/")[-1]
            assert np.array_equal(first, second) == (name not in drawn.split()), stack.name
    given = bijectors.Repeat(bijectors.Planar(2, w=[1.0, 2.0]), 2)
    (w,) = (stack for stack in given.variables if "/w" in stack.name)
    np.testing.assert_array_equal(w, [[1.0, 2.0]] * 2)


@pytest.mark.parametrize("make", [bijectors.Planar, bijectors.Radial, bijectors.Sylvester])
def test_seeds_are_checked(make):
    with pytest.raises(TypeError, match="seed must be an integer >= 0, got 'a' of type str"):
        make(2, seed="a")


def test_gradients_in_a_loop_are_those_without():
    x = tf.constant(np.random.default_rng(0).normal(size=(3, 2)))
    flow = bijectors.Sylvester(2, r=[0.5, -0.3, 0.4], seed=0, dtype=tf.float64)

    @tf.function(autograph=False)
    def gradients(in_loop):
        with tf.GradientTape() as tape:
            if in_loop:
                _, y = tf.while_loop(
                    lambda n, _: n < 2, lambda n, v: (n + 1, flow.inverse(v)), (0, x)
                )
            else:
                y = flow.inverse(flow.inverse(x))
            total = tf.reduce_sum(y**2)
        return tape.gradient(total, flow.trainable_variables)

    for found, wanted in zip(gradients(True), gradients(False), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
