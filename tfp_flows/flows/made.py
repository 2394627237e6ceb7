"""MADE as a density by itself."""

import numpy as np
import tensorflow as tf

from tfp_flows import conditioners
from tfp_flows.distributions import MADEDistribution, get_output
from tfp_flows.flows._parts import event_of, layer_policy


def made(
    event_shape,
    *,
    output="bernoulli",
    hidden_units=(500,),
    order="left-to-right",
    degrees="equal",
    num_masks=1,
    activation="relu",
    residual=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    validate_args=False,
    name="made",
    **kwargs,
):
    """MADE: a density that is a product of conditionals, from one masked network.

        p(x) = prod_i p(x_i | x_1, ..., x_{i-1})

    with Bernoulli conditionals for binary data, MADE's own use, or others. With
    `num_masks=K > 1` the network is trained under K sets of masks in turn, one a call in
    training mode (`FlowModel.fit`, `bijectors.training_mode()`), and used as their mixture,

        p(x) = mean_k p_k(x)

    which is order-agnostic training with `order="random"`, connectivity-agnostic training with
    `degrees="random"`, and an ensemble of them at test time. A density then costs K passes.

    Args:
      event_shape: `[D]`, or `[H, W, C]`, which is flattened inside.
      output: `"bernoulli"` (default): `x` holds 0 and 1; `"categorical"` or
        `"discretized_logistic_mixture"`: integers from 0 to `num_levels - 1`; `"normal"` or
        `"gaussian_mixture"` (MADE MoG): real numbers; or a `distributions.Output`.
      hidden_units: widths of the hidden layers, at least `D - 1` or dependencies are lost, with a
        warning. Default: `(500,)`.
      order, degrees, num_masks, activation, residual, context_size: as `conditioners.MADE`.
      seed: `int`; the same seed gives the same initial weights, orders and degrees.
      dtype: float32 (default) or float64.
      validate_args: whether to refuse data that are no levels of the output. Otherwise they are
        impossible, but for Bernoulli variables: values between 0 and 1 count as their
        cross-entropy.
      name: name of the distribution.
      **kwargs: arguments of the output, as `num_levels=16` or `num_components=5`.

    Returns:
      A `distributions.MADEDistribution` over `event_shape`. `log_prob` and `sample` take
      `context=` `[..., context_size]` if there is one; `log_prob` is in nats.

    Raises:
      TypeError, ValueError: for an event shape of another rank, and as `conditioners.MADE`,
        `distributions.get_output` and `distributions.MADEDistribution`.

    >>> density = made([3], hidden_units=(8,), seed=0)
    >>> x = density.sample(5, seed=[0, 1])
    >>> density.log_prob(x).shape
    TensorShape([5])
    >>> mixture = made([3], output="gaussian_mixture", num_components=5, hidden_units=(8,), seed=0)
    >>> mixture.log_prob(tf.zeros([2, 3])).shape
    TensorShape([2])

    References: M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE: Masked Autoencoder for
    Distribution Estimation, 2015, arXiv:1502.03509, equations 2 and 4 and sections 4.1 to 4.3. The
    mixture: G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
    estimation, 2017, arXiv:1705.07057, section 4.
    """
    shape = event_of(event_shape, (1, 3), "made")
    found = get_output(output, **kwargs)
    if kwargs:
        output = found  # A name stays a name: version 0.1 reads the files then.
    layer = conditioners.MADE(
        int(np.prod(shape)),
        found.num_parameters,
        hidden_units=hidden_units,
        order=order,
        degrees=degrees,
        num_masks=num_masks,
        activation=activation,
        residual=residual,
        context_size=context_size,
        seed=seed,
        dtype=layer_policy(dtype),
    )
    return MADEDistribution(
        layer, shape, output=output, dtype=dtype, validate_args=validate_args, name=name
    )
