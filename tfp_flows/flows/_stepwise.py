"""What the recipes of networks that run step by step share."""

from tfp_flows import bijectors
from tfp_flows.distributions import AutoregressiveDistribution, get_output
from tfp_flows.flows._parts import (
    WITH_RATE,
    SeedStream,
    bounded_by_depth,
    elementwise_of,
    flow_of,
    layer_policy,
    make_base,
    positive,
)

_ORDERS = ("left-to-right", "right-to-left")


def stepwise_flow(
    recipe,
    make_network,
    event_shape,
    *,
    num_blocks,
    fan_in,
    elementwise,
    base,
    trainable_base,
    seed,
    dtype,
    name,
    elementwise_kwargs,
    output=None,
):
    """Builds `num_blocks` of `MaskedAutoregressive`, each around a network of its own.

    Or, with an output, the density of one network.

    Args:
      recipe: the recipe, a function.
      make_network: function of (num_parameters, order, seed, dtype) that returns a network; every
        second one is right to left, and that next to the data left to right.
      event_shape: tuple of `int`.
      fan_in: inputs of each output of a network's last layer.
      num_blocks, elementwise, output, base, trainable_base, seed, dtype, name,
        elementwise_kwargs: as the recipes have them.
    """
    title = recipe.__name__
    positive(title, num_blocks=num_blocks)
    if output is not None:
        unused = {"num_blocks": num_blocks != 1, "elementwise": elementwise != "affine"}
        unused |= {"base": base != "normal", "trainable_base": trainable_base}
        if any(unused.values()):
            raise ValueError(
                f"flows.{title}: with an output there is one network and no base, got "
                f"output={output!r} and {' and '.join(k for k, v in unused.items() if v)}. Leave "
                "one or the other out."
            )
        output = get_output(output, **elementwise_kwargs)
        network = make_network(
            num_parameters=output.num_parameters,
            order=_ORDERS[0],
            seed=SeedStream(seed, title)(),
            dtype=layer_policy(dtype),
        )
        return AutoregressiveDistribution(
            network, event_shape, output=output, dtype=dtype, name=name
        )
    if elementwise in WITH_RATE:
        elementwise_kwargs = {**bounded_by_depth(num_blocks, fan_in), **elementwise_kwargs}
    elementwise = elementwise_of(recipe, elementwise, elementwise_kwargs)
    next_seed = SeedStream(seed, title)
    parts = []
    for n in range(num_blocks):
        network = make_network(
            num_parameters=elementwise.num_parameters,
            order=_ORDERS[n % 2],
            seed=next_seed(),
            dtype=layer_policy(dtype),
        )
        parts.append(
            bijectors.MaskedAutoregressive(network, elementwise, dtype=dtype, name=f"{title}_{n}")
        )
    return flow_of(
        make_base(base, event_shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        name=name,
    )
