"""The harness on planted faults: each must be caught, by the check that is meant for it."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability.python.internal import cache_util

from tfp_flows import bijectors, conditioners, masks
from tfp_flows.bijectors.network import Network
from tfp_flows.testing import CHECKS, assert_bijector

tfb = tfp.bijectors

X = np.random.default_rng(0).normal(size=(4, 4)) * [[1.0], [3.0], [1.0], [3.0]]
CONTEXT = np.random.default_rng(1).normal(size=(4, 2))


def build(cls=bijectors.AffineCoupling, mask=None, network=conditioners.MLP, **kwargs):
    conditioner = network(4, hidden_units=(6,), activation="tanh", seed=1, dtype="float64")
    return cls(conditioner, masks.halves(4) if mask is None else mask, dtype=tf.float64, **kwargs)


def build_conditional(cls=bijectors.AffineCoupling, network=conditioners.MLP):
    conditioner = network(
        4, hidden_units=(6,), activation="tanh", context_size=2, seed=1, dtype="float64"
    )
    return cls(conditioner, masks.halves(4), dtype=tf.float64)


class MakesOneFalseStep(conditioners.WaveNet):
    def step(self, cache, s, previous):
        parameters, cache = super().step(cache, s, previous)
        return tf.where(s == 2, 1.5 * parameters, parameters), cache


class WrongInverse(bijectors.AffineCoupling):
    def _inverse_and_log_det(self, y, context):
        x, log_det = super()._inverse_and_log_det(y, context)
        return x + 1e-6, log_det


class WrongInverseBehindTheCache(tfb.Bijector):
    """TFP's cache answers `inverse(forward(x))` without ever calling `_inverse`."""

    def __init__(self, name="wrong_inverse"):
        super().__init__(
            forward_min_event_ndims=1, dtype=tf.float64, parameters=dict(locals()), name=name
        )

    def _forward(self, x):
        return 2.0 * x

    def _inverse(self, y):
        return y / 3.0

    def _forward_log_det_jacobian(self, x):
        return tf.fill(tf.shape(x)[:-1], tf.constant(4 * np.log(2.0), x.dtype))


class LogDetOff(bijectors.AffineCoupling):
    off = (0.0, 0.0)
    factor = 1.0

    def _forward_and_log_det(self, x, context):
        y, log_det = super()._forward_and_log_det(x, context)
        return y, self.factor * log_det + self.off[0]

    def _inverse_and_log_det(self, y, context):
        x, log_det = super()._inverse_and_log_det(y, context)
        return x, self.factor * log_det + self.off[1]


class OffInOneDirection(LogDetOff):
    off = (1e-6, 0.0)


class OffInBothDirectionsAlike(LogDetOff):
    """The log-dets cancel, which is all that some libraries test."""

    off = (1e-6, -1e-6)


class WrongSign(LogDetOff):
    factor = -1.0


class UnreducedLogDet(bijectors.AffineCoupling):
    def _forward_and_log_det(self, x, context):
        y, log_det = super()._forward_and_log_det(x, context)
        return y, log_det[..., tf.newaxis] * tf.constant([0.25] * 4, x.dtype)


class KeptForOneBatchAxis(bijectors.Rescale):
    """Right for `[n, D]`, wrong as soon as there are more batch axes."""

    def _forward_and_log_det(self, x, context):
        y, log_det = super()._forward_and_log_det(x, context)
        return y, log_det * tf.cast(x.shape.rank - 1, x.dtype)


class UntrackedLayer(bijectors.FlowBijector):
    def __init__(self, name="untracked"):
        parameters = dict(locals())
        super().__init__(event_ndims=1, dtype=tf.float64, parameters=parameters, name=name)
        layer = keras.layers.Dense(4, dtype="float64", kernel_initializer="ones")
        layer.build((None, 4))
        self._layer = self._no_dependency(layer)

    def _forward_and_log_det(self, x, context):
        return x + self._layer.bias, tf.zeros([], x.dtype)

    def _inverse_and_log_det(self, y, context):
        return y - self._layer.bias, tf.zeros([], y.dtype)


class VariableNotInParameters(bijectors.FlowBijector):
    def __init__(self, name="own_variable"):
        parameters = dict(locals())
        super().__init__(event_ndims=1, dtype=tf.float64, parameters=parameters, name=name)
        self._shift = tf.Variable(tf.zeros([4], tf.float64))

    def _forward_and_log_det(self, x, context):
        return x + self._shift, tf.zeros([], x.dtype)

    def _inverse_and_log_det(self, y, context):
        return y - self._shift, tf.zeros([], y.dtype)


class StaleCache(bijectors.AffineCoupling):
    """TFP's own cache instead of ours."""

    _cache = cache_util.BijectorCacheWithGreedyAttrs(
        forward_name="_cached_forward", inverse_name="_cached_inverse"
    )

    def _cached_forward(self, x, context=None):
        y, log_det = self._forward_and_log_det(x, context)
        return y, {"ildj": -log_det}

    def _cached_inverse(self, y, context=None):
        x, log_det = self._inverse_and_log_det(y, context)
        return x, {"ildj": log_det}


class CallsTwice(bijectors.AffineCoupling):
    def _inverse_and_log_det(self, y, context):
        self._network(y[..., :2], context)
        return super()._inverse_and_log_det(y, context)


class CallsTwicePastItsNetwork(bijectors.AffineCoupling):
    def _forward_and_log_det(self, x, context):
        self.conditioner(tf.reshape(x[..., :2], [-1, 2]))
        return super()._forward_and_log_det(x, context)


class CastsSilently(bijectors.AffineCoupling):
    def _check_call(self, value, kwargs, event_shape, method):
        return super()._check_call(tf.cast(value, self.dtype), kwargs, event_shape, method)


class TakesAnyContext(bijectors.AffineCoupling):
    def _check_call(self, value, kwargs, event_shape, method):
        return super()._check_call(value, {}, event_shape, method)


class IgnoresContext(conditioners.MLP):
    def _compute(self, x, context):
        return super()._compute(x, tf.zeros_like(context))


class MixesContexts(bijectors.AffineCoupling):
    """Each row is transformed by the context of another."""

    def _transform(self, value, context, act):
        return super()._transform(value, tf.reverse(context, [0]), act)


class MixesRows(conditioners.MLP):
    def _compute(self, x, context):
        out = super()._compute(x, context)
        return tf.reduce_mean(out, axis=0, keepdims=True) + tf.zeros_like(out)


class NoGradient(conditioners.MLP):
    def _compute(self, x, context):
        return tf.stop_gradient(super()._compute(x, context))


class WrongEventShape(bijectors.Squeeze):
    def _forward_event_shape(self, input_shape):
        return input_shape


class EagerOnly(bijectors.AffineCoupling):
    def _forward_and_log_det(self, x, context):
        x.numpy()
        return super()._forward_and_log_det(x, context)


class StateInNoVariable(bijectors.Rescale):
    built = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        StateInNoVariable.built += 1
        self._hidden = 1.0 + 0.1 * StateInNoVariable.built
        self._built_as = self.parameters.setdefault("hidden", self._hidden)

    def copy(self, **kwargs):
        return self

    def _forward_and_log_det(self, x, context):
        y, log_det = super()._forward_and_log_det(x, context)
        return y * self._hidden, log_det + 4 * np.log(self._hidden)

    def _inverse_and_log_det(self, y, context):
        x, log_det = super()._inverse_and_log_det(y / self._hidden, context)
        return x, log_det - 4 * np.log(self._hidden)


class CountsItsCalls(bijectors.FlowBijector):
    calls = bijectors.Weight()

    def __init__(self, *, calls=None, **kwargs):
        super().__init__(event_shape=[4], is_constant_jacobian=True, **kwargs)
        self.add_weight("calls", calls, [], trainable=False)

    def _forward_and_log_det(self, x, context):
        self.calls.assign_add(1.0)
        return -x, tf.zeros([], x.dtype)

    def _inverse_and_log_det(self, y, context):
        return -y, tf.zeros([], y.dtype)


@keras.saving.register_keras_serializable(package="test_harness_faults")
class Cubic(bijectors.FlowBijector):
    """x + exp(rate) x^3, which has no inverse in closed form."""

    rate = bijectors.Weight()
    off = 0.0

    def __init__(self, closed="forward", *, rate=None, **kwargs):
        super().__init__(event_shape=[4], **kwargs)
        self.closed = closed
        self.add_weight("rate", rate, [4])

    def _act(self, x, direction):
        if direction != self.closed:
            raise NotImplementedError(f"{self._title()}: no {direction} direction.")
        scale = tf.exp(self.rate)
        log_det = tf.reduce_sum(tf.math.log(1.0 + 3.0 * scale * x**2), axis=-1)
        return x + scale * x**3, log_det + self.off

    def _forward_and_log_det(self, x, context):
        return self._act(x, "forward")

    def _inverse_and_log_det(self, y, context):
        return self._act(y, "inverse")


class CubicOff(Cubic):
    off = 1e-3


def fresh_seed():
    conditioner = conditioners.MLP(4, hidden_units=(6,), dtype="float64")
    return bijectors.AffineCoupling(conditioner, masks.halves(4), dtype=tf.float64)


def triangular(size):
    """The zero pattern of a coupling over halves."""
    zeros = ~np.eye(size, dtype=bool)
    zeros[size // 2 :, : size // 2] = False
    return zeros


FAULTS = {
    "no_seed": (fresh_seed, {}, "same_seed_same_bijector"),
    "untracked_layer": (UntrackedLayer, {}, "variables_listed_once"),
    "wrong_inverse": (lambda: build(WrongInverse), {}, "round_trips"),
    "wrong_inverse_behind_the_cache": (WrongInverseBehindTheCache, {}, "round_trips"),
    "another_direction": (
        lambda: bijectors.Rescale([4], dtype=tf.float64),
        {"directions": ["forward"]},
        "other_direction_is_refused",
    ),
    "one_way_log_det": (
        lambda: CubicOff(dtype=tf.float64),
        {"directions": ["forward"]},
        "log_det_matches_autodiff",
    ),
    "the_other_way_alone": (
        lambda: Cubic("inverse", dtype=tf.float64),
        {"directions": ["forward"]},
        "round_trips",
    ),
    "unreduced_log_det": (lambda: build(UnreducedLogDet), {}, "log_det_is_reduced"),
    "log_det_off": (lambda: build(OffInOneDirection), {}, "log_det_matches_autodiff"),
    "log_det_off_in_both": (
        lambda: build(OffInBothDirectionsAlike),
        {},
        "log_det_matches_autodiff",
    ),
    "wrong_sign": (lambda: build(WrongSign), {}, "log_det_matches_autodiff"),
    "leaking_mask": (
        lambda: build(mask=masks.alternating(4)),
        {"zero_pattern": triangular(4)},
        "jacobian_zero_pattern",
    ),
    "leak_of_everything": (
        lambda: bijectors.InvertibleConv1x1(4, seed=0, dtype=tf.float64),
        {"zero_pattern": triangular(4)},
        "jacobian_zero_pattern",
    ),
    "lost_dependency": (
        lambda: bijectors.Rescale([4], dtype=tf.float64),
        {"zero_pattern": triangular(4)},
        "jacobian_zero_pattern",
    ),
    "no_gradient": (lambda: build(network=NoGradient), {}, "gradients_reach_every_weight"),
    "rows_mixed": (lambda: build(network=MixesRows), {}, "batch_shapes_agree"),
    "contexts_mixed": (
        lambda: build_conditional(MixesContexts),
        {"context": CONTEXT},
        "batch_shapes_agree",
    ),
    "one_batch_axis": (
        lambda: KeptForOneBatchAxis([4], dtype=tf.float64),
        {"skip": ("event_shapes_agree",)},
        "batch_shapes_agree",
    ),
    "wrong_event_shape": (
        lambda: WrongEventShape(dtype=tf.float64),
        {"x": X.reshape(4, 2, 2, 1), "event_ndims": 3},
        "event_shapes_agree",
    ),
    "context_ignored": (
        lambda: build_conditional(network=IgnoresContext),
        {"context": CONTEXT, "skip": ("gradients_reach_every_weight",)},
        "context_matters",
    ),
    "stale_cache": (lambda: build(StaleCache), {}, "changed_weights_change_the_output"),
    "calls_twice": (lambda: build(CallsTwice), {}, "one_conditioner_call"),
    "calls_twice_past_its_network": (
        lambda: build(CallsTwicePastItsNetwork),
        {"skip": ("batch_shapes_agree",)},
        "one_conditioner_call",
    ),
    "steps_that_disagree": (
        lambda: bijectors.MaskedAutoregressive(
            MakesOneFalseStep([4, 1], filters=3, seed=0, dtype="float64"), dtype=tf.float64
        ),
        {
            "x": X[..., np.newaxis],
            "event_ndims": 2,
            "conditioner_calls": (0, 1),
            "skip": ("round_trips", "log_det_matches_autodiff"),
        },
        "conditioners_are_autoregressive",
    ),
    "variable_not_in_parameters": (VariableNotInParameters, {}, "copy_shares_variables"),
    "changed_in_a_call": (
        lambda: CountsItsCalls(dtype=tf.float64),
        {},
        "calls_change_no_variable",
    ),
    "wrong_dtype_accepted": (lambda: build(CastsSilently), {}, "wrong_input_is_refused"),
    "context_accepted_and_ignored": (
        lambda: build(TakesAnyContext),
        {},
        "wrong_input_is_refused",
    ),
    "eager_only": (lambda: build(EagerOnly), {"skip": ("one_conditioner_call",)}, "modes_agree"),
    "state_in_no_variable": (
        lambda: StateInNoVariable([4], dtype=tf.float64),
        {},
        "weights_round_trip",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_fault_is_caught(fault):
    make, kwargs, check = FAULTS[fault]
    kwargs = {"x": X, "event_ndims": 1, "xla": False, **kwargs}
    with pytest.raises(AssertionError, match=rf"^{check} \(float64\): "):
        assert_bijector(make, **kwargs)


@pytest.mark.parametrize(
    "fault, remedy",
    [
        ("untracked_layer", r"hold each in a Network, `self._network = bijectors.Network\(layer,"),
        ("variable_not_in_parameters", r"make them with `self.add_weight\('\w+', \w+, shape\)`"),
        ("changed_in_a_call", "'countsitscalls/calls:0'. Change it in training alone, `if bij"),
        ("unreduced_log_det", r"over the event, `tf.reduce_sum\(log_det, axis=list\("),
    ],
)
def test_the_message_has_the_line_to_write(fault, remedy):
    make, kwargs, _ = FAULTS[fault]
    with pytest.raises(AssertionError, match=remedy):
        assert_bijector(make, X, event_ndims=1, xla=False, **kwargs)


def test_the_naive_round_trip_would_pass():
    bijector, x = WrongInverseBehindTheCache(), tf.constant(X)
    np.testing.assert_array_equal(bijector.inverse(bijector.forward(x)), x)


def test_every_check_has_its_fault():
    """But for those of files, which repeat what `modes_agree` and `weights_round_trip` see."""
    caught = {check for _, _, check in FAULTS.values()}
    assert caught <= set(CHECKS)
    assert set(CHECKS) - caught <= {"saved_model_round_trip", "keras_file_round_trip"}


def test_fault_in_float32_alone_is_caught():
    """Log-dets in float32 are judged by the Jacobian of the float64 twin."""

    def make(dtype):
        off = 0.0 if dtype == "float64" else 1e-3
        cls = type("Off", (bijectors.Rescale,), {})
        cls._forward_and_log_det = lambda self, x, context: (
            x * tf.exp(self.log_scale),
            tf.reduce_sum(self.log_scale) + off,
        )
        return cls([4], dtype=dtype)

    with pytest.raises(AssertionError, match=r"^log_det_matches_autodiff \(float32\)"):
        assert_bijector(make, X, event_ndims=1, xla=False)


def test_any_error_of_a_check_is_reported_with_its_name():
    class Broken(bijectors.Rescale):
        def _inverse_and_log_det(self, y, context):
            raise RuntimeError("no inverse today")

    with pytest.raises(AssertionError, match="round_trips .*RuntimeError: no inverse today"):
        assert_bijector(lambda: Broken([4], dtype=tf.float64), X, event_ndims=1, xla=False)


@pytest.mark.parametrize("conditional", [False, True])
def test_correct_bijector_passes(conditional):
    kwargs = {"context": CONTEXT} if conditional else {"zero_pattern": triangular(4)}
    make = build_conditional if conditional else build
    assert_bijector(make, X, event_ndims=1, xla=not conditional, **kwargs)


@pytest.mark.parametrize("closed", ["forward", "inverse"])
def test_a_bijector_of_one_direction_passes(closed):
    assert_bijector(
        lambda dtype: Cubic(closed, dtype=dtype),
        X,
        event_ndims=1,
        directions=closed,
        zero_pattern=~np.eye(4, dtype=bool) if closed == "forward" else None,
        xla=False,
        skip=("saved_model_round_trip",),
    )


def test_stock_bijector_passes_what_applies_to_it():
    """TFP's own have stale caches, and take any dtype: the other checks still serve."""
    assert_bijector(
        lambda: tfb.Scale(tf.Variable([1.0, 2.0, 3.0, 4.0], dtype=tf.float64)),
        X,
        event_ndims=1,
        xla=False,
        skip=("changed_weights_change_the_output", "wrong_input_is_refused"),
    )


def test_arguments():
    rescale = lambda: bijectors.Rescale([4], dtype=tf.float64)  # noqa: E731
    with pytest.raises(ValueError, match="no such checks: .'round_trip'"):
        assert_bijector(rescale, X, event_ndims=1, skip=("round_trip",))
    with pytest.raises(ValueError, match=r"at least 3 events of rank 1.*got shape \[2, 4\]"):
        assert_bijector(rescale, X[:2], event_ndims=1)
    with pytest.raises(ValueError, match="events of rank 3"):
        assert_bijector(rescale, X, event_ndims=3)
    with pytest.raises(ValueError, match=r"among \['forward', 'inverse'\], got \['back'\]"):
        assert_bijector(rescale, X, event_ndims=1, directions=["back"])
    with pytest.raises(ValueError, match="zero_pattern is of dy/dx"):
        assert_bijector(rescale, X, event_ndims=1, directions="inverse", zero_pattern=[[False]])


def test_network_counts_are_left_as_they_were():
    before = keras.layers.Layer.__call__, Network._call_layer
    with pytest.raises(AssertionError, match="one_conditioner_call"):
        assert_bijector(lambda: build(CallsTwice), X, event_ndims=1, xla=False)
    assert (keras.layers.Layer.__call__, Network._call_layer) == before
