"""The recipes: shapes, seeds, what a fresh flow is, and that densities are normalized."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from drawn import perturbed

from tfp_flows import FlowModel, bijectors, elementwise, flows

tfb, tfd = tfp.bijectors, tfp.distributions
rng = np.random.default_rng(0)

VECTOR = {"hidden_units": (6,), "seed": 0}
IMAGE = {"num_blocks": 1, "filters": 4, "seed": 0}
GLOW = {"num_steps": 1, "hidden_filters": 4, "seed": 0}

RECIPES = {
    "nice": (flows.nice, [5], {"num_couplings": 3, **VECTOR}),
    "nice_image": (flows.nice, [2, 3, 1], {"num_couplings": 3, **VECTOR}),
    "real_nvp": (flows.real_nvp, [5], {"num_couplings": 3, **VECTOR}),
    "real_nvp_alternating": (flows.real_nvp, [5], {"mask": "alternating", **VECTOR}),
    "real_nvp_spline": (
        flows.real_nvp,
        [4],
        {"elementwise": "rational_quadratic_spline", "num_bins": 4, **VECTOR},
    ),
    "real_nvp_image": (flows.real_nvp, [4, 4, 2], {"num_scales": 2, **IMAGE}),
    "real_nvp_odd_image": (flows.real_nvp, [3, 5, 1], {"num_scales": 1, **IMAGE}),
    "macow": (flows.macow, [4, 8, 1], {"num_levels": 2, **GLOW}),
    "jet": (
        flows.jet,
        [4, 6, 1],
        {"patch_size": 2, "num_couplings": 5, "num_layers": 1, "width": 8, "seed": 0},
    ),
    "glow": (flows.glow, [4, 8, 1], {"num_levels": 2, **GLOW}),
    "glow_additive": (flows.glow, [2, 2, 3], {"num_levels": 1, "coupling": "additive", **GLOW}),
}


def build(name, **kwargs):
    recipe, shape, arguments = RECIPES[name]
    return recipe(shape, **{**arguments, **kwargs})


@pytest.mark.parametrize("name", RECIPES)
def test_shapes_and_round_trip(name):
    flow = perturbed(build(name, dtype=tf.float64), 0.1)
    shape = tuple(RECIPES[name][1])
    assert isinstance(flow, tfd.Distribution)
    assert flow.event_shape == shape and flow.batch_shape == ()
    assert flow.dtype == tf.float64 and name.startswith(flow.name)
    x = flow.sample(3, seed=1)
    assert x.shape == (3, *shape)
    assert flow.log_prob(x).shape == (3,)
    assert flow.log_prob(tf.identity(x[0])).shape == ()
    z = flow.bijector.inverse(tf.identity(x))
    assert z.shape == (3, *flow.distribution.event_shape)
    np.testing.assert_allclose(flow.bijector.forward(tf.identity(z)), x, rtol=1e-8, atol=1e-8)
    wanted = flow.distribution.log_prob(z) + flow.bijector.inverse_log_det_jacobian(
        tf.identity(x), len(shape)
    )
    np.testing.assert_allclose(flow.log_prob(tf.identity(x)), wanted, rtol=1e-10)


@pytest.mark.parametrize("name", RECIPES)
def test_seeds(name):
    def values(**kwargs):
        return [v.numpy() for v in build(name, **kwargs).variables]

    first, again, other = values(), values(), values(seed=1)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    differ = [not np.array_equal(a, b) for a, b in zip(first, other, strict=True)]
    # Kernels differ; biases, zero layers and ActNorms do not.
    assert sum(differ) >= 3


def test_no_two_networks_start_alike():
    flow = build("real_nvp", num_couplings=4)
    kernels = [v.numpy() for v in flow.trainable_variables if "kernel_0" in v.name]
    kernels = [k for k in kernels if k.shape == kernels[0].shape]
    assert len(kernels) >= 2
    for n, a in enumerate(kernels):
        assert not any(np.allclose(a, b) for b in kernels[:n])


@pytest.mark.parametrize("seed, error", [(-1, ValueError), (1.5, TypeError), ("a", TypeError)])
def test_seeds_that_are_refused(seed, error):
    def maf(**kwargs):
        return flows.maf([4], num_layers=1, hidden_units=(8,), **kwargs)

    makes = {name: functools.partial(build, name) for name in ("nice", "real_nvp", "glow")}
    for name, make in {**makes, "maf": maf}.items():
        message = f"flows.{name}: seed must be an integer >= 0 or None, got {seed!r}"
        with pytest.raises(error, match=message):
            make(seed=seed)


def test_without_a_seed_keras_decides():
    def value():
        keras.utils.set_random_seed(3)
        flow = flows.glow([4, 4, 1], num_levels=2, num_steps=1, hidden_filters=4)
        return [v.numpy() for v in flow.variables]

    for a, b in zip(value(), value(), strict=True):
        np.testing.assert_array_equal(a, b)


# --- A fresh flow. ---


@pytest.mark.parametrize("name", RECIPES)
def test_identity_at_the_start(name):
    """Up to permutations and rotations, which a normal base does not see."""
    flow = build(name, dtype=tf.float64, base="normal")
    shape = RECIPES[name][1]
    x = 1.5 * rng.normal(size=(4, *shape))
    normal = tfd.Sample(tfd.Normal(tf.constant(0.0, tf.float64), 1.0), shape)
    np.testing.assert_allclose(flow.log_prob(x), normal.log_prob(x), rtol=1e-10)
    z = flow.bijector.inverse(tf.constant(x)).numpy().reshape(4, -1)
    np.testing.assert_allclose(
        np.linalg.norm(z, axis=1), np.linalg.norm(x.reshape(4, -1), axis=1), rtol=1e-10
    )
    if not name.startswith(("glow", "macow")):  # no rotations here
        np.testing.assert_allclose(z, x.reshape(4, -1), rtol=1e-10)


@pytest.mark.parametrize("name", ["real_nvp_image", "glow"])
def test_multi_scale_latents(name):
    """All latents are kept, in an event of the data's shape, and every entry of them matters."""
    flow = perturbed(build(name, dtype=tf.float64), 0.1)
    shape = flow.event_shape.as_list()
    assert flow.distribution.event_shape == shape
    parts = [flow.bijector, *flow.bijector.submodules]
    assert len({id(p) for p in parts if isinstance(p, bijectors.FactorOut)}) == 1
    z = tf.constant(rng.normal(size=(1, *shape)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        x = flow.bijector.forward(z)
    jacobian = tape.jacobian(x, z).numpy().reshape(np.prod(shape), np.prod(shape))
    assert np.linalg.matrix_rank(jacobian) == np.prod(shape)
    np.testing.assert_allclose(
        flow.bijector.forward_log_det_jacobian(tf.identity(z), 3),
        [np.linalg.slogdet(jacobian)[1]],
        rtol=1e-8,
        atol=1e-10,
    )


@pytest.mark.parametrize(
    "name", ["nice", "nice_image", "real_nvp", "real_nvp_alternating", "real_nvp_odd_image"]
)
def test_masks_take_turns(name):
    """After four couplings (three for NICE's odd and even entries) everything is mixed."""
    options = {} if "odd" in name else {"num_couplings": 4}
    flow = perturbed(build(name, dtype=tf.float64, activation="tanh", **options))
    size = int(np.prod(flow.event_shape))
    z = tf.constant(rng.normal(size=(1, *flow.distribution.event_shape)))
    with tf.GradientTape() as tape:
        tape.watch(z)
        x = tf.reshape(flow.bijector.forward(z), [size])
    jacobian = tape.jacobian(x, z).numpy().reshape(size, size)
    moved = np.abs(jacobian - np.diag(np.diag(jacobian))).max(axis=1) > 1e-9
    assert moved.all(), "every entry is transformed by some coupling"
    if "odd" not in name:
        assert (np.abs(jacobian) > 1e-12).all()


def test_real_nvp_factors_out_every_second_pixel():
    """What is factored out at the first scale sees no deeper coupling: one colour of a board."""
    flow = build("real_nvp_image", dtype=tf.float64, num_scales=2, actnorm=False)
    factor_out = next(
        part for part in flow.bijector.bijectors if isinstance(part, bijectors.FactorOut)
    )
    for variable in factor_out.trainable_variables:
        variable.assign_add(0.5 * rng.normal(size=variable.shape))
    x = rng.normal(size=(1, 4, 4, 2))
    z = flow.bijector.inverse(tf.constant(x)).numpy()
    moved = (np.abs(z - x) > 1e-12).any(axis=(0, 3))
    board = np.add.outer(np.arange(4), np.arange(4)) % 2
    assert not moved[board == 1].any() or not moved[board == 0].any()
    assert moved.any()


def test_glow_refuses_a_log_scale_that_its_map_would_ignore():
    for coupling in ("additive", elementwise.Shift()):
        with pytest.raises(ValueError, match="log_scale is for coupling='affine', got coupling="):
            flows.glow(
                [4, 4, 1],
                num_levels=1,
                num_steps=1,
                hidden_filters=4,
                coupling=coupling,
                log_scale="exp",
            )


def test_glow_levels():
    flow = flows.glow([8, 8, 1], num_levels=3, num_steps=2, hidden_filters=4, seed=0)
    parts = list({id(p): p for p in flow.bijector.submodules}.values())

    def count(cls):
        return sum(type(p) is cls for p in parts)

    assert count(bijectors.ActNorm) == count(bijectors.InvertibleConv1x1) == 6
    assert count(bijectors.Coupling) == 6 and count(bijectors.FactorOut) == 2
    sizes = sorted(p.shift.shape[0] for p in parts if isinstance(p, bijectors.ActNorm))
    assert sizes == [4, 4, 8, 8, 16, 16]
    for prior, number in ((True, 2), (False, 0)):
        flow = flows.glow([8, 8, 1], num_levels=3, learned_prior=prior, **GLOW)
        found = {id(p): p for p in flow.bijector.submodules if isinstance(p, bijectors.FactorOut)}
        assert sum(p.conditioner is not None for p in found.values()) == number


def test_gradients_of_glow_with_networks_in_bfloat16():
    images = tf.constant(np.random.default_rng(0).normal(size=(512, 8, 8, 1)), tf.float32)
    gradients = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        try:
            flow = perturbed(
                flows.glow([8, 8, 1], num_levels=2, num_steps=1, hidden_filters=8, seed=0), 0.05
            )
        finally:
            keras.config.set_dtype_policy("float32")
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(flow.log_prob(images))
        gradients.append(tape.gradient(loss, flow.trainable_variables))
    for v, g, low in zip(flow.trainable_variables, *gradients, strict=True):
        assert tf.norm(low - g) < 0.1 * tf.norm(g), v.name


def test_nice_is_volume_preserving_but_for_its_rescaling():
    flow = perturbed(build("nice", dtype=tf.float64))
    rescale = next(p for p in flow.bijector.bijectors if isinstance(p, bijectors.Rescale))
    assert flow.bijector.bijectors[-1] is rescale, "next to the latent, as in the paper"
    x = rng.normal(size=(3, 5))
    np.testing.assert_allclose(
        flow.bijector.inverse_log_det_jacobian(tf.constant(x), 1),
        -np.sum(rescale.log_scale) * np.ones(3),
        rtol=1e-10,
    )


# --- Densities. ---

GRID = np.linspace(-12.0, 12.0, 241)
POINTS = np.stack(np.meshgrid(GRID, GRID, indexing="ij"), axis=-1).reshape(-1, 2)


@pytest.mark.parametrize(
    ("recipe", "kwargs"),
    [
        (flows.nice, {}),
        (flows.nice, {"base": "normal", "trainable_base": True}),
        (flows.real_nvp, {"activation": "tanh"}),
        (flows.real_nvp, {"elementwise": "rational_quadratic_spline", "num_bins": 4}),
        (flows.real_nvp, {"base": "logistic", "log_scale": "sigmoid"}),
    ],
    ids=["nice", "nice_trainable", "real_nvp", "spline", "logistic"],
)
def test_density_integrates_to_one(recipe, kwargs):
    flow = recipe([2], num_couplings=2, dtype=tf.float64, **VECTOR, **kwargs)
    perturbed(flow, 0.2)
    mass = np.exp(flow.log_prob(POINTS)).sum() * (GRID[1] - GRID[0]) ** 2
    np.testing.assert_allclose(mass, 1.0, atol=3e-3)


def test_conditional_density_integrates_to_one_for_each_context():
    flow = flows.real_nvp([2], num_couplings=2, context_size=1, dtype=tf.float64, **VECTOR)
    perturbed(flow, 0.2)
    masses = []
    for value in (-1.0, 2.0):
        log_prob = flow.log_prob(POINTS, bijector_kwargs={"context": [[value]]})
        masses.append(np.exp(log_prob).sum() * (GRID[1] - GRID[0]) ** 2)
        np.testing.assert_allclose(masses[-1], 1.0, atol=3e-3)
    assert masses[0] != masses[1]


def test_samples_follow_the_density():
    """Importance sampling: the mean of 1 / (p(x) V) over samples inside a box of volume V."""
    flow = perturbed(flows.real_nvp([2], num_couplings=2, dtype=tf.float64, **VECTOR), 0.2)
    x = flow.sample(20_000, seed=1).numpy()
    inside = (np.abs(x) < 1.0).all(axis=1)
    density = np.exp(flow.log_prob(x))
    np.testing.assert_allclose((inside / density).mean() / 4.0, 1.0, atol=0.05)


def test_image_density_by_importance_sampling():
    """E_{q}[p / q] = 1 with q a wider normal, for a 2x2x1 Glow."""
    flow = perturbed(
        flows.glow([2, 2, 1], num_levels=1, num_steps=2, hidden_filters=4, seed=0), 0.1
    )
    q = tfd.Sample(tfd.Normal(0.0, 1.7), [2, 2, 1])
    x = q.sample(20_000, seed=2)
    np.testing.assert_allclose(np.exp(flow.log_prob(x) - q.log_prob(x)).mean(), 1.0, atol=0.06)


# --- Options. ---


def test_trainable_base():
    for base in ("normal", "logistic"):
        flow = flows.real_nvp([3], base=base, trainable_base=True, num_couplings=1, **VECTOR)
        names = {v.name for v in flow.trainable_variables}
        assert {"base/loc:0", "base/log_scale:0"} <= names
        fixed = flows.real_nvp([3], base=base, num_couplings=1, **VECTOR)
        assert len(flow.trainable_variables) == len(fixed.trainable_variables) + 2
        x = rng.normal(size=(4, 3)).astype(np.float32)
        np.testing.assert_allclose(flow.log_prob(x), fixed.log_prob(x), rtol=1e-5)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(flow.log_prob(x))
        assert None not in tape.gradient(loss, flow.trainable_variables)


@pytest.mark.parametrize("family", [tfd.Normal, tfd.Logistic])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_named_base_is_one_sample_of_a_scalar(family, dtype):
    zero, one = tf.zeros([], dtype), tf.ones([], dtype)
    wanted = tfd.Sample(family(zero, one), [4, 4, 1])
    base, kwargs = family.__name__.lower(), {"num_levels": 1, "dtype": dtype, **GLOW}
    found = flows.glow([4, 4, 1], base=base, **kwargs).distribution
    x = wanted.sample([2, 3], seed=[0, 1])
    np.testing.assert_array_equal(found.sample([2, 3], seed=[0, 1]), x)
    np.testing.assert_array_equal(found.log_prob(x), wanted.log_prob(x))
    assert found.name == "base" and not found.variables
    # What tfd.Sample's density has, and converters do not know.
    graph = tf.function(found.log_prob).get_concrete_function(x).graph
    assert "BroadcastArgs" not in {op.type for op in graph.get_operations()}


def test_base_of_ones_own():
    base = tfd.Independent(tfd.StudentT([5.0, 3.0], [0.0, 1.0], 1.0), 1)
    flow = flows.real_nvp([2], base=base, num_couplings=2, **VECTOR)
    assert flow.distribution is base
    x = rng.normal(size=(4, 2)).astype(np.float32)
    np.testing.assert_allclose(flow.log_prob(x), base.log_prob(x), rtol=1e-5)


def test_stock_bijectors_mixed_in():
    flow = build("real_nvp")
    mixed = tfd.TransformedDistribution(
        flow,
        tfb.Chain([tfb.Softplus(), tfb.Permute([4, 3, 2, 1, 0]), tfb.Scale(tf.Variable(2.0))]),
    )
    perturbed(mixed, 0.1)
    x = np.abs(rng.normal(size=(6, 5))).astype(np.float32) + 0.1
    inner = tfb.Softplus().inverse(x)[:, ::-1] / mixed.bijector.bijectors[-1].scale
    wanted = flow.log_prob(inner) + mixed.bijector.inverse_log_det_jacobian(x, 1)
    np.testing.assert_allclose(mixed.log_prob(x), wanted, rtol=1e-4)
    model = FlowModel(mixed)
    model.compile("adam")
    assert len(model.trainable_variables) == len(flow.trainable_variables) + 1
    model.fit(x, verbose=0)
    whole = bijectors.Chain([mixed.bijector, flow.bijector])
    same = tfd.TransformedDistribution(flow.distribution, whole)
    np.testing.assert_allclose(same.log_prob(x), mixed.log_prob(x), rtol=1e-4)


def test_real_nvp_scales_and_then_shifts_on_the_way_to_the_latent():
    first, *_ = flows.real_nvp([4], **VECTOR).bijector.bijectors
    assert first.elementwise == elementwise.Affine(shift_first=True)
    first, *_ = flows.real_nvp([4], log_scale="exp", shift_first=False, **VECTOR).bijector.bijectors
    assert first.elementwise == elementwise.Affine("exp")


def test_elementwise_map_of_ones_own():
    flow = flows.real_nvp([4], elementwise=elementwise.Affine(cap=0.5), **VECTOR)
    couplings = [p for p in flow.bijector.bijectors if isinstance(p, bijectors.Coupling)]
    assert all(c.elementwise == elementwise.Affine(cap=0.5) for c in couplings)
    glow = flows.glow([2, 2, 1], num_levels=1, coupling=elementwise.Shift(), **GLOW)
    assert glow.log_prob(np.zeros((1, 2, 2, 1), np.float32)).shape == (1,)


def test_context_reaches_every_coupling():
    flow = flows.glow([4, 4, 1], num_levels=2, context_size=2, **GLOW)
    couplings = {id(p): p for p in flow.bijector.submodules if isinstance(p, bijectors.Coupling)}
    assert len(couplings) == 2 and all(c.context_size == 2 for c in couplings.values())
    x, c = np.zeros((3, 4, 4, 1), np.float32), np.eye(3, 2, dtype=np.float32)
    perturbed(flow)
    log_prob = flow.log_prob(x, bijector_kwargs={"context": c}).numpy()
    assert len(set(log_prob.tolist())) == 3
    with pytest.raises(ValueError, match="is required, got none"):
        flow.log_prob(x)


# --- What is refused. ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: flows.nice([2, 3]), r"flows.nice: event_shape must be \[D\] or \[H, W, C\], got"),
        (lambda: flows.nice([0]), r"event_shape must be .*got \[0\]"),
        (lambda: flows.nice(np.ones([9, 4])), r"got data of shape \[9, 4\]. It .* x.shape\[1:\]"),
        (lambda: flows.nice([4], num_couplings=0), "num_couplings must be an integer >= 1, got 0"),
        (lambda: flows.nice([4], hidden_units=()), r"one or more integers >= 1, got \(\)"),
        (lambda: flows.nice([1]), "flows.nice: .* size must be at least 2, got 1. Use flows.maf"),
        (lambda: flows.real_nvp([1]), r"flows.real_nvp: event_shape \[1\] .* Use flows.maf"),
        (lambda: flows.real_nvp([4], mask="middle"), "mask must be 'alternating' or 'halves', got"),
        (lambda: flows.real_nvp([4], elementwise="cubic"), "expected one of 'shift', 'affine'"),
        (
            lambda: flows.real_nvp([4, 4, 1], num_scales=3),
            "num_scales=3 leaves one pixel of 4 x 4 at the last scale.* Use num_scales=2",
        ),
        (
            lambda: flows.real_nvp([1, 1, 4], num_scales=1),
            r"num_scales=1 leaves one pixel of 1 x 1 .*vectors of them, event_shape \[4\]",
        ),
        (lambda: flows.real_nvp([6, 4, 1], num_scales=3), "3 scales need .* multiples of 4, got 6"),
        (lambda: flows.real_nvp([4], base="cauchy"), "base must be one of .*got 'cauchy'"),
        (
            lambda: flows.real_nvp([4], base=tfd.Normal(0.0, 1.0)),
            r"has event shape \[\], expected \[4\]. Wrap it in tfd.Sample or tfd.Independent",
        ),
        (
            lambda: flows.real_nvp(
                [1], base=tfd.Sample(tfd.Normal(0.0, 1.0), [1]), trainable_base=True
            ),
            "Use flows.maf|trainable_base=True is for a named base",
        ),
        (
            lambda: flows.real_nvp(
                [2], base=tfd.Sample(tfd.Normal(0.0, 1.0), [2]), trainable_base=True, **VECTOR
            ),
            "trainable_base=True is for a named base",
        ),
        (
            lambda: flows.glow([4], num_levels=1, **GLOW),
            r"flows.glow: event_shape must be \[H, W, C\], got \[4\]",
        ),
        (
            lambda: flows.glow([6, 8, 3], num_levels=2, **GLOW),
            "2 levels need a height and width that are multiples of 4, got 6 x 8. Use fewer",
        ),
        (
            lambda: flows.glow([4, 4, 1], num_levels=1, coupling="cubic", **GLOW),
            r"coupling must be one of \['additive', 'affine'\] or an ElementwiseMap, got 'cubic'",
        ),
        (
            lambda: flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=0),
            "flows.glow: hidden_filters must be an integer >= 1, got 0",
        ),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


VECTORS_ONLY = {"num_couplings": 8, "hidden_units": (256, 256), "mask": "halves"}
IMAGES_ONLY = {"num_scales": 2, "num_blocks": 2, "filters": 32}


@pytest.mark.parametrize("name", [*VECTORS_ONLY, *IMAGES_ONLY])
def test_arguments_of_the_other_rank(name):
    """They would be ignored, and who asks for 12 couplings would get the default network."""
    shape, wrong, rank, own = [2], IMAGES_ONLY, r"\[H, W, C\]", VECTORS_ONLY
    if name in VECTORS_ONLY:
        shape, wrong, rank, own = [8, 8, 1], VECTORS_ONLY, r"\[D\]", IMAGES_ONLY
    message = f"flows.real_nvp: {name} is for event_shape {rank}, got .* take {', '.join(own)}"
    with pytest.raises(ValueError, match=message):
        flows.real_nvp(shape, **{name: wrong[name]})


@pytest.mark.parametrize(("shape", "own"), [([4], VECTORS_ONLY), ([4, 4, 1], IMAGES_ONLY)])
def test_documented_defaults(shape, own):
    plain, given = flows.real_nvp(shape, seed=0), flows.real_nvp(shape, seed=0, **own)
    for a, b in zip(plain.variables, given.variables, strict=True):
        np.testing.assert_array_equal(a, b)
    first = next(p for p in plain.bijector.bijectors if isinstance(p, bijectors.Coupling))
    other = next(p for p in given.bijector.bijectors if isinstance(p, bijectors.Coupling))
    np.testing.assert_array_equal(first.mask, other.mask)


@pytest.mark.parametrize(
    ("recipe", "wrong", "own"),
    [
        (flows.real_nvp, "num_layers", "num_couplings"),
        (flows.maf, "num_couplings", "num_layers"),
        (flows.iaf, "num_couplings", "num_layers"),
    ],
)
def test_unknown_arguments_name_the_recipe(recipe, wrong, own):
    start = f"flows.{recipe.__name__}: unexpected argument {wrong}. It takes .*{own}"
    with pytest.raises(
        TypeError, match=f"{start}.* 'affine' .*takes log_scale, cap, shift_first, rate, min_scale"
    ):
        recipe([2], **{wrong: 3})
    with pytest.raises(ValueError, match=f"{start}.* finished map and takes no arguments"):
        recipe([2], elementwise=elementwise.Shift(), **{wrong: 3})
    with pytest.raises(TypeError, match="cap must be a number"):
        recipe([2], cap="3")


def test_counts_are_integers():
    for recipe, count in ((flows.nice, "num_couplings"), (flows.maf, "num_layers")):
        with pytest.raises(TypeError, match=f"{count} must be an integer >= 1, got 2.0 of type"):
            recipe([4], **{count: 2.0})


def test_spline_arguments_go_to_the_spline_alone():
    with pytest.raises(TypeError, match="'rational_quadratic_spline' takes num_bins"):
        flows.real_nvp([4], elementwise="affine", num_bins=8)
    with pytest.raises(ValueError, match="finished map and takes no arguments"):
        flows.real_nvp([4], elementwise=elementwise.Shift(), num_bins=8)
