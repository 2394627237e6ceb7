"""NICE."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks
from tfp_flows.flows._parts import (
    SeedStream,
    by_own_networks,
    event_of,
    flow_of,
    in_sequence,
    layer_policy,
    make_base,
    network_of,
    positive,
)

tfb = tfp.bijectors


def nice(
    event_shape,
    *,
    num_couplings=4,
    hidden_units=(1000,) * 5,
    activation="relu",
    min_scale=None,
    base="logistic",
    trainable_base=False,
    support=None,
    conditioner=None,
    context_size=None,
    stacked=None,
    seed=None,
    dtype=tf.float32,
    name="nice",
):
    """NICE: additive couplings over alternating entries, then a rescaling.

    Volume-preserving but for the rescaling. The defaults are the paper's network for MNIST.

    Args:
      event_shape: `[D]` with `D >= 2`, or `[H, W, C]`, which is flattened inside.
      num_couplings: `int >= 1`. Fewer than 3 leave some entries independent of others. Default: 4.
      hidden_units: widths of each coupling's hidden layers.
      activation: Keras activation of the hidden layers. Default: `"relu"`.
      min_scale: floor of the scales of the rescaling, for data with constant entries, as
        `bijectors.Rescale`. Default: none.
      base: `"logistic"` (the paper's choice for images), `"normal"` or a `tfd.Distribution`
        with event shape `[D]`.
      trainable_base: whether the base's location and scale are trained.
      support: where the data lie: `None` (default) for all reals, `"positive"`, or `(low, high)`,
        numbers or arrays of the event's shape, of which one may be infinite. A constraint bijector
        next to the data: a sigmoid of a box, an exponential of half a line.
      conditioner: function `(input_shape, output_size, context_size, seed)` that returns the Keras
        layer of a coupling, from `[batch, *input_shape]` to a last axis of `output_size`; a
        context, if there is one, is its second argument. Default: an `MLP` of the
        `hidden_units`.
      context_size: size of a conditioning vector, or `None`.
      stacked: whether pairs of couplings run in a loop, as `flows.glow`. Default: not.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer.
      ValueError: for an event shape of another rank, a count below 1, or a negative seed.

    >>> nice([4], num_couplings=2, hidden_units=(8,), seed=0).log_prob(tf.zeros([5, 4])).shape
    TensorShape([5])

    References:
      L. Dinh, D. Krueger, Y. Bengio, NICE: Non-linear independent components estimation,
      2014, arXiv:1410.8516, sections 3 and 5.
    """
    shape = event_of(event_shape, (1, 3), "nice")
    positive("nice", num_couplings=num_couplings, hidden_units=hidden_units)
    size = int(np.prod(shape))
    if size < 2:
        raise ValueError(
            "flows.nice: an event of one entry has nothing to split in two, of which one part "
            "shifts the other; its size must be at least 2, got 1. Use flows.maf."
        )
    next_seed = SeedStream(seed, "nice")

    def coupling(n, seeds):
        mask = masks.alternating(size, flip=bool(n % 2))
        outputs = int((~mask).sum())
        if conditioner is not None:
            inputs = (size - outputs,)
            network = network_of("nice", conditioner, inputs, outputs, context_size, seeds[0])
        else:
            network = conditioners.MLP(
                outputs,
                hidden_units=hidden_units,
                activation=activation,
                context_size=context_size,
                seed=seeds[0],
                dtype=layer_policy(dtype),
            )
        return [
            bijectors.AdditiveCoupling(
                network, mask, context_size=context_size, dtype=dtype, name=f"coupling_{n}"
            )
        ]

    # The chain's first member is next to the data; the paper rescales next to the latent.
    seeds = [(next_seed(),) for _ in range(num_couplings)]
    parts = in_sequence(
        coupling,
        seeds,
        2,
        stacked,
        "flows.nice",
        dtype,
        unequal=by_own_networks(conditioner),
        reverse=True,
    )
    parts.append(bijectors.Rescale([size], min_scale=min_scale, dtype=dtype))
    if len(shape) == 3:
        parts.insert(0, tfb.Reshape(event_shape_out=shape, event_shape_in=(size,)))
    return flow_of(
        make_base(base, (size,), trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        support=support,
        name=name,
    )
