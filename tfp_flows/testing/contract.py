"""Checks of how a bijector behaves as an object."""

import collections
import contextlib
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import Chain, MaskedAutoregressive
from tfp_flows.bijectors.composition import context_kwargs
from tfp_flows.bijectors.network import Network
from tfp_flows.models import FlowModel
from tfp_flows.testing.subject import BACK, expect, expect_close

tfb = tfp.bijectors
tfd = tfp.distributions


def same_seed_same_bijector(subject):
    """Two builds have the same weights."""
    first, second = subject.make(), subject.make()
    expect(
        len(first.variables) == len(second.variables),
        "two builds have different numbers of weights",
    )
    for a, b in zip(first.variables, second.variables, strict=True):
        expect(
            np.array_equal(a.numpy(), b.numpy()),
            f"two builds differ in '{a.name}': does `make` fix the seed?",
        )
        expect(a is not b, f"two builds share the variable '{a.name}'")


def variables_listed_once(subject):
    """Every container, FlowModel and tf.train.Checkpoint see each variable once."""
    bijector = subject.bijector
    wanted = {id(v) for v in bijector.trainable_variables}
    for network in _networks(bijector):
        for variable in network.layer.trainable_variables:
            expect(
                id(variable.value) in wanted,
                f"the conditioner's variable '{variable.path}' is not among the bijector's",
            )
    expect(
        not _untracked_layers(bijector),
        f"the variables of the Keras layers {_untracked_layers(bijector)} are not listed: hold "
        "each in a Network, `self._network = bijectors.Network(layer, input_shape=..., "
        "output_shape=..., owner=self.name, dtype=self.dtype)`",
    )
    distribution = _distribution(subject, bijector)
    model = FlowModel(distribution)
    containers = {
        "tfb.Invert": tfb.Invert(bijector).trainable_variables,
        "tfb.Chain": tfb.Chain([bijector, tfb.Identity()]).trainable_variables,
        "tfp_flows Chain": Chain([bijector]).trainable_variables,
        "tfd.TransformedDistribution": distribution.trainable_variables,
        "FlowModel": [v.value for v in model.trainable_variables],
    }
    for name, variables in containers.items():
        ids = [id(v) for v in variables]
        expect(len(ids) == len(set(ids)), f"{name} lists a variable twice")
        expect(
            set(ids) == wanted,
            f"{name} lists {len(ids)} trainable variables, the bijector {len(wanted)}",
        )
    count = sum(int(np.prod(v.shape)) for v in bijector.variables)
    for name, root in (("the bijector", bijector), ("the distribution", distribution)):
        with tempfile.TemporaryDirectory() as folder:
            path = tf.train.Checkpoint(root=root).write(os.path.join(folder, "weights"))
            saved = [
                int(np.prod(shape))
                for key, shape in tf.train.list_variables(path)
                if "OBJECT_GRAPH" not in key and "save_counter" not in key
            ]
        expect(
            sum(saved) == count,
            f"a checkpoint of {name} holds {sum(saved)} numbers, its variables {count}",
        )


def changed_weights_change_the_output(subject):
    """No cache answers for the weights that were."""
    bijector = subject.perturbed(subject.make())
    if not bijector.trainable_variables:
        return
    for direction in subject.directions:
        points = subject.points(direction)
        act = getattr(bijector, direction)
        before = act(points, **subject.kwargs)
        subject.log_det(direction, points, bijector)
        subject.perturbed(bijector)
        after = act(points, **subject.kwargs)
        fresh = act(tf.identity(points), **subject.kwargs)
        expect_close(
            after,
            fresh,
            1e-6,
            f"{direction} of the same tensor still answers with the weights before the change",
        )
        expect(
            not np.array_equal(after.numpy(), before.numpy()),
            f"{direction} does not depend on the weights",
        )
        if BACK[direction] not in subject.directions:
            continue
        back = getattr(bijector, BACK[direction])
        subject.perturbed(bijector)
        there = act(points, **subject.kwargs)
        subject.perturbed(bijector)
        expect_close(
            back(there, **subject.kwargs),
            back(tf.identity(there), **subject.kwargs),
            1e-6,
            f"going back from {direction} answers from a cache with the weights that were",
        )


def one_conditioner_call(subject):
    """`log_prob` and `sample_and_log_prob` call each conditioner once, eager and traced."""
    if subject.conditioner_calls is None or not _networks(subject.bijector):
        return
    forward, inverse = subject.conditioner_calls
    distribution = _distribution(subject, tfb.Chain([subject.bijector]))
    kwargs = context_kwargs(distribution.bijector, subject.context)
    kwargs = {"bijector_kwargs": kwargs} if kwargs else {}
    n = len(subject.x)

    def log_prob():
        return distribution.log_prob(tf.identity(subject.y), **kwargs)

    def sample_and_log_prob():
        return distribution.experimental_sample_and_log_prob(n, seed=[0, 1], **kwargs)

    for direction, what, run, allowed in (
        ("inverse", "log_prob", log_prob, inverse),
        ("forward", "experimental_sample_and_log_prob", sample_and_log_prob, forward),
    ):
        if direction not in subject.directions:
            continue
        for mode, function in (("eager", run), ("traced", tf.function(run).get_concrete_function)):
            with _counted_calls() as calls:
                function()
            most = max(calls[id(n.layer)] for n in _networks(subject.bijector))
            expect(
                allowed is None or most == allowed,
                f"{mode} {what} calls a conditioner {most} times, expected {allowed}",
            )


def conditioners_are_autoregressive(subject):
    """Parameters depend on earlier entries alone, and steps of a network agree with its call."""
    for module in [subject.bijector, *subject.bijector.submodules]:
        if isinstance(module, MaskedAutoregressive):
            module.check_conditioner()


def copy_shares_variables(subject):
    """`copy()` is the same bijector on the same variables."""
    copy = subject.bijector.copy()
    shared = {id(v) for v in copy.variables}
    forgotten = [v.name.split(":")[0] for v in subject.bijector.variables if id(v) not in shared]
    attribute = forgotten[0].rpartition("/")[-1] if forgotten else ""
    expect(
        not forgotten,
        f"copy() does not share {forgotten}: make them with `self.add_weight('{attribute}', "
        f"{attribute}, shape)` in the constructor, which takes `{attribute}=None` for it, and "
        f"`{attribute} = bijectors.Weight()` in the body of the class (a bijector of TFP's own "
        "kind writes them into `parameters`)",
    )
    expect(len(copy.variables) == len(subject.bijector.variables), "copy() has other variables")
    for name, value in subject.outputs(copy).items():
        expect_close(value, subject.outputs(subject.bijector)[name], 0.0, f"{name} of copy()")


def calls_change_no_variable(subject):
    """Outside of training and initialisation a call leaves every variable as it is."""
    bijector = subject.bijector
    before = [v.numpy() for v in bijector.variables]
    for direction in subject.directions:
        subject.call(direction, subject.points(direction))
        subject.log_det(direction, subject.points(direction))
    for variable, value in zip(bijector.variables, before, strict=True):
        expect(
            np.array_equal(variable.numpy(), value),
            f"a call changes the variable '{variable.name}'. Change it in training alone, `if "
            "bijectors.in_training_mode(): self.name.assign(...)`, or not at all",
        )


def wrong_input_is_refused(subject):
    """Rank, event size, dtype and context are checked, by name."""
    for direction in subject.directions:
        points, kwargs = subject.points(direction), subject.kwargs
        act = getattr(subject.bijector, direction)
        other = tf.float32 if subject.dtype == "float64" else tf.float64
        _expect_error(subject, act, TypeError, "the wrong dtype", tf.cast(points, other), kwargs)
        ndims = subject.event_ndims[direction]
        if subject.bijector.forward_min_event_ndims:
            scalar = tf.zeros([], points.dtype)
            _expect_error(subject, act, ValueError, "a scalar", scalar, kwargs)
        if ndims and _fixes_the_last_axis(subject, direction):
            longer = tf.concat([points, points[..., :1]], axis=-1)
            _expect_error(subject, act, ValueError, "one entry too many", longer, kwargs)
        if subject.context is None:
            context = {"context": tf.zeros([len(points), 2], points.dtype)}
            _expect_error(subject, act, ValueError, "a context it ignores", points, context)
        else:
            _expect_error(subject, act, ValueError, "no context", points, {})
            wide = {"context": tf.concat([subject.context] * 2, axis=-1)}
            _expect_error(subject, act, ValueError, "a context of the wrong size", points, wide)


def weights_round_trip(subject):
    """A checkpoint, and Keras's weights file, give a fresh bijector the same outputs."""
    wanted = subject.outputs(subject.bijector)
    with tempfile.TemporaryDirectory() as folder:
        path = tf.train.Checkpoint(root=subject.bijector).write(os.path.join(folder, "ckpt"))
        fresh = subject.make()
        tf.train.Checkpoint(root=fresh).read(path).assert_consumed()
        file = os.path.join(folder, "model.weights.h5")
        FlowModel(_distribution(subject, subject.bijector)).save_weights(file)
        other = subject.make()
        FlowModel(_distribution(subject, other)).load_weights(file)
    for kind, bijector in (("tf.train.Checkpoint", fresh), ("save_weights", other)):
        for name, value in subject.outputs(bijector).items():
            expect_close(value, wanted[name], 0.0, f"{name} after a round trip by {kind}")


def keras_file_round_trip(subject):
    """A `.keras` file gives an equal model, which trains on to equal weights.

    A bijector of your own is to be registered for it:
    `@keras.saving.register_keras_serializable(package="mine")`.
    """
    bijector = flow = subject.make()
    if subject.directions == ("forward",):
        flow, data = tfb.Invert(bijector), subject.x  # whose density goes the way that there is
    elif subject.directions == ("inverse",):
        data = subject.y
    else:
        data = subject.call("forward", subject.x, bijector)
    data = data.numpy()
    context = None if subject.context is None else subject.context.numpy()
    model = FlowModel(_distribution(subject, flow))
    model.initialize(data if context is None else (data, context))
    subject.perturbed(bijector)
    trains = bool(model.trainable_variables)
    if trains:
        # Eagerly: tracing would take longer than the steps.
        model.compile(optimizer=keras.optimizers.Adam(1e-3), run_eagerly=True)
        model.train_on_batch(data, context)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.keras")
        model.save(file)
        loaded = keras.models.load_model(file)
    for what in ("after loading", "after the next step"):
        wanted = subject.outputs(bijector)
        found = loaded.distribution.bijector
        for name, value in subject.outputs(found if flow is bijector else found.bijector).items():
            expect_close(value, wanted[name], 1e-6, f"{name} {what}")
        if trains:
            model.train_on_batch(data, context)
            loaded.train_on_batch(data, context)
    for a, b in zip(model.variables, loaded.variables, strict=True):
        expect_close(b.numpy(), a.numpy(), 1e-6, f"'{a.path}' after a further step of training")


def saved_model_round_trip(subject):
    """A SavedModel with a free batch size gives the same outputs."""
    bijector, module = subject.bijector, tf.Module()
    module.bijector = bijector
    specs = {}
    for direction in subject.directions:
        arguments = [subject.points(direction)]
        arguments += [] if subject.context is None else [subject.context]
        specs[direction] = arguments

        def both(value, *context, direction=direction):
            kwargs = {"context": context[0]} if context else {}
            return {
                "value": getattr(bijector, direction)(value, **kwargs),
                "log-det": getattr(bijector, f"{direction}_log_det_jacobian")(
                    value, event_ndims=subject.event_ndims[direction], **kwargs
                ),
            }

        signature = [tf.TensorSpec([None, *a.shape[1:]], a.dtype) for a in arguments]
        setattr(module, direction, tf.function(both, input_signature=signature))
    wanted = subject.outputs(bijector)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder)
        loaded = tf.saved_model.load(folder)
        for direction, arguments in specs.items():
            for what, value in getattr(loaded, direction)(*arguments).items():
                expect_close(
                    value,
                    wanted[f"{direction} {what}"],
                    max(subject.round_trip_tolerance, subject.log_det_tolerance),
                    f"{direction} {what} of the SavedModel",
                )


def _distribution(subject, bijector):
    event = subject.x.shape[1:]
    zero, one = (tf.constant(v, subject.dtype) for v in (0.0, 1.0))
    return tfd.TransformedDistribution(tfd.Sample(tfd.Normal(zero, one), event), bijector)


def _networks(bijector):
    return [m for m in bijector.submodules if isinstance(m, Network)]


def _untracked_layers(bijector):
    """Names of Keras layers held in attributes whose variables nobody lists."""
    listed = {id(v) for v in bijector.variables}
    found = []
    for module in [bijector, *bijector.submodules]:
        for value in vars(module).values():
            if isinstance(value, keras.layers.Layer) and any(
                id(v.value) not in listed for v in value.variables
            ):
                found.append(value.name)
    return found


@contextlib.contextmanager
def _counted_calls():
    calls = collections.Counter()
    original = keras.layers.Layer.__call__

    # At the layer itself: a bijector may call it past its Network.
    def counted(self, *args, **kwargs):
        calls[id(self)] += 1
        return original(self, *args, **kwargs)

    keras.layers.Layer.__call__ = counted
    try:
        yield calls
    finally:
        keras.layers.Layer.__call__ = original


def _fixes_the_last_axis(subject, direction):
    """Whether the bijector's event has a known last axis (a squeeze's has not)."""
    attribute = "_domain" if direction == "forward" else "_codomain"
    shape = getattr(subject.bijector, attribute, None)
    return bool(shape) and shape[-1] is not None


def _expect_error(subject, act, kind, what, value, kwargs):
    name = subject.bijector.name
    try:
        act(value, **kwargs)
    except kind as error:
        expect(
            name in str(error), f"the error for {what} does not name the bijector '{name}': {error}"
        )
        return
    except Exception as error:  # Any other error is the wrong one: say which it was.
        raise AssertionError(
            f"{what}: expected a {kind.__name__}, got {type(error).__name__}: {error}"
        ) from error
    raise AssertionError(f"{what} is accepted, expected a {kind.__name__}")
