"""What the distributions of data by way of latents share."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import check_distribution, title_of
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.autoregressive import AutoregressiveDistribution
from tfp_flows.distributions.given import Given
from tfp_flows.distributions.outputs import get_output
from tfp_flows.distributions.sampler import event_of
from tfp_flows.distributions.stochastic import StochasticDistribution

tfd = tfp.distributions


class Autoencoder(StochasticDistribution):
    """The base class of `VAE` and `LadderVAE`: their output, their data, the terms of their bound.

    A subclass sets `_output` and `_output_road`, and gives `_draw_noise(shape, seed)`,
    `_terms(x, noise)` and `_draw(shape, seed, context)`.
    """

    @property
    def output(self):
        """The distribution of the data given the decoder's output as its context."""
        return self._output

    @property
    def num_levels(self):
        """Of integers 0 to `num_levels - 1` their number; `None` for other data."""
        return getattr(self._output, "num_levels", None)

    def terms(self, x, *, seed=None, noise=None):
        """The terms of the bound, for one draw of the posterior each.

        Args:
          x: data `[..., *event_shape]`.
          seed: `int`, or a pair of int32. Default: a fresh one.
          noise: what one draw is made of, as `draw_noise` gives it without `num_samples`. Default:
            by the seed.

        Returns:
          log p(x | z) `[...]`, and log-densities of z under prior and posterior: `[...]`, or of
          several layers of latents `[..., layers]`, in nats.
        """
        return self._terms(*self._with_noise(x, seed, noise))

    def _with_noise(self, x, seed, noise):
        x = self._checked(x)
        rank = x.shape.rank - self.event_shape.rank
        batch = tf.shape(x)[:rank]
        if noise is None:
            noise = self._draw_noise(tf.unstack(batch, rank), tfp.random.sanitize_seed(seed))
        return self._together(x, noise, None, batch)[:2]

    def _terms(self, x, noise):
        raise NotImplementedError(f"{type(self).__name__} gives no _terms.")

    def _log_weight(self, x, noise, context=None):
        log_output, of_prior, of_posterior = self._terms(x, noise)
        axes = list(range(log_output.shape.rank, of_prior.shape.rank))
        return log_output + tf.reduce_sum(of_prior - of_posterior, axis=axes)

    def _event_shape(self):
        return self._output.event_shape

    def _seen(self, x):
        """Data as the encoder sees them."""
        x = tf.cast(x, self._output_road.dtype)
        entries = getattr(self._output, "output", None)
        return x if entries is None else entries.to_network(x)


def distribution_of(output, decoder, latent, dtype, title, name):
    """The distribution of the data given the decoder's output, and what a copy is given for it.

    Args:
      output: as `VAE`.
      decoder: Keras layer.
      latent: shape of what it takes.
      dtype: dtype of the networks.
      title: who asks, for messages.
      name: name of the distribution.
    """
    if isinstance(output, tfd.Distribution):
        return output, output
    output = get_output(output)
    shape = event_of(decoder, latent, dtype, title)
    count = output.num_parameters
    if shape[-1] % count:
        raise ValueError(
            f"{title}: the decoder must give {count} parameters of each entry, a last axis of "
            f"{count} times the channels, got [batch, {', '.join(map(str, shape))}] for {output!r}."
        )
    event = (*shape[:-1], shape[-1] // count)
    layer = Given(event, count, dtype=dtype.name)
    return AutoregressiveDistribution(layer, event, output=output, dtype=dtype, name=name), output


def check_part(part, what, title):
    """Raises a `TypeError` unless a part is a distribution."""
    remedy = "Take a recipe of tfp_flows.flows with context_size."
    check_distribution(part, f"the {what}", title, remedy)


def check_same_latents(posterior, latent, title):
    """Raises a `ValueError` unless a posterior is over latents of this shape, the prior's."""
    if tuple(posterior.event_shape) != latent:
        raise ValueError(
            f"{title}: the posterior must be over the prior's latents {list(latent)}, got "
            f"{title_of(posterior)} over {posterior.event_shape.as_list()}. Make them equal."
        )


def context_of(part, title):
    """The shape of the context that a part takes."""
    road = Road(part)
    if not isinstance(road.context_shapes, tuple):
        got = "none" if road.context_shapes is None else f"several, {list(road.context_shapes)}"
        raise ValueError(
            f"{title}: {title_of(part)} must take one context, which a network here gives it; it "
            f"takes {got}. Build it with context_size."
        )
    return road.context_shapes
