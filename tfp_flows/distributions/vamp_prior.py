"""The prior of a VAE that is a mixture of its own posteriors."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import check_distribution
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.autoencoder import context_of
from tfp_flows.distributions.conditioned import condition
from tfp_flows.distributions.unbatched import Unbatched

tfd = tfp.distributions


class VampPrior(Unbatched):
    """Mixture of a VAE's posteriors, of data that are learned: its variational mixture prior.

        p(z) = 1/K sum_k q(z | u_k)

    The best prior for a bound is the mean of the posteriors of all data; this one is the mean of
    those of K pseudo-inputs, which are trained with everything else. Posterior and encoder are
    those of the VAE, the very objects:

    ```python
    posterior = flows.gaussian([L], context_size=n)
    prior = distributions.VampPrior(posterior, encoder, data[:500])
    vae = distributions.VAE(prior, encoder, decoder, posterior)
    ```

    Its density is that of given points under K posteriors: take one whose density costs little, as
    `flows.gaussian`, `flows.maf` or a coupling, not `flows.iaf`.

    Args:
      posterior: conditional distribution of the latents.
      encoder: Keras layer from data to the posterior's context.
      pseudo_inputs: array `[K, *event_shape]`, or a `tf.Variable` of it: what the encoder sees, in
        its units (of levels -1 to 1, of bits 0 to 1). Rows of the data are a good start.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.

    Raises:
      TypeError: if the posterior is no distribution.
      ValueError: if it takes no context, the encoder does not fit, or there are no pseudo-inputs.

    >>> import keras
    >>> from tfp_flows import flows
    >>> posterior = flows.gaussian([2], context_size=3, seed=0)
    >>> prior = VampPrior(posterior, keras.layers.Dense(3), tf.eye(4))
    >>> prior.log_prob(prior.sample(5, seed=[0, 1])).shape
    TensorShape([5])

    References:
      J. M. Tomczak, M. Welling, VAE with a VampPrior, 2018, arXiv:1705.07120, equation 9. There the
      pseudo-inputs are kept in [0, 1]; here they are free.
    """

    def __init__(
        self,
        posterior,
        encoder,
        pseudo_inputs,
        *,
        validate_args=False,
        allow_nan_stats=True,
        name="vamp_prior",
    ):
        parameters = dict(locals())
        title = f"VampPrior '{name}'"
        check_distribution(posterior, "the posterior", title, "Take that of the VAE.")
        road, shape = Road(posterior), context_of(posterior, title)
        if not isinstance(pseudo_inputs, tf.Variable):
            pseudo_inputs = tf.Variable(
                tf.cast(pseudo_inputs, road.dtype), name=f"{name}/pseudo_inputs"
            )
        if pseudo_inputs.shape.rank < 2 or 0 in pseudo_inputs.shape.as_list():
            raise ValueError(
                f"{title}: pseudo_inputs must be data, [K, *event_shape], got shape "
                f"{pseudo_inputs.shape.as_list()}. Take some rows of the training data."
            )
        parameters["pseudo_inputs"] = pseudo_inputs
        self._posterior, self._road = posterior, self._no_dependency(road)
        self._pseudo_inputs = pseudo_inputs
        self._encoder = Network(
            encoder,
            input_shape=tuple(pseudo_inputs.shape[1:]),
            output_shape=shape,
            owner=title,
            dtype=road.dtype,
        )
        super().__init__(
            dtype=posterior.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @property
    def pseudo_inputs(self):
        """Variable `[K, *event_shape]`."""
        return self._pseudo_inputs

    def _event_shape(self):
        return self._posterior.event_shape

    def _contexts(self):
        return self._encoder(tf.convert_to_tensor(self._pseudo_inputs))

    def _log_prob(self, z):
        components = condition(self._posterior, self._contexts())
        each = components.log_prob(tf.expand_dims(z, -1 - self.event_shape.rank))
        return tf.reduce_logsumexp(each, axis=-1) - math.log(self._pseudo_inputs.shape[0])

    def _sample_n(self, n, seed=None):
        seeds = tfp.random.split_seed(seed)
        shape = tf.reshape(n, [1])
        count = self._pseudo_inputs.shape[0]
        chosen = tf.random.stateless_uniform(shape, seeds[0], maxval=count, dtype=tf.int32)
        return self._road.sample(shape, seeds[1], tf.gather(self._contexts(), chosen))
