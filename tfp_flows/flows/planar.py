"""Planar flows."""

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.flows._layers import chain_of


def planar(
    event_shape,
    *,
    num_layers=8,
    closed="forward",
    hidden_units=(),
    activation="relu",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="planar",
):
    """Planar flow: layers that contract or expand the space about one plane each.

    Simple, and weak: a layer has 2 D + 1 numbers, and bends along one direction. For posteriors of
    variational inference, where it comes from; with a `context` from an encoder it is amortised.

    Args:
      event_shape: `[D]`.
      num_layers: `int >= 1`. Default: 8.
      closed: the direction that is a formula: "forward" (default), where sampling with its density
        costs nothing and the density of other points a solve a layer, or "inverse", where the
        density of data costs nothing and sampling a solve a layer.
      hidden_units: widths of the hidden layers of each layer's network of the context. Default:
        none; a linear map, as in the papers.
      activation: Keras activation of the hidden layers. Default: `"relu"`.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` with event shape `[D]`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector, or `None`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError, ValueError: for arguments out of range, or hidden units without a context.

    >>> posterior = planar([2], num_layers=4, seed=0)
    >>> z, log_q = posterior.experimental_sample_and_log_prob(5, seed=[0, 1])
    >>> z.shape, log_q.shape
    (TensorShape([5, 2]), TensorShape([5]))

    References:
      D. J. Rezende, S. Mohamed, Variational inference with normalizing flows, 2015,
      arXiv:1505.05770, section 4.1.
    """

    def make(n, size, **kwargs):
        return bijectors.Planar(size, **kwargs)

    return chain_of(
        "planar",
        make,
        event_shape,
        num_layers=num_layers,
        closed=closed,
        hidden_units=hidden_units,
        activation=activation,
        base=base,
        trainable_base=trainable_base,
        context_size=context_size,
        seed=seed,
        dtype=dtype,
        name=name,
    )
