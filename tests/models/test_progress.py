"""Progress bars: of long work, and of that alone."""

import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

from tfp_flows import FlowModel, flows, preprocessing
from tfp_flows.models import progress

X = np.random.default_rng(0).integers(0, 4, [6, 4, 4, 1]).astype("uint8")


def clock(monkeypatch, seconds):
    """Has so many seconds go by from one look at the clock to the next."""
    times = itertools.count(0.0, seconds)
    monkeypatch.setattr(progress, "time", types.SimpleNamespace(monotonic=lambda: next(times)))


@pytest.fixture(scope="module")
def model():
    flow = flows.glow(
        [4, 4, 1], num_levels=1, num_steps=2, hidden_filters=4, context_size=2, seed=0
    )
    return FlowModel(flow, dequantization=preprocessing.UniformDequantization(4, seed=0))


@pytest.fixture
def printed(capsys):
    def read():
        return capsys.readouterr().out.replace("\b", "")

    read()
    return read


def test_initialisation(model, monkeypatch, printed):
    clock(monkeypatch, 3.0)
    model.initialize((X, np.zeros([6, 2], "float32")))
    assert "2/2" in printed()  # ActNorms.
    model.initialize((X, np.zeros([6, 2], "float32")))  # It was done.
    assert not printed()


def test_sampling_in_parts(model, monkeypatch, printed):
    model.initialize((X, np.zeros([6, 2], "float32")), verbose=0)
    context = np.arange(10, dtype="float32").reshape(5, 2)
    clock(monkeypatch, 0.1)
    samples = model.sample([2, 5], context=context, seed=1, batch_size=4)
    assert samples.shape == [2, 5, 4, 4, 1] and not printed()
    clock(monkeypatch, 3.0)
    again = model.sample([2, 5], context=context, seed=1, batch_size=4)
    np.testing.assert_array_equal(again, samples)
    assert "10/10" in printed()
    model.sample([2, 5], context=context, seed=1, batch_size=4, verbose=0)
    assert not printed()
    # Each row has its own context, each part its own seed.
    rows = samples.numpy().reshape(10, -1)
    assert len(np.unique(rows, axis=0)) == 10
    assert model.sample(context=context[0], batch_size=4).shape == [4, 4, 1]
    latents = model.inverse(samples, context)
    np.testing.assert_allclose(model.forward(latents, context), samples, atol=1e-4)


def test_scoring_in_parts(model, monkeypatch, printed):
    model.initialize((X, np.zeros([6, 2], "float32")), verbose=0)
    arguments = {"context": np.zeros([6, 2], "float32"), "num_samples": 2, "batch_size": 4}
    clock(monkeypatch, 0.1)
    model.estimate_log_prob(X, **arguments)
    assert not printed()
    clock(monkeypatch, 3.0)
    model.estimate_log_prob(X, **arguments)
    assert "6/6" in printed()
    model.estimate_log_prob(X, verbose=0, **arguments)
    assert not printed()


def test_bad_input(model):
    model.initialize((X, np.zeros([6, 2], "float32")), verbose=0)
    context = np.zeros([1, 2], "float32")
    with pytest.raises(ValueError, match="sample: batch_size must be an integer >= 1, got 0"):
        model.sample(3, context=context, batch_size=0)
    with pytest.raises(ValueError, match="sample: verbose must be 'auto', 0, 1 or 2, got 'no'"):
        model.sample(3, context=context, batch_size=2, verbose="no")
    with pytest.raises(ValueError, match="which a tf.function would unroll. Leave it out"):
        tf.function(lambda: model.sample(3, context=context[0], batch_size=2), autograph=False)()
