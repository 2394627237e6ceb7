"""What the objectives that draw their own rows share."""

import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.objectives.base import Objective


class Drawn(Objective):
    """An objective that needs no data, of a target that a file may lack.

    Args:
      num_samples: `int >= 1`, rows a step, on all replicas together.
      seed: `int`, folded into the seed of each step, or `None`.
      lacks: why a file has no target, of an objective that was loaded without; else `None`.
    """

    def __init__(self, num_samples, seed, lacks):
        self.seed, self.lacks = seed, lacks
        self._num_samples = positive_integer(num_samples, "num_samples", type(self).__name__)

    def get_config(self):
        """The constructor's arguments but for the target."""
        return {"num_samples": self.num_samples, "seed": self.seed, "lacks": self.lacks}

    @property
    def needs_data(self):
        """None."""
        return False

    @property
    def num_samples(self):
        """Rows a step."""
        return self._num_samples

    def _seed_of(self, seed):
        """The seed of a step, with the objective's own folded in."""
        if self.seed is None:
            return seed
        return tf.random.experimental.stateless_fold_in(seed, self.seed)

    def _refuse_lack(self, target, name):
        if target is None:
            kind = type(self).__name__
            raise ValueError(
                f"{kind}: the {name} is not in the file that this model was loaded from: "
                f"{self.lacks} Build a FlowModel of its distribution with "
                f"objective=objectives.{kind}({name})."
            )
