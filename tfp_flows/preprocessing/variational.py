"""Dequantization by noise that is learned."""

import keras
import tensorflow as tf

from tfp_flows.bijectors.composition import check_distribution
from tfp_flows.bijectors.proposal import Proposal, Proposed
from tfp_flows.bijectors.road import Road
from tfp_flows.preprocessing.dequantization import UniformDequantization


@keras.saving.register_keras_serializable(package="tfp_flows")
class VariationalDequantization(Proposed):
    """Adds noise to integers that a conditional flow draws: `y = x + u`, `u ~ q(u|x)` in (0, 1).

        u = sigmoid(w),  w ~ flow(. | context of x)
        log P(x) >= E_q[ log p(x + u) - log q(u|x) ]

    Uniform noise asks of the density that it be flat in every unit cube; learned noise goes where
    the density is. A recipe with `base="logistic"` starts at uniform noise, which the sigmoid of a
    logistic variable is, and so at the bound of `UniformDequantization`. (A normal base, as in the
    paper, thins out so fast at the ends of a cell that the variance of importance weights is
    infinite, and `FlowModel.estimate_log_prob` converges slowly.)

    The flow's context is the data, scaled to [-1, 1]: flattened to a vector where the flow takes
    one, as `context_size=H * W * C`, or as they are where it takes events, `context_size=[H, W,
    C]`. A `network` makes another one of them.

    Args:
      flow: conditional `tfd.Distribution` over all real values, of the events' shape, whose samples
        are a map of noise that depends on nothing: any recipe with `context_size` and a base
        without variables.
      num_levels: `int` from 2 to 65536; the data are integers in `[0, num_levels)`. Default: 256.
      network: Keras layer from the scaled data `[batch, *event_shape]` to the flow's context, or
        `None` (default). It is trained with the flow.

    Raises:
      TypeError: if `flow` is no distribution, or `num_levels` no integer.
      ValueError: if the flow takes no context, or not this one; if its base has variables or takes
        the context itself; if `num_levels` is out of range.

    Numerics: `x + u` stays below `x + 1`, as `UniformDequantization` has it.

    >>> from tfp_flows import FlowModel, flows
    >>> noise = flows.real_nvp(
    ...     [2], num_couplings=2, hidden_units=(8,), context_size=2, base="logistic", seed=0
    ... )
    >>> model = FlowModel(
    ...     flows.maf([2], num_layers=1, hidden_units=(8,), seed=1),
    ...     dequantization=VariationalDequantization(noise, num_levels=6),
    ... )
    >>> model.likelihood, model.log_prob(tf.constant([[0, 5]])).shape
    ('bound', TensorShape([1]))

    Reference: J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, Flow++: improving flow-based
    generative models with variational dequantization and architecture design, 2019,
    arXiv:1902.00275, equation 12.
    """

    data_dtype = tf.int32

    def __init__(self, flow, num_levels=256, *, network=None):
        super().__init__()
        title = type(self).__name__
        remedy = "Take a recipe of tfp_flows.flows with `context_size`."
        check_distribution(flow, "flow", title, remedy)
        if Road(flow).context_shapes is None:
            raise ValueError(
                f"{title}: the flow must take one tensor as its context, what is made of the data, "
                "got none. Build it with `context_size`."
            )
        self._proposal = Proposal(flow, flow.event_shape, network, title)
        # What it says of integers, and how a sum stays below the next one, is the same.
        self._levels = UniformDequantization(num_levels, dtype=self._proposal.road.dtype)
        self.num_levels = self._levels.num_levels

    @property
    def flow(self):
        """The conditional distribution of the noise before its sigmoid."""
        return self._proposal.flow

    def get_config(self):
        """The constructor arguments, for saving."""
        own = {"flow": self.flow, "num_levels": self.num_levels}
        return {**own, "network": self._proposal.layer}

    def inverse(self, x, noise, context=None):
        """Returns `x + u` and `-log q(u|x)`: see `StochasticTransform`."""
        scaled = tf.cast(x, self._levels.dtype) * (2.0 / (self.num_levels - 1)) - 1.0
        w, log_q = self._proposal(scaled, noise)
        axes = list(range(-self.flow.event_shape.rank, 0))
        log_slope = -tf.reduce_sum(tf.nn.softplus(w) + tf.nn.softplus(-w), axis=axes)
        return self._levels.inverse(x, tf.sigmoid(w))[0], log_slope - log_q

    def forward(self, z, seed=None, context=None):
        """The integers, int32, of continuous samples."""
        return self._levels.forward(z)
