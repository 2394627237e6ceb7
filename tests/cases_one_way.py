"""Cases of one-way bijectors: name -> arguments of `assert_bijector`, as in `cases.py`."""

import functools

import numpy as np
import tensorflow_probability as tfp
from drawn import points

from tfp_flows import bijectors, conditioners, flows

tfb = tfp.bijectors

FILES = ("weights_round_trip", "keras_file_round_trip", "saved_model_round_trip")
SIZE = 3
CONTEXT = np.random.default_rng(9).normal(size=(4, 2))


def amortised(cls, dtype, **kwargs):
    """A bijector whose parameters a network of a context adds to."""
    count = cls(SIZE, **kwargs).num_parameters
    network = conditioners.MLP(count, hidden_units=(4,), activation="tanh", seed=1, dtype=dtype)
    return cls(SIZE, conditioner=network, context_size=2, seed=0, dtype=dtype, **kwargs)


def own(cls, *, skip=(), xla=True, **kwargs):
    return dict(
        make=lambda dtype: cls(SIZE, seed=0, dtype=dtype, **kwargs),
        x=points(SIZE),
        event_ndims=1,
        skip=skip,
        xla=xla,
    )


def conditional(cls, **kwargs):
    return dict(
        make=functools.partial(amortised, cls, **kwargs),
        x=points(SIZE),
        context=CONTEXT,
        event_ndims=1,
        xla=False,
        skip=FILES,
    )


CASES = {
    "planar": own(bijectors.Planar),
    "planar_amortised": conditional(bijectors.Planar),
    "radial": own(bijectors.Radial),
    "radial_amortised": conditional(bijectors.Radial),
    "sylvester_orthogonal": own(bijectors.Sylvester, num_directions=2, skip=FILES[::2]),
    "sylvester_amortised": conditional(bijectors.Sylvester, num_directions=2),
    "sylvester_householder": own(
        bijectors.Sylvester, kind="householder", num_reflections=2, xla=False, skip=FILES
    ),
    "sylvester_triangular": own(
        bijectors.Sylvester, kind="triangular", flip=True, xla=False, skip=FILES
    ),
    "planar_recipe_for_densities": dict(
        make=lambda dtype: (
            flows.planar(
                [2], num_layers=1, closed="inverse", context_size=2, seed=0, dtype=dtype
            ).bijector
        ),
        x=points(2),
        context=CONTEXT,
        event_ndims=1,
        xla=False,
        skip=FILES[::2],
    ),
}


def continuous(dtype, size=2, context_size=0, **kwargs):
    network = conditioners.MLP(
        size,
        hidden_units=(6,),
        activation="tanh",
        context_size=1 + context_size,
        zero_output=False,
        seed=1,
        dtype=dtype,
    )
    return bijectors.Continuous(network, [size], dtype=dtype, **kwargs)


# The solver's error, and not rounding, is what a round trip is off by; and it evaluates the network
# as often as it has to.
SOLVED = dict(
    event_ndims=1, conditioner_calls=None, round_trip_tolerance=1e-4, log_det_tolerance=2e-4
)
CASES.update(
    continuous=dict(
        # In one dtype: to trace a solver and its gradient takes seconds.
        make=lambda _=None: continuous("float32", solver="rk4", num_steps=8),
        x=points(2).astype("float32"),
        y=points(2, seed=1).astype("float32"),
        skip=FILES[::2],
        **SOLVED,
    ),
    continuous_adaptive=dict(
        make=lambda _=None: continuous("float32", context_size=2),
        x=points(2).astype("float32"),
        y=points(2, seed=1).astype("float32"),
        context=CONTEXT,
        xla=False,
        # The Jacobian of adapted steps is that of the steps (`test_continuous` sees to both), and
        # what else is not here the other solver shows.
        skip=(
            *FILES[:2],
            "log_det_matches_autodiff",
            "gradients_reach_every_weight",
            "batch_shapes_agree",
            "changed_weights_change_the_output",
            "modes_agree",
        ),
        **SOLVED,
    ),
)


def residual(dtype, context_size=None, **kwargs):
    network = conditioners.LipschitzMLP(
        SIZE,
        hidden_units=(5,),
        zero_output=False,
        context_size=context_size,
        seed=1,
        dtype=dtype,
    )
    return bijectors.Residual(network, [SIZE], dtype=dtype, **kwargs)


CASES.update(
    # In one dtype, for its loops are slow in eager mode.
    residual=dict(
        make=lambda _=None: residual("float32"),
        x=points(SIZE).astype("float32"),
        event_ndims=1,
        conditioner_calls=None,
        skip=(*FILES[::2], "copy_shares_variables", "batch_shapes_agree"),
    ),
    residual_context=dict(
        make=lambda _=None: residual("float64", context_size=2),
        x=points(SIZE),
        context=CONTEXT,
        event_ndims=1,
        conditioner_calls=None,
        xla=False,
        skip=(
            *FILES,
            "log_det_matches_autodiff",
            "changed_weights_change_the_output",
            "copy_shares_variables",
            "modes_agree",
        ),
    ),
)
