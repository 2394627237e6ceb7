"""Handing one context to every bijector that takes one."""

from tfp_flows.bijectors import stock
from tfp_flows.bijectors.base import FlowBijector


def members(bijector):
    """The bijectors that a stock TFP container holds, or an empty tuple."""
    if isinstance(bijector, stock.Invert):
        return (bijector.bijector,)
    if isinstance(bijector, stock.Composition):
        return tuple(bijector.bijectors)
    return ()


def context_size_of(bijector):
    """The context size of a bijector or stock container; `None` if nothing in it takes one.

    Raises:
      ValueError: if two members take contexts of different sizes.
    """
    if isinstance(bijector, FlowBijector):
        return bijector.context_size
    return common_context_size(members(bijector), bijector.name)


def common_context_size(bijectors, owner):
    """The one context size of several bijectors, or `None`."""
    sizes = {b.name: context_size_of(b) for b in bijectors}
    sizes = {name: size for name, size in sizes.items() if size is not None}
    if len(set(sizes.values())) > 1:
        raise ValueError(f"{owner}: its bijectors take contexts of different sizes, {sizes}.")
    return next(iter(sizes.values()), None)


def context_kwargs(bijector, context):
    """Keyword arguments that hand `context` to every member of `bijector` that takes one.

    Stock TFP containers route keyword arguments by the name of the member and drop unknown
    names without a word; this walks them (`tfb.Chain`, `tfb.Invert`, `tfb.Blockwise`,
    nested) and builds what they expect. `tfp_flows.bijectors.Chain` needs none of it: it
    takes `context=` itself.

    Args:
      bijector: any `tfb.Bijector`.
      context: tensor `[..., context_size]`, or `None`.

    Returns:
      A dictionary for `bijector.forward(x, **kwargs)`, or for the `bijector_kwargs` of a
      `tfd.TransformedDistribution`. Empty if `context` is `None`.

    Raises:
      ValueError: if nothing in `bijector` takes a context, or two members of a stock
        container share a name and only one of them takes it.

    ```python
    chain = tfb.Chain([conditional_coupling, tfb.Scale(2.0)])
    y = chain.forward(x, **context_kwargs(chain, context))
    ```
    """
    if context is None:
        return {}
    kwargs = _walk(bijector, context)
    if not kwargs:
        raise ValueError(
            f"{type(bijector).__name__} '{bijector.name}': got a context, but no part of it takes "
            "one: it would be ignored. Leave it out, or build the flow with `context_size`."
        )
    return kwargs


def _walk(bijector, context):
    if isinstance(bijector, FlowBijector):
        return {"context": context} if bijector.context_size is not None else {}
    if isinstance(bijector, stock.Invert):
        return _walk(bijector.bijector, context)
    routed = {}
    for member in members(bijector):
        kwargs = _walk(member, context)
        if routed.setdefault(member.name, kwargs).keys() != kwargs.keys():
            raise ValueError(
                f"{type(bijector).__name__} '{bijector.name}' has two members named "
                f"'{member.name}' of which only one takes a context, and TFP routes it by name. "
                "Give them different names."
            )
    return {name: kwargs for name, kwargs in routed.items() if kwargs}


def distribution_context_kwargs(distribution, context):
    """As `context_kwargs`, for `log_prob` and `sample` of a distribution.

    Walks nested `tfd.TransformedDistribution`s and `tfd.Independent`, down to a distribution with
    an attribute `context_size`, which takes `context=` itself (`flows.made`).

    Raises:
      ValueError: if no part of the distribution takes a context.
    """
    if context is None:
        return {}
    kwargs = _walk_distribution(distribution, context)
    if not kwargs:
        raise ValueError(
            f"{type(distribution).__name__} '{distribution.name}': got a context, but no part of "
            "it takes one: it would be ignored. Leave it out, or build the flow with "
            "`context_size`."
        )
    return kwargs


def _walk_distribution(distribution, context):
    if isinstance(distribution, stock.TransformedDistribution):
        kwargs = {
            "bijector_kwargs": _walk(distribution.bijector, context),
            "distribution_kwargs": _walk_distribution(distribution.distribution, context),
        }
        return {name: value for name, value in kwargs.items() if value}
    if isinstance(distribution, stock.Independent):
        return _walk_distribution(distribution.distribution, context)
    # A distribution of ours or of the user's own that takes a context itself.
    return {"context": context} if getattr(distribution, "context_size", None) else {}


def distribution_context_size(distribution):
    """The context size of a distribution, or `None` if no part of it takes one."""
    sizes = []
    while distribution is not None:
        if isinstance(distribution, stock.TransformedDistribution):
            sizes.append(context_size_of(distribution.bijector))
        sizes.append(getattr(distribution, "context_size", None))
        distribution = getattr(distribution, "distribution", None)
    sizes = sorted({size for size in sizes if size is not None})
    if len(sizes) > 1:
        raise ValueError(f"the parts of the distribution take contexts of sizes {sizes}.")
    return sizes[0] if sizes else None
