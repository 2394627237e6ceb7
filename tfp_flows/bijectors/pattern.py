"""The pattern of steps that are repeated: which of its variables differ from step to step."""

import dataclasses
import itertools

import numpy as np
import tensorflow as tf

from tfp_flows._private import is_random_state
from tfp_flows.bijectors.base import FlowBijector, Weight
from tfp_flows.bijectors.composition import shape_after, title_of
from tfp_flows.bijectors.network import Network

# Stands for a free size of an event, where what a step makes of it is looked at.
_SOME_SIZE = 4


def event_shape_of(step, title):
    """The shape of a step's events.

    Raises:
      ValueError: if the step changes it.
    """
    ranks = step.forward_min_event_ndims, step.inverse_min_event_ndims
    if any(map(tf.nest.is_nested, ranks)):
        raise ValueError(f"{title}: {title_of(step)} is a map of several tensors, not of one.")
    shape = tf.TensorShape([None] * ranks[0])
    after = shape_after(step, shape, title, inverse=False)
    before = shape_after(step, after, title, inverse=True) if ranks[0] == ranks[1] else None
    if before is not None and before.rank is not None:
        shape = before
        some = tf.TensorShape([n or _SOME_SIZE for n in shape])
        after = step.forward_event_shape(some)
        if after == some:
            return shape
    raise ValueError(
        f"{title}: a step that is repeated must keep the shape of its events, but {title_of(step)} "
        f"maps {shape} to {after}. Put what changes it before or after the Repeat."
    )


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """A variable of the pattern, in whose place the loop reads."""

    variable: object
    from_data: bool  # whether it belongs to a part that is initialised from data


class Looping:
    """A bijector that is a loop: what a loop around it, whose step it is in, has to know of it."""

    _slots = ()  # a `Slot` for each variable of its own pattern that it stacks
    _weights = ()  # the stacks
    _shared = ()  # the variables of the pattern that are the same in all steps
    _random = ()  # those of them by which layers draw random numbers


def parts_of(step):
    """A step, and all that it is made of."""
    return [step, *step.submodules]


def variables_of(step, title):
    """The variables of a step that are stacked, and those that are the same in all steps.

    Raises:
      ValueError: if one of them is read in a way that the loop cannot replace.
    """
    readable, shared = {}, {}
    for part in parts_of(step):
        if isinstance(part, Network):
            for variable in (v.value for v in part.layer.variables):
                # Integers decide how a layer is built (the masks of a MADE), for all steps at once.
                kind = readable if variable.dtype.is_floating else shared
                kind[id(variable)] = Slot(variable, False)
        elif isinstance(part, Looping):
            for slot, stack in zip(part._slots, part._weights, strict=True):
                readable[id(stack)] = Slot(stack, slot.from_data)
            shared.update((id(v), Slot(v, False)) for v in part._shared)
        elif isinstance(part, FlowBijector):
            names = [n for n in dir(type(part)) if isinstance(getattr(type(part), n), Weight)]
            for name in names:
                variable = getattr(part, getattr(type(part), name).attribute, None)
                readable[id(variable)] = Slot(variable, "initialized" in names)
    for variable in step.variables:
        if id(variable) not in readable and id(variable) not in shared:
            raise ValueError(
                f"{title}: the variable '{variable.name}' of {title_of(step)} cannot be stacked: "
                "steps read the `Weight`s of a FlowBijector, and Keras layers in a Network, and "
                "this is neither. Make a FlowBijector of its part, or put it outside."
            )
    slots = [readable[id(v)] for v in step.variables if id(v) in readable]
    return slots, [v for v in step.variables if id(v) in shared]


def random_states_of(step):
    """Identities of the variables by which the layers of a step draw random numbers."""
    found = set()
    for part in parts_of(step):
        if isinstance(part, Network):
            found.update(id(v.value) for v in part.layer.variables if is_random_state(v))
        elif isinstance(part, Looping):
            found.update(map(id, part._random))
    return found


def layout_of(slots):
    """The dtypes and shapes of what slots stand for."""
    return [(slot.variable.dtype, slot.variable.shape) for slot in slots]


def by_seed(seed, k):
    """How the `k`-th step is drawn, where its parts' own seeds say nothing else."""
    numbers = itertools.count()

    def reseed(own):
        if seed is not None:
            return mixed(seed, k, next(numbers))
        return None if own is None else mixed(own, k)

    return reseed


def start(step, slots, reseeds):
    """The stacks that steps start from, of which the first is `step`."""
    rows = [[slot.variable.numpy()] for slot in slots]
    for reseed in reseeds:
        drawn = draw(step, reseed)
        for slot, row in zip(slots, rows, strict=True):
            row.append(drawn.get(id(slot.variable), row[0]))
    return [np.stack(row) for row in rows]


def draw(step, reseed):
    """What the variables of another step like this one start from, by their identity.

    Args:
      step: a bijector.
      reseed: function from the seed of a part, or `None`, to the one that it is drawn by.
    """
    drawn = {}
    for part in parts_of(step):
        if isinstance(part, (FlowBijector, Network)):
            drawn.update((id(variable), value) for variable, value in part.redrawn(reseed))
    return drawn


def mixed(*numbers):
    """A seed from several numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0] // 2)
