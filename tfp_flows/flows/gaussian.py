"""Normal distributions whose parameters come from a context."""

import tensorflow as tf

from tfp_flows import bijectors, conditioners
from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import vector_size
from tfp_flows.flows._parts import SeedStream, event_of, flow_of, layer_policy, make_base


def gaussian(
    event_shape,
    *,
    context_size,
    hidden_units=(),
    activation="relu",
    cap=7.0,
    base="normal",
    seed=None,
    dtype=tf.float32,
    name="gaussian",
):
    """Diagonal normal distribution, whose mean and scale a network of the context gives.

        x = mean(c) + exp(s(c)) u      u standard normal,  s = cap * tanh(raw(c) / cap)

    The posterior of a plain VAE, and the base of richer ones, whose layers then start from it:
    `flows.planar([D], base=flows.gaussian([D], context_size=n), context_size=n)`.

    Args:
      event_shape: `[D]`.
      context_size: size of the context.
      hidden_units: widths of the hidden layers of the network of the context. Default: none; a
        linear map.
      activation: Keras activation of the hidden layers. Default: `"relu"`.
      cap: positive finite number, the bound of |s|. Default: 7.
      base: distribution of u, as `flows.planar`; "logistic" makes logistic ones.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError, ValueError: for arguments out of range.

    >>> posterior = gaussian([2], context_size=3, seed=0)
    >>> posterior.log_prob(tf.zeros([5, 2]), context=tf.ones([5, 3])).shape
    TensorShape([5])

    References:
      D. P. Kingma, M. Welling, Auto-encoding variational Bayes, 2014, arXiv:1312.6114, appendix
      C.2.
    """
    (size,) = event_of(event_shape, (1,), "gaussian")
    context_size = vector_size(context_size, "context_size", "flows.gaussian")
    network = conditioners.MLP(
        2 * size,
        hidden_units=hidden_units,
        activation=activation,
        seed=SeedStream(seed, "gaussian")(),
        dtype=layer_policy(dtype),
    )
    layer = bijectors.ContextMap(
        (size,),
        elementwise_maps.Affine(cap=cap),
        conditioner=network,
        context_size=context_size,
        dtype=dtype,
    )
    return flow_of(make_base(base, (size,), trainable=False, dtype=dtype), layer, name=name)
