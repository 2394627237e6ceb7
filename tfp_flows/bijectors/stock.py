"""TFP's own containers, as `isinstance` finds them.

Around a part that is no composite tensor (a bijector of this package) `tfb.Chain(...)`,
`tfb.Invert(...)` and `tfd.TransformedDistribution(...)` return an instance of a private base
class, so `isinstance(chain, tfb.Chain)` is False (TFP 0.25). These are the base classes.
"""

from tensorflow_probability.python.bijectors.blockwise import _Blockwise as Blockwise
from tensorflow_probability.python.bijectors.chain import _Chain as Chain
from tensorflow_probability.python.bijectors.composition import Composition
from tensorflow_probability.python.bijectors.invert import _Invert as Invert
from tensorflow_probability.python.distributions.independent import _Independent as Independent
from tensorflow_probability.python.distributions.mixture import _Mixture as Mixture
from tensorflow_probability.python.distributions.mixture_same_family import (
    _MixtureSameFamily as MixtureSameFamily,
)
from tensorflow_probability.python.distributions.transformed_distribution import (
    _TransformedDistribution as TransformedDistribution,
)

__all__ = [
    "Blockwise",
    "Chain",
    "Composition",
    "Independent",
    "Invert",
    "Mixture",
    "MixtureSameFamily",
    "TransformedDistribution",
]
