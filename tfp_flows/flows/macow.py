"""MaCow."""

import tensorflow as tf

from tfp_flows import bijectors, conditioners, elementwise, masks
from tfp_flows.bijectors.masked_convolution import DIRECTIONS
from tfp_flows.flows._parts import (
    SeedStream,
    bounded_by_depth,
    event_of,
    flow_of,
    layer_policy,
    levels,
    make_base,
    multiples_of,
    positive,
)


def macow(
    event_shape,
    *,
    num_levels,
    num_steps,
    hidden_filters,
    masked_filters=None,
    kernel_size=(2, 5),
    log_scale="tanh",
    activation="elu",
    learned_prior=True,
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="macow",
):
    """MaCow: Glow's levels, with masked convolutions from four directions in each step.

    From data to latent, each level squeezes `[H, W, C]` to `[H/2, W/2, 4C]`, runs `num_steps`
    steps, and factors half of the channels out, which the rest predicts if `learned_prior`. A
    step is an ActNorm, an invertible 1x1 convolution, masked convolutions down, up, right and
    left (where there is more than one row, or column), another ActNorm, and couplings of either
    half of the channels.

    The density is one pass of each network; sampling goes through the masked convolutions row by
    row, `H + W` small steps for each direction and its opposite.

    Args:
      event_shape: `[H, W, C]` with `H` and `W` multiples of `2 ** num_levels`.
      num_levels: `int >= 1`.
      num_steps: `int >= 1`, steps a level.
      hidden_filters: `int >= 1`, width of each coupling's network.
      masked_filters: `int >= 1`, width of each masked convolution's. Default: `hidden_filters`.
      kernel_size: rows and columns that a masked convolution sees. Default: `(2, 5)`, the paper's.
      log_scale: scale function of all maps: `"tanh"` (bounded, default), `"exp"` or `"sigmoid"`.
        They have a `rate` and a `cap` that fall with depth and width (see `elementwise.Affine`).
      activation: Keras activation of the networks. Default: `"elu"`.
      learned_prior: whether the channels that go on give mean and scale of those factored
        out, by one zero-initialised 3x3 convolution.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector that every network sees, or `None`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats. Its ActNorms are
      to be initialised from data: `FlowModel.initialize(batch)`, or `fit`, does it.

    Raises:
      TypeError: if a count or the seed is no integer.
      ValueError: for an event shape that does not squeeze `num_levels` times, a count below 1, an
        unknown scale function, a negative seed.

    >>> flow = macow([4, 4, 1], num_levels=1, num_steps=1, hidden_filters=8, seed=0)
    >>> flow.log_prob(tf.zeros([3, 4, 4, 1])).shape
    TensorShape([3])

    References: X. Ma, X. Kong, S. Zhang, E. Hovy, MaCow: Masked convolutional generative flow,
    2019, arXiv:1902.04208, sections 3.1 and 3.2. Departures: Glow's levels in place of finer
    ones, one unit of four masked convolutions a step.
    """
    shape = event_of(event_shape, (3,), "macow")
    masked_filters = hidden_filters if masked_filters is None else masked_filters
    counts = {"num_levels": num_levels, "num_steps": num_steps, "hidden_filters": hidden_filters}
    positive("macow", masked_filters=masked_filters, kernel_size=kernel_size, **counts)
    multiples_of(
        2**num_levels, shape, "macow", whose=f"{num_levels} levels", remedy="Use fewer levels"
    )
    # Six maps a step; the last kernels of the couplings, 3x3, are the widest.
    bounds = bounded_by_depth(6 * num_levels * num_steps, 9 * hidden_filters)
    affine = elementwise.Affine(log_scale, **bounds)
    next_seed = SeedStream(seed, "macow")
    common = {
        "activation": activation,
        "context_size": context_size,
        "dtype": layer_policy(dtype),
    }

    def step(shape, label):
        channels = shape[-1]
        parts = [
            bijectors.ActNorm(channels, dtype=dtype, name=f"actnorm_{label}"),
            bijectors.InvertibleConv1x1(
                channels, seed=next_seed(), dtype=dtype, name=f"conv1x1_{label}"
            ),
        ]
        for direction in DIRECTIONS:
            if shape[direction in ("right", "left")] == 1:
                continue  # No row is before the only one.
            conditioner = conditioners.RowConvNet(
                channels * affine.num_parameters,
                num_rows=kernel_size[0],
                kernel_width=kernel_size[1],
                filters=masked_filters,
                seed=next_seed(),
                **common,
            )
            parts.append(
                bijectors.MaskedConvolution(
                    conditioner,
                    shape,
                    affine,
                    direction=direction,
                    dtype=dtype,
                    name=f"{direction}_{label}",
                )
            )
        parts.append(bijectors.ActNorm(channels, dtype=dtype, name=f"actnorm_{label}_couplings"))
        for flip in (False, True):
            mask = masks.channel(shape, flip=flip)
            conditioner = conditioners.ConvNet(
                int((~mask[0, 0]).sum()) * affine.num_parameters,
                filters=hidden_filters,
                seed=next_seed(),
                **common,
            )
            parts.append(
                bijectors.Coupling(
                    conditioner, mask, affine, dtype=dtype, name=f"coupling_{label}_{int(flip)}"
                )
            )
        return parts

    def steps(shape, number):
        return [part for n in range(num_steps) for part in step(shape, f"{number}_{n}")]

    return flow_of(
        make_base(base, shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(
            levels(
                shape,
                num_levels,
                steps,
                learned_prior=learned_prior,
                dtype=dtype,
                policy=common["dtype"],
            )
        ),
        name=name,
    )
