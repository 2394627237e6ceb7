"""The variational autoencoder: a density by way of latents, known by its lower bound."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.context_map import ContextMap
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.proposal import Proposal
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.autoencoder import (
    Autoencoder,
    check_part,
    check_same_latents,
    context_of,
    distribution_of,
)
from tfp_flows.distributions.conditioned import condition
from tfp_flows.elementwise import Affine

tfd = tfp.distributions


class VAE(Autoencoder):
    """Variational autoencoder: data from latents, and the latents of data by an encoder.

        p(x) = integral of p(z) p(x | z) dz             p(x | z) by decoder(z)
        log p(x) >= E over z from q(z | x) of L(x, z)   q(z | x) by encoder(x)
        L(x, z) = log p(x | z) + log p(z) - log q(z | x)

    `log_prob` is L(x, z) for one z that the posterior draws: a bound in the mean over the draws,
    `likelihood` says so. Its exponential is an unbiased estimate of p(x), so that the log of the
    mean of K of them rises with K to log p(x): with `num_samples=K` that is what `log_prob` gives
    and what is trained (an importance weighted autoencoder).

    Prior and posterior are distributions over the latents, flows among them. The posterior takes
    the encoder's output as its context: `flows.iaf([L], context_size=...)`, `flows.maf`,
    `flows.sylvester`, `flows.planar(..., base=flows.gaussian(...))`. What the decoder gives is, by
    `output`, the parameters of every entry, independent of each other given z; or the context of
    a distribution: an autoregressive one (`flows.pixel_cnn(..., context_size=...)`: a PixelVAE),
    or a flow (an f-VAE). A prior may be a VAE itself, for latents of latents; `LadderVAE` has them
    inferred from the top down.

    Shapes: x `[..., *event_shape]`, z `[..., *latent_shape]`, the prior's event shape. The encoder
    maps `[batch, *event_shape]` to the posterior's context, without a posterior of one's own to
    `[batch, *latent_shape[:-1], 2 * latent_shape[-1]]`, first all means, then all raw log-scales.
    The decoder maps `[batch, *latent_shape]` to `[batch, *event_shape[:-1], num_parameters *
    event_shape[-1]]`, first parameter 0 of all channels, or to the context of `output`.

    Events are what those of `output` are: int32 for bits and levels, of which `log_prob` takes any
    integers. The encoder sees levels as numbers from -1 to 1, bits as 0 and 1.

    Args:
      prior: distribution of the latents, without batch or context.
      encoder, decoder: Keras layers; built here if they were not.
      posterior: conditional distribution of the latents, a flow over noise without variables or
        context. Default: a normal one, with a mean and a log-scale s = 7 tanh(raw / 7) each.
      output: name or `Output`, as `distributions.get_output` takes it, or a conditional
        distribution. Default: `"bernoulli"`.
      num_samples: `int >= 1`, draws of the posterior for each row. Default: one, and a bound.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.

    Raises:
      TypeError: if prior, posterior or output is none.
      ValueError: if the shapes of the parts do not fit, the posterior or the output takes no
        context, the prior takes one, or the posterior's samples have no gradient; by `log_prob`,
        for data of another shape.

    Numerics: float32 bounds of images of 784 entries have rounding errors of about 1e-4 nats.

    >>> import keras
    >>> dense = keras.layers.Dense
    >>> prior = tfd.MultivariateNormalDiag(tf.zeros([2]))
    >>> vae = VAE(prior, encoder=dense(4), decoder=dense(6), output="bernoulli")
    >>> x = vae.sample(5, seed=[0, 1])
    >>> vae.log_prob(x, seed=[0, 2]).shape, vae.encode(x).sample(3).shape
    (TensorShape([5]), TensorShape([3, 5, 2]))

    References:
      D. P. Kingma, M. Welling, Auto-encoding variational Bayes, 2014, arXiv:1312.6114, equation 2.
      Flows in it: D. J. Rezende, S. Mohamed, 2015, arXiv:1505.05770 (posterior); X. Chen et al.,
      Variational lossy autoencoder, 2017, arXiv:1611.02731 (prior, autoregressive decoder);
      I. Gulrajani et al., PixelVAE, 2017, arXiv:1611.05013; J. Su, G. Wu, f-VAEs, 2018,
      arXiv:1809.05861. Importance samples: Y. Burda, R. Grosse, R. Salakhutdinov, Importance
      weighted autoencoders, 2016, arXiv:1509.00519, equation 8.
    """

    def __init__(
        self,
        prior,
        encoder,
        decoder,
        posterior=None,
        *,
        output="bernoulli",
        num_samples=None,
        validate_args=False,
        allow_nan_stats=True,
        name="vae",
    ):
        parameters = dict(locals())
        title = f"VAE '{name}'"
        latent = _latent_shape(prior, title)
        road = Road(prior)
        self._prior, self._prior_road = prior, self._no_dependency(road)
        if posterior is None:
            posterior = _gaussian(latent, road.dtype)
        check_part(posterior, "posterior", title)
        check_same_latents(posterior, latent, title)
        output, parameters["output"] = distribution_of(
            output, decoder, latent, road.dtype, title, f"{name}_output"
        )
        check_part(output, "output", title)
        self._output, self._output_road = output, self._no_dependency(Road(output))
        self._proposal = Proposal(posterior, output.event_shape, encoder, title)
        self._decoder = Network(
            decoder,
            input_shape=latent,
            output_shape=context_of(output, title),
            owner=title,
            dtype=road.dtype,
        )
        through = {part.base.reparameterization_type for part in (road, self._output_road)}
        super().__init__(
            num_samples=num_samples,
            dtype=output.dtype,
            reparameterization_type=through.pop() if len(through) == 1 else tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    # --- What it is made of. ---

    @property
    def prior(self):
        """The distribution of the latents."""
        return self._prior

    @property
    def posterior(self):
        """The distribution of the latents given the encoder's output as its context."""
        return self._proposal.flow

    @property
    def encoder(self):
        """The Keras layer from the data to the posterior's context."""
        return self._proposal.layer

    @property
    def decoder(self):
        """The Keras layer from the latents to the output's context."""
        return self._decoder.layer

    def encode(self, x):
        """q(z | x): a `tfd.Distribution` over the latents, whose batch shape is that of `x`.

        Args:
          x: data `[..., *event_shape]`.
        """
        context = self._proposal.network(self._seen(self._checked(x)))
        return condition(self.posterior, context)

    def decode(self, z):
        """p(x | z): a `tfd.Distribution` over the data, whose batch shape is that of `z`.

        Its `context` is what the decoder gives: of bits their logits.

        Args:
          z: latents `[..., *latent_shape]`, of the dtype of the networks.
        """
        z = tf.convert_to_tensor(z, self._prior_road.dtype)
        return condition(self._output, self._decoder(z))

    # --- Scores and samples. ---

    def _draw_noise(self, shape, seed):
        """The posterior's point of its base, and what prior and output draw, if they are bounds."""
        seeds = tfp.random.split_seed(seed, 3)
        drawn = [
            [road.draw_noise(shape, own)] if road.is_noisy else []
            for road, own in zip((self._prior_road, self._output_road), seeds[1:], strict=True)
        ]
        return [self._proposal.draw_noise(shape, seeds[0]), *drawn]

    def _terms(self, x, noise):
        u, of_prior, of_output = noise
        z, log_posterior = self._proposal(self._seen(x), u)
        log_output = self._output_road.log_prob(x, self._decoder(z), *of_output)
        log_prior = self._prior_road.log_prob(z, None, *of_prior)
        return log_output, log_prior, log_posterior

    def _draw(self, shape, seed, context=None):
        seeds = tfp.random.split_seed(seed)
        z = self._prior_road.sample(shape, seeds[0])
        return self._output_road.sample(shape, seeds[1], self._decoder(z))


def _gaussian(latent, dtype):
    """The posterior whose mean and log-scale are the encoder's output."""
    base = tfd.Independent(tfd.Normal(tf.zeros(latent, dtype), tf.ones([], dtype)), len(latent))
    # A deviation of exp(-7) is that of a latent which knows its datum to 14 bits.
    layer = ContextMap(latent, Affine(cap=7.0), dtype=dtype)
    return tfd.TransformedDistribution(base, layer, name="posterior")


def _latent_shape(prior, title):
    """The prior's event shape, checked."""
    check_part(prior, "prior", title)
    if prior.batch_shape.rank or not prior.event_shape.is_fully_defined():
        raise ValueError(
            f"{title}: the prior must be one distribution of a known event shape, got batch shape "
            f"{prior.batch_shape} and event shape {prior.event_shape}. Wrap it in tfd.Independent."
        )
    if not prior.event_shape.rank or not tf.as_dtype(prior.dtype).is_floating:
        raise ValueError(
            f"{title}: the latents must be vectors or images of real numbers, got "
            f"{tf.as_dtype(prior.dtype).name} of shape {prior.event_shape}. Take a prior over "
            "[L]."
        )
    if Road(prior).context_shapes is not None:
        raise ValueError(
            f"{title}: the prior takes a context, and has none here. Build it without context_size."
        )
    return tuple(prior.event_shape.as_list())
