"""Where the data lie, and networks of the user's own."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, conditioners, elementwise, flows, load

tfb, tfd = tfp.bijectors, tfp.distributions

RECIPES = {
    "nice": lambda **kw: flows.nice([2], num_couplings=2, hidden_units=(8,), base="normal", **kw),
    "real_nvp": lambda **kw: flows.real_nvp([2], num_couplings=2, **kw),
    "maf": lambda **kw: flows.maf([2], num_layers=1, hidden_units=(8,), **kw),
    "iaf": lambda **kw: flows.iaf([2], num_layers=1, hidden_units=(8,), **kw),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_untrained_a_positive_flow_is_log_normal(recipe):
    flow = RECIPES[recipe](support="positive", seed=0, dtype="float64")
    x = np.array([[0.5, 2.0], [3.0, 0.1]])
    expected = tfd.LogNormal(np.float64(0.0), np.float64(1.0)).log_prob(x)
    np.testing.assert_allclose(flow.log_prob(x), tf.reduce_sum(expected, -1), rtol=1e-12)


def test_bounds():
    flow = flows.maf(
        [2], num_layers=1, hidden_units=(8,), support=([0.0, -1.0], [2.0, 5.0]), seed=0
    )
    model = FlowModel(flow)
    samples = model.sample(500, seed=0).numpy()
    assert (samples > [0.0, -1.0]).all() and (samples < [2.0, 5.0]).all()
    np.testing.assert_array_equal(model.log_prob([[3.0, 0.0], [1.0, 6.0]]), [-np.inf] * 2)
    # Integrates to one over the box.
    grid = (np.arange(400) + 0.5) / 400
    x = np.stack(np.meshgrid(2.0 * grid, 6.0 * grid - 1.0), axis=-1).reshape(-1, 2)
    total = np.exp(model.log_prob(x.astype("float32"))).mean() * 12.0
    np.testing.assert_allclose(total, 1.0, rtol=1e-3)
    for support, inside in [((1.0, np.inf), 1.5), ((-np.inf, 1.0), 0.5)]:
        half = FlowModel(flows.maf([1], num_layers=1, hidden_units=(4,), support=support, seed=0))
        expected = tfd.LogNormal(0.0, 1.0).log_prob(0.5)
        np.testing.assert_allclose(half.log_prob([[inside]]), [expected], rtol=1e-6)
        np.testing.assert_array_equal(half.log_prob([[2.0 - inside]]), [-np.inf])
    image = flows.glow(
        [4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, support=(0, 256), seed=0
    )
    assert image.bijector.bijectors[0].name == "support"


def test_with_a_context_and_a_file(tmp_path):
    flow = flows.real_nvp(
        [2], num_couplings=2, hidden_units=(8,), context_size=3, support=(0, 1), seed=0
    )
    model = FlowModel(flow)
    x, c = np.full([4, 2], 0.3, "float32"), np.eye(4, 3, dtype="float32")
    np.testing.assert_allclose(flow.log_prob(x, context=c), model.log_prob(x, c), rtol=1e-6)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(
        load(tmp_path / "m.keras").log_prob(x, c), model.log_prob(x, c), rtol=1e-6
    )


@pytest.mark.parametrize("support", ["negative", (1, 0), (0, 1, 2), 3.0, ("a", "b"), (0, 0)])
def test_supports_that_are_none(support):
    with pytest.raises(ValueError, match="flows.maf: support must be None, 'positive', or a pair"):
        flows.maf([2], num_layers=1, hidden_units=(8,), support=support)


def test_a_support_of_some_entries():
    with pytest.raises(ValueError, match="finite for all entries or for none.*Blockwise"):
        flows.maf([2], num_layers=1, hidden_units=(8,), support=(0.0, [1.0, np.inf]))


# --- Networks of the user's own. ---


@keras.saving.register_keras_serializable(package="test_recipe_options")
class WithContext(keras.layers.Layer):
    def __init__(self, output_size, **kwargs):
        super().__init__(**kwargs)
        self.output_size = output_size
        self.dense = keras.layers.Dense(output_size, kernel_initializer="zeros")

    def call(self, x, context=None):
        return self.dense(tf.concat([x, context], axis=-1))

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size}


def test_networks_of_ones_own(tmp_path):
    asked = []

    def make(input_shape, output_size, context_size, seed):
        asked.append((input_shape, output_size, context_size, seed))
        if context_size is not None:
            return WithContext(output_size)
        if len(input_shape) == 3:
            return keras.layers.Conv2D(output_size, 3, padding="same")
        return keras.Sequential([keras.layers.Dense(8, "tanh"), keras.layers.Dense(output_size)])

    flow = flows.real_nvp([5], num_couplings=2, conditioner=make, seed=0)
    assert [a[:3] for a in asked] == [((3,), 4, None), ((2,), 6, None)]
    assert asked[0][3] != asked[1][3]
    assert len(flow.trainable_variables) == 8
    model = FlowModel(flow)
    model.compile("adam")
    model.fit(np.random.default_rng(0).normal(size=(64, 5)).astype("float32"), verbose=0)
    x = model.sample(3, seed=0)
    np.testing.assert_allclose(model.forward(model.inverse(x)), x, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load(tmp_path / "m.keras").log_prob(x), model.log_prob(x), rtol=1e-5)

    asked.clear()
    flows.nice([4], num_couplings=1, conditioner=make, seed=0)
    flows.glow([4, 4, 2], num_levels=1, num_steps=1, conditioner=make, seed=0)
    flows.real_nvp([4, 4, 2], num_scales=2, conditioner=make, seed=0)
    flows.real_nvp([2], num_couplings=1, context_size=3, conditioner=make, seed=0)
    shapes = [a[:3] for a in asked]
    assert shapes[:2] == [((2,), 2, None), ((2, 2, 4), 8, None)] and shapes[-1] == ((1,), 2, 3)
    # Images: a checkerboard sees all channels, a channel mask those that pass.
    assert {((4, 4, 2), 4, None), ((2, 2, 4), 8, None)} <= set(shapes[2:-1])


def test_what_is_no_network():
    with pytest.raises(
        TypeError, match="flows.nice: conditioner must be a function .input_shape, "
    ):
        flows.nice([4], conditioner=lambda *_: "dense")
    with pytest.raises(ValueError, match="hidden_units is of the recipe's own networks"):
        flows.real_nvp([4], hidden_units=(8,), conditioner=lambda *_: None)
    with pytest.raises(ValueError, match=r"must map \[batch, 2\] to \[batch, 4\], but gives"):
        flows.real_nvp([4], conditioner=lambda *_: conditioners.MLP(3, hidden_units=()))


def test_a_glow_of_unknown_networks_is_as_careful_as_one_of_512_filters():
    def make(input_shape, output_size, context_size, seed):
        return keras.layers.Conv2D(output_size, 3, padding="same")

    def rate(**kwargs):
        flow = flows.glow([4, 4, 1], num_levels=1, num_steps=2, seed=0, **kwargs)
        parts = [p for p in flow.submodules if isinstance(p, bijectors.Coupling)]
        return {part.elementwise.rate for part in parts}

    assert rate(conditioner=make) == rate(hidden_filters=512)
    assert rate(conditioner=make, hidden_filters=8) == rate(hidden_filters=8) == {1.0}
    assert max(rate(conditioner=make)) < 0.2
    with pytest.raises(ValueError, match="flows.glow: hidden_filters, the width .* must be given"):
        flows.glow([4, 4, 1], num_levels=1, num_steps=1)


# --- Splines that can move. ---


@pytest.mark.parametrize("recipe", [flows.real_nvp, flows.maf, flows.iaf])
def test_a_spline_by_name_comes_with_an_affine_map(recipe):
    flow = recipe([4], elementwise="rational_quadratic_spline", num_bins=5, cap=2.0, seed=0)
    found = flow.bijector.bijectors[0].elementwise
    expected = elementwise.get("affine_rational_quadratic_spline", num_bins=5)
    assert [type(m) for m in found.maps] == [type(m) for m in expected.maps]
    assert found.maps[0].cap == 2.0 and found.maps[1].num_bins == 5
    alone = recipe([4], elementwise=elementwise.RationalQuadraticSpline(num_bins=5), seed=0)
    assert alone.bijector.bijectors[0].elementwise == elementwise.RationalQuadraticSpline(
        num_bins=5
    )


def test_a_spline_by_name_reaches_a_narrow_density_far_away():
    """One step of training at a place outside of the box moves the density there."""
    x = 9.0 + 0.1 * np.random.default_rng(0).normal(size=(100, 2)).astype("float32")
    losses = []
    for one in ("rational_quadratic_spline", elementwise.RationalQuadraticSpline()):
        model = FlowModel(flows.maf([2], num_layers=1, hidden_units=(16,), elementwise=one, seed=0))
        model.compile(keras.optimizers.Adam(0.02))
        losses.append(model.fit(x, batch_size=100, epochs=150, verbose=0).history["loss"][-1])
    assert losses[0] < 3.0 and losses[1] > 80.0


def test_networks_of_ones_own_are_not_stacked():
    def network(input_shape, output_size, context_size, seed):
        return keras.layers.Conv2D(output_size, 3, padding="same")

    sizes = {"num_levels": 1, "num_steps": 8, "hidden_filters": 4}
    flow = flows.glow([4, 4, 1], conditioner=network, **sizes)
    assert not any(isinstance(part, bijectors.Repeat) for part in flow.submodules)
    with pytest.raises(ValueError, match="stacked=True is for equal layers, got a conditioner"):
        flows.glow([4, 4, 1], conditioner=network, stacked=True, **sizes)


# --- What stands between couplings. ---


def test_real_nvp_with_batch_normalization():
    flow = flows.real_nvp([2], num_couplings=2, hidden_units=(8,), batch_normalization=True, seed=0)
    kinds = [type(part) for part in flow.bijector.bijectors]
    assert kinds == [bijectors.BatchNorm, bijectors.Coupling] * 2
    x = 5.0 + 3.0 * np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
    # A fresh coupling is the identity, so that the latents in training are the normalized batch.
    with bijectors.training_mode():
        z = flow.bijector.inverse(x).numpy()
    np.testing.assert_allclose(z, (x - x.mean(0)) / x.std(0), atol=1e-3)
    image = flows.real_nvp(
        [4, 4, 1], num_scales=1, num_blocks=1, filters=4, batch_normalization=True, seed=0
    )
    kinds = {type(part) for part in image.bijector.bijectors}
    assert bijectors.BatchNorm in kinds and bijectors.ActNorm not in kinds
    with pytest.raises(ValueError, match="got batch_normalization=True, by which each is another"):
        flows.real_nvp([4], batch_normalization=True, stacked=True)
    with pytest.raises(ValueError, match="stand in for each other, got both"):
        flows.real_nvp([4], batch_normalization=True, actnorm=True)


def glow(permutation, **kwargs):
    return flows.glow(
        [4, 4, 2],
        num_levels=1,
        hidden_filters=4,
        permutation=permutation,
        seed=0,
        **{"num_steps": 1, **kwargs},
    )


@pytest.mark.parametrize("permutation", ["reverse", "shuffle"])
def test_glow_with_a_fixed_order_of_channels(permutation):
    """Of a fresh one all else is the identity."""
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    squeeze, flow = bijectors.Squeeze(), glow(permutation)
    z, channels = (squeeze.forward(v).numpy() for v in (flow.bijector.inverse(x), x))
    order = [int(np.argmin(np.abs(channels - z[..., [n]]).sum((0, 1, 2)))) for n in range(8)]
    assert sorted(order) == list(range(8)) and order != list(range(8))
    assert (order == list(range(8))[::-1]) == (permutation == "reverse")
    np.testing.assert_array_equal(z, channels[..., order])
    np.testing.assert_allclose(flow.log_prob(x), flow.distribution.log_prob(x), rtol=1e-6)


def test_glow_with_a_fixed_order_of_channels_in_a_loop_and_a_file(tmp_path):
    one, other = (glow("reverse", num_steps=2, stacked=s) for s in (False, True))
    assert isinstance(other.bijector.bijectors[1], bijectors.Repeat)
    x = np.random.default_rng(0).normal(size=(3, 4, 4, 2)).astype("float32")
    models = [FlowModel(flow) for flow in (one, other)]
    models[0].initialize(x)
    for v in one.trainable_variables:
        v.assign_add(0.1 * tf.random.stateless_normal(v.shape, [1, 2]))
    models[0].save_weights(tmp_path / "m.weights.h5")
    models[1].load_weights(tmp_path / "m.weights.h5")
    models[0].save(tmp_path / "m.keras")
    for model in (models[1], load(tmp_path / "m.keras")):
        np.testing.assert_allclose(model.log_prob(x), models[0].log_prob(x), rtol=1e-5)
    orders = [
        p.permutation
        for p in glow("shuffle", num_steps=2).bijector.submodules
        if isinstance(p, tfb.Permute)
    ]
    assert len(orders) == 2 and not np.array_equal(*orders)
    with pytest.raises(ValueError, match="got permutation='shuffle', by which each is another"):
        glow("shuffle", num_steps=2, stacked=True)
    with pytest.raises(ValueError, match="flows.glow: permutation must be one of"):
        glow("sorted")


def test_a_floor_of_the_scale_bounds_the_density_of_a_constant_entry():
    """A pixel that is always black: each nat comes from a smaller scale."""
    found = []
    for floor in (None, 0.01):
        flow = flows.nice(
            [2], num_couplings=1, hidden_units=(4,), min_scale=floor, base="normal", seed=0
        )
        flow.bijector.bijectors[-1].log_scale.assign([0.0, -50.0])
        found.append(float(flow.log_prob(tf.zeros([2]))))
    np.testing.assert_allclose(np.add(found, np.log(2 * np.pi)), [50.0, -np.log(0.01)], rtol=1e-5)
    with pytest.raises(ValueError, match=r"min_scale must lie in \(0, 1\), got 2"):
        flows.nice([2], min_scale=2.0)


@pytest.mark.parametrize(
    "recipe", ["maf", "real_nvp", "nice", "continuous", "gaussian", "residual"]
)
def test_a_context_of_another_shape_says_where_it_is_taken(recipe):
    for size in ({"a": 2, "b": 3}, [4, 2]):
        with pytest.raises(TypeError, match="the size of a vector, .* to one vector; contexts a "):
            getattr(flows, recipe)([2], context_size=size)
