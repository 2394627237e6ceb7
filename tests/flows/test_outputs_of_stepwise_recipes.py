"""PixelCNN, PixelRNN and WaveNet as what their papers are: densities of integers."""

import itertools

import keras
import numpy as np
import pytest

from tfp_flows import FlowModel, flows

SMALL = {"filters": 4, "num_layers": 1, "first_kernel_size": 3, "seed": 0}


def away_from_the_start(density):
    rng = np.random.default_rng(0)
    for v in density.trainable_variables:
        v.assign(rng.normal(size=v.shape, scale=0.3))
    return density


@pytest.mark.parametrize(
    "density",
    [
        lambda: flows.pixel_cnn([2, 2, 1], output="categorical", num_levels=3, **SMALL),
        lambda: flows.pixel_cnn([2, 2, 2], output="bernoulli", **SMALL),
        lambda: flows.pixel_rnn([2, 2, 2], output="bernoulli", units=3, **SMALL),
        lambda: flows.wavenet(
            [4, 1], output="categorical", num_levels=3, filters=4, dilations=(1, 2), seed=0
        ),
    ],
    ids=["pixel_cnn", "pixel_cnn_of_bits", "pixel_rnn_of_bits", "wavenet"],
)
def test_the_probabilities_of_all_events_sum_to_one(density):
    density = away_from_the_start(density())
    levels = range(density.num_levels)
    size = int(np.prod(density.event_shape))
    events = np.array(list(itertools.product(levels, repeat=size)), np.int32)
    events = events.reshape(-1, *density.event_shape)
    p = np.exp(density.log_prob(events).numpy())
    np.testing.assert_allclose(p.sum(), 1.0, rtol=1e-5)
    # Samples by steps have these probabilities: chi-squared, with p = 1e-4 at most.
    x = density.sample(4000, seed=[1, 2]).numpy().reshape(4000, -1)
    index = x @ density.num_levels ** np.arange(size)[::-1]
    counts = np.bincount(index, minlength=len(p))
    excess = ((counts - 4000 * p) ** 2 / (4000 * p)).sum() - (len(p) - 1)
    assert abs(excess) < 4.0 * np.sqrt(2 * (len(p) - 1) + (1 / (4000 * p)).sum())


def test_a_pixel_cnn_of_levels_trains():
    model = FlowModel(flows.pixel_cnn([4, 4, 1], output="categorical", num_levels=4, **SMALL))
    model.compile(keras.optimizers.Adam(0.03))
    x = np.zeros((64, 4, 4, 1), np.uint8)
    x[:, ::2] = 3
    before = model.evaluate(x, verbose=0)[0]
    model.fit(x, epochs=3, batch_size=16, verbose=0)
    assert model.evaluate(x, verbose=0)[0] < before - 1.0
    assert model.sample(2, seed=0).shape == (2, 4, 4, 1)


def test_what_a_density_of_integers_does_not_have():
    with pytest.raises(ValueError, match="num_blocks and base"):
        flows.pixel_cnn([4, 4, 1], output="bernoulli", num_blocks=2, base="logistic")
