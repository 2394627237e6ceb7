"""`compile(jit_compile="auto")`: what is compiled where nobody asked."""

import keras
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, flows, objectives
from tfp_flows.models import xla

NORMAL = tfp.distributions.MultivariateNormalDiag([0.0] * 4)

VECTORS = {
    "maf": lambda: flows.maf([4], num_layers=2, hidden_units=(8,)),
    "spline": lambda: flows.real_nvp([4], hidden_units=(8,), elementwise="linear_spline"),
}
OTHERS = {
    "iaf": lambda: flows.iaf([4], num_layers=2, hidden_units=(8,)),
    "glow": lambda: flows.glow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=4),
}


@pytest.mark.parametrize("name", [*VECTORS, *OTHERS])
def test_only_flows_of_vectors_on_a_gpu(name, monkeypatch):
    flow = {**VECTORS, **OTHERS}[name]()
    model = FlowModel(flow)
    model.compile()
    assert model.jit_compile is False  # there is no GPU here
    monkeypatch.setattr(xla, "on_gpu", lambda strategy: True)
    model.compile()
    assert model.jit_compile is (name in VECTORS)


def test_not_with_what_was_not_measured(monkeypatch):
    monkeypatch.setattr(xla, "on_gpu", lambda strategy: True)
    conditional = flows.maf([4], num_layers=2, hidden_units=(8,), context_size=3)
    model = FlowModel(conditional, context_network=keras.layers.Embedding(5, 3))
    model.compile()
    assert model.jit_compile is False
    model = FlowModel(flows.planar([4], num_layers=2), objective=objectives.ReverseKL(NORMAL))
    model.compile()
    assert model.jit_compile is False
    with pytest.raises(ValueError, match="metrics are of log-probabilities, which ReverseKL"):
        model.compile(metrics=[lambda x, log_prob: log_prob])


def test_devices():
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    assert not xla.on_gpu(strategy)
    assert not xla.on_gpu(tf.distribute.get_strategy())
    strategy.extended._devices = ("/job:localhost/replica:0/task:0/device:GPU:0",)
    assert xla.on_gpu(strategy)


def test_a_file_keeps_what_was_asked(tmp_path, monkeypatch):
    model = FlowModel(VECTORS["maf"]())
    monkeypatch.setattr(xla, "on_gpu", lambda strategy: True)
    model.compile()
    assert model.jit_compile
    model.save(tmp_path / "on_a_gpu.keras")
    monkeypatch.undo()
    assert tfp_flows.load(tmp_path / "on_a_gpu.keras").jit_compile is False
