"""Outputs by name."""

import inspect

from tfp_flows.distributions.level_outputs import (
    BernoulliOutput,
    CategoricalOutput,
    DiscretizedLogisticMixtureOutput,
)
from tfp_flows.distributions.output import Output
from tfp_flows.distributions.real_outputs import GaussianMixtureOutput, NormalOutput

_OUTPUTS = {
    "bernoulli": BernoulliOutput,
    "normal": NormalOutput,
    "categorical": CategoricalOutput,
    "discretized_logistic_mixture": DiscretizedLogisticMixtureOutput,
    "gaussian_mixture": GaussianMixtureOutput,
}


def get_output(identifier, **kwargs):
    """Returns the output of the given name, or the given output itself.

    Args:
      identifier: an `Output`, or the name of one: "bernoulli", "normal", "categorical",
        "discretized_logistic_mixture" or "gaussian_mixture".
      **kwargs: arguments of the output's constructor, as `num_levels=16`; only with a name.

    Returns:
      An `Output`.

    Raises:
      TypeError: if the constructor does not know an argument.
      ValueError: if the name is not known, or arguments come with a finished output.

    >>> get_output("discretized_logistic_mixture", num_levels=16)
    DiscretizedLogisticMixtureOutput(num_levels=16, num_components=10, coupled=False)
    """
    if isinstance(identifier, Output):
        if kwargs:
            raise ValueError(
                f"get_output: {identifier!r} is a finished output and takes no arguments, got "
                f"{sorted(kwargs)}. Give them to its constructor."
            )
        return identifier
    if not isinstance(identifier, str) or identifier not in _OUTPUTS:
        raise ValueError(
            f"get_output: output must be one of {tuple(_OUTPUTS)} or a distributions.Output, got "
            f"{identifier!r}."
        )
    kind = _OUTPUTS[identifier]
    known = inspect.signature(kind).parameters
    unknown = sorted(set(kwargs) - set(known))
    if unknown:
        raise TypeError(
            f"get_output: {identifier!r} takes {', '.join(known) or 'no arguments'}, got "
            f"{', '.join(unknown)}."
        )
    return kind(**kwargs)
