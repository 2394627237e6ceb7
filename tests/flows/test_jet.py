"""The recipe jet: patches, splits, bad input. What all recipes promise: test_recipes.py."""

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import bijectors, flows

SMALL = {"patch_size": 2, "num_layers": 1, "width": 8, "seed": 0}


def couplings(flow):
    return [part for part in flow.bijector.bijectors if isinstance(part, bijectors.Coupling)]


def test_patches_become_channels():
    flow = flows.jet([4, 6, 3], num_couplings=1, **SMALL)
    patches = flow.bijector.bijectors[0]
    images = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype("float32")
    found = patches.inverse(images).numpy()
    assert found.shape == (2, 2, 3, 12)
    for row in range(2):
        for column in range(3):
            patch = images[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            np.testing.assert_array_equal(found[:, row, column], patch.reshape(2, 12))
    np.testing.assert_array_equal(patches.forward(tf.constant(found)), images)


def test_splits():
    flow = flows.jet([4, 4, 1], num_couplings=6, channels_per_spatial=2, **SMALL)
    found = [part.mask for part in couplings(flow)]
    spatial = [not (mask == mask[:1, :1]).all() for mask in found]
    assert spatial == [False, False, True] * 2
    np.testing.assert_array_equal(found[2], ~found[5])
    assert all(mask[0, 0].sum() == 2 for mask, s in zip(found, spatial, strict=True) if not s)
    assert len({mask.tobytes() for mask, s in zip(found, spatial, strict=True) if not s}) > 1
    alone = flows.jet([2, 2, 2], num_couplings=3, channels_per_spatial=0, **SMALL)
    assert all((part.mask == part.mask[:1, :1]).all() for part in couplings(alone))


def test_towards_the_latents_it_at_most_doubles():
    flow = flows.jet([4, 4, 1], num_couplings=1, **SMALL)
    (coupling,) = couplings(flow)
    assert coupling.elementwise.log_scale == "double_sigmoid"
    for v in coupling.trainable_variables:
        v.assign_add(tf.fill(v.shape, 3.0))
    x = tf.constant(np.random.default_rng(0).normal(size=(8, 2, 2, 4)), tf.float32)
    assert np.max(coupling.inverse_log_det_jacobian(x, 3)) <= 2 * 4 * np.log(2.0) + 1e-5


@pytest.mark.parametrize(
    "shape, arguments, message",
    [
        ([5, 4, 1], {}, "patches of 2 x 2 need a height and width that are multiples of 2, got 5"),
        ([4, 4, 1], {"patch_size": 1}, "leave nothing to split"),
        ([2, 2, 1], {}, "leave nothing to split"),
        ([4, 4, 1], {"channels_per_spatial": -1}, "leave nothing to split"),
        ([4, 4], {}, r"event_shape must be \[H, W, C\]"),
        ([4, 4, 1], {"num_couplings": 0}, "num_couplings must be an integer >= 1"),
        ([4, 4, 1], {"width": 8, "num_heads": 3}, "multiple of num_heads"),
        ([4, 4, 1], {"seed": -1}, "flows.jet: seed must be an integer >= 0"),
    ],
)
def test_wrong_arguments(shape, arguments, message):
    with pytest.raises(ValueError, match=message):
        flows.jet(shape, **{**SMALL, "num_couplings": 2, **arguments})
