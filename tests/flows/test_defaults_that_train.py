"""What the recipes do so that Adam at its usual rates trains any depth and width."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, bijectors, elementwise, flows


def bounds(flow):
    """Of the couplings and autoregressive layers; learned priors of `FactorOut` have none."""
    kinds = bijectors.Coupling, bijectors.MaskedAutoregressive, bijectors.InverseAutoregressive
    parts = [*flow.bijector.submodules]
    for loop in [part for part in parts if isinstance(part, bijectors.Repeat)]:
        parts += loop.step.submodules
    parts = [part for part in parts if isinstance(part, kinds)]
    (found,) = {(part.elementwise.rate, part.elementwise.cap) for part in parts}
    return found


@pytest.mark.parametrize(
    "make, rate, cap",
    [
        (lambda: flows.real_nvp([4]), 1.0, 3.0),  # 8 couplings of 256 units
        (lambda: flows.real_nvp([4], num_couplings=4, hidden_units=(8, 2048)), 1 / 8, 3.0),
        (lambda: flows.real_nvp([4], num_couplings=20, hidden_units=(4,)), 1.0, 1.5),
        (lambda: flows.real_nvp([4], hidden_units=(512,), rate=0.5, cap=2.0), 0.5, 2.0),
        (lambda: flows.real_nvp([4, 4, 1]), (32 / 35) ** 1.5 / 3, 1.0),  # 10, 3 blocks, 3.5 * 64
        # 4 couplings of 3 blocks, 3.5 * 512 wide
        (
            lambda: flows.real_nvp([2, 2, 1], num_scales=1, filters=512, num_blocks=3),
            3.5**-1.5 / 6,
            1.0,
        ),
        # 16 couplings, the last of them 3.5 * 4 * 128 wide
        (
            lambda: flows.real_nvp([8, 8, 1], num_scales=3, filters=128, num_blocks=1),
            14**-1.5,
            10 / 16,
        ),
        (lambda: flows.maf([4]), 1.0, 3.0),
        (lambda: flows.maf([4], hidden_units=()), 1.0, 3.0),
        (lambda: flows.maf([4], num_layers=16, hidden_units=(512,)), 1 / 8, 30 / 16),
        (lambda: flows.iaf([4], num_layers=16, hidden_units=(512,)), 1 / 8, 30 / 16),
        # 4 couplings with kernels of 3x3x128
        (
            lambda: flows.glow([4, 4, 1], num_levels=2, num_steps=2, hidden_filters=128),
            (2048 / (4 * 9 * 128)) ** 1.5,
            3.0,
        ),
        (lambda: flows.glow([4, 4, 1], num_levels=1, num_steps=2, hidden_filters=8), 1.0, 3.0),
    ],
)
def test_bounds(make, rate, cap):
    np.testing.assert_allclose(bounds(make()), (rate, cap))


def test_a_map_of_ones_own_keeps_its_bounds():
    own = elementwise.Affine()
    for flow in (
        flows.maf([4], num_layers=12, hidden_units=(512,), elementwise=own),
        flows.glow([4, 4, 1], num_levels=1, num_steps=12, hidden_filters=128, coupling=own),
    ):
        assert bounds(flow) == (1.0, 3.0)


def test_a_deep_and_wide_glow_trains():
    """With a rate of 1 its loss is not finite after a step or two."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(32, 1, 1, 1)) + 0.3 * rng.normal(size=(32, 4, 4, 1))
    images = (images + rng.normal(size=(32, 4, 1, 1))).astype("float32")
    flow = flows.glow([4, 4, 1], num_levels=1, num_steps=8, hidden_filters=512, seed=0)
    model = FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), run_eagerly=True)
    model.initialize(images)
    before = -tf.reduce_mean(model.log_prob(images))
    history = model.fit(images, epochs=4, batch_size=32, shuffle=False, verbose=0).history["loss"]
    assert max(history) < 2.0 * before
    assert history[-1] < before - 1.0
