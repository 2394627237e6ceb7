"""Data with more dimensions than they have."""

import keras
import tensorflow as tf

from tfp_flows._checks import positive_integer
from tfp_flows.bijectors.composition import check_distribution
from tfp_flows.bijectors.proposal import Proposal, Proposed
from tfp_flows.distributions.surjected import Surjected


@keras.saving.register_keras_serializable(package="tfp_flows")
class Slice(Proposed):
    """Forgets the last channels of a latent: `x = z[..., :n]`; those are drawn from `q(u|x)`.

        z = [x, u],  u ~ proposal(. | x),      v = -log q(u|x)

    Args:
      proposal: `tfd.Distribution` of `u`, whose samples are a map of noise that depends on nothing:
        any recipe whose base has no variables. Its context, if it takes one, is the data, flattened
        to a vector or, where it takes events, as they are.
      num_kept: `int >= 1`, the size n of the data's last axis. Its others are those of `u`.
      network: Keras layer from the data `[batch, *event_shape]` to the context, or `None`.

    Raises:
      TypeError, ValueError: if `num_kept` is no integer, or below 1; if the proposal's base or
        context is another.

    >>> from tfp_flows import flows
    >>> forget = Slice(flows.maf([1], num_layers=1, hidden_units=(4,), context_size=2), 2)
    >>> forget.forward(tf.constant([[1.0, 2.0, 3.0]])).numpy()
    array([[1., 2.]], dtype=float32)
    >>> z, v = forget.inverse(tf.ones([1, 2]), forget.draw_noise([1], [0, 1], [2]))
    >>> z.shape, v.shape
    (TensorShape([1, 3]), TensorShape([1]))

    Reference: D. Nielsen, P. Jaini, E. Hoogeboom, O. Winther, M. Welling, SurVAE flows, 2020,
    arXiv:2007.02731, table 2 (generative tensor slicing).
    """

    def __init__(self, proposal, num_kept, *, network=None):
        super().__init__()
        shape = proposal.event_shape
        self._num_kept = num_kept = positive_integer(num_kept, "num_kept", type(self).__name__)
        event = [*shape[:-1], num_kept]
        self._proposal = Proposal(proposal, event, network, type(self).__name__)

    def get_config(self):
        """The constructor arguments, for saving."""
        own = {"proposal": self._proposal.flow, "num_kept": self._num_kept}
        return {**own, "network": self._proposal.layer}

    def data_event_shape(self, latent_event_shape):
        """The first channels of that of the latent."""
        drawn = self._proposal.flow.event_shape
        wanted = [*drawn[:-1], drawn[-1] + self._num_kept]
        if not tf.TensorShape(latent_event_shape).is_compatible_with(wanted):
            raise ValueError(
                f"{type(self).__name__}: expected a distribution of events {wanted}, the "
                f"{self._num_kept} channels of the data and the {drawn[-1]} of the proposal, got "
                f"events {tf.TensorShape(latent_event_shape).as_list()}."
            )
        return tf.TensorShape([*wanted[:-1], self._num_kept])

    def inverse(self, x, noise, context=None):
        """Returns `[x, u]` and `-log q(u|x)`: see `StochasticTransform`."""
        u, log_q = self._proposal(x, noise)
        return tf.concat([x, tf.cast(u, x.dtype)], axis=-1), -log_q

    def forward(self, z, seed=None, context=None):
        """The first channels."""
        return z[..., : self._num_kept]


class Augmented(Surjected):
    """The distribution of the data in a flow of data and more dimensions, which are integrated out.

        p(x) = int p(x, u) du,    log p(x) >= E_q[ log p(x, u) - log q(u|x) ]

    A flow must keep the dimension of its data, and with it the width that passes from part to
    part; here it has K more, drawn by a conditional flow q. The bound is tight where q is the
    posterior p(u|x). Augmented steps that go both ways, data to u and u to data, are couplings of
    this flow whose mask is the data's channels, in turn.

    Args:
      distribution: `tfd.Distribution` over `[D + K]` or `[H, W, C + K]`: the data's channels, then
        those of `u`.
      proposal: `tfd.Distribution` over `[K]` or `[H, W, K]` whose samples are a map of noise that
        depends on nothing: any recipe whose base has no variables. Its context, if it takes one, is
        the data, flattened to a vector or, where it takes events, as they are.
      network: Keras layer from the data `[batch, *event_shape]` to the proposal's context, or
        `None` (default).
      num_samples: `int >= 1`, draws of a call of `log_prob`, which is then an importance-weighted
        estimate. Default: 1, and a bound.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.

    Raises:
      TypeError: if `distribution` or `proposal` is none.
      ValueError: if the shapes do not fit, or the proposal's base or context is another.

    >>> from tfp_flows import flows
    >>> joint = flows.real_nvp([3], num_couplings=4, hidden_units=(8,), seed=0)
    >>> proposal = flows.maf([1], num_layers=1, hidden_units=(8,), context_size=2, seed=1)
    >>> density = Augmented(joint, proposal)
    >>> density.event_shape, density.likelihood
    (TensorShape([2]), 'bound')
    >>> density.log_prob(tf.zeros([4, 2]), seed=[0, 1]).shape
    TensorShape([4])

    References: J. Chen, C. Lu, B. Chenli, J. Zhu, T. Tian, VFlow: more expressive generative flows
    with variational data augmentation, 2020, arXiv:2002.09741, equation 4. C.-W. Huang, L. Dinh,
    A. Courville, Augmented normalizing flows, 2020, arXiv:2002.07101.
    """

    def __init__(
        self,
        distribution,
        proposal,
        *,
        network=None,
        num_samples=None,
        validate_args=False,
        allow_nan_stats=True,
        name=None,
    ):
        parameters = dict(locals())
        for argument, value in (("distribution", distribution), ("proposal", proposal)):
            check_distribution(value, argument, "Augmented")
        drawn, joint = proposal.event_shape, distribution.event_shape
        fits = drawn.rank == joint.rank and drawn.rank and drawn[:-1] == joint[:-1]
        if not fits or drawn[-1] >= joint[-1]:
            raise ValueError(
                "Augmented: expected a proposal over some of the distribution's channels, got "
                f"events {drawn.as_list()} of {joint.as_list()}. The last axis of the distribution "
                "holds the data's channels, and then the proposal's."
            )
        transform = Slice(proposal, joint[-1] - drawn[-1], network=network)
        super().__init__(
            distribution,
            transform,
            num_samples=num_samples,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            name=name,
            parameters=parameters,
        )
