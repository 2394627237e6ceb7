"""Which part of a recipe's flow the keywords of its methods go to."""

import keras

from tfp_flows.bijectors.road import Road


def split_for(base, bijector):
    """The function that hands `context=` to the parts that take one.

    Args:
      base: the base distribution.
      bijector: a `FlowBijector`.
    """
    if Road(base).context_shapes is None:
        return context_to_bijector
    return context_to_base if bijector.context_size is None else context_to_both


@keras.saving.register_keras_serializable(package="tfp_flows")
def context_to_bijector(kwargs):
    """Splits the keywords of a flow's methods as TFP does, with `context=` for the bijector.

    One without a context refuses it: TFP's own split drops what it does not know.
    """
    return _split(kwargs, False, True)


@keras.saving.register_keras_serializable(package="tfp_flows")
def context_to_base(kwargs):
    """The same with `context=` for the base."""
    return _split(kwargs, True, False)


@keras.saving.register_keras_serializable(package="tfp_flows")
def context_to_both(kwargs):
    """The same with `context=` for both."""
    return _split(kwargs, True, True)


def _split(kwargs, to_base, to_bijector):
    kwargs = dict(kwargs)
    found = [dict(kwargs.pop(f"{part}_kwargs", {})) for part in ("distribution", "bijector")]
    context = kwargs.pop("context", None)
    if kwargs:
        raise TypeError(f"flow: unexpected keyword {', '.join(kwargs)}; the only one is `context`.")
    for own, takes in zip(found, (to_base, to_bijector), strict=True):
        if takes and context is not None:
            own["context"] = context
    return tuple(found)
