"""What draws the latents that data do not say: a flow whose context is the data."""

import tensorflow as tf

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.road import Road
from tfp_flows.bijectors.stochastic import StochasticTransform


class Proposal(tf.Module):
    """A flow q(u|x), drawn by noise that depends on nothing.

    Its context is the data: flattened to a vector where the flow takes one, as they are where it
    takes events, or what a network makes of them. A flow without a context is the same for all.

    Args:
      flow: `tfd.Distribution` whose samples are a map of a base without context and variables.
      event_shape: static shape of an event of `x`.
      network: Keras layer from `[batch, *event_shape]` to the flow's context, or `None`.
      title: whose it is, for messages.

    Raises:
      ValueError: if the flow's base is another, or its context is not made of such data.
    """

    def __init__(self, flow, event_shape, network, title):
        super().__init__(name=f"{flow.name}_given_data")
        road, event = Road(flow), tuple(tf.TensorShape(event_shape).as_list())
        road.check_fixed_base(title)
        self.flow, self.road = flow, self._no_dependency(road)
        self.shape = self._no_dependency(road.context_shapes)
        self.network = None
        if isinstance(self.shape, dict):
            raise ValueError(
                f"{title}: the flow must take one tensor as its context, what is made of the data, "
                f"got {contexts.text(self.shape)}. Declare one `context_size`."
            )
        if network is not None:
            if self.shape is None:
                raise ValueError(
                    f"{title}: the flow takes no context, and `network` would make it one. Build "
                    "the flow with `context_size`, or leave the network out."
                )
            self.network = Network(
                network, input_shape=event, output_shape=self.shape, owner=title, dtype=road.dtype
            )
        elif self.shape not in (None, event, (tf.TensorShape(event).num_elements(),)):
            raise ValueError(
                f"{title}: the flow takes contexts of shape {contexts.text(self.shape)}, which "
                f"data of shape {contexts.text(event)} are not. Give it context_size="
                f"{tf.TensorShape(event).num_elements()}, or a `network` that makes one of the "
                "other."
            )

    @property
    def layer(self):
        """The Keras layer of the network, or `None`."""
        return None if self.network is None else self.network.layer

    def draw_noise(self, shape, seed):
        """Points of the flow's base, `[*shape, ...]`."""
        return self.road.base_sample(tf.convert_to_tensor(shape, tf.int32), seed)

    def __call__(self, x, noise):
        """Draws for data, of noise of the same batch shape, and their log-density."""
        return self.road.forward_and_log_prob(noise, self._context(x, noise))

    def _context(self, x, noise):
        if self.network is not None:
            return self.network(x)
        if self.shape is None:
            return None
        rank = noise.shape.rank - self.road.base_ndims
        shape = tf.concat([tf.shape(x)[:rank], self.shape], axis=0)
        return tf.ensure_shape(tf.reshape(x, shape), [*x.shape[:rank], *self.shape])


class Proposed(StochasticTransform):
    """What the transforms share whose latents a flow draws: a subclass sets `_proposal`."""

    _proposal: Proposal

    def draw_noise(self, shape, seed, event_shape):
        """Points of the flow's base, `[*shape, ...]`."""
        return self._proposal.draw_noise(shape, seed)
