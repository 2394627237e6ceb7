"""Continuous flows."""

import tensorflow as tf

from tfp_flows import bijectors, conditioners
from tfp_flows._checks import vector_size
from tfp_flows.flows._parts import SeedStream, event_of, flow_of, layer_policy, make_base, positive


def continuous(
    event_shape,
    *,
    hidden_units=(128, 128),
    activation="silu",
    residual=False,
    solver="dopri5",
    rtol=1e-5,
    atol=1e-5,
    num_steps=None,
    trace=None,
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="continuous",
):
    """Continuous flow: an ordinary differential equation from the base to the data.

    Train it by `FlowModel(flow, objective=objectives.FlowMatching())`, a regression that solves no
    equation, or by maximum likelihood, which solves one a step. Densities and samples solve one.

    Args:
      event_shape: `[D]`.
      hidden_units: widths of the hidden layers of the one network, an MLP of x, t and the context.
        Default: `(128, 128)`.
      activation: Keras activation of the hidden layers; a smooth one takes fewer steps. Default:
        `"silu"`.
      residual: whether the network is of residual blocks, as in `conditioners.MLP`.
      solver, rtol, atol, num_steps, trace: as `bijectors.Continuous`.
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

    >>> continuous([2], hidden_units=(16,), seed=0).log_prob(tf.zeros([5, 2])).shape
    TensorShape([5])

    References:
      W. Grathwohl et al., FFJORD, 2019, arXiv:1810.01367.
      Y. Lipman et al., Flow matching for generative modeling, 2023, arXiv:2210.02747.
    """
    (size,) = event_of(event_shape, (1,), "continuous")
    positive("continuous", hidden_units=hidden_units)
    if context_size is not None:
        context_size = vector_size(context_size, "context_size", "flows.continuous")
    next_seed = SeedStream(seed, "continuous")
    velocity = conditioners.MLP(
        size,
        hidden_units=hidden_units,
        activation=activation,
        residual=residual,
        context_size=1 + (context_size or 0),
        seed=next_seed(),
        dtype=layer_policy(dtype),
    )
    bijector = bijectors.Continuous(
        velocity,
        [size],
        solver=solver,
        rtol=rtol,
        atol=atol,
        num_steps=num_steps,
        trace=trace,
        context_size=context_size,
        seed=next_seed(),
        dtype=dtype,
    )
    return flow_of(
        make_base(base, (size,), trainable=trainable_base, dtype=dtype), bijector, name=name
    )
