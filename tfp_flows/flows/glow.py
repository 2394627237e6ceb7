"""Glow."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks
from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import one_of
from tfp_flows.flows._parts import (
    SeedStream,
    bounded_by_depth,
    by_own_networks,
    event_of,
    flow_of,
    in_sequence,
    layer_policy,
    levels,
    make_base,
    multiples_of,
    network_of,
    positive,
    rate_of_rotations,
)

tfb = tfp.bijectors

# From so many steps on a loop starts sooner, in less memory, and trains no slower.
_STACKED_FROM = 8
# The paper's: of networks that are not known, what is safe for wide ones.
_WIDTH = 512
_COUPLINGS = ("additive", "affine")
_PERMUTATIONS = ("invertible", "reverse", "shuffle")


def glow(
    event_shape,
    *,
    num_levels,
    num_steps,
    hidden_filters=None,
    coupling="affine",
    log_scale=None,
    permutation="invertible",
    learned_prior=True,
    activation="relu",
    base="normal",
    trainable_base=False,
    support=None,
    conditioner=None,
    context_size=None,
    stacked=None,
    seed=None,
    dtype=tf.float32,
    name="glow",
):
    """Glow: levels of squeeze and steps of ActNorm, 1x1 convolution and coupling.

    From data to latent, each level squeezes `[H, W, C]` to `[H/2, W/2, 4C]`, runs `num_steps`
    steps, and factors half of the channels out, which the rest predicts if `learned_prior`.

    Args:
      event_shape: `[H, W, C]` with `H` and `W` multiples of `2 ** num_levels`.
      num_levels: `int >= 1`, the paper's L.
      num_steps: `int >= 1`, steps a level, the paper's K.
      hidden_filters: `int >= 1`, width of each coupling's network (the paper: 512). With a
        `conditioner` it may be left out; given, it says how wide what goes into its last layer is,
        by which the `rate` of an affine coupling falls. Default: as of 512.
      coupling: `"affine"` (default), `"additive"` or an `elementwise.ElementwiseMap`. By name, an
        affine one has a `rate` and a `cap` that fall with depth and width, so that Adam at its
        default trains any of them (see `elementwise.Affine`).
      log_scale: scale function of an affine coupling: `"tanh"` (bounded, default), `"exp"`
        or `"sigmoid"` (Glow's).
      permutation: how the channels of a step are mixed, the three of the paper's figure 3:
        `"invertible"` (default), a trained 1x1 convolution; `"reverse"`, which turns their order
        round; or `"shuffle"`, a fixed order that is drawn for each step.
      learned_prior: whether the channels that go on give mean and scale of those factored
        out, by one zero-initialised 3x3 convolution.
      activation: Keras activation of the networks. Default: `"relu"`.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      support: where the data lie: `None` (default) for all reals, `"positive"`, or `(low, high)`,
        numbers or arrays of the event's shape, of which one may be infinite. A constraint bijector
        next to the data: a sigmoid of a box, an exponential of half a line.
      conditioner: function `(input_shape, output_size, context_size, seed)` that returns the Keras
        layer of a coupling, from `[batch, *input_shape]` to a last axis of `output_size`; a
        context, if there is one, is its second argument. Default: a `ConvNet` of `hidden_filters`.
      context_size: size of a conditioning vector that every coupling sees, or `None`.
      stacked: whether the steps of a level run in a loop (`bijectors.Repeat`): the same flow, with
        the same weights for the same seed, that starts in a time that hardly grows with depth.
        `True` takes the least memory, for a step of training that is a tenth slower. Default:
        from 8 steps on, with what is needed for the gradient kept. Optimizers that look at a
        variable as a whole (LAMB, `clipnorm`) see a stack: see `bijectors.Repeat`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats. Its ActNorms are
      to be initialised from data: `FlowModel.initialize(batch)`, or `fit`, does it.

    Raises:
      TypeError: if a count or the seed is no integer.
      ValueError: for an event shape that does not squeeze `num_levels` times, an unknown
        coupling or permutation, a count below 1, a negative seed, `stacked=True` for shuffles.

    >>> flow = glow([4, 4, 1], num_levels=1, num_steps=2, hidden_filters=8, seed=0)
    >>> flow.log_prob(tf.zeros([3, 4, 4, 1])).shape
    TensorShape([3])

    References:
      D. P. Kingma, P. Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
      arXiv:1807.03039, figures 2 and 3.
    """
    shape = event_of(event_shape, (3,), "glow")
    if hidden_filters is None:
        if conditioner is None:
            raise ValueError(
                "flows.glow: hidden_filters, the width of the couplings' networks, must be given, "
                "or a conditioner. The paper has hidden_filters=512."
            )
        hidden_filters = _WIDTH
    positive("glow", num_levels=num_levels, num_steps=num_steps, hidden_filters=hidden_filters)
    multiples_of(
        2**num_levels, shape, "glow", whose=f"{num_levels} levels", remedy="Use fewer levels"
    )
    permutation = one_of(permutation, _PERMUTATIONS, "permutation", "flows.glow")
    coupling = _coupling_of(coupling, log_scale, num_levels * num_steps, hidden_filters)
    policy = layer_policy(dtype)
    next_seed = SeedStream(seed, "glow")

    def mixing(size, seed, label):
        if permutation == "invertible":
            return bijectors.InvertibleConv1x1(
                size,
                seed=seed,
                rate=rate_of_rotations(num_levels * num_steps, size),
                dtype=dtype,
                name=f"conv1x1_{label}",
            )
        order = np.arange(size)[::-1]
        if permutation == "shuffle":
            # Without a seed by NumPy's global state, which Keras seeds.
            rng = np.random if seed is None else np.random.default_rng(seed)
            order = rng.permutation(size)
        return tfb.Permute(order.astype(np.int32), axis=-1, name=f"{permutation}_{label}")

    def step(shape, label, seeds):
        mask = masks.channel(shape)
        changed = int((~mask[0, 0]).sum())
        outputs = changed * coupling.num_parameters
        if conditioner is not None:
            inputs = (*shape[:-1], shape[-1] - changed)
            network = network_of("glow", conditioner, inputs, outputs, context_size, seeds[0])
        else:
            network = conditioners.ConvNet(
                outputs,
                filters=hidden_filters,
                activation=activation,
                context_size=context_size,
                seed=seeds[0],
                dtype=policy,
            )
        return [
            bijectors.ActNorm(shape[-1], dtype=dtype, name=f"actnorm_{label}"),
            mixing(shape[-1], seeds[1], label),
            bijectors.Coupling(
                network,
                mask,
                coupling,
                context_size=context_size,
                dtype=dtype,
                name=f"coupling_{label}",
            ),
        ]

    def steps(shape, number):
        return in_sequence(
            lambda n, seeds: step(shape, f"{number}_{n}", seeds),
            [(next_seed(), next_seed()) for _ in range(num_steps)],
            1,
            stacked,
            "flows.glow",
            dtype,
            unequal=[
                *by_own_networks(conditioner),
                *(["permutation='shuffle'"] if permutation == "shuffle" else []),
            ],
            by_itself_from=_STACKED_FROM,
            name=f"steps_{number}",
        )

    return flow_of(
        make_base(base, shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(
            levels(
                shape, num_levels, steps, learned_prior=learned_prior, dtype=dtype, policy=policy
            )
        ),
        support=support,
        name=name,
    )


def _coupling_of(coupling, log_scale, layers, filters):
    """The elementwise map of the couplings."""
    if log_scale is not None and coupling != "affine":
        raise ValueError(
            f"flows.glow: log_scale is for coupling='affine', got coupling={coupling!r} and "
            f"log_scale={log_scale!r}. Leave it out, or set it in the map itself."
        )
    if not isinstance(coupling, str):
        return coupling
    if coupling not in _COUPLINGS:
        raise ValueError(
            f"flows.glow: coupling must be one of {list(_COUPLINGS)} or an ElementwiseMap, got "
            f"{coupling!r}."
        )
    if coupling == "additive":
        return elementwise_maps.Shift()
    # The last kernels are 3x3.
    bounds = bounded_by_depth(layers, 9 * filters)
    return elementwise_maps.Affine("tanh" if log_scale is None else log_scale, **bounds)
