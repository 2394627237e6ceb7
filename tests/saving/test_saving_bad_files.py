"""Files that are damaged, foreign, newer, or not to be trusted, and parts that no file can hold."""

import json
import os
import resource
import signal
import subprocess
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, conditioners, flows, masks
from tfp_flows.saving import FORMAT_VERSION, describe, rebuild

tfb, tfd = tfp.bijectors, tfp.distributions


def _model(hidden=4, num_couplings=2, **kwargs):
    return FlowModel(
        flows.real_nvp([4], num_couplings=num_couplings, hidden_units=(hidden,), seed=0, **kwargs)
    )


def _with(bijector):
    return FlowModel(tfd.TransformedDistribution(tfd.Sample(tfd.Normal(0.0, 1.0), [4]), bijector))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    _model().save(path)
    return path


def _rewrite(saved, target, change):
    """Copies a file with its configuration changed, as someone with an editor would."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(target, "w") as copy:
        for name in source.namelist():
            content = source.read(name)
            if name == "config.json":
                config = json.loads(content)
                change(config)
                content = json.dumps(config).encode()
            copy.writestr(name, content)


def _parts(config, kind):
    return [p for p in config["config"]["flow"]["parts"] if p["kind"] == kind]


# --- Changes to the configuration, and what is said of them. ---


def _newer(config):
    config["config"]["flow"]["format_version"] = FORMAT_VERSION + 1


def _without_flow(config):
    del config["config"]["flow"]


def _other_format(config):
    config["config"]["flow"]["format"] = "another program"


def _other_class(config):
    _parts(config, "object")[-1]["class"] = "os.system"


def _registered_layer_as_bijector(config):
    _parts(config, "object")[-1]["class"] = "registered:tfp_flows>MLP"


def _other_argument(config):
    _parts(config, "object")[-1]["arguments"]["command"] = "true"


def _other_layer(config):
    layer = _parts(config, "layer")[0]["config"]
    layer.update(module="subprocess", class_name="Popen", registered_name="Popen")


def _lambda_layer(config):
    code = {"class_name": "__lambda__", "config": {"value": "4wAAAAA="}}
    _parts(config, "layer")[0]["config"]["config"]["activation"] = code


def _lambda_as_activation(config):
    _parts(config, "layer")[0]["config"]["config"]["activation"] = {"value": ["4wA=", None, None]}


def _unknown_function(config):
    _parts(config, "object")[-1]["arguments"]["name"] = {"$function": "os.system"}


def _missing_part(config):
    config["config"]["flow"]["roots"]["distribution"] = {"$part": 999}


def _part_before_its_time(config):
    parts = config["config"]["flow"]["parts"]
    parts.reverse()


def _cut_array(config):
    data = _parts(config, "array")[0]
    data["data"] = data["data"][:-8]


def _huge_array(config):
    _parts(config, "array")[0]["shape"] = [2**20]


def _array_of_objects(config):
    _parts(config, "array")[0]["dtype"] = "object"


def _not_a_distribution(config):
    config["config"]["flow"]["roots"]["distribution"] = 3


def _unknown_tag(config):
    config["config"]["flow"]["roots"]["distribution"] = {"$eval": "1 + 1"}


CHANGES = {
    _newer: f"format version {FORMAT_VERSION + 1}.*Install the newer tfp_flows",
    _without_flow: "no description of a FlowModel",
    _other_format: "no description of a FlowModel",
    _other_class: "'os.system' is not known",
    _registered_layer_as_bijector: "is not known",
    _other_argument: "takes no arguments command",
    _other_layer: "'Popen', which is neither Keras's nor registered",
    _lambda_layer: "holds a lambda",
    _lambda_as_activation: "holds a lambda",
    _unknown_function: "the function 'os.system' is not known",
    _missing_part: "there is no part 999",
    _part_before_its_time: "there is no part",
    _cut_array: "its numbers are damaged|expected 4 bytes",
    _huge_array: "expected 1048576 bytes",
    _array_of_objects: "not allowed",
    _not_a_distribution: "nothing refers to part 12",
    _unknown_tag: "nothing refers to part 12",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("load", [keras.models.load_model, tfp_flows.load])
def test_a_changed_configuration_is_refused(saved, tmp_path, monkeypatch, change, load):
    ran = []
    monkeypatch.setattr(os, "system", ran.append)
    path = tmp_path / "model.keras"
    _rewrite(saved, path, change)
    with pytest.raises(ValueError, match=CHANGES[change]):
        load(path)
    assert not ran


def test_an_unchanged_copy_loads(saved, tmp_path):
    """So that the refusals above are of the changes."""
    _rewrite(saved, tmp_path / "model.keras", lambda config: None)
    for load in (keras.models.load_model, tfp_flows.load):
        assert load(tmp_path / "model.keras").event_shape == [4]


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(saved, tmp_path, share):
    data = saved.read_bytes()
    path = tmp_path / "model.keras"
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match=rf"it is cut off or damaged \({len(path.read_bytes())} b"):
        tfp_flows.load(path)
    # Keras says that there is no file.
    with pytest.raises((ValueError, OSError, zipfile.BadZipFile)):
        keras.models.load_model(path)


def test_flipped_bits_are_noticed(saved, tmp_path):
    data = bytearray(saved.read_bytes())
    with zipfile.ZipFile(saved) as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    data[start + 2000 : start + 2100] = bytes(100)
    path = tmp_path / "model.keras"
    path.write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"the checksum of its model.weights.h5 is wrong"):
        tfp_flows.load(path)
    with pytest.raises((ValueError, OSError, KeyError, zipfile.BadZipFile)):
        keras.models.load_model(path)


def _copy(saved, path, *, without=(), compression=zipfile.ZIP_STORED, **changed):
    """Copies a file with members left out, changed (dots as underscores) or added."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", compression) as copy:
        for name in source.namelist():
            if name not in without:
                copy.writestr(name, changed.pop(name.replace(".", "_"), source.read(name)))
        for name, content in changed.items():
            copy.writestr(name, content)


def _other_keras_model(saved, path):
    other = keras.Sequential([keras.layers.Dense(2)])
    other.build([None, 4])
    other.save(path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda saved, path: path.write_bytes(b""), r"it is no zip archive.*\(0 bytes"),
        (lambda saved, path: path.write_text("hello"), "it is no zip archive"),
        (_other_keras_model, "expected a FlowModel, got a 'Sequential'"),
        (lambda s, p: _copy(s, p, without=["config.json"]), "it is no file of Keras: it holds"),
        (lambda s, p: _copy(s, p, run_py="import os"), "it is no file of Keras: it holds.*run_py"),
        (lambda s, p: _copy(s, p, without=["model.weights.h5"]), "it holds no model.weights.h5"),
        (lambda s, p: _copy(s, p, config_json="{not"), "its config.json is no JSON"),
        (lambda s, p: _copy(s, p, config_json="[" * 10**5), "its config.json is no JSON"),
        (lambda s, p: _copy(s, p, config_json="[]"), "its config.json describes no model"),
        (lambda s, p: _copy(s, p, compression=zipfile.ZIP_DEFLATED), "it is compressed"),
        (lambda s, p: _copy(s, p, model_weights_h5=b"no HDF5"), "it cannot be loaded: .*open"),
    ],
)
def test_load_says_what_a_file_is_instead(saved, tmp_path, make, words):
    path = tmp_path / "model.keras"
    make(saved, path)
    with pytest.raises(ValueError, match=f"tfp_flows.load: '{path}': {words}"):
        tfp_flows.load(path)


def _optimizer(config):
    config["compile_config"] = {
        "optimizer": {
            "module": "subprocess",
            "class_name": "Popen",
            "config": {"args": ["true"]},
            "registered_name": "Popen",
        }
    }


def _model_class(config):
    config.update(module="subprocess", class_name="Popen", registered_name="Popen")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_optimizer, "optimizer uses 'Popen', which is neither"),
        (_model_class, "a FlowModel, got a 'Popen'"),
    ],
)
def test_classes_beside_the_flow_are_looked_up_too(saved, tmp_path, monkeypatch, change, words):
    monkeypatch.setattr(subprocess, "Popen", None)  # To call it would be a TypeError.
    path = tmp_path / "model.keras"
    _rewrite(saved, path, change)
    with pytest.raises(ValueError, match=words) as caught:
        tfp_flows.load(path)
    assert "Full object config" not in str(caught.value)  # Keras's, of a page or more.


def test_load_gives_the_model_with_its_optimizer_or_without(tmp_path):
    model = _model()
    model.compile(optimizer=keras.optimizers.Adam(1e-2))
    model.fit(np.ones([4, 4], np.float32), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = tfp_flows.load(tmp_path / "model.keras")
    assert int(loaded.optimizer.iterations) == 1
    x = np.ones([3, 4], np.float32)
    np.testing.assert_allclose(loaded.log_prob(x), model.log_prob(x), rtol=1e-6)
    assert not tfp_flows.load(tmp_path / "model.keras", compile=False).compiled


def test_paths_that_are_no_model(saved, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        tfp_flows.load(tmp_path / "none.keras")
    with pytest.raises(ValueError, match=r"got a directory. An export is loaded by tf\.saved"):
        tfp_flows.load(tmp_path)
    weights = tmp_path / "model.weights.h5"
    _model().save_weights(weights)
    with pytest.raises(ValueError, match="got a weights file.*`load_weights`"):
        tfp_flows.load(weights)
    renamed = tmp_path / "model.zip"
    renamed.write_bytes(saved.read_bytes())
    with pytest.raises(ValueError, match="give the file its ending back"):
        tfp_flows.load(renamed)


def test_weights_of_another_model_in_the_file_are_named(saved, tmp_path):
    other = tmp_path / "other.keras"
    _model(hidden=5).save(other)
    path = tmp_path / "model.keras"
    with (
        zipfile.ZipFile(saved) as ours,
        zipfile.ZipFile(other) as theirs,
        zipfile.ZipFile(path, "w") as copy,
    ):
        for name in ours.namelist():
            copy.writestr(name, (theirs if name.endswith(".h5") else ours).read(name))
    with pytest.raises(ValueError, match=r"kernel_0 of the conditioner of Coupling 'coupling_0'"):
        keras.models.load_model(path)


# --- What no file can describe. ---


def test_a_lambda_is_named_and_weights_and_export_still_work(tmp_path):
    scale = tf.Variable(2.0)

    def make():
        return tfb.Chain(
            [
                tfb.Inline(
                    forward_fn=lambda x: 3.0 * x,
                    inverse_fn=lambda y: y / 3.0,
                    forward_log_det_jacobian_fn=lambda x: tf.math.log(3.0),
                    forward_min_event_ndims=0,
                    name="tripled",
                ),
                tfb.Scale(scale),
            ]
        )

    model = _with(make())
    with pytest.raises(ValueError, match=r"`forward_fn` of Inline 'tripled' is the function .*lam"):
        model.save(tmp_path / "model.keras")
    assert os.listdir(tmp_path) == []
    x = np.ones([3, 4], np.float32)
    wanted = model.log_prob(x).numpy()
    model.save_weights(tmp_path / "model.weights.h5")
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "checkpoint"))
    model.export(tmp_path / "export")
    scale.assign(5.0)
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.log_prob(x), wanted)
    scale.assign(5.0)
    tf.train.Checkpoint(model=model).read(checkpoint).assert_consumed()
    np.testing.assert_array_equal(model.log_prob(x), wanted)
    loaded = tf.saved_model.load(str(tmp_path / "export"))
    got = loaded.signatures["log_prob"](x=x)["log_prob"]
    np.testing.assert_allclose(got, wanted, rtol=1e-6)


def _coupling(**kwargs):
    network = conditioners.MLP(4, hidden_units=(4,), seed=0, **kwargs)
    return bijectors.AffineCoupling(network, masks.halves(4), name="third")


def test_a_lambda_inside_a_layer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"`conditioner` of AffineCoupling 'third'.*a lambda"):
        _with(_coupling(activation=lambda x: x)).save(tmp_path / "model.keras")


def _plain(x):
    return x


def test_an_unregistered_function_inside_a_layer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"'third'.*'_plain'.*register_keras_serializable"):
        _with(_coupling(activation=_plain)).save(tmp_path / "model.keras")


class _Unregistered(tfb.Scale):
    pass


def test_an_unregistered_class_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"test_saving_bad_files\._Unregistered.*not known"):
        _with(_Unregistered(tf.Variable(2.0))).save(tmp_path / "model.keras")


def test_a_class_that_is_not_imported_when_loading_is_named(tmp_path):
    @keras.saving.register_keras_serializable(package="test_saving")
    class Gone(tfb.Scale):
        def get_config(self):
            return {"scale": self.scale}

        @classmethod
        def from_config(cls, config):
            return cls(**config)

    path = tmp_path / "model.keras"
    _with(Gone(tf.Variable(2.0))).save(path)
    assert type(keras.models.load_model(path).distribution.bijector).__name__ == "Gone"
    objects = keras.saving.get_custom_objects()
    gone = objects.pop("test_saving>Gone")
    try:
        with pytest.raises(ValueError, match=r"'registered:test_saving>Gone' is not known"):
            keras.models.load_model(path)
        found = keras.models.load_model(path, custom_objects={"test_saving>Gone": gone})
        assert isinstance(found.distribution.bijector, gone)
    finally:
        objects["test_saving>Gone"] = gone


def test_a_description_is_json():
    text = json.dumps(describe(a=[1, (2.5, None)], b={"x": np.float32(3.0)}, c=float("inf")))
    assert rebuild(json.loads(text)) == {"a": [1, (2.5, None)], "b": {"x": 3.0}, "c": np.inf}


# --- Writing. ---


def test_a_full_disk_leaves_the_file_that_was_there(saved, tmp_path):
    path, weights = tmp_path / "model.keras", tmp_path / "model.weights.h5"
    path.write_bytes(saved.read_bytes())
    model = _model()
    model.save_weights(weights)
    before = {p: p.read_bytes() for p in (path, weights)}
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(OSError, match=r"FlowModel.save: could not write"):
            model.save(path)
        with pytest.raises(OSError, match=r"FlowModel.save_weights: could not write"):
            model.save_weights(weights)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert {p: p.read_bytes() for p in before} == before
    assert sorted(os.listdir(tmp_path)) == ["model.keras", "model.weights.h5"]


def test_where_not_to_save(saved, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(saved.read_bytes())
    with pytest.raises(FileExistsError, match="already"):
        _model().save(path, overwrite=False)
    with pytest.raises(ValueError, match=r"ends in \.keras"):
        _model().save(tmp_path / "model.h5")
    _model(hidden=6).save(path)
    assert path.read_bytes() != saved.read_bytes()


# --- Weights. ---


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"num_couplings": 1}, r"of them.*only there.*kernel_0 .* 'coupling_1'"),
        ({"num_couplings": 3}, r"only here.*kernel_0 .* 'coupling_2'"),
        ({"hidden": 5}, r"kernel_0 .* 'coupling_0': float32 \[2, 4\]> there.*\[2, 5\]> here"),
        ({"actnorm": True}, r"only here: <actnorm_0/"),
    ],
)
def test_weights_of_another_model_say_which_part_differs(tmp_path, other, words):
    path = tmp_path / "model.weights.h5"
    _model().save_weights(path)
    model = _model(**other)
    before = [v.numpy() for v in model.variables]
    with pytest.raises(ValueError, match=words):
        model.load_weights(path)
    for variable, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), old)


def test_foreign_and_damaged_weights(tmp_path):
    path = tmp_path / "model.weights.h5"
    foreign = keras.Sequential([keras.layers.Dense(2)])
    foreign.build([None, 4])
    foreign.save_weights(path)
    with pytest.raises(ValueError, match="no weights of a FlowModel"):
        _model().load_weights(path)
    _model().save_weights(path)
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ValueError, match="no weights file, or a damaged one"):
        _model().load_weights(path)
    with pytest.raises(FileNotFoundError):
        _model().load_weights(tmp_path / "none.weights.h5")


def test_a_checkpoint_of_another_model_says_which_part_differs(tmp_path):
    path = tf.train.Checkpoint(model=_model()).write(str(tmp_path / "checkpoint"))
    with pytest.raises(ValueError, match=r"shape \(2, 4\).*shape \(2, 5\)"):
        tf.train.Checkpoint(model=_model(hidden=5)).read(path).assert_consumed()
    with pytest.raises(AssertionError, match=r"(?s)not bound to checkpointed values.*mlp"):
        tf.train.Checkpoint(model=_model(num_couplings=3)).read(path).assert_consumed()


def test_weights_load_into_a_model_with_other_names(tmp_path):
    """Layer names are numbered through the whole program: they are no part of the comparison."""
    path = tmp_path / "model.weights.h5"
    model = _model(actnorm=True)
    model.save_weights(path)
    other = _model(actnorm=True)
    other.load_weights(path)
    for a, b in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
