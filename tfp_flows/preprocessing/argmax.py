"""Categories as the places of the largest of real numbers."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import check_distribution
from tfp_flows.bijectors.proposal import Proposal, Proposed

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_flows")
class Argmax(Proposed):
    """Makes one of K categories of K real numbers, the place of their largest: `x = argmax_k z_k`.

        u ~ flow(. | x)                            K numbers of every entry
        z_x = u_x,  z_k = u_x - softplus(u_x - u_k)  for the other k, so that all are below z_x
        v = sum over k other than x of log sigmoid(u_x - u_k) - log q(u|x)

    For categories without an order (letters, classes of pixels), of which noise between neighbours
    (`UniformDequantization`) would make one. `log_prob` is a bound, tight where the flow is the
    posterior of `z`, and `FlowModel.estimate_log_prob` converges to the probability. The latents
    are K times as many as the entries: of many categories give their digits instead.

    A flow with `base="logistic"` has a density of `z` that neither vanishes nor grows without bound
    where `z_k` is close to `z_x`. (Of a normal base it vanishes there so fast that the variance of
    importance weights is infinite, and `estimate_log_prob` converges slowly.)

    Args:
      flow: `tfd.Distribution` of `u`, of events `[*event_shape, K]` with K from 2 on, over all real
        values, whose samples are a map of noise that depends on nothing: any recipe with a base
        without variables. Its context, if it takes one, are the one-hot categories, flattened to a
        vector where it takes one, or as they are, `context_size=[*event_shape, K]`.
      network: Keras layer from the one-hot categories `[batch, *event_shape, K]` to the flow's
        context, or `None` (default). It is trained with the flow.

    Raises:
      TypeError: if the flow is no distribution; by `inverse`, if the data are no integers.
      ValueError: if its events are none of such, or its base or context is another; by a
        distribution, if its events are not those of the flow; by `inverse`, in eager mode, if a
        category is out of range.

    Numerics: where `u_k` exceeds `u_x` by 16 or more, `z_k` rounds to `z_x` in float32.

    >>> from tfp_flows import distributions, flows
    >>> tfb = tfp.bijectors
    >>> noise = flows.maf([6], num_layers=1, context_size=6, base="logistic", seed=0)
    >>> noise = tfd.TransformedDistribution(noise, tfb.Reshape([2, 3]))
    >>> latent = tfd.Independent(tfd.Normal(tf.zeros([2, 3]), 1.0), 2)
    >>> pairs = distributions.Surjected(latent, Argmax(noise))  # of three categories
    >>> pairs.log_prob(tf.constant([[0, 2]]), seed=[0, 1]).shape
    TensorShape([1])
    >>> pairs.transform.forward(tf.constant([[0.1, 0.3, 0.2], [2.0, 1.0, 0.0]])).numpy()
    array([1, 0], dtype=int32)

    Reference: E. Hoogeboom, D. Nielsen, P. Jaini, P. Forre, M. Welling, Argmax flows and
    multinomial diffusion: learning categorical distributions, 2021, arXiv:2102.05379, section 3
    (the argmax surjection, and q by thresholding).
    """

    data_dtype = tf.int32

    def __init__(self, flow, *, network=None):
        super().__init__()
        title = type(self).__name__
        check_distribution(flow, "flow", title, "Take a recipe of tfp_flows.flows.")
        shape = flow.event_shape
        if not shape.is_fully_defined() or shape.rank < 2 or shape[-1] < 2:
            raise ValueError(
                f"{title}: the flow must be of events [*event_shape, K], K >= 2 numbers for every "
                f"entry of the data, got {shape}. Reshape them by a tfb.Reshape."
            )
        self._proposal = Proposal(flow, shape, network, title)
        self.num_levels = shape[-1]

    @property
    def flow(self):
        """The distribution of the numbers before all but one are pressed below it."""
        return self._proposal.flow

    def get_config(self):
        """The constructor arguments, for saving."""
        return {"flow": self.flow, "network": self._proposal.layer}

    def latent_event_shape(self, event_shape):
        """That of the flow."""
        return self.flow.event_shape

    def data_event_shape(self, latent_event_shape):
        """That of the latent without its last axis."""
        found, wanted = tf.TensorShape(latent_event_shape), self.flow.event_shape
        if found != wanted:
            raise ValueError(
                f"{type(self).__name__}: expected a distribution of the flow's events, "
                f"{wanted.as_list()}, got {found}. Make them equal."
            )
        return wanted[:-1]

    def inverse(self, x, noise, context=None):
        """Returns `z` and `-log q(z|x)`: see `StochasticTransform`."""
        self._check(x)
        dtype = self._proposal.road.dtype
        chosen = tf.one_hot(tf.cast(x, tf.int32), self.num_levels, dtype=dtype)
        u, log_q = self._proposal(chosen, noise)
        largest = tf.reduce_sum(chosen * u, axis=-1, keepdims=True)
        others = tf.ones([], dtype) - chosen
        z = largest - others * tf.nn.softplus(largest - u)
        axes = list(range(-self.flow.event_shape.rank, 0))
        log_slope = -tf.reduce_sum(others * tf.nn.softplus(u - largest), axis=axes)
        return z, log_slope - log_q

    def forward(self, z, seed=None, context=None):
        """The places of the largest, int32."""
        return tf.argmax(z, axis=-1, output_type=tf.int32)

    def _check(self, x):
        title, wanted = type(self).__name__, f"integers from 0 to {self.num_levels - 1}"
        if not x.dtype.is_integer:
            raise TypeError(f"{title}: expected {wanted}, got {x.dtype.name}. Cast them.")
        if not tf.executing_eagerly():
            return
        values = x.numpy()
        if np.size(values) and (values.min() < 0 or values.max() >= self.num_levels):
            raise ValueError(
                f"{title}: expected {wanted}, got values from {values.min()} to {values.max()}. "
                "Give the flow a last axis of as many as there are categories."
            )
