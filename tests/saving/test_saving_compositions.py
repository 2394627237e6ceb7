"""A `.keras` file gives back what was composed, and training goes on as if nothing had been."""

import os
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, bijectors, conditioners, flows, masks, preprocessing
from tfp_flows.elementwise import ElementwiseMap, RationalQuadraticSpline

tfb, tfd = tfp.bijectors, tfp.distributions
X = np.abs(np.random.default_rng(0).normal(size=(8, 4))).astype(np.float32) + 0.1


@keras.saving.register_keras_serializable(package="test_saving")
class Doubled(bijectors.base.FlowBijector):
    """A user's own bijector: registered, and its variable handed back to `parameters`."""

    def __init__(self, log_scale=None, *, name="doubled"):
        parameters = dict(locals())
        if not isinstance(log_scale, tf.Variable):
            log_scale = tf.Variable(0.1 if log_scale is None else log_scale, name="log_scale")
        parameters.update(log_scale=log_scale)
        super().__init__(event_ndims=0, parameters=parameters, name=name)
        self._log_scale = log_scale

    def _forward_and_log_det(self, x, context):
        return 2.0 * x * tf.exp(self._log_scale), self._log_scale + tf.math.log(2.0)

    def _inverse_and_log_det(self, y, context):
        return 0.5 * y * tf.exp(-self._log_scale), -self._log_scale - tf.math.log(2.0)


@keras.saving.register_keras_serializable(package="test_saving")
class Stretch(ElementwiseMap):
    """A user's own map."""

    num_parameters = 1

    def __init__(self, rate=1.0):
        self.rate = rate

    def get_config(self):
        return {"rate": self.rate}

    def _forward(self, x, parameters):
        return x * tf.exp(self.rate * parameters[0]), self.rate * parameters[0]

    def _inverse(self, y, parameters):
        return y * tf.exp(-self.rate * parameters[0]), -self.rate * parameters[0]


@keras.saving.register_keras_serializable(package="test_saving")
def squash(x):
    return x / (1.0 + tf.abs(x))


def _normal():
    return tfd.Sample(tfd.Normal(0.0, 1.0), [4])


def _coupling(conditioner=None, name="coupling", mask=None):
    conditioner = conditioner or conditioners.MLP(4, hidden_units=(4,), seed=0)
    mask = masks.halves(4) if mask is None else mask
    return bijectors.AffineCoupling(conditioner, mask, name=name)


def _shared_layer():
    layer = conditioners.MLP(4, hidden_units=(4,), seed=0)
    return tfd.TransformedDistribution(
        _normal(),
        tfb.Chain([_coupling(layer, "a"), tfb.Permute([1, 0, 3, 2]), _coupling(layer, "b")]),
    )


def _shared_bijector():
    coupling = _coupling()
    return tfd.TransformedDistribution(
        _normal(), bijectors.Chain([coupling, tfb.Permute([3, 2, 1, 0]), coupling])
    )


def _shared_variable():
    loc = tf.Variable(tf.fill([4], 0.1), name="shared")
    scale = tfp.util.TransformedVariable([1.0, 2.0, 3.0, 4.0], tfb.Softplus(), name="scale")
    base = tfd.MultivariateNormalDiag(loc, tfp.util.DeferredTensor(loc, tf.exp))
    return tfd.TransformedDistribution(base, tfb.Chain([tfb.Scale(scale), tfb.Shift(loc)]))


def _shared_base_and_bijector_across_levels():
    inner = flows.real_nvp([4], num_couplings=1, hidden_units=(4,), seed=0)
    return tfd.TransformedDistribution(inner, inner.bijector)


def _linear_operator():
    tril = tfp.util.TransformedVariable(tf.eye(4), tfb.FillScaleTriL())
    operator = tf.linalg.LinearOperatorLowerTriangular(tril, is_non_singular=True)
    return tfd.MultivariateNormalLinearOperator(tf.Variable(tf.zeros(4)), operator)


def _mixture():
    locs = np.random.default_rng(1).normal(size=(2, 4)).astype(np.float32)
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=tf.Variable([0.0, 0.0])),
        tfd.MultivariateNormalDiag(tf.Variable(locs), tf.ones([2, 4])),
    )


def _stock_bijectors():
    tril = tfp.util.TransformedVariable(tf.eye(2), tfb.FillScaleTriL())
    return tfd.TransformedDistribution(
        _normal(),
        tfb.Chain(
            [
                tfb.Blockwise([tfb.Softplus(), tfb.Scale(tf.Variable(2.0))], block_sizes=[1, 3]),
                tfb.SinhArcsinh(tf.Variable(0.1), tf.Variable(1.0)),
                tfb.Reshape([4], [2, 2]),
                tfb.ScaleMatvecTriL(tril),
                tfb.Reshape([2, 2], [4]),
                tfb.Invert(tfb.Shift(np.float32(0.5))),
                tfb.Permute(np.array([3, 1, 0, 2])),
            ]
        ),
    )


def _own_parts():
    network = conditioners.MLP(2, hidden_units=(4,), activation=squash, seed=0)
    return tfd.TransformedDistribution(
        _normal(),
        bijectors.Chain([Doubled(), bijectors.Coupling(network, masks.halves(4), Stretch(0.5))]),
    )


def _spline_over_keras_layers():
    spline = RationalQuadraticSpline(num_bins=4)
    network = keras.Sequential(
        [
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(2 * spline.num_parameters, kernel_initializer="zeros"),
        ]
    )
    coupling = bijectors.Coupling(network, masks.halves(4), spline)
    return tfd.TransformedDistribution(_normal(), coupling)


def _preprocessed():
    maf = flows.maf([4], num_layers=2, hidden_units=(6,), order="random", seed=None)
    return tfd.TransformedDistribution(
        maf, tfb.Chain([preprocessing.Standardize.fit(X), tfb.Invert(tfb.Softplus())])
    )


COMPOSITIONS = {
    "shared_layer": _shared_layer,
    "shared_bijector": _shared_bijector,
    "shared_variable": _shared_variable,
    "shared_across_levels": _shared_base_and_bijector_across_levels,
    "transformed_variable": lambda: tfd.Independent(
        tfd.Normal(tf.Variable(tf.zeros(4)), tfp.util.TransformedVariable(1.0, tfb.Exp())), 1
    ),
    "linear_operator": _linear_operator,
    "mixture": _mixture,
    "stock_bijectors": _stock_bijectors,
    "own_parts": _own_parts,
    "spline_over_keras_layers": _spline_over_keras_layers,
    "preprocessed_random_order": _preprocessed,
    "trainable_base": lambda: flows.real_nvp(
        [4], num_couplings=2, hidden_units=(4,), trainable_base=True, actnorm=True, seed=None
    ),
}


def _step(model, x):
    model.train_on_batch(x)
    return [v.numpy().astype(np.float64) for v in model.variables]


def round_trip(model, folder):
    file = os.path.join(folder, "model.keras")
    model.save(file)
    return keras.models.load_model(file)


@pytest.mark.parametrize("name", COMPOSITIONS)
def test_the_same_distribution_and_the_same_training(name, tmp_path):
    model = FlowModel(COMPOSITIONS[name]())
    model.initialize(X)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), run_eagerly=True)
    model.train_on_batch(X)
    loaded = round_trip(model, tmp_path)
    assert len(loaded.variables) == len(model.variables)
    np.testing.assert_allclose(loaded.log_prob(X), model.log_prob(X), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        loaded.sample(3, seed=1), model.sample(3, seed=1), rtol=1e-6, atol=1e-6
    )
    assert type(loaded.distribution) is type(model.distribution)
    for wanted, found in zip(_step(model, X), _step(loaded, X), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    # A second generation: what is loaded can be saved.
    again = round_trip(loaded, tmp_path)
    np.testing.assert_allclose(again.log_prob(X), model.log_prob(X), rtol=1e-5, atol=1e-5)


def test_a_shared_part_is_one_part(tmp_path):
    loaded = round_trip(FlowModel(_shared_bijector()), tmp_path)
    first, _, last = loaded.distribution.bijector.bijectors
    assert first is last
    loaded = round_trip(FlowModel(_shared_layer()), tmp_path)
    first, _, last = loaded.distribution.bijector.bijectors
    assert first is not last and first.conditioner is last.conditioner
    loaded = round_trip(FlowModel(_shared_variable()), tmp_path)
    assert len(loaded.variables) == 2


def test_actnorms_stay_initialised_and_are_not_set_again(tmp_path):
    flow = flows.real_nvp([4], num_couplings=2, hidden_units=(4,), actnorm=True, seed=0)
    fresh = round_trip(FlowModel(flow), tmp_path)
    with pytest.raises(ValueError, match="never initialised"):
        fresh.log_prob(X)
    model = FlowModel(flow)
    model.initialize(X)
    loaded = round_trip(model, tmp_path)
    wanted = loaded.log_prob(X)
    loaded.initialize(10.0 * X)
    np.testing.assert_array_equal(loaded.log_prob(X), wanted)


def test_random_orders_of_a_made_are_those_of_the_file(tmp_path):
    flow = flows.maf([4], num_layers=3, hidden_units=(6,), order="random", seed=None)
    loaded = round_trip(FlowModel(flow), tmp_path)
    for ours, theirs in zip(
        flow.bijector.bijectors, loaded.distribution.bijector.bijectors, strict=True
    ):
        np.testing.assert_array_equal(
            theirs.conditioner.input_degrees, ours.conditioner.input_degrees
        )


def test_dequantization_bits_per_dim_and_name(tmp_path):
    glow = flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    distribution = tfd.TransformedDistribution(glow, preprocessing.Logit(17.0))
    images = np.random.default_rng(0).integers(0, 17, size=(16, 4, 4, 1)).astype(np.uint8)
    dequantization = preprocessing.UniformDequantization(17, seed=3)
    for bits in (True, False):
        model = FlowModel(
            distribution, dequantization=dequantization, bits_per_dim=bits, name="digits"
        )
        model.initialize(images)
        loaded = round_trip(model, tmp_path)
        assert loaded.name == "digits"
        assert loaded.reports_bits_per_dim is bits
        assert loaded.dequantization.get_config() == dequantization.get_config()
        np.testing.assert_allclose(loaded.log_prob(images), model.log_prob(images), rtol=1e-6)


def test_fit_goes_on_with_the_optimizer_that_was_saved(tmp_path):
    schedule = keras.optimizers.schedules.ExponentialDecay(1e-2, 5, 0.5)
    model = FlowModel(flows.real_nvp([4], num_couplings=2, hidden_units=(4,), seed=0))
    model.compile(
        optimizer=keras.optimizers.AdamW(schedule, clipnorm=1.0, use_ema=True, ema_momentum=0.9),
        steps_per_execution=2,
    )
    options = {"batch_size": 2, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(X, **options)
    loaded = round_trip(model, tmp_path)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    assert loaded.steps_per_execution == 2
    assert int(loaded.optimizer.iterations) == 8
    model.fit(X, **options)
    loaded.fit(X, **options)
    pairs = list(zip(model.variables, loaded.variables, strict=True))
    pairs += list(zip(model.optimizer.variables, loaded.optimizer.variables, strict=True))
    for wanted, found in pairs:
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["shared_layer", "shared_variable", "trainable_base"])
def test_a_checkpoint_of_the_model_holds_each_weight_once(name, tmp_path):
    """Keras's own tracking would save none of them: they are in lists."""
    model = FlowModel(COMPOSITIONS[name]())
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    shapes = [s for key, s in tf.train.list_variables(path) if "OBJECT_GRAPH" not in key]
    assert sorted(map(tuple, shapes)) == sorted(tuple(v.shape) for v in model.variables)


def test_training_goes_on_from_a_checkpoint(tmp_path):
    def make():
        flow = flows.real_nvp([4], num_couplings=2, hidden_units=(4,), actnorm=True, seed=0)
        model = FlowModel(flow)
        model.compile(optimizer=keras.optimizers.Adam(1e-2))
        return model

    options = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    model = make()
    model.fit(X, **options)
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    model.fit(X, **options)
    resumed = make()
    resumed.optimizer.build(resumed.trainable_variables)
    tf.train.Checkpoint(model=resumed).read(path).assert_existing_objects_matched()
    assert int(resumed.optimizer.iterations) == 4
    resumed.fit(X, **options)
    for wanted, found in zip(model.variables, resumed.variables, strict=True):
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), rtol=1e-6, atol=1e-6)


def test_weights_that_were_not_loaded_would_be_seen(tmp_path):
    """The round trip is not won by the seed alone: without the weights it fails."""
    model = FlowModel(_preprocessed())
    model.distribution.trainable_variables[0].assign_add(
        tf.ones_like(model.distribution.trainable_variables[0])
    )
    fresh = FlowModel.from_config(model.get_config())
    loaded = round_trip(model, tmp_path)
    x = X + 0.5
    np.testing.assert_array_equal(loaded.log_prob(x), model.log_prob(x))
    assert any(
        np.abs(a.numpy().astype(float) - b.numpy()).max() > 1e-3
        for a, b in zip(fresh.variables, model.variables, strict=True)
    )


def test_from_config_gives_a_model_that_works():
    """Variables come with their values, so that what must not be 0 is not."""
    glow = flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    model = FlowModel(glow)
    model.initialize(np.random.default_rng(0).normal(size=(16, 4, 4, 1)).astype(np.float32))
    copy = FlowModel.from_config(model.get_config())
    assert np.isfinite(copy.log_prob(np.zeros([3, 4, 4, 1], np.float32))).all()
    assert not {id(v) for v in copy.variables} & {id(v) for v in model.variables}


def test_the_file_is_a_plain_keras_file(tmp_path):
    FlowModel(_own_parts()).save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        assert set(archive.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}


def test_a_flow_inside_a_larger_model(tmp_path):
    flow = FlowModel(
        flows.real_nvp([4], num_couplings=2, hidden_units=(4,), context_size=3, seed=0)
    )
    x, hint = keras.Input([4]), keras.Input([5])
    context = keras.layers.Dense(3, activation="tanh")(hint)
    model = keras.Model([x, hint], flow((x, context)))
    model.compile(optimizer="adam", loss=lambda _, log_prob: -keras.ops.mean(log_prob))
    hints = np.random.default_rng(1).normal(size=(8, 5)).astype(np.float32)
    before = [v.numpy() for v in model.trainable_variables]
    model.fit([X, hints], np.zeros(8), epochs=2, verbose=0)
    # Through the flow, whose couplings start at zero, into the layer before it.
    assert len(before) == len(flow.trainable_variables) + 2
    for variable, old in zip(model.trainable_variables, before, strict=True):
        assert np.abs(variable.numpy() - old).max() > 0, variable.path
    model.save(tmp_path / "outer.keras")
    loaded = keras.models.load_model(tmp_path / "outer.keras", compile=False)
    np.testing.assert_allclose(
        loaded.predict([X, hints], verbose=0), model.predict([X, hints], verbose=0), rtol=1e-6
    )
