"""What the recipes of one-way layers share: a chain of them, each perhaps amortised."""

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


def chain_of(
    recipe,
    make,
    event_shape,
    *,
    num_layers,
    closed,
    hidden_units,
    activation,
    base,
    trainable_base,
    context_size,
    seed,
    dtype,
    name,
):
    """A flow of layers of one kind.

    Args:
      recipe: its name.
      make: function of the number of a layer, `D` and keyword arguments of the bijector.
      event_shape and all others: as the recipes.
    """
    (size,) = event_of(event_shape, (1,), recipe)
    positive(recipe, num_layers=num_layers)
    closed = closed_direction(closed, recipe)
    if context_size is None and tuple(hidden_units):
        raise ValueError(
            f"flows.{recipe}: hidden_units are for the networks of a context, got {hidden_units!r} "
            "and no context_size. Leave them out, or give context_size."
        )
    next_seed, parts = SeedStream(seed, recipe), []
    for n in range(num_layers):
        kwargs = {"seed": next_seed(), "dtype": dtype, "name": f"{recipe}_{n}"}
        if context_size is not None:
            network = conditioners.MLP(
                make(n, size).num_parameters,
                hidden_units=hidden_units,
                activation=activation,
                context_size=None,
                seed=next_seed(),
                dtype=layer_policy(dtype),
            )
            kwargs.update(conditioner=network, context_size=context_size)
        layer = make(n, size, **kwargs)
        parts.append(layer if closed == "forward" else tfb.Invert(layer))
    if closed == "forward":
        parts.reverse()  # The chain's first member is next to the data; the first layer is not.
    return flow_of(
        make_base(base, (size,), trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        name=name,
    )
