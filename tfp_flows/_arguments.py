"""The arguments that an object was made with, bound once for all its classes."""

import functools
import inspect


def remembering(init):
    """`__init__` that leaves the arguments of the outermost one in the attribute `_bound`.

    A class whose constructors are wrapped so (by its base's `__init_subclass__`) need not repeat
    them for `copy()` and `get_config`. Defaults are there too, and what `**kwargs` takes stands
    beside the rest.
    """
    signature = inspect.signature(init)
    collects = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

    @functools.wraps(init)
    def remembered(self, *args, **kwargs):
        if "_bound" in vars(self):  # A subclass's constructor called this one.
            return init(self, *args, **kwargs)
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        arguments = dict(list(bound.arguments.items())[1:])
        for name in collects:
            arguments.update(arguments.pop(name))
        # Past tf.Module and Keras, which would track what is in it.
        object.__setattr__(self, "_bound", arguments)
        try:
            return init(self, *args, **kwargs)
        finally:
            vars(self).pop("_bound", None)

    return remembered
