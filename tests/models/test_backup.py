"""BackupAndRestore: an interrupted training ends where an undisturbed one ends."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from fitting import C, X, compiled, real_nvp

from tfp_flows import FlowModel, distributions, flows, objectives, preprocessing
from tfp_flows.models import backup as backup_room

IMAGES = np.random.default_rng(0).integers(0, 17, size=(40, 2, 2, 1)).astype("uint8")


class Killed(Exception):
    """What a SIGKILL looks like from inside: the callbacks have no last words."""


class Kill(keras.callbacks.Callback):
    """Ends a training at a step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def on_train_batch_end(self, batch, logs=None):
        if int(self.model.optimizer.iterations.numpy()) >= self.step:
            raise Killed


def dataset(x=X):
    return tf.data.Dataset.from_tensor_slices(x).shuffle(40, seed=3).batch(7)


def glow():
    flow = flows.glow([2, 2, 1], num_levels=1, num_steps=1, hidden_filters=4, seed=0)
    noise = preprocessing.UniformDequantization(17, seed=0)
    model = FlowModel(flow, dequantization=noise)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def vector(optimizer=keras.optimizers.Adam, flow=None, **kwargs):
    return compiled(flow or real_nvp(num_couplings=1, actnorm=True), optimizer(0.01), **kwargs)


def batch_norm():
    return vector(flow=flows.maf([2], hidden_units=(4,), normalization="batch_norm", seed=0))


CASES = {
    # model, data, arguments of fit
    "arrays": (vector, {"x": X, "batch_size": 7}),
    "images": (glow, {"x": IMAGES, "batch_size": 7}),
    "batch_norm": (batch_norm, {"x": X, "batch_size": 7}),
    "split": (vector, {"x": X, "batch_size": 7, "validation_split": 0.3}),
    "pair": (lambda: vector(flow=real_nvp(context_size=3)), {"x": [X, C], "batch_size": 7}),
    "in_order": (vector, {"x": X, "batch_size": 7, "shuffle": False}),
    "weights": (vector, {"x": X, "batch_size": 7, "sample_weight": np.linspace(0, 2, 40)}),
    "dataset": (vector, {"x": dataset}),
    "from_epoch_1": (vector, {"x": dataset, "initial_epoch": 1}),
    "unknown_size": (vector, {"x": lambda: dataset().filter(lambda x: True)}),
    "steps_per_epoch": (vector, {"x": lambda: dataset().repeat(), "steps_per_epoch": 4}),
    "steps_of_finite": (vector, {"x": dataset, "steps_per_epoch": 3}),
    "steps_across_the_end": (vector, {"x": dataset, "steps_per_epoch": 4}),
    "steps_of_several": (
        lambda: vector(steps_per_execution=2),
        {"x": dataset, "steps_per_epoch": 3},
    ),
    "steps_per_execution": (
        lambda: vector(steps_per_execution=4),
        {"x": X, "batch_size": 7},
    ),
}

# Killed a second time, after a resumption.
TWICE = ("arrays", "dataset")


def train(name, folder, kill=None, epochs=5, frequency=2, callbacks=()):
    make, kwargs = CASES[name]
    keras.utils.set_random_seed(1)
    model = make()
    kwargs = {k: v() if callable(v) else v for k, v in kwargs.items()}
    backup = keras.callbacks.BackupAndRestore(folder, save_freq=frequency, delete_checkpoint=False)
    callbacks = [backup, *callbacks, *([Kill(kill)] if kill else [])]
    try:
        history = model.fit(**kwargs, epochs=epochs, callbacks=callbacks, verbose=0)
    except Killed:
        return model, None
    return model, {k: v[-1] for k, v in history.history.items()}


def same_end(one, other):
    for a, b in zip(
        [*one[0].variables, *one[0].optimizer.variables],
        [*other[0].variables, *other[0].optimizer.variables],
        strict=True,
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6, atol=1e-7, err_msg=a.path)
    for key, value in one[1].items():
        np.testing.assert_allclose(other[1][key], value, rtol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", CASES)
def test_ends_where_an_undisturbed_training_ends(tmp_path, name):
    wanted = train(name, tmp_path / "alone")
    for step in (3, 13) if name in TWICE else (13,):
        train(name, tmp_path / "killed", kill=step)
    same_end(wanted, train(name, tmp_path / "killed"))


def trained_for(objective, recipe, **kwargs):
    model = FlowModel(recipe([2], seed=0, **kwargs), objective=objective)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def learned_noise():
    """A bound, whose noise a flow draws."""
    kwargs = {"num_couplings": 1, "hidden_units": (4,), "context_size": 2, "base": "logistic"}
    dequantization = preprocessing.VariationalDequantization(
        flows.real_nvp([2], **kwargs, seed=0), 17
    )
    density = tfp.distributions.MultivariateNormalDiag([8.0, 8.0], [5.0, 5.0])
    model = FlowModel(density, dequantization=dequantization)
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


def autoencoder():
    """A bound, whose noise draws latents."""
    prior = tfp.distributions.MultivariateNormalDiag(tf.zeros([2]))
    layers = [keras.layers.Dense(n, kernel_initializer="ones") for n in (4, 2)]
    vae = distributions.VAE(prior, *layers)
    model = FlowModel(vae, objective=objectives.ELBO(beta=0.5))
    model.compile(optimizer=keras.optimizers.Adam(0.01))
    return model


LEVELS = IMAGES.reshape(40, 4)[:, :2]
DRAWN = {
    "flow_matching": (
        lambda: trained_for(objectives.FlowMatching(), flows.continuous, hidden_units=(4,)),
        {"x": X, "batch_size": 7},
    ),
    "reverse_kl": (
        lambda: trained_for(
            objectives.ReverseKL(lambda x: -tf.reduce_sum(x**4, axis=-1), num_samples=8),
            flows.planar,
            num_layers=1,
        ),
        {"steps_per_epoch": 6},
    ),
    "learned_noise": (learned_noise, {"x": LEVELS, "batch_size": 7}),
    "autoencoder": (autoencoder, {"x": LEVELS // 9, "batch_size": 7}),
}


@pytest.mark.parametrize("name", DRAWN)
def test_of_what_is_drawn_to_the_last_bit(monkeypatch, tmp_path, name):
    """The noise of an objective, or of a bound, comes from the step."""
    monkeypatch.setitem(CASES, name, DRAWN[name])
    wanted = train(name, tmp_path / "alone", epochs=2)
    train(name, tmp_path / "killed", kill=7, epochs=2)
    found = train(name, tmp_path / "killed", epochs=2)
    for a, b in zip(
        [*wanted[0].variables, *wanted[0].optimizer.variables],
        [*found[0].variables, *found[0].optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(a.numpy(), b.numpy(), err_msg=a.path)
    assert wanted[1] == found[1]


@pytest.mark.parametrize("name", ["arrays", "dataset"])
def test_of_whole_epochs(tmp_path, name):
    wanted = train(name, tmp_path / "alone", frequency="epoch")
    train(name, tmp_path / "killed", kill=15, frequency="epoch")
    same_end(wanted, train(name, tmp_path / "killed", frequency="epoch"))


def test_it_resumes_and_does_not_start_again(tmp_path):
    train("arrays", tmp_path, kill=9)
    first = []

    class Note(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            first.append(epoch)

    train("arrays", tmp_path, callbacks=[Note()])
    assert first[0] == 1  # 6 steps an epoch: step 9 is in the second
    names = sorted(p.name for p in tmp_path.glob("*.json"))
    assert names == ["step-0000000028.json", "step-0000000030.json"]


def test_other_callbacks_remember(tmp_path):
    def callbacks():
        return [
            keras.callbacks.EarlyStopping(patience=50, restore_best_weights=True),
            keras.callbacks.ReduceLROnPlateau(factor=0.5, patience=1, min_delta=0.5),
        ]

    wanted = train("split", tmp_path / "alone", callbacks=callbacks(), epochs=8)
    for step in (9, 17, 25):
        train("split", tmp_path / "killed", kill=step, callbacks=callbacks(), epochs=8)
    found = train("split", tmp_path / "killed", callbacks=callbacks(), epochs=8)
    same_end(wanted, found)
    assert float(wanted[0].optimizer.learning_rate.numpy()) < 0.006


def test_a_finished_training_removes_its_backups(tmp_path):
    model = vector()
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    model.fit(X, epochs=2, callbacks=[backup], verbose=0)
    assert not (tmp_path / "b").exists()


def test_steps_per_epoch_are_the_same_steps_without_a_backup(tmp_path):
    """Data that end are gone through again; Keras would cut the epoch short."""
    wanted = train("steps_across_the_end", tmp_path)
    keras.utils.set_random_seed(1)
    model = vector()
    model.fit(dataset(), steps_per_epoch=4, epochs=5, verbose=0)
    assert int(model.optimizer.iterations.numpy()) == 20
    for a, b in zip(model.variables, wanted[0].variables, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-6)


def test_a_training_that_was_stopped_stays_stopped(tmp_path):
    """Killed after the last backup and before the end of `fit`."""

    def callbacks():
        return [keras.callbacks.EarlyStopping(patience=1, min_delta=10.0, monitor="loss")]

    class Late(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            raise Killed

    train("arrays", tmp_path, frequency="epoch", epochs=9, callbacks=[*callbacks(), Late()])
    model, _ = train("arrays", tmp_path, frequency="epoch", epochs=9, callbacks=callbacks())
    assert int(model.optimizer.iterations.numpy()) == 12


def test_callbacks_do_not_hear_twice_of_a_step(tmp_path):
    def run(folder, kill=None):
        saves = keras.callbacks.ModelCheckpoint(
            folder / "{epoch}-{batch}.weights.h5", save_weights_only=True, save_freq=2
        )
        train("arrays", folder / "b", kill=kill, epochs=2, callbacks=[saves])
        found = {}
        for path in sorted(folder.glob("*.weights.h5")):
            model = vector()
            model.load_weights(path)
            found[path.name] = int(model.optimizer.iterations.numpy())
        return found

    wanted = run(tmp_path / "alone")
    assert len(wanted) == 6
    run(tmp_path / "killed", kill=5)
    assert run(tmp_path / "killed") == wanted


def test_files_of_others_stay(tmp_path):
    other = tmp_path / "step-1.weights.h5"
    other.write_bytes(b"mine")
    train("arrays", tmp_path, frequency="epoch")
    assert other.read_bytes() == b"mine"


# --- What cannot be resumed. ---


def test_other_data(tmp_path):
    train("arrays", tmp_path, kill=9)
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(ValueError, match="on 40 rows in batches of 7, and this is one on"):
        vector().fit(X, batch_size=10, callbacks=[backup], verbose=0)


def test_data_in_an_order_of_their_own(tmp_path):
    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return (X[10 * index : 10 * index + 10],)

    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(ValueError, match="data of the type Batches, whose order cannot be taken"):
        vector().fit(Batches(), callbacks=[backup], verbose=0)


def test_callbacks_that_do_not_go_with_it(tmp_path):
    backup = keras.callbacks.BackupAndRestore(tmp_path)
    with pytest.raises(ValueError, match="got a CallbackList.*Give the callbacks as a list"):
        vector().fit(X, callbacks=keras.callbacks.CallbackList([backup]), verbose=0)
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    with pytest.raises(ValueError, match="SwapEMAWeights.swap_on_epoch=True. would"):
        vector().fit(X, callbacks=[backup, swap], verbose=0)


def test_a_removal_that_was_cut_short_does_not_stand_in_the_way(tmp_path):
    (tmp_path / ".b.done").mkdir()
    (tmp_path / ".b.done" / "step-0000000001.json").write_text("left by a killed process")
    backup = keras.callbacks.BackupAndRestore(tmp_path / "b")
    vector().fit(X, epochs=2, steps_per_epoch=np.int64(2), callbacks=[backup], verbose=0)
    assert not list(tmp_path.iterdir())


# --- Damage. ---


def newest(folder):
    return sorted(folder.glob("step-*.json"))[-1]


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("what", ["weights", "description"])
def test_a_backup_cut_short_is_not_loaded(tmp_path, what):
    """The one before it is, and the end is the same."""
    wanted = train("arrays", tmp_path / "alone")
    train("arrays", tmp_path / "killed", kill=9)
    path = newest(tmp_path / "killed")
    cut(path if what == "description" else path.with_suffix(".weights.h5"))
    same_end(wanted, train("arrays", tmp_path / "killed"))


def test_a_save_cut_short_leaves_a_partial_that_is_removed(tmp_path):
    train("arrays", tmp_path, kill=5)
    partial = tmp_path / ".step-0000000006.weights.h5.0123.partial.weights.h5"
    partial.write_bytes(b"half")
    train("arrays", tmp_path, kill=9)
    assert not partial.exists()


def test_what_a_killed_save_left_goes_with_the_next_backup(tmp_path):
    train("arrays", tmp_path, kill=5)
    left = tmp_path / ".step-0000000006.weights.h5.0123.partial"
    left.mkdir()
    (left / "new").write_bytes(b"half")
    train("arrays", tmp_path, kill=9)
    assert not left.exists()


def test_only_damaged_backups(tmp_path):
    train("arrays", tmp_path, kill=9)
    for path in tmp_path.glob("*.weights.h5"):
        cut(path)
    with pytest.raises(ValueError, match="no backup in .* is whole .*Remove the directory to"):
        train("arrays", tmp_path)


def test_a_newer_format(tmp_path):
    train("arrays", tmp_path, kill=9)
    for path in tmp_path.glob("*.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ValueError, match="has the newer format 99"):
        train("arrays", tmp_path)


def damaged(folder, change):
    """Changes both descriptions, as someone who knows of no checksum."""
    for path in folder.glob("*.json"):
        state = json.loads(path.read_text())
        change(state)
        path.write_text(json.dumps(state))


@pytest.mark.parametrize("key", ["calls", "epoch", "seed", "peeked"])
def test_a_flip_in_a_description_is_no_other_progress(tmp_path, key):
    train("arrays", tmp_path, kill=5)

    def flip(state):
        state["progress"][key] = int(state["progress"][key]) ^ 1

    damaged(tmp_path, flip)
    with pytest.raises(ValueError, match=r"no backup in .* is whole \('step-[0-9]*.json' was cha"):
        train("arrays", tmp_path)


def test_a_description_reads_nothing_outside_of_its_folder(tmp_path):
    """Nor does it set what is no callback's to remember."""
    folder, secret = tmp_path / "b", tmp_path / "secret"
    train("arrays", folder, kill=5)
    secret.write_text("secret")
    whole = {path: path.read_text() for path in folder.glob("*.json")}

    def outside(state):
        state["files"]["../secret"] = [6, 0]

    def weights_outside(state):
        state["weights"] = str(secret)

    def another_attribute(state):
        state["callbacks"] = [{"class": "Kill", "values": {"step": 99}, "best_weights": None}]

    for change, words in (
        (outside, "'../secret' is not what"),
        (weights_outside, "secret' that is no part of a backup"),
        (another_attribute, "sets what callbacks do not remember"),
    ):
        for path, text in whole.items():
            path.write_text(text)

        def change_and_sign(state, change=change):
            del state["sha256"]
            change(state)
            state["sha256"] = backup_room._checksum_of_state(state)

        damaged(folder, change_and_sign)
        with pytest.raises(ValueError, match=words):
            train("arrays", folder)


def test_a_backup_of_version_0_1_is_resumed(tmp_path):
    """Its description has format 1, and no checksum of itself."""
    wanted = train("arrays", tmp_path / "alone")
    train("arrays", tmp_path / "killed", kill=9)

    def as_it_was(state):
        del state["sha256"]
        state["format"] = 1

    damaged(tmp_path / "killed", as_it_was)
    same_end(wanted, train("arrays", tmp_path / "killed"))


def resume(model, folder):
    backup = keras.callbacks.BackupAndRestore(folder)
    model.fit(X, batch_size=7, callbacks=[backup], verbose=0)


def test_another_architecture(tmp_path):
    train("arrays", tmp_path, kill=9)
    other = vector(flow=real_nvp(num_couplings=1, actnorm=True, hidden_units=(5,)))
    with pytest.raises(ValueError, match="the backup is of another model: .*weights of another"):
        resume(other, tmp_path)


def test_another_optimizer(tmp_path):
    train("arrays", tmp_path, kill=9)
    with pytest.raises(ValueError, match="backup has the optimizer Adam of .* the model SGD of"):
        resume(vector(optimizer=keras.optimizers.SGD), tmp_path)


def test_other_steps_per_execution(tmp_path):
    train("arrays", tmp_path, kill=9)
    with pytest.raises(ValueError, match="steps_per_execution=1, the model has 3"):
        resume(vector(steps_per_execution=3), tmp_path)


def test_two_backups_are_refused(tmp_path):
    backups = [keras.callbacks.BackupAndRestore(tmp_path / n) for n in "ab"]
    with pytest.raises(ValueError, match="expected one BackupAndRestore, got 2"):
        vector().fit(X, callbacks=backups, verbose=0)


def test_weights_keep_the_optimizer_of_a_model_that_has_not_trained_yet(tmp_path):
    """Keras leaves it out, without an error, where the optimizer has no variables yet."""
    model = vector()
    model.fit(X, epochs=2, verbose=0)
    model.save_weights(tmp_path / "m.weights.h5")
    other = vector()
    other.load_weights(tmp_path / "m.weights.h5")
    assert int(other.optimizer.iterations.numpy()) == int(model.optimizer.iterations.numpy()) > 0
    for a, b in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
