"""What the recipes of autoregressive flows share."""

import numpy as np
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners
from tfp_flows._checks import one_of
from tfp_flows.flows._parts import (
    WITH_RATE,
    SeedStream,
    bounded_by_depth,
    elementwise_of,
    event_of,
    flow_of,
    in_sequence,
    last_width,
    layer_policy,
    make_base,
    positive,
    that_can_move,
)

tfb = tfp.bijectors

_ORDERS = ("reversed", "random", "same")
_NORMALIZATIONS = (None, "actnorm", "batch_norm")


def autoregressive_flow(
    recipe,
    bijector,
    event_shape,
    *,
    num_layers,
    hidden_units,
    elementwise,
    order,
    degrees,
    normalization,
    activation,
    residual,
    base,
    trainable_base,
    support,
    context_size,
    stacked,
    seed,
    dtype,
    name,
    elementwise_kwargs,
):
    """Builds `num_layers` of `bijector`, each around a `MADE` of its own, for `recipe`."""
    shape = event_of(event_shape, (1, 3), recipe.__name__)
    size = int(np.prod(shape))
    positive(recipe.__name__, num_layers=num_layers)
    elementwise = that_can_move(elementwise)
    if elementwise in WITH_RATE:
        fan_in = last_width(size, hidden_units)
        elementwise_kwargs = {**bounded_by_depth(num_layers, fan_in), **elementwise_kwargs}
    elementwise = elementwise_of(recipe, elementwise, elementwise_kwargs)
    recipe = recipe.__name__
    one_of(order, _ORDERS, "order", f"flows.{recipe}")
    one_of(normalization, _NORMALIZATIONS, "normalization", f"flows.{recipe}")
    next_seed = SeedStream(seed, recipe)

    def layer(n, seeds):
        layer_order = "right-to-left" if order == "reversed" and n % 2 else "left-to-right"
        if order == "random" and n:
            layer_order = "random"
        made = conditioners.MADE(
            size,
            elementwise.num_parameters,
            hidden_units=hidden_units,
            order=layer_order,
            degrees=degrees,
            activation=activation,
            residual=residual,
            context_size=context_size,
            seed=seeds[0],
            dtype=layer_policy(dtype),
        )
        parts = []
        # On the data side of a layer: it normalizes what the layer's network is about to see.
        if normalization == "actnorm":
            parts.append(bijectors.ActNorm(size, dtype=dtype, name=f"actnorm_{n}"))
        elif normalization == "batch_norm":
            parts.append(bijectors.BatchNorm(size, dtype=dtype, name=f"batch_norm_{n}"))
        parts.append(bijector(made, elementwise, dtype=dtype, name=f"{recipe}_{n}"))
        return parts

    unequal = {
        "order='random'": order == "random",
        "degrees='random'": degrees == "random",
        "normalization='batch_norm'": normalization == "batch_norm",
    }
    unequal = [what for what, is_so in unequal.items() if is_so]
    period = 2 if order == "reversed" else 1
    seeds = [(next_seed(),) for _ in range(num_layers)]
    parts = in_sequence(layer, seeds, period, stacked, f"flows.{recipe}", dtype, unequal=unequal)
    if len(shape) == 3:
        parts.insert(0, tfb.Reshape(event_shape_out=shape, event_shape_in=(size,)))
    return flow_of(
        make_base(base, (size,), trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        support=support,
        name=name,
    )
