"""MADE as a distribution: types, shapes, contexts, files. Its values: test_maf_iaf.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, conditioners, flows
from tfp_flows.distributions import MADEDistribution

RNG = np.random.default_rng(0)
BITS = RNG.integers(0, 2, size=(8, 3)).astype("float32")
CONTEXT = RNG.normal(size=(2, 4, 2)).astype("float32")


def made(event_shape=(3,), **kwargs):
    """A small density with all weights away from their start."""
    density = flows.made(list(event_shape), **{"hidden_units": (8,), "seed": 0, **kwargs})
    rng = np.random.default_rng(1)
    for v in density.trainable_variables:
        v.assign(v + rng.normal(size=v.shape))
    return density


@pytest.mark.parametrize("dtype", ["float32", np.float32, tf.float32, "float64"])
def test_any_way_to_name_a_dtype_trains_and_saves(dtype, tmp_path):
    density = made(output="normal", dtype=dtype)
    assert density.dtype == tf.as_dtype(dtype)
    x = RNG.normal(size=(8, 3)).astype(density.dtype.name)
    before = density.log_prob(x)
    model = FlowModel(density)
    model.compile(keras.optimizers.Adam(0.01))
    model.fit(x, epochs=1, verbose=0)
    assert np.mean(density.log_prob(x)) > np.mean(before)
    model.save(tmp_path / "m.keras")
    again = tfp_flows.load(tmp_path / "m.keras")
    np.testing.assert_array_equal(again.log_prob(x), model.log_prob(x))


@pytest.mark.parametrize("num_masks", [1, 2])
@pytest.mark.parametrize("context", [CONTEXT, CONTEXT[0], CONTEXT[:, :1], CONTEXT[1, 2]])
def test_a_context_broadcasts_to_the_sample_shape(context, num_masks):
    density = made(output="normal", context_size=2, num_masks=num_masks, order="random")
    rows = np.broadcast_to(context, CONTEXT.shape).reshape(8, 2)
    wanted = density.sample(8, seed=[1, 2], context=rows)
    found = density.sample([2, 4], seed=[1, 2], context=context)
    np.testing.assert_array_equal(found, tf.reshape(wanted, [2, 4, 3]))
    scores = density.log_prob(wanted, context=rows)
    np.testing.assert_allclose(
        density.log_prob(found, context=context), tf.reshape(scores, [2, 4]), rtol=1e-5
    )
    found, log_prob = density.experimental_sample_and_log_prob(
        tf.TensorShape([2, 4]), seed=[1, 2], context=context
    )
    np.testing.assert_allclose(log_prob, tf.reshape(scores, [2, 4]), rtol=1e-5)
    # As the base of a flow, whose bijector doubles it.
    flow = tfp.distributions.TransformedDistribution(density, tfp.bijectors.Scale(2.0))
    doubled = flow.sample([2, 4], seed=[1, 2], distribution_kwargs={"context": context})
    assert doubled.shape == [2, 4, 3]


def test_sample_shape_and_context_that_only_the_run_knows():
    density = made(output="normal", context_size=2)

    @tf.function(input_signature=[tf.TensorSpec([2], tf.int32), tf.TensorSpec([None, None, None])])
    def sample(shape, context):
        return density.sample(shape, seed=[1, 2], context=context)

    wanted = density.sample([2, 4], seed=[1, 2], context=CONTEXT)
    np.testing.assert_allclose(sample([2, 4], CONTEXT), wanted, rtol=1e-5, atol=1e-5)
    # One entry must not serve as both.
    with pytest.raises(tf.errors.InvalidArgumentError):
        sample([2, 4], CONTEXT[..., :1])
    with pytest.raises(tf.errors.InvalidArgumentError):
        sample([2, 3], CONTEXT)


@pytest.mark.parametrize("validate_args", [False, True])
def test_bits_of_any_type(validate_args):
    density = made(validate_args=validate_args)
    wanted = density.log_prob(BITS)
    for bits in (BITS.astype("int32"), BITS.astype("uint8"), BITS > 0.5):
        # Of an array TFP makes a tensor of the density's dtype; one of integers stays one.
        for x in (bits, tf.constant(bits)):
            np.testing.assert_array_equal(density.log_prob(x), wanted)
    if validate_args:
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 and 1. Binarize"):
            density.log_prob(tf.constant(2 * BITS.astype("int32")))


@pytest.mark.parametrize("shape", [[5, 3, 2, 1], [5, 6], [6], [2, 3, 2], []])
def test_data_of_another_shape_are_not_taken_for_the_event(shape):
    density = made((2, 3, 1))
    with pytest.raises(ValueError, match=r"'made': expected data of shape \[..., 2, 3, 1\], got"):
        density.log_prob(tf.zeros(shape))
    signature = [tf.TensorSpec([None] * len(shape))]
    late = tf.function(density.log_prob, input_signature=signature)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        late(tf.zeros(shape))


def test_unknown_ranks_are_refused():
    density = made(context_size=2)
    x = [tf.TensorSpec([None, 3]), tf.TensorSpec([None, 2])]
    for i, name in enumerate(["x", "context"]):
        signature = [tf.TensorSpec(None) if i == n else x[n] for n in range(2)]
        call = tf.function(lambda x, c: density.log_prob(x, context=c), signature)
        with pytest.raises(ValueError, match=f"unknown rank.*tf.ensure_shape.{name}, .None, "):
            call(BITS, tf.ones([8, 2]))


def test_wrong_contexts():
    density = made(context_size=2)
    for context, message in [
        (None, r"a context of shape \[..., 2\] is required, got none"),
        (tf.ones([8, 1]), r"of shape \[..., 2\], got \[8, 1\]"),
        (tf.ones([]), r"of shape \[..., 2\], got \[\]"),
        (tf.ones([3, 2]), r"argument.s, \[8\], got \[3\].*ne row for all"),
        (tf.ones([1, 8, 2]), r"\[8\], got \[1, 8\]"),
    ]:
        with pytest.raises(ValueError, match=message):
            density.log_prob(BITS, context=context)
        with pytest.raises(ValueError, match=message):
            density.sample(8, seed=[0, 1], context=context)
    with pytest.raises(ValueError, match=r"\[\], got \[8\]"):
        density.sample(seed=[0, 1], context=tf.ones([8, 2]))


@pytest.mark.parametrize(
    ("layer", "kwargs", "error", "message"),
    [
        ("mlp", {}, TypeError, "'d': its layer must be a conditioners.MADE, got MLP"),
        ("made", {"event_shape": [4]}, ValueError, r"must have the 3 entries .*got \[4\]"),
        ("made", {"event_shape": [None]}, ValueError, "must have the 3 entries"),
        ("made", {"output": "poisson"}, ValueError, "output must be one of .*got 'poisson'"),
        ("made", {"output": "normal"}, ValueError, r"\[batch, 6\], but gives \[batch, 3\]"),
        ("made", {"dtype": "float16"}, TypeError, "float32 or float64, got float16.*mixed"),
        ("made", {"dtype": tf.int32}, TypeError, "float32 or float64, got int32"),
    ],
)
def test_wrong_arguments(layer, kwargs, error, message):
    layers = {"mlp": conditioners.MLP, "made": conditioners.MADE}
    arguments = {"event_shape": [3], "name": "d", **kwargs}
    with pytest.raises(error, match=message):
        MADEDistribution(
            layers[layer](3, **({"num_parameters": 1} if layer == "made" else {})), **arguments
        )


@keras.saving.register_keras_serializable(package="test_made_distribution")
class Registered(MADEDistribution):
    """As a class of the user's own is found in a file."""


def test_a_registered_class_comes_back_from_a_file(tmp_path):
    layer = conditioners.MADE(3, 1, hidden_units=(8,), num_masks=2, order="random", seed=0)
    model = FlowModel(Registered(layer, 3))
    model.save(tmp_path / "m.keras")
    again = tfp_flows.load(tmp_path / "m.keras")
    assert type(again.distribution) is Registered
    np.testing.assert_array_equal(again.log_prob(BITS), model.log_prob(BITS))
    copy = Registered.from_config(again.distribution.get_config())
    np.testing.assert_array_equal(copy.log_prob(BITS), again.log_prob(BITS))
