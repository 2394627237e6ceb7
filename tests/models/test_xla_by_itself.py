"""`compile(jit_compile="auto")`: what is compiled where nobody asked."""

import pytest
import tensorflow as tf

import tfp_flows
from tfp_flows import FlowModel, flows
from tfp_flows.models import xla

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
