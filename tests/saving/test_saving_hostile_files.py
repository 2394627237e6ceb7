"""Files that were made to harm: refused in one line, with nothing run, opened or built.

`tools/hostile_test.py` has the whole set, with the seconds and megabytes that each took.
"""

import pathlib
import sys
import warnings

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

import tfp_flows
from tfp_flows.saving import bounds, describe, known, layers, rebuild, weights

sys.path.append(str(pathlib.Path(__file__).parents[2] / "tools"))
import hostile_test as hostile


@pytest.fixture(scope="module")
def where(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    (folder / "secret").write_text(hostile.SECRET * 40)
    with h5py.File(folder / "other.h5", "w") as other:
        other["x"] = np.ones([2, 4], np.float32)
    hostile.model().save(folder / "sound.keras")
    return folder


@pytest.fixture(scope="module")
def victim():
    return hostile.model()


@pytest.fixture
def nothing_else(monkeypatch):
    """Fails a test that loads a program or opens a file by TensorFlow."""

    def reached(*args, **kwargs):
        pytest.fail(f"reached {args}")

    monkeypatch.setattr(tf.saved_model, "load", reached)
    monkeypatch.setattr(tf.io.gfile, "GFile", reached)


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "TFSMLayer": "'TFSMLayer' of keras.layers, which a file may not name",
        "TFSMLayer_by_its_source": "of keras.src.export.tfsm_layer, which a file may not name",
        "StringLookup_of_a_file": "'StringLookup' of keras.layers, which a file may not name",
        "get_file_as_activation": "'get_file' of keras.utils, which a file may not name",
        "typespec": "'Popen', which is neither Keras's nor registered",
        "unused_layer": "nothing refers to part 21 of the file, 'layer'",
        "doubling": "part 13 of the file refers to 10620 parts or more",
        "deep": "what the file describes is more than 200 levels deep",
        "deep_references": "part [0-9]+ of the file is more than 200 levels deep",
        "array_of_1e15": "arrays of 4000000000000000 bytes do not fit the file",
        "variable_of_zeros": "variables of 1600000000 bytes, and the file's weights have",
        "layer_of_1e6": "has 1000000000000 weights, and the file's have",
        "stock_layer_of_1e6": "is of size 1000000, and the file's weights have",
        "stock_layer_of_5e4": r"variable of shape \[50000, 50000\] does not fit weights of",
        "long_name": "the class 'xxx.* ... x.*' is not known here",
        "compile_config_of_numbers": r"compile_config is damaged: expected .*, got \[1, 2, 3\]",
        "compile_config_without_optimizer": "compile_config is damaged: expected optimizer",
        "compile_config_empty_list": "its compile_config is damaged",
        "path_out_of_the_archive": "it is no file of Keras",
        "external_layout.keras": "'vars/layout' is stored in another file",
    }.items(),
)
def test_a_hostile_model(where, nothing_else, name, words):
    hostile.make(name, where / "sound.keras", where)
    with pytest.raises(ValueError, match=words) as caught:
        tfp_flows.load(hostile.path_of(name, where))
    text = str(caught.value)
    assert "\n" not in text and len(text) <= 2000 and hostile.SECRET[:9] not in text


@pytest.mark.parametrize("name", ["TFSMLayer", "doubling", "external_layout.keras"])
def test_keras_alone_does_not_load_them_either(where, nothing_else, name):
    hostile.make(name, where / "sound.keras", where)
    with pytest.raises(ValueError, match="which a file may not|parts or more|in another file") as e:
        keras.models.load_model(hostile.path_of(name, where))
    assert hostile.SECRET[:9] not in str(e.value)


@pytest.mark.parametrize(
    ("name", "words"),
    {
        "external_storage": "'conditioners/mlp/vars/0' is stored in another file",
        "external_layout": "'vars/layout' is stored in another file",
        "external_link": "'conditioners/mlp/vars/0' is a link .ExternalLink., maybe to another",
        "soft_link": "'conditioners/mlp/vars/0' is a link .SoftLink.",
        "virtual": "'conditioners/mlp/vars/0' is stored in another file",
        "huge_layout": "'vars/layout' of shape .500000000. would need 500000000 bytes, and 0 are",
        "compressed_layout": "'vars/layout' is compressed",
        "huge_weight": "would need 4000000000000000 bytes, and 0 are stored",
        "loop": "'conditioners/again' is there under another name, too",
        "deep_groups": "groups are more than 64 deep",
        "text_weight": "holds no numbers",
    }.items(),
)
def test_hostile_weights(where, victim, name, words):
    hostile.make(f"{name}.weights.h5", where / "sound.keras", where)
    before = [v.numpy() for v in victim.variables]
    with pytest.raises(ValueError, match=words) as caught:
        victim.load_weights(where / f"{name}.weights.h5")
    text = str(caught.value)
    assert "\n" not in text and len(text) <= 2000 and hostile.SECRET[:9] not in text
    for variable, old in zip(victim.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


# --- What is no attack. ---


def test_the_sound_file_loads(where):
    """So that the refusals above are of what was changed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # "unchecked"
        loaded = tfp_flows.load(where / "sound.keras")
    assert int(loaded.optimizer.iterations) == 1


def test_layers_that_compute_are_allowed():
    inputs = keras.Input([3])
    x = keras.layers.Dense(2, activation="gelu", kernel_constraint=keras.constraints.MaxNorm())
    x = keras.ops.tanh(x(inputs) + 1.0)
    x = keras.layers.Activation(keras.ops.tanh)(x)
    recurrent = keras.layers.Bidirectional(keras.layers.LSTM(2))
    for layer in (
        keras.Model(inputs, x),
        keras.Sequential([keras.layers.Dense(2, dtype="mixed_bfloat16"), recurrent]),
    ):
        layers.check_layer_config(keras.saving.serialize_keras_object(layer), "the layer")


def test_masks_that_pack_to_almost_nothing_are_kept_as_they_are(monkeypatch):
    """Many of them would be taken for a bomb; the writer knows, and does not pack them."""
    monkeypatch.setattr(bounds, "PACKED_FREE", 0)
    arrays = [np.full([2**18], n, np.int8) for n in range(4)]
    back = rebuild(describe(arrays=arrays))["arrays"]
    assert all((a == b).all() for a, b in zip(arrays, back, strict=True))


def test_a_part_that_is_shared_by_many_counts_once_for_each():
    shared = tf.constant(1.0)
    assert len(rebuild(describe(parts=[[shared] * 100] * 100))["parts"]) == 100


def test_every_own_class_is_found_under_one_name():
    own = [name for name in known._classes() if name.startswith("tfp_flows.")]
    assert {"tfp_flows.ActNorm", "tfp_flows.Affine", "tfp_flows.MADEDistribution"} <= set(own)
    for base in known._DESCRIBABLE:
        kinds = list(known._own_subclasses(base))
        assert len({kind.__name__ for kind in kinds}) == len(kinds)


def test_variables_in_half_precision_have_digests():
    digest = weights._digest("x", np.asarray(tf.constant([1.0, 2.0], tf.bfloat16)))
    assert digest != weights._digest("x", np.asarray(tf.constant([1.0, 2.5], tf.bfloat16)))


def test_what_is_built_outside_of_a_file_has_no_bounds():
    with bounds.of_weights(100), pytest.raises(ValueError, match="does not fit weights of 100"):
        tf.Variable(tf.zeros([300_000]))
    assert tf.Variable(tf.zeros([300_000])).shape == [300_000]
