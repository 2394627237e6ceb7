"""A variational autoencoder of several layers of latents, inferred from the top down."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.autoencoder import (
    Autoencoder,
    check_part,
    check_same_latents,
    context_of,
    distribution_of,
)
from tfp_flows.distributions.conditioned import condition
from tfp_flows.distributions.sampler import event_of

tfd = tfp.distributions


class LadderVAE(Autoencoder):
    """Hierarchical variational autoencoder, whose posterior goes the prior's way from the top down.

        up:     u_0 = encoder(x),  u_l = up_l(u_{l-1})                      l = 1, ..., L
        down:   h_L = start,       z_l ~ prior_l(z | h_l)                   samples
                                   z_l ~ posterior_l(z | h_l, u_l)          of data
                h_{l-1} = down_l(h_l, z_l)
                x ~ output(x | decoder(h_0))
        log p(x) >= E [ log p(x | h_0) + sum_l log prior_l(z_l | h_l) - log posterior_l(z_l | ...) ]

    Each layer's prior and posterior see what the layers above have decided, and the posterior the
    data besides. `flows.resnet_vae` builds one of residual convolutions and inverse autoregressive
    steps. `log_prob`, `likelihood` and `num_samples` are as of `distributions.VAE`.

    Shapes: all are found from those of the parts. The context of `priors[l]` is h, which has its
    shape; that of `posteriors[l]` is h and u, side by side in the last axis; `downs[l]` is given h
    and z side by side, and gives the h below: the context of `priors[l - 1]`, or what the decoder
    takes.

    Args:
      encoder: Keras layer from data to features.
      ups, downs: lists of L Keras layers, the layer next to the data first.
      priors, posteriors: lists of L conditional distributions of the latents, in the same order;
        posteriors as those of a `VAE`.
      decoder: Keras layer from the last features to the parameters of all entries, or the context
        of `output`.
      output: as `VAE`. Default: `"bernoulli"`.
      num_samples, validate_args, allow_nan_stats, name: as `VAE`.
      start: variable of the shape of h_L, as `copy()` hands it over. Default: a new one, of zeros.

    Raises:
      TypeError: if a part is no Keras layer, or no distribution.
      ValueError: if the lists are of different lengths, or shapes do not fit.

    >>> from tfp_flows import flows
    >>> vae = flows.resnet_vae([4, 4, 1], num_scales=1, filters=4, latent_channels=2, seed=0)
    >>> type(vae).__name__, vae.log_prob(vae.sample(3, seed=[0, 1]), seed=[0, 2]).shape
    ('LadderVAE', TensorShape([3]))

    References:
      C. K. Sonderby et al., Ladder variational autoencoders, 2016, arXiv:1602.02282; D. P. Kingma
      et al., Improving variational inference with inverse autoregressive flow, 2016,
      arXiv:1606.04934, section 4 and appendix C (the bidirectional ResNet VAE).
    """

    def __init__(
        self,
        encoder,
        ups,
        priors,
        posteriors,
        downs,
        decoder,
        *,
        output="bernoulli",
        start=None,
        num_samples=None,
        validate_args=False,
        allow_nan_stats=True,
        name="ladder_vae",
    ):
        parameters = dict(locals())
        title = f"LadderVAE '{name}'"
        _check_lists(title, ups=ups, priors=priors, posteriors=posteriors, downs=downs)
        roads = [[Road(part) for part in parts] for parts in (priors, posteriors)]
        self._priors = self._no_dependency(roads[0])
        self._posteriors = self._no_dependency(roads[1])
        self._parts = [*priors, *posteriors]  # Seen by tf.Module.
        dtype = roads[0][0].dtype
        of_h = [context_of(prior, title) for prior in priors]
        of_both = [context_of(posterior, title) for posterior in posteriors]
        self._latents = [tuple(p.event_shape.as_list()) for p in priors]
        for prior, posterior, road in zip(priors, posteriors, roads[1], strict=True):
            road.check_fixed_base(title)
            check_same_latents(posterior, tuple(prior.event_shape), title)

        def network(layer, before, after):
            return Network(layer, input_shape=before, output_shape=after, owner=title, dtype=dtype)

        given = [_side_by_side(h, z, title) for h, z in zip(of_h, self._latents, strict=True)]
        last = event_of(downs[0], given[0], dtype, title)
        self._output, given_output = distribution_of(
            output, decoder, last, dtype, title, f"{name}_output"
        )
        parameters["output"] = given_output
        self._output_road = self._no_dependency(Road(self._output))
        if self._output_road.is_noisy or any(road.is_noisy for road in roads[0]):
            raise ValueError(
                f"{title}: priors and output must have exact log-densities, got one that is drawn "
                "with noise. A VAE takes such."
            )
        self._decoder = network(decoder, last, context_of(self._output, title))
        event = tuple(self._output.event_shape.as_list())
        shape = event_of(encoder, event, dtype, title)
        self._encoder = network(encoder, event, shape)
        self._ups, self._downs = [], []
        for level, (h, both) in enumerate(zip(of_h, of_both, strict=True)):
            features = _features_beside(h, both, title)
            self._ups.append(network(ups[level], shape, features))
            shape = features
            below = of_h[level - 1] if level else last
            self._downs.append(network(downs[level], given[level], below))
        if start is None:
            start = tf.Variable(tf.zeros(of_h[-1], dtype), name=f"{name}/start")
        self._start = parameters["start"] = start
        super().__init__(
            num_samples=num_samples,
            dtype=self._output.dtype,
            reparameterization_type=tfd.NOT_REPARAMETERIZED,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @property
    def latent_shapes(self):
        """Shapes of the latents, the layer next to the data first."""
        return list(self._latents)

    def encode(self, x, *, seed=None):
        """Draws of the posterior: a list of latents, the layer next to the data first.

        Args:
          x: data `[..., *event_shape]`.
          seed: `int`, or a pair of int32. Default: a fresh one.
        """
        return self._inferred(*self._with_noise(x, seed, None))[0]

    def decode(self, z):
        """p(x | z): a `tfd.Distribution` over the data, whose batch shape is that of the latents.

        Args:
          z: list of latents `[..., *latent_shape]`, as `encode` gives it.
        """
        z = [tf.convert_to_tensor(part, self._output_road.dtype) for part in z]
        h = self._started(tf.shape(z[-1])[: z[-1].shape.rank - len(self._latents[-1])])
        for down, part in zip(reversed(self._downs), reversed(z), strict=True):
            h = down(tf.concat([h, part], axis=-1))
        return condition(self._output, self._decoder(h))

    def _draw_noise(self, shape, seed):
        seeds = tfp.random.split_seed(seed, len(self._posteriors))
        return [
            road.base_sample(tf.stack(shape), seeds[n]) for n, road in enumerate(self._posteriors)
        ]

    def _inferred(self, x, noise):
        """Latents, their log-densities under priors and posteriors, and the last features."""
        features, rest = [], self._encoder(self._seen(x))
        for up in self._ups:
            rest = up(rest)
            features.append(rest)
        h = self._started(tf.shape(x)[: x.shape.rank - self.event_shape.rank])
        latents, of_prior, of_posterior = [], [], []
        levels = zip(self._posteriors, self._priors, self._downs, features, noise, strict=True)
        for posterior, prior, down, u, base in reversed(list(levels)):
            z, log_q = posterior.forward_and_log_prob(base, tf.concat([h, u], axis=-1))
            latents.insert(0, z)
            of_posterior.insert(0, log_q)
            of_prior.insert(0, prior.log_prob(z, h))
            h = down(tf.concat([h, z], axis=-1))
        return latents, tf.stack(of_prior, axis=-1), tf.stack(of_posterior, axis=-1), h

    def _terms(self, x, noise):
        _, of_prior, of_posterior, h = self._inferred(x, noise)
        return self._output_road.log_prob(x, self._decoder(h)), of_prior, of_posterior

    def _draw(self, shape, seed, context=None):
        seeds = tfp.random.split_seed(seed, len(self._priors) + 1)
        h = self._started(shape)
        levels = list(zip(self._priors, self._downs, seeds[1:], strict=True))
        for prior, down, own in reversed(levels):
            h = down(tf.concat([h, prior.sample(shape, own, h)], axis=-1))
        return self._output_road.sample(shape, seeds[0], self._decoder(h))

    def _started(self, batch):
        return tf.broadcast_to(self._start, tf.concat([batch, self._start.shape], axis=0))


def _check_lists(title, **lists):
    lengths = {what: len(parts) for what, parts in lists.items()}
    if len(set(lengths.values())) > 1 or not lengths["priors"]:
        raise ValueError(
            f"{title}: expected lists of equal length, one part a layer of latents, got {lengths}."
        )
    for what in ("priors", "posteriors"):
        for part in lists[what]:
            check_part(part, f"parts of {what}", title)


def _features_beside(h, both, title):
    """The shape of the features in the context of a posterior, which begins as its prior's."""
    if h[:-1] != both[:-1] or both[-1] <= h[-1]:
        raise ValueError(
            f"{title}: the context of a posterior is that of its prior, {list(h)}, and features "
            f"beside it in the last axis, got {list(both)}. Build it with a context_size of both."
        )
    return (*h[:-1], both[-1] - h[-1])


def _side_by_side(h, z, title):
    """The shape of features and latents, one after the other in the last axis."""
    if h[:-1] != z[:-1]:
        raise ValueError(
            f"{title}: the context of a prior must have the positions of its latents, "
            f"{list(z[:-1])}, got {list(h)}. Build it with context_size={[*z[:-1], 'n']}."
        )
    return (*h[:-1], h[-1] + z[-1])
