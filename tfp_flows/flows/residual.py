"""Residual flows."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners
from tfp_flows.flows._parts import (
    SeedStream,
    closed_direction,
    event_of,
    flow_of,
    layer_policy,
    make_base,
    positive,
)

tfb = tfp.bijectors


def residual(
    event_shape,
    *,
    num_layers=8,
    hidden_units=(64, 64),
    lipschitz_bound=0.9,
    log_det=None,
    num_terms=8,
    closed="inverse",
    actnorm=None,
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="residual",
):
    """Residual flow: layers that each add a contraction of the event to it.

    Args:
      event_shape: `[D]`.
      num_layers: `int >= 1`. Default: 8.
      hidden_units: widths of the hidden layers of each layer's network. Default: `(64, 64)`.
      lipschitz_bound: number in (0, 1): how much of the event's movement a layer may add. Default:
        0.9.
      log_det, num_terms: as `bijectors.Residual`.
      closed: the direction without a fixed-point iteration: "inverse" (default), that of densities
        of data, or "forward", that of samples.
      actnorm: whether an `ActNorm` stands before each layer, seen from the data. Default: if
        `closed` is "inverse".
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` with event shape `[D]`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector, or `None`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError, ValueError: for arguments out of range.

    >>> flow = residual([2], num_layers=1, hidden_units=(8,), closed="forward", seed=0)
    >>> flow.sample(5).shape
    TensorShape([5, 2])

    References:
      R. T. Q. Chen, J. Behrmann, D. Duvenaud, J.-H. Jacobsen, Residual flows for invertible
      generative modeling, 2019, arXiv:1906.02735.
    """
    (size,) = event_of(event_shape, (1,), "residual")
    positive("residual", num_layers=num_layers, hidden_units=hidden_units)
    closed = closed_direction(closed, "residual")
    next_seed, parts = SeedStream(seed, "residual"), []
    for n in range(num_layers):
        network = conditioners.LipschitzMLP(
            size,
            hidden_units=hidden_units,
            lipschitz_bound=lipschitz_bound,
            context_size=context_size,
            seed=next_seed(),
            dtype=layer_policy(dtype),
        )
        layer = bijectors.Residual(
            network,
            [size],
            log_det=log_det,
            num_terms=num_terms,
            seed=next_seed(),
            dtype=dtype,
            name=f"residual_{n}",
        )
        if closed == "inverse" if actnorm is None else actnorm:
            parts.append(bijectors.ActNorm(size, dtype=dtype, name=f"actnorm_{n}"))
        parts.append(layer if closed == "forward" else tfb.Invert(layer))
    return flow_of(
        make_base(base, (size,), trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        name=name,
    )
