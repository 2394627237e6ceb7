"""Transforms that are no bijections: one of their directions draws, or forgets."""

import tensorflow as tf

# From what is known best: a composition is as its worst part.
LIKELIHOODS = ("exact", "estimate", "bound")


def likelihood_of(*parts):
    """What the `log_prob` of a composition is: the worst of what its parts say of theirs.

    Args:
      *parts: distributions and `StochasticTransform`s; `"exact"` where one says nothing.

    Raises:
      ValueError: if one says another word.

    >>> likelihood_of(StochasticTransform(), object())
    'bound'
    """
    words = [getattr(part, "likelihood", "exact") for part in parts]
    for part, word in zip(parts, words, strict=True):
        if word not in LIKELIHOODS:
            raise ValueError(
                f"{type(part).__name__}: `likelihood` must be one of {', '.join(LIKELIHOODS)}, got "
                f"{word!r}."
            )
    return max(words, key=LIKELIHOODS.index, default="exact")


class StochasticTransform(tf.Module):
    """A transform that is no bijection: the base class of dequantization, slices and the like.

        x = forward(z)                        draws, or forgets a part of z
        z, v = inverse(x, noise)              one of the z that x may come from, drawn from q(z|x)

        log p(x) >= E_noise[ log p(z) + v ],      E_noise[ p(z) e^v ] = p(x)

    The second equation is the contract: `p(z) e^v` is an unbiased estimate of the probability of
    `x`. It makes the first a bound (by Jensen's inequality), which is exact where the estimate does
    not vary, and the mean over many draws converges to `p(x)` (importance sampling). The noise
    depends neither on the data nor on any weight, so that gradients pass through `inverse`, and so
    that whoever trains decides which noise a row gets.

    A subclass gives `draw_noise`, `inverse`, `forward` and `latent_event_shape`, for files
    `get_config`, and registers itself by `keras.saving.register_keras_serializable`.
    `distributions.Surjected` makes a distribution of it and one of the latent `z`; that may be any
    other, so that bijectors and such transforms compose in any order.

    >>> class Doubled(StochasticTransform):  # forgets the sign of a standard normal's double
    ...     likelihood = "bound"
    ...     def draw_noise(self, shape, seed, event_shape):
    ...         return tf.random.stateless_uniform([*shape, *event_shape], seed)
    ...     def inverse(self, x, noise, context=None):
    ...         z = tf.where(noise < 0.5, -x, x)
    ...         return z, tf.fill(tf.shape(x)[:-1], tf.math.log(2.0) * x.shape[-1])
    ...     def forward(self, z, seed=None, context=None):
    ...         return tf.abs(z)
    >>> z, v = Doubled().inverse(tf.ones([1, 2]), tf.constant([[0.1, 0.9]]))
    >>> z.numpy()
    array([[-1.,  1.]], dtype=float32)

    Reference: D. Nielsen, P. Jaini, E. Hoogeboom, O. Winther, M. Welling, SurVAE flows, 2020,
    arXiv:2007.02731, equation 5 and table 1.
    """

    likelihood = "bound"
    """What the log-density of a distribution behind it is at best: `"exact"` or `"bound"`."""

    num_levels = None
    """Of data that are integers 0 to `num_levels - 1` their number."""

    data_dtype = None
    """`tf.DType` of the data, where it is not that of the latent."""

    needs_density = False
    """Whether its `v` counts ways that are the same where entries are equal, or zero.

    Draws of a density are not, but integers are with some probability: latents of them are refused.
    """

    in_place = False
    """Whether latents are data, too: values in the cells of integers, in the same units.

    A `FlowModel` takes both then, and gives latents. Such a transform contributes 0, has a `seed`,
    `shared_noise` and `quantize`, as `preprocessing.UniformDequantization`.
    """

    @classmethod
    def from_config(cls, config):
        """The object of `get_config`."""
        return cls(**config)

    def latent_event_shape(self, event_shape):
        """The shape of an event of `z`, given that of `x`; by default the same."""
        return tf.TensorShape(event_shape)

    def data_event_shape(self, latent_event_shape):
        """The shape of an event of `x`, given that of `z`; by default the same."""
        return tf.TensorShape(latent_event_shape)

    def draw_noise(self, shape, seed, event_shape):
        """Noise for events of a batch.

        Args:
          shape: the batch shape, a list of `int`s and int32 scalars.
          seed: pair of int32.
          event_shape: the static shape of an event of `x`.

        Returns:
          A tensor `[*shape, ...]`, or a nest of such.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no draw_noise.")

    def inverse(self, x, noise, context=None):
        """A latent that the data may come from.

        Args:
          x: `[..., *event_shape]`.
          noise: what `draw_noise` gave for that batch shape.
          context: tensors of the same batch shape, or `None`.

        Returns:
          The latent, and its contribution `v` to the log-likelihood, of the batch shape or a
          scalar.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no inverse.")

    def forward(self, z, seed=None, context=None):
        """Data of a latent: a draw where there is a choice.

        Args:
          z: the latent.
          seed: pair of int32; of no matter where nothing is drawn.
          context: as in `inverse`.
        """
        raise NotImplementedError(f"{type(self).__name__} gives no forward.")
