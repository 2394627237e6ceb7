"""The likelihood of data."""

import keras
import tensorflow as tf

from tfp_flows.bijectors.road import Road
from tfp_flows.objectives.base import Objective


@keras.saving.register_keras_serializable(package="tfp_flows")
class MaximumLikelihood(Objective):
    """The negative log-likelihood of data, in nats: the default.

        loss(x) = -log p(x)

    >>> import tensorflow as tf
    >>> from tfp_flows import flows
    >>> flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    >>> MaximumLikelihood().loss(flow, (tf.zeros([3, 2]), None), seed=[0, 1]).numpy().round(3)
    array([1.838, 1.838, 1.838], dtype=float32)
    """

    def loss(self, distribution, batch, seed):
        """The negative log-density of each row."""
        road, (x, context) = Road(distribution), batch
        noise = road.draw_noise([tf.shape(x)[0]], seed)
        return -road.log_prob(x, context, noise)
