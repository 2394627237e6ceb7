"""One harness for every bijector."""

import inspect

import numpy as np

from tfp_flows.testing import contract, numerics
from tfp_flows.testing.subject import DIRECTIONS, Subject

# Name -> check, in the order in which they run: what explains most comes first.
CHECKS = {
    "same_seed_same_bijector": contract.same_seed_same_bijector,
    "variables_listed_once": contract.variables_listed_once,
    "round_trips": numerics.round_trips,
    "other_direction_is_refused": numerics.other_direction_is_refused,
    "log_det_is_reduced": numerics.log_det_is_reduced,
    "log_det_matches_autodiff": numerics.log_det_matches_autodiff,
    "jacobian_zero_pattern": numerics.jacobian_zero_pattern,
    "gradients_reach_every_weight": numerics.gradients_reach_every_weight,
    "batch_shapes_agree": numerics.batch_shapes_agree,
    "event_shapes_agree": numerics.event_shapes_agree,
    "context_matters": numerics.context_matters,
    "changed_weights_change_the_output": contract.changed_weights_change_the_output,
    "one_conditioner_call": contract.one_conditioner_call,
    "conditioners_are_autoregressive": contract.conditioners_are_autoregressive,
    "copy_shares_variables": contract.copy_shares_variables,
    "calls_change_no_variable": contract.calls_change_no_variable,
    "wrong_input_is_refused": contract.wrong_input_is_refused,
    "modes_agree": numerics.modes_agree,
    "weights_round_trip": contract.weights_round_trip,
    "keras_file_round_trip": contract.keras_file_round_trip,
    "saved_model_round_trip": contract.saved_model_round_trip,
}


# Checks of the object and not of its arithmetic: where `make` takes a dtype, once is enough.
_ANY_DTYPE = {
    "variables_listed_once",
    "one_conditioner_call",
    "other_direction_is_refused",
    "conditioners_are_autoregressive",
    "copy_shares_variables",
    "calls_change_no_variable",
    "wrong_input_is_refused",
    "modes_agree",
    "weights_round_trip",
    "keras_file_round_trip",
    "saved_model_round_trip",
}


def assert_bijector(
    make,
    x,
    *,
    event_ndims,
    y=None,
    directions=DIRECTIONS,
    context=None,
    zero_pattern=None,
    conditioner_calls=(1, 1),
    perturbation=0.1,
    round_trip_tolerance=None,
    log_det_tolerance=None,
    xla=True,
    skip=(),
    seed=0,
):
    """Checks that a bijector keeps the contract of a `tfb.Bijector` and of this package.

    Everything runs with all weights perturbed, so that nothing is tested at the identity, and
    with every tensor passed through `tf.identity`, because TFP's cache otherwise answers a
    round trip by itself. Log-dets are compared with `slogdet` of the Jacobian that automatic
    differentiation gives, in float64 where `make` can build one.

    Args:
      make: function that returns a fresh bijector, the same one each time (fix its seed). If
        it takes an argument, it is called with `"float64"` and `"float32"`, and the checks run
        in both; without one they run in the dtype of `x`.
      x: array `[n, *event]`, points of the domain, `n >= 3`; a few rows and at most some tens
        of entries, since the Jacobian takes as many passes.
      event_ndims: `int`, rank of one event of `x`.
      y: array of points of the codomain, independent of `x`. Default: drawn from a normal with
        the spread of 3, tails included, in the shape of `forward(x)`.
      directions: which there are, "forward", "inverse" or both (default). The other one has to
        raise a `NotImplementedError`; what is left of the checks is done in the one that there is.
        Of `["inverse"]` alone `x` gives the number and the shape of the events, and `y` the points.
      context: array `[n, context_size]` for a conditional bijector, or of the shape that its
        `context_size` is.
      zero_pattern: boolean matrix `[event size of y, event size of x]`, `True` where
        `dy_i/dx_j` must be exactly zero.
      conditioner_calls: how often each conditioner may be called by the forward and by the inverse
        direction, `None` for not checked. Default: `(1, 1)`.
      perturbation: standard deviation of the noise added to every weight. Default: 0.1.
      round_trip_tolerance: relative to `1 + |value|`. Default: 1e-10 in float64, 1e-4 in
        float32.
      log_det_tolerance: relative to `1 + |log-det|`. Default: 1e-8 in float64, 1e-4 in float32.
      xla: whether to compare with `jit_compile=True` too.
      skip: names of checks (see `CHECKS`) to leave out.
      seed: `int`, seeds perturbations and points.

    Raises:
      AssertionError: naming the check that failed.
      ValueError: for an unknown name in `skip`, no or other directions, or a `zero_pattern`
        without the forward direction.

    >>> import tensorflow_probability as tfp
    >>> from tfp_flows import bijectors
    >>> x = np.random.default_rng(0).normal(size=(3, 2))
    >>> assert_bijector(
    ...     lambda dtype: bijectors.Rescale([2], dtype=dtype), x, event_ndims=1, xla=False
    ... )
    """
    unknown = sorted(set(skip) - set(CHECKS))
    if unknown:
        raise ValueError(f"assert_bijector: no such checks: {unknown}. There are {list(CHECKS)}.")
    directions = _directions_of(directions)
    if zero_pattern is not None and "forward" not in directions:
        raise ValueError(
            "assert_bijector: zero_pattern is of dy/dx, but the bijector has no forward direction. "
            "Leave it out."
        )
    x = np.asarray(x)
    if len(x) < 3 or x.ndim != event_ndims + 1:
        raise ValueError(
            f"assert_bijector: x must hold at least 3 events of rank {event_ndims}, "
            f"[n, *event], got shape {list(x.shape)}."
        )
    takes_dtype, reference = _takes_dtype(make), None
    for dtype in ("float64", "float32") if takes_dtype else (x.dtype.name,):
        subject = Subject(
            (lambda dtype=dtype: make(dtype)) if takes_dtype else make,
            x,
            dtype=dtype,
            event_ndims=event_ndims,
            y=y,
            context=context,
            perturbation=perturbation,
            seed=seed,
            reference=reference,
            directions=directions,
        )
        subject.zero_pattern = zero_pattern
        subject.conditioner_calls = conditioner_calls
        subject.xla = xla
        is_double = dtype == "float64"
        subject.round_trip_tolerance = round_trip_tolerance or (1e-10 if is_double else 1e-4)
        subject.log_det_tolerance = log_det_tolerance or (1e-8 if is_double else 1e-4)
        for name, check in CHECKS.items():
            if name in skip or (takes_dtype and is_double and name in _ANY_DTYPE):
                continue
            try:
                check(subject)
            except AssertionError as error:
                raise AssertionError(f"{name} ({dtype}): {error}") from error
            except Exception as error:  # Whatever a bijector raises, the check's name helps.
                raise AssertionError(
                    f"{name} ({dtype}): {type(error).__name__}: {error}"
                ) from error
        reference = subject


def _directions_of(given):
    """The directions that are given, one or several, in their order."""
    given = [given] if isinstance(given, str) else list(given)
    directions = tuple(d for d in DIRECTIONS if d in given)
    if not directions or set(given) - set(DIRECTIONS):
        raise ValueError(
            f"assert_bijector: directions must be among {list(DIRECTIONS)}, got {given}."
        )
    return directions


def _takes_dtype(make):
    """Whether a function makes a bijector of a dtype, or a class, whose arguments have defaults."""
    parameters = inspect.signature(make).parameters
    return "dtype" in parameters or any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in parameters.values()
    )
