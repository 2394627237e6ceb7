"""Damaged weights are noticed, and a load that fails changes nothing.

`tools/flip_test.py` flips thousands of bytes; here are a few.
"""

import shutil
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows
from tfp_flows import FlowModel, flows

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")


def trained(steps=1, **kwargs):
    flow = flows.real_nvp([4], num_couplings=1, hidden_units=(4,), actnorm=True, seed=0, **kwargs)
    model = FlowModel(flow)
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    model.fit(X, epochs=steps, verbose=0)
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "m.weights.h5"
    model.save_weights(path)
    return path


@pytest.fixture(scope="module")
def other():
    return trained(steps=2)


def state_of(model):
    return [v.numpy() for v in (*model.variables, *model.optimizer.variables)]


def refused(model, path, words):
    before = state_of(model)
    with pytest.raises(ValueError, match=words):
        model.load_weights(path)
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def places_of(path, *names):
    with h5py.File(path) as file:
        return [file[name].id.get_offset() for name in names]


def flipped(saved, path, place):
    data = bytearray(saved.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["conditioners/mlp/vars/0", "layers/tensor_flow_variables/vars/0", "optimizer/vars/3"]
)
def test_a_flipped_byte_is_named_and_nothing_is_loaded(saved, other, tmp_path, name):
    (place,) = places_of(saved, name)
    path = tmp_path / "m.weights.h5"
    flipped(saved, path, place)
    refused(other, path, f"the file is damaged: '{name}' is not what was written: its digest")


def test_flips_all_over_the_file(model, saved, other, tmp_path):
    """Either an error, or all is as written: the rest of HDF5 is room between its parts."""
    wanted, path = state_of(model), tmp_path / "m.weights.h5"
    refusals = 0
    for place in np.random.default_rng(1).integers(0, saved.stat().st_size, size=25):
        flipped(saved, path, place)
        try:
            other.load_weights(path)
        except ValueError:
            refusals += 1
            continue
        for old, new in zip(wanted, state_of(other), strict=True):
            np.testing.assert_array_equal(old, new)
    assert refusals > 2


def test_a_flipped_byte_of_a_model_by_either_way(model, tmp_path):
    path = tmp_path / "m.keras"
    model.save(path)
    kernel = model.conditioners[0].variables[0].numpy().tobytes()
    data = bytearray(path.read_bytes())
    data[data.index(kernel)] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ValueError, match="the checksum of its model.weights.h5 is wrong"):
        tfp_flows.load(path)
    # By the checksum of the archive, too, or where that is not looked at, by the digest.
    with pytest.raises((ValueError, zipfile.BadZipFile), match="Bad CRC-32|its digest differs"):
        keras.models.load_model(path)
    refused(model, path, r"load_weights: .*the checksum of its model.weights.h5 is wrong")


@pytest.mark.parametrize("name", ["conditioners/mlp/vars/2", "optimizer/vars/3"])
@pytest.mark.parametrize("without_digests", [False, True])
def test_missing_and_reshaped_weights(saved, other, tmp_path, name, without_digests):
    path = tmp_path / "m.weights.h5"
    for change, words in ((True, "has the shape|its digest"), (False, "lacks|missing|of which it")):
        shutil.copy(saved, path)
        with h5py.File(path, "r+") as file:
            value = file[name][()]
            del file[name]
            if without_digests:
                del file["vars/digests"]
            if change:
                file[name] = value.reshape(-1)[:-1]
        refused(other, path, words)


def test_a_weight_of_which_there_is_no_digest(saved, other, tmp_path):
    path = shutil.copy(saved, tmp_path / "m.weights.h5")
    with h5py.File(path, "r+") as file:
        file["conditioners/mlp/vars/99"] = 1.0
    refused(other, path, "holds 'conditioners/mlp/vars/99', of which it has no digest")


def test_a_file_without_digests_says_once_that_it_is_unchecked(model, saved, other, tmp_path):
    path = shutil.copy(saved, tmp_path / "m.weights.h5")
    with h5py.File(path, "r+") as file:
        del file["vars/digests"]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        other.load_weights(path)
    assert len([w for w in told if "the weights are unchecked" in str(w.message)]) == 1
    for old, new in zip(state_of(model), state_of(other), strict=True):
        np.testing.assert_array_equal(old, new)


def test_another_optimizer_is_left_as_it_was(model, saved):
    """As Keras has it: the weights are loaded, and the optimizer starts afresh, with a warning."""
    flow = flows.real_nvp([4], num_couplings=1, hidden_units=(4,), actnorm=True, seed=1)
    other = FlowModel(flow)
    other.compile(optimizer="sgd")
    with pytest.warns(UserWarning, match="Skipping variable loading for optimizer"):
        other.load_weights(saved)
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_a_flow_inside_another_model_has_its_digests(tmp_path):
    @keras.saving.register_keras_serializable(package="test_saving_damage")
    class Scored(keras.Model):
        def __init__(self, flow, **kwargs):
            super().__init__(**kwargs)
            self.flow, self.dense = flow, keras.layers.Dense(1)

        def call(self, inputs):
            return self.dense(inputs) + self.flow(inputs)[:, None]

    model, path = Scored(trained()), tmp_path / "m.weights.h5"
    wanted = model(X).numpy()
    model.save_weights(path)
    again = Scored(trained(steps=2))
    again(X)
    again.load_weights(path)
    np.testing.assert_array_equal(again(X), wanted)
    flipped(path, path, places_of(path, "flow/conditioners/mlp/vars/0")[0])
    with pytest.raises(ValueError, match="could not be loaded"):  # Keras's words for it.
        again.load_weights(path)


def test_half_precision_weights(tmp_path):
    flow = flows.real_nvp([4], num_couplings=1, hidden_units=(4,), seed=0)
    model, path = FlowModel(flow), tmp_path / "m.weights.h5"
    half = tf.Variable(tf.constant([1.0, 2.0], tf.bfloat16), name="half")
    model.other_variables.wrapped.append(
        keras.Variable(half, dtype="bfloat16", autocast=False, name="half")
    )
    model.save_weights(path)
    half.assign([3.0, 4.0])
    model.load_weights(path)
    np.testing.assert_array_equal(tf.cast(half, tf.float32), [1.0, 2.0])
