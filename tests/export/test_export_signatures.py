"""What an export answers, and what it refuses."""

import math
import os

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from export_models import (
    arguments,
    call,
    image_model,
    images,
    manifest_of,
    moved,
    signatures_of,
    vector_model,
    vectors,
)

import tfp_flows
from tfp_flows import FlowModel, flows

tfb, tfd = tfp.bijectors, tfp.distributions


@pytest.fixture(scope="module")
def vector(tmp_path_factory):
    model, path = vector_model(), str(tmp_path_factory.mktemp("vector") / "model")
    model.export(path)
    return model, path, signatures_of(path)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    model = vector_model(context_size=3)
    path = str(tmp_path_factory.mktemp("conditional") / "model")
    model.export(path)
    return model, path, signatures_of(path)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    model, path = image_model(), str(tmp_path_factory.mktemp("image") / "model")
    model.export(path)
    return model, path, signatures_of(path)


# --- Answers. ---


@pytest.mark.parametrize("rows", [1, 7])
def test_density_and_both_directions_are_the_models(vector, rows):
    model, _, signatures = vector
    x = vectors(rows)
    np.testing.assert_allclose(
        signatures["log_prob"](x=x)["log_prob"], model.log_prob(x), rtol=1e-6, atol=1e-6
    )
    z = signatures["inverse"](x=x)["z"]
    np.testing.assert_allclose(z, model.distribution.bijector.inverse(x), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(signatures["forward"](z=z)["x"], x, rtol=1e-5, atol=1e-5)


def test_python_calls_what_is_loaded_by_position_and_by_name(vector, conditional, image):
    x, c = vectors(3), vectors(3, 3, seed=4)
    for path, kwargs in ((vector[1], {"x": x}), (conditional[1], {"x": x, "context": c})):
        loaded = tf.saved_model.load(path)
        wanted = loaded.signatures["log_prob"](**{k: tf.constant(v) for k, v in kwargs.items()})
        for found in (loaded.log_prob(*kwargs.values()), loaded.log_prob(**kwargs)):
            np.testing.assert_array_equal(found["log_prob"], wanted["log_prob"])
        z = loaded.inverse(**kwargs)["z"]
        rest = {k: v for k, v in kwargs.items() if k != "x"}
        np.testing.assert_allclose(loaded.forward(z=z, **rest)["x"], x, rtol=1e-5, atol=1e-5)
    for name in ("log_prob", "inverse"):
        with pytest.raises(TypeError, match="missing a required argument: 'context'"):
            getattr(loaded, name)(x)
    loaded, x = tf.saved_model.load(image[1]), images(3)
    assert set(loaded.bits_per_dim(x=tf.cast(x, tf.int32))) == {"bits_per_dim"}
    assert set(loaded.log_prob_dequantized(x=tf.cast(x, tf.float32))) == {"log_prob"}


def test_samples_are_the_models_and_repeat(vector):
    model, _, signatures = vector
    sample = signatures["sample"]
    first = call(sample, arguments(None, n=6, temperature=0.5))["samples"]
    again = call(sample, arguments(None, n=6, temperature=0.5))["samples"]
    other = call(sample, arguments(None, n=6, seed=(1, 3), temperature=0.5))["samples"]
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0.01
    wanted = model.sample(6, seed=(1, 2), temperature=0.5)
    np.testing.assert_allclose(first, wanted, rtol=1e-6, atol=1e-6)


def test_the_temperature_has_a_default_where_python_knows_one(vector):
    model, _, signatures = vector
    got = signatures["loaded"].sample(tf.constant(3), tf.constant([1, 2]))["samples"]
    np.testing.assert_allclose(got, model.sample(3, seed=(1, 2)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 5])
def test_context(conditional, rows):
    model, _, signatures = conditional
    x, context = vectors(5), vectors(rows, 3, seed=4)
    values = arguments(x, context=context)
    np.testing.assert_allclose(
        call(signatures["log_prob"], values)["log_prob"],
        model.log_prob(x, context),
        rtol=1e-6,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        call(signatures["sample"], values)["samples"],
        model.sample(5, seed=(1, 2), context=context),
        rtol=1e-6,
        atol=1e-6,
    )
    z = call(signatures["inverse"], values)["z"]
    back = call(signatures["forward"], {"z": z, "context": context})["x"]
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)


def test_a_model_that_dequantizes_takes_integers(image):
    model, _, signatures = image
    x = images(4)
    wanted = model.log_prob(x)
    got = signatures["log_prob"](x=tf.constant(x, tf.int32))["log_prob"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)
    bits = signatures["bits_per_dim"](x=tf.constant(x, tf.int32))["bits_per_dim"]
    np.testing.assert_allclose(bits, -wanted / (16 * math.log(2)), rtol=1e-5)
    floats = x + np.float32(0.5)
    got = signatures["log_prob_dequantized"](x=floats)["log_prob"]
    np.testing.assert_allclose(got, model.log_prob(floats), rtol=1e-6)


def test_a_score_depends_on_no_other_row_and_no_place(image):
    """So that a server may merge requests. In the model's log_prob and predict, and exported."""
    model, _, signatures = image
    x = images(6)
    wanted = model.log_prob(x)

    def predicted(x):
        return model.predict(x, batch_size=4, verbose=0)

    def exported(x):
        return signatures["log_prob"](x=tf.constant(x, tf.int32))["log_prob"]

    for score in (model.log_prob, predicted, exported):
        np.testing.assert_allclose(score(x), wanted, rtol=1e-6)
        np.testing.assert_allclose(score(x[::-1])[::-1], wanted, rtol=1e-6)
        np.testing.assert_allclose(score(x[4:5])[0], wanted[4], rtol=1e-6)
    # The noise of training and of `evaluate` stays a row's own.
    same = np.repeat(x[:1], 2, axis=0)
    noisy = model._prepare(tf.constant(same), "evaluate", 0)
    assert np.abs(noisy[0] - noisy[1]).max() > 0.01


def test_bits_per_dim_is_there_where_the_model_reports_it(vector, image):
    assert "bits_per_dim" not in vector[2]
    assert {"log_prob", "bits_per_dim", "forward", "inverse", "sample"} <= set(image[2])


def test_float64(tmp_path):
    model = vector_model(dtype="float64")
    model.export(tmp_path / "model")
    x = vectors(3).astype(np.float64)
    got = signatures_of(tmp_path / "model")["log_prob"](x=x)["log_prob"]
    assert got.dtype == tf.float64
    np.testing.assert_allclose(got, model.log_prob(x), rtol=1e-12)


def test_nested_distributions_and_a_base_without_a_mean(tmp_path):
    base = tfd.TransformedDistribution(
        tfd.Sample(tfd.Cauchy(0.0, 1.0), [4]), tfb.Scale(tf.Variable(tf.fill([4], 2.0)))
    )
    flow = flows.real_nvp([4], num_couplings=1, hidden_units=(4,), base=base, seed=0)
    model = moved(FlowModel(flow))
    model.export(tmp_path / "model")
    signatures = signatures_of(tmp_path / "model")
    samples = call(signatures["sample"], arguments(None))["samples"]
    np.testing.assert_allclose(samples, model.sample(5, seed=(1, 2)), rtol=1e-6, atol=1e-6)
    # `z` is that of the innermost base, below all bijectors.
    z = signatures["inverse"](x=samples)["z"]
    np.testing.assert_allclose(signatures["forward"](z=z)["x"], samples, rtol=1e-4, atol=1e-4)


def test_a_distribution_without_a_bijector_has_no_directions(tmp_path):
    model = FlowModel(tfd.Independent(tfd.Normal(tf.Variable(tf.ones(4)), 2.0), 1))
    model.export(tmp_path / "model")
    signatures = signatures_of(tmp_path / "model")
    assert not {"forward", "inverse"} & set(signatures)
    x = vectors(3)
    np.testing.assert_allclose(signatures["log_prob"](x=x)["log_prob"], model.log_prob(x), 1e-6)


@pytest.mark.parametrize("num_masks", [1, 2])
def test_a_density_whose_samples_have_no_gradient(tmp_path, num_masks):
    density = flows.made([4], hidden_units=(8,), num_masks=num_masks, order="random", seed=0)
    model = moved(FlowModel(density))
    model.export(tmp_path / "model")
    signatures = signatures_of(tmp_path / "model")
    x = (vectors(3) > 0).astype(np.float32)
    got = signatures["log_prob"](x=x)["log_prob"]
    np.testing.assert_allclose(got, model.log_prob(x), rtol=1e-6)
    samples = call(signatures["sample"], arguments(None))["samples"]
    np.testing.assert_array_equal(samples, model.sample(5, seed=(1, 2)))


# --- The directory. ---


def test_the_manifest_describes_the_export(image):
    model, path, signatures = image
    manifest = manifest_of(path)
    assert manifest["format_version"] == 1
    assert manifest["versions"]["tfp_flows"] == tfp_flows.__version__
    assert manifest["event_shape"] == [4, 4, 1]
    assert manifest["dtype"] == "float32"
    assert manifest["num_levels"] == 17
    assert set(manifest["signatures"]) == set(signatures) - {"loaded"}
    for name, described in manifest["signatures"].items():
        specs = signatures[name].structured_input_signature[1]
        assert {k: v["dtype"] for k, v in described["inputs"].items()} == {
            k: s.dtype.name for k, s in specs.items()
        }
        assert set(described["outputs"]) == set(signatures[name].structured_outputs)
    log_prob = manifest["signatures"]["log_prob"]
    assert log_prob["inputs"]["x"]["shape"] == [None, 4, 4, 1]
    assert log_prob["outputs"]["log_prob"]["unit"] == "nats"
    assert manifest["variable_bytes"] == sum(
        v.shape.num_elements() * v.dtype.size for v in model.distribution.variables
    )


def test_the_size_is_that_of_variables_and_graph(image):
    _, path, _ = image
    sizes = {
        os.path.join(folder, name): os.path.getsize(os.path.join(folder, name))
        for folder, _, names in os.walk(path)
        for name in names
    }
    graph = sizes[os.path.join(path, "saved_model.pb")]
    needed = manifest_of(path)["variable_bytes"] + graph
    assert sum(sizes.values()) <= 1.2 * needed


def test_nothing_in_the_graph_needs_python(image):
    _, path, _ = image
    with open(os.path.join(path, "saved_model.pb"), "rb") as file:
        graph = file.read()
    for op in (b"PyFunc", b"EagerPyFunc", b"tfp_flows.", b"TFPFlows"):
        assert op not in graph


# --- Refusals. ---


def _refused(signature, values, words, kinds=(tf.errors.InvalidArgumentError, TypeError)):
    with pytest.raises(kinds) as caught:
        signature(**values)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("n", "seed", "temperature", "words"),
    [
        (0, [1, 2], 1.0, "n must be at least 1"),
        (-3, [1, 2], 1.0, "n must be at least 1"),
        (3, [1, 2, 3], 1.0, "[3]"),
        (3, [1, 2], 0.0, "temperature must be above 0"),
        (3, [1, 2], float("nan"), "temperature must be above 0"),
        ([3], [1, 2], 1.0, ""),
    ],
)
def test_sample_refuses(vector, n, seed, temperature, words):
    values = {
        "n": tf.constant(n),
        "seed": tf.constant(seed),
        "temperature": tf.constant(temperature),
    }
    _refused(vector[2]["sample"], values, words)


@pytest.mark.parametrize("name", ["log_prob", "inverse", "forward"])
@pytest.mark.parametrize("shape", [[3, 5], [3, 1], [4], [2, 3, 4]])
def test_wrong_shapes_are_refused(vector, name, shape):
    """TensorFlow's signatures check no shape: some of these would be broadcast."""
    key = "z" if name == "forward" else "x"
    _refused(vector[2][name], {key: tf.ones(shape)}, f"Shape of tensor {key}")


def test_wrong_dtypes_are_refused(vector, image):
    _refused(vector[2]["log_prob"], {"x": tf.ones([3, 4], tf.int32)}, "float")
    _refused(image[2]["log_prob"], {"x": tf.ones([3, 4, 4, 1])}, "int32")


@pytest.mark.parametrize("value", [17, -1])
def test_levels_out_of_range_are_refused(image, value):
    x = {"x": tf.fill([2, 4, 4, 1], value)}
    _refused(image[2]["log_prob"], x, "x must hold integers from 0 to 16")


@pytest.mark.parametrize("rows", [2, 6])
def test_contexts_of_other_rows_are_refused(conditional, rows):
    values = {"x": tf.ones([5, 4]), "context": tf.ones([rows, 3])}
    _refused(conditional[2]["log_prob"], values, "context must have one row, or as many")
    _refused(conditional[2]["log_prob"], {"x": tf.ones([5, 4])}, "context")


def test_export_refuses(tmp_path, vector):
    model = vector[0]
    for make in (os.mkdir, lambda path: open(path, "w").close()):
        path = str(tmp_path / make.__name__)
        make(path)
        with pytest.raises(FileExistsError, match="already"):
            model.export(path)
    with pytest.raises(ValueError, match="local path"):
        model.export("gs://bucket/model")
    with pytest.raises(ValueError, match="format must be 'tf_saved_model'"):
        model.export(tmp_path / "a", format="onnx")
    with pytest.raises(TypeError, match="input_signature"):
        model.export(tmp_path / "a", input_signature=[])
    glow = flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    with pytest.raises(ValueError, match="never initialised"):
        FlowModel(glow).export(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == ["<lambda>", "mkdir"]
