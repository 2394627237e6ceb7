"""IAF."""

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.flows._autoregressive import autoregressive_flow


def iaf(
    event_shape,
    *,
    num_layers=5,
    hidden_units=(256, 256),
    elementwise="affine",
    order="reversed",
    degrees="equal",
    normalization=None,
    activation="relu",
    residual=False,
    base="normal",
    trainable_base=False,
    support=None,
    context_size=None,
    stacked=None,
    seed=None,
    dtype=tf.float32,
    name="iaf",
    **elementwise_kwargs,
):
    """IAF: inverse autoregressive layers, whose sampling is one pass each.

    `experimental_sample_and_log_prob` draws samples with their densities by one pass of each
    network, which makes it a posterior for variational inference: give it a `context` from an
    encoder. The density of other points goes through the entries in order (see
    `bijectors.InverseAutoregressive`).

    Args:
      event_shape, num_layers, hidden_units, elementwise, order, degrees: as `flows.maf`.
      activation, residual, base, trainable_base, support, context_size, stacked: as `flows.maf`.
      seed, dtype, **elementwise_kwargs: as `flows.maf`.
      normalization: as `flows.maf`. Both kinds are set by data that pass from the data to the
        latent; leave it out where the flow is only sampled, as in variational inference.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError, ValueError: as `flows.maf`.

    >>> posterior = iaf([2], num_layers=2, hidden_units=(16,), context_size=3, seed=0)
    >>> context = tf.ones([5, 3])
    >>> z, log_q = posterior.experimental_sample_and_log_prob(
    ...     5, seed=[0, 1], bijector_kwargs={"context": context}
    ... )
    >>> z.shape, log_q.shape
    (TensorShape([5, 2]), TensorShape([5]))

    References:
      D. P. Kingma et al., Improving variational inference with inverse autoregressive flow,
      2016, arXiv:1606.04934.
    """
    return autoregressive_flow(
        iaf,
        bijectors.InverseAutoregressive,
        event_shape,
        num_layers=num_layers,
        hidden_units=hidden_units,
        elementwise=elementwise,
        order=order,
        degrees=degrees,
        normalization=normalization,
        activation=activation,
        residual=residual,
        base=base,
        trainable_base=trainable_base,
        support=support,
        context_size=context_size,
        stacked=stacked,
        seed=seed,
        dtype=dtype,
        name=name,
        elementwise_kwargs=elementwise_kwargs,
    )
