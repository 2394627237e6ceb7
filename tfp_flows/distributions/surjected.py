"""Data that a transform which is no bijection makes of a latent with a density."""

import math

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.composition import check_distribution, title_of
from tfp_flows.bijectors.road import Road
from tfp_flows.bijectors.stochastic import StochasticTransform, likelihood_of
from tfp_flows.distributions.stochastic import StochasticDistribution

tfd = tfp.distributions


class Surjected(StochasticDistribution):
    """The distribution of data that a `StochasticTransform` makes of a latent.

        z ~ distribution,  x = transform.forward(z)
        log p(x) >= E_noise[ log p(z) + v ],    z, v = transform.inverse(x, noise)

    `distribution` may be anything with a log-density, another `Surjected` included: bijectors and
    such transforms compose in any order. Variables are those of both.

    Args:
      distribution: `tfd.Distribution` of the latent, of a known event shape.
      transform: `StochasticTransform`: `preprocessing.UniformDequantization`, say.
      num_samples: `int >= 1`, draws of a call of `log_prob`, which is then an importance-weighted
        estimate. Default: 1, and a bound.
      validate_args: passed to the base class.
      allow_nan_stats: passed to the base class.
      name: name of the distribution. Default: that of `distribution`.
      parameters: of a subclass its constructor's arguments.

    Raises:
      TypeError: if `distribution` or `transform` is none, or the latents are integers where the
        transform needs a density.
      ValueError: if the latent's events do not fit the transform.

    >>> from tfp_flows import preprocessing
    >>> uniform = tfd.Sample(tfd.Uniform(0.0, 6.0), 2)
    >>> die = Surjected(uniform, preprocessing.UniformDequantization(6))
    >>> die.log_prob([[0, 5]], seed=[0, 1]).numpy().round(4)
    array([-3.5835], dtype=float32)
    >>> die.dtype, die.likelihood
    (tf.int32, 'bound')

    Reference: D. Nielsen, P. Jaini, E. Hoogeboom, O. Winther, M. Welling, SurVAE flows, 2020,
    arXiv:2007.02731, equation 5.
    """

    def __init__(
        self,
        distribution,
        transform,
        *,
        num_samples=None,
        validate_args=False,
        allow_nan_stats=True,
        name=None,
        parameters=None,
    ):
        parameters = dict(locals()) if parameters is None else parameters
        check_distribution(distribution, "distribution", "Surjected")
        if not isinstance(transform, StochasticTransform):
            raise TypeError(
                f"Surjected: expected a StochasticTransform, got a {type(transform).__name__}. A "
                "bijector goes into a tfd.TransformedDistribution."
            )
        if transform.needs_density and not tf.as_dtype(distribution.dtype).is_floating:
            raise TypeError(
                f"Surjected: {type(transform).__name__} needs a latent with a density, got "
                f"{title_of(distribution)} of {tf.as_dtype(distribution.dtype).name}, of which it "
                "would count equal ones several times. Take a continuous latent, and "
                "`preprocessing.UniformDequantization` of the data."
            )
        self._distribution, self._transform = distribution, transform
        self._road = self._no_dependency(Road(distribution))
        self._event = transform.data_event_shape(distribution.event_shape)
        self._context_shapes = self._no_dependency(
            contexts.common(
                [
                    (distribution.name, self._road.context_shapes),
                    (
                        type(transform).__name__,
                        contexts.shapes_of(
                            getattr(transform, "context_size", None), title_of(distribution)
                        ),
                    ),
                ],
                "Surjected",
            )
        )
        dtype = transform.data_dtype or self._road.dtype
        differentiable = (
            transform.data_dtype is None
            and distribution.reparameterization_type == tfd.FULLY_REPARAMETERIZED
        )
        super().__init__(
            num_samples=num_samples,
            dtype=dtype,
            reparameterization_type=(
                tfd.FULLY_REPARAMETERIZED if differentiable else tfd.NOT_REPARAMETERIZED
            ),
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name or distribution.name,
        )

    @property
    def distribution(self):
        """The distribution of the latent."""
        return self._distribution

    @property
    def transform(self):
        """What makes data of a latent."""
        return self._transform

    @property
    def likelihood(self):
        """What `log_prob` is: the worst of the parts, or `"estimate"` where it is a bound."""
        word = likelihood_of(self._transform, self._road)
        return "estimate" if word == "bound" and self._num_samples is not None else word

    @property
    def num_levels(self):
        """Of data that are integers their number of levels, or `None`."""
        return self._transform.num_levels

    @property
    def context_size(self):
        """Size of the context, or what else the parts take; `None` if they take none."""
        return contexts.declared(self._context_shapes)

    def _event_shape(self):
        return self._event

    def _draw_noise(self, shape, seed):
        seed, own = tfp.random.split_seed(seed)
        noise = self._transform.draw_noise(shape, own, self._event)
        # A tuple, for a nest takes None for a leaf.
        return (noise, self._road.draw_noise(shape, seed)) if self._road.is_noisy else (noise,)

    def _log_weight(self, x, noise, context=None):
        own, *rest = noise
        z, contribution = self._transform.inverse(x, own, context)
        z = tf.cast(z, self._distribution.dtype)
        log_weight = self._road.log_prob(z, context, *rest) + contribution
        if self.num_levels is None:
            return log_weight
        # In a graph no transform can refuse what is no level.
        axes = list(range(-self._event.rank, 0))
        possible = tf.reduce_all((x >= 0) & (x < self.num_levels), axis=axes)
        return tf.where(possible, log_weight, tf.constant(-math.inf, log_weight.dtype))

    def has_mean(self, context=None):
        """Whether the latent can be drawn at another temperature than 1."""
        return self._road.has_mean(context)

    def sample_at(self, temperature, shape, seed, context=None):
        """Samples whose latent is drawn at a temperature.

        Args:
          temperature: scalar that scales the deviation of the latent's base from its mean.
          shape: int tensor `[n]`, the sample shape.
          seed: pair of int32.
          context: tensors, or `None`.
        """
        return self._draw(shape, seed, context, temperature)

    def _draw(self, shape, seed, context=None, temperature=None):
        seed, own = tfp.random.split_seed(seed)
        z = self._road.sample(shape, seed, context, temperature)
        return self._transform.forward(z, own, context)
