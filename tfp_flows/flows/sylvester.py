"""Sylvester flows."""

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.flows._layers import chain_of


def sylvester(
    event_shape,
    *,
    num_layers=4,
    kind="orthogonal",
    num_directions=None,
    num_reflections=None,
    closed="forward",
    hidden_units=(),
    activation="relu",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="sylvester",
):
    """Sylvester flow: planar layers along many directions at once.

    Args:
      event_shape: `[D]`.
      num_layers: `int >= 1`. Default: 4.
      kind: "orthogonal" (default), "householder" or "triangular", as `bijectors.Sylvester`; every
        second triangular layer takes the entries in reversed order.
      num_directions, num_reflections: as `bijectors.Sylvester`.
      closed, hidden_units, activation, base, trainable_base, context_size, seed, dtype, name: as
        `flows.planar`.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError, ValueError: as `bijectors.Sylvester` and `flows.planar`.

    >>> sylvester([4], num_layers=2, num_directions=2, seed=0).sample(5).shape
    TensorShape([5, 4])

    References:
      R. van den Berg, L. Hasenclever, J. M. Tomczak, M. Welling, Sylvester normalizing flows for
      variational inference, 2018, arXiv:1803.05649.
    """

    def make(n, size, **kwargs):
        return bijectors.Sylvester(
            size,
            kind=kind,
            num_directions=num_directions,
            num_reflections=num_reflections,
            flip=kind == "triangular" and bool(n % 2),
            **kwargs,
        )

    return chain_of(
        "sylvester",
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
