"""What a loop holds, told as a chain of its steps would: variables, layers and their places."""

import tensorflow as tf

from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.pattern import Looping, parts_of


class Unrolled(Looping):
    """The part of `Repeat` that lists, for Keras and for files, what its steps are made of.

    Reads `_step`, the pattern, and `_num`, how many steps there are, beside what `Looping` has.
    """

    @property
    def layers(self):
        """The Keras layers of the pattern, each once."""
        parts = parts_of(self._step)
        layers = [part.layer for part in parts if isinstance(part, Network)]
        layers += [layer for part in parts if isinstance(part, Unrolled) for layer in part.layers]
        return list({id(layer): layer for layer in layers}.values())

    @property
    def layer_variables(self):
        """Pairs of a stack and the variable of a Keras layer of the pattern that it stacks."""
        parts = parts_of(self._step)
        layers = [part.layer for part in parts if isinstance(part, Network)]
        found = {id(v.value): v for layer in layers for v in layer.variables}
        for part in parts:
            if isinstance(part, Unrolled):
                found.update((id(stack), v) for stack, v in part.layer_variables)
        pairs = zip(self._slots, self._weights, strict=True)
        return [(w, found[id(s.variable)]) for s, w in pairs if id(s.variable) in found]

    def unrolled_variables(self):
        """The variables of the steps, step by step, as a `Chain` of them would list them.

        Yields:
          The variable of the pattern; the stack, or the variable that is the same in all steps,
          that holds its values; and its indices in the stack.
        """
        owners = self._owners()
        inner = self._inner_loops()
        for k in range(self._num):
            seen = set()
            for variable in self._step.variables:
                loop = next((i for i in inner if i.owns(variable)), None)
                if loop is None:
                    yield variable, *self._place_of(variable, owners, (k,))
                elif id(loop) not in seen:
                    seen.add(id(loop))
                    for pattern, own, index in loop.unrolled_variables():
                        yield pattern, *self._place_of(own, owners, (k, *index))

    def unrolled_layers(self):
        """The Keras layers of the steps, step by step, as those of a `Chain` would be found.

        Yields:
          The layer of the pattern, and of its variables, by the identity of their values, what
          `unrolled_variables` says of them.
        """
        owners = self._owners()
        for k in range(self._num):
            for part in parts_of(self._step):
                if isinstance(part, Network):
                    values = [v.value for v in part.layer.variables]
                    yield part.layer, {id(v): self._place_of(v, owners, (k,)) for v in values}
                elif isinstance(part, Place):
                    for layer, places in part.repeat.unrolled_layers():
                        yield (
                            layer,
                            {
                                variable: self._place_of(own, owners, (k, *index))
                                for variable, (own, index) in places.items()
                            },
                        )

    def owns(self, variable):
        """Whether it is one of the variables."""
        return any(v is variable for v in (*self._weights, *self._shared))

    def _owners(self):
        pairs = zip(self._slots, self._weights, strict=True)
        return {id(slot.variable): stack for slot, stack in pairs}

    def _inner_loops(self):
        return [part for part in parts_of(self._step) if isinstance(part, Unrolled)]

    @staticmethod
    def _place_of(variable, owners, index):
        stack = owners.get(id(variable))
        return (variable, ()) if stack is None else (stack, index)


class Place(tf.Module):
    """Where among the modules of a composition those of a `Repeat`'s steps would be found."""

    _TF_MODULE_IGNORED_PROPERTIES = tf.Module._TF_MODULE_IGNORED_PROPERTIES.union(("repeat",))

    def __init__(self, repeat):
        super().__init__(name="place")
        self.repeat = self._no_dependency(repeat)
