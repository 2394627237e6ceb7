"""What a composition is: the way from the data to the base, step by step.

Everybody who wants to look into a flow (scores, samples, summaries, diagnoses, exports) reads the
steps of its road.
"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import inside, stock
from tfp_flows.bijectors.composition import Step, context_shapes_of, steps_of, title_of, walk
from tfp_flows.bijectors.modes import values_alone
from tfp_flows.bijectors.stochastic import likelihood_of

tfd = tfp.distributions


class Road:
    """A distribution as steps from its data to a base distribution.

    Args:
      distribution: any `tfd.Distribution`; one that is no `tfd.TransformedDistribution` is a
        base, without steps.

    Raises:
      ValueError: if a part of the base draws its log-density with noise, and the base says that its
        own is exact.
    """

    def __init__(self, distribution):
        self.distribution = distribution
        self.event_ndims = distribution.event_shape.rank
        steps = []
        while (
            isinstance(distribution, stock.TransformedDistribution)
            and distribution.bijector._is_injective
        ):
            steps += steps_of(distribution.bijector, inverse=True)
            distribution = distribution.distribution
        self.steps, self.base = tuple(steps), distribution
        self.back = tuple(Step(step.bijector, not step.inverse) for step in reversed(steps))
        self.base_ndims = distribution.event_shape.rank
        self.dtype = _floating(self.distribution)
        self._inside = _parts_of(distribution)
        self.likelihood = likelihood_of(distribution)
        _check_likelihood(distribution, self.likelihood)
        self.base_context_shapes = _base_context_shapes(distribution, self._inside)
        self.context_shapes = contexts.common(
            [
                *((step.bijector.name, context_shapes_of(step.bijector)) for step in steps),
                (distribution.name, self.base_context_shapes),
            ],
            "the distribution",
        )

    @property
    def num_samples(self):
        """Of an estimate its number of draws, or `None`."""
        return getattr(self.base, "num_samples", None) if self.is_noisy else None

    @property
    def is_noisy(self):
        """Whether a log-density is drawn with noise: a bound, or an estimate."""
        return self.likelihood != "exact"

    def draw_noise(self, shape, seed):
        """Noise for one `log_prob` of a batch; `None` if it is exact.

        Args:
          shape: the batch shape, a list of `int`s and int32 scalars; 1 for a draw that all share.
          seed: pair of int32.
        """
        return self.base.draw_noise(shape, seed) if self.is_noisy else None

    def log_prob(self, x, context=None, noise=None):
        """Log-density of `x` `[..., *event]` in nats.

        Args:
          x: data.
          context: tensors, or `None`; handed to the parts that take one.
          noise: of a log-density that is drawn what `draw_noise` gave. Default: fresh.
        """
        z, log_det, _ = walk(self.steps, x, context, self.event_ndims)
        return self.base_log_prob(z, context, noise) + log_det

    def inverse(self, x, context=None):
        """The point of the base that `x` comes from."""
        with values_alone():
            return walk(self.steps, x, context, self.event_ndims)[0]

    def forward(self, z, context=None):
        """The data that a point of the base gives."""
        with values_alone():
            return walk(self.back, z, context, self.base_ndims)[0]

    def sample(self, shape, seed, context=None, temperature=None):
        """Samples of the given sample shape.

        Args:
          shape: int tensor `[n]`, the sample shape.
          seed: pair of int32.
          context: tensors, or `None`; handed to the parts that take one.
          temperature: scalar that scales the deviation of the base from its mean, or `None` for
            1, which needs no mean.
        """
        return self.forward(self.base_sample(shape, seed, context, temperature), context)

    def sample_and_log_prob(self, shape, seed, context=None):
        """Samples, and their log-density from the same pass of every network."""
        noise = None
        if self.is_noisy:
            seed, own = tfp.random.split_seed(seed)
            noise = self.draw_noise(tf.unstack(shape), own)
        z = self.base_sample(shape, seed, context)
        return self.forward_and_log_prob(z, context, noise)

    def forward_and_log_prob(self, z, context=None, noise=None):
        """The data that a point of the base gives, and their log-density."""
        x, log_det, _ = walk(self.back, z, context, self.base_ndims)
        return x, self.base_log_prob(z, context, noise) - log_det

    # --- The base. ---

    def base_log_prob(self, z, context=None, noise=None):
        """Log-density of a point of the base."""
        if self._inside is not None:
            return self._inside.log_prob(z, context)
        kwargs = self._base_kwargs(context)
        if noise is not None:
            kwargs["noise"] = noise
        return self.base.log_prob(z, **kwargs)

    def base_sample(self, shape, seed, context=None, temperature=None):
        """Points of the base."""
        if self._inside is not None:
            return self._inside.sample(shape, seed, context, temperature)
        kwargs = self._base_kwargs(context)
        if temperature is not None and hasattr(self.base, "sample_at"):
            return self.base.sample_at(temperature, shape, seed, **kwargs)
        z = self.base.sample(shape, seed=seed, **kwargs)
        if temperature is None:
            return z
        temperature = tf.cast(temperature, self.dtype)
        if not self.has_mean(context):
            check = tf.debugging.assert_equal(
                temperature, tf.ones_like(temperature), message=self.no_mean
            )
            with tf.control_dependencies([] if check is None else [check]):
                return tf.identity(z)
        mean = self.base.mean(**kwargs)
        # Chosen, not computed, at 1: the samples are then those of no temperature to the last bit.
        return tf.where(temperature == 1.0, z, mean + temperature * (z - mean))

    def base_completed(self, z, given, seed, context=None):
        """Points of a base that draws in order, with `z` where it is given."""
        kwargs = self._base_kwargs(context)
        return self.base.complete_in_order(z, given, seed=seed, **kwargs)

    @property
    def no_mean(self):
        """Why a temperature other than 1 is refused."""
        return (
            f"{title_of(self.base)} has no mean, which a temperature other than 1 scales the "
            "latent's spread around (integers have none). Sample at temperature 1."
        )

    def check_fixed_base(self, title):
        """Raises a `ValueError` unless samples are a map of noise that depends on nothing.

        Whoever draws the noise of a bound draws points of the base, without context or gradient.
        """
        wrong = None
        if self.is_noisy:
            wrong = f"has a log-density that is drawn with noise itself ({self.likelihood})"
        elif self.base_context_shapes is not None:
            wrong = "takes the context itself"
        elif self.base.variables:
            wrong = "has variables"
        elif self.base.reparameterization_type != tfd.FULLY_REPARAMETERIZED:
            wrong = "is not one of continuous values"
        if wrong:
            raise ValueError(
                f"{title}: expected a flow over noise that depends on nothing, got the base "
                f"{title_of(self.base)}, which {wrong}. Put a standard normal there, and what is "
                "learned into bijectors."
            )

    def has_mean(self, context=None):
        """Whether the base has a mean that its points can be drawn to; integers cannot."""
        if self._inside is not None:
            return self._inside.has_mean(context)
        if hasattr(self.base, "sample_at"):
            return self.base.has_mean(**self._base_kwargs(context))
        if not tf.as_dtype(self.base.dtype).is_floating:
            return False
        kwargs = self._base_kwargs(context)
        try:
            if kwargs:
                self.base.mean(**kwargs)
                return True
            with tf.init_scope():  # A Cauchy says NaN. By value, so when a function is traced.
                return not np.isnan(self.base.mean()).any()
        except NotImplementedError:
            return False

    def _base_kwargs(self, context):
        if context is None or self.base_context_shapes is None:
            return {}
        return {"context": contexts.take(context, self.base_context_shapes)}


def _floating(distribution):
    """The dtype of a distribution; of one of integers that of its weights."""
    found = [distribution.dtype, *(v.dtype for v in distribution.variables), tf.float32]
    return next(dtype for dtype in map(tf.as_dtype, found) if dtype.is_floating)


def _check_likelihood(base, word):
    """Refuses a base that calls itself exact, around a part that is not."""
    for part in base.submodules if word == "exact" else ():
        if isinstance(part, tfd.Distribution) and likelihood_of(part) != "exact":
            raise ValueError(
                f"{title_of(base)}: the log-density of its part '{part.name}' is drawn with noise "
                f"({likelihood_of(part)}), which this container hands to none of its parts. Put "
                "the container inside that part."
            )


def _parts_of(base):
    """The flows inside a base distribution, or `None` if it is no composition of flows."""
    if isinstance(base, stock.Independent):
        kind, parts = inside.Independent, [base.distribution]
    elif isinstance(base, stock.Mixture):
        kind, parts = inside.Mixture, base.components
    elif isinstance(base, stock.MixtureSameFamily):
        kind, parts = inside.MixtureSameFamily, [base.components_distribution]
    else:
        return None
    roads = [Road(part) for part in parts]
    return kind(base, roads) if any(r.steps or r.context_shapes for r in roads) else None


def _base_context_shapes(base, parts):
    """What a base takes: a distribution of ours or of the user's own takes `context=` itself."""
    if parts is not None:
        return parts.context_shapes
    size = getattr(base, "context_size", None)
    return contexts.shapes_of(size, title_of(base)) if size else None
