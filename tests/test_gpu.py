"""What a GPU must give: the densities, samples and training of the CPU.

CUDA_VISIBLE_DEVICES=0 python -m pytest tests/test_gpu.py
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, flows

if not tf.config.list_physical_devices("GPU"):
    pytest.skip("TensorFlow sees no GPU", allow_module_level=True)

RECIPES = {
    "nice": lambda: flows.nice([6], hidden_units=(16,), seed=0),
    "real_nvp": lambda: flows.real_nvp([6], num_couplings=4, hidden_units=(16,), seed=0),
    "spline": lambda: flows.real_nvp(
        [6],
        num_couplings=4,
        hidden_units=(16,),
        elementwise="rational_quadratic_spline",
        seed=0,
    ),
    "maf": lambda: flows.maf([6], num_layers=3, hidden_units=(16,), seed=0),
    "iaf": lambda: flows.iaf([6], num_layers=3, hidden_units=(16,), seed=0),
    "real_nvp_image": lambda: flows.real_nvp([8, 8, 3], filters=8, seed=0),
    "glow": lambda: flows.glow([8, 8, 3], num_levels=2, num_steps=2, hidden_filters=8, seed=0),
}


@pytest.fixture(autouse=True)
def full_precision():
    """TF32 keeps 10 bits of a product: the comparison is with float32."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


def away_from_identity(flow):
    rng = np.random.default_rng(1)
    for variable in flow.trainable_variables:
        noise = rng.normal(size=tuple(variable.shape)).astype("float32")
        variable.assign_add(0.05 * tf.constant(noise))


@pytest.mark.parametrize("name", RECIPES)
def test_densities_and_inverses(name):
    with tf.device("CPU:0"):
        flow = RECIPES[name]()
        away_from_identity(flow)
        shape = (5, *flow.event_shape)
        x = tf.constant(np.random.default_rng(2).normal(size=shape).astype("float32"))
        expected = flow.log_prob(x).numpy()
    with tf.device("GPU:0"):
        log_prob = tf.function(flow.log_prob)(x)
        z = tf.function(flow.bijector.inverse)(x)
        back = tf.function(flow.bijector.forward)(tf.identity(z))
    assert "GPU" in log_prob.device
    np.testing.assert_allclose(log_prob.numpy(), expected, rtol=2e-5, atol=2e-4)
    np.testing.assert_allclose(back.numpy(), x.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["maf", "glow", "spline"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_training_is_that_of_the_cpu(name, jit_compile):
    def train(devices):
        keras.utils.set_random_seed(0)
        with tf.distribute.MirroredStrategy(devices).scope():
            model = FlowModel(RECIPES[name]())
            model.compile("adam", jit_compile=jit_compile)
        shape = (64, *model.distribution.event_shape)
        x = np.random.default_rng(3).normal(size=shape).astype("float32")
        model.initialize(x)
        history = model.fit(x, batch_size=16, epochs=2, shuffle=False, verbose=0).history
        return history["loss"]

    np.testing.assert_allclose(train(["GPU:0"]), train(["CPU:0"]), rtol=1e-3)
