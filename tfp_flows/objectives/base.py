"""The base class of objectives."""

import abc

import tensorflow_probability as tfp

from tfp_flows.bijectors.road import Road

tfd = tfp.distributions


class Objective(abc.ABC):
    """What a distribution is trained for: a loss for each row of a batch.

    `FlowModel(distribution, objective=...)` takes the mean over the rows of all replicas, and its
    gradient. A subclass gives `loss`, and where they differ from the defaults the rest. For files
    it returns its constructor's arguments from `get_config`, and registers itself by
    `keras.saving.register_keras_serializable`.

    >>> import tensorflow as tf
    >>> class Forward(Objective):  # the latents' size, for no good reason
    ...     def loss(self, distribution, batch, seed):
    ...         x, context = batch
    ...         return tf.reduce_sum(distribution.bijector.inverse(x) ** 2, axis=-1)
    >>> Forward().needs_data
    True
    """

    @property
    def needs_data(self):
        """Whether it is of data; else `fit` takes none, but `steps_per_epoch`."""
        return True

    @property
    def num_samples(self):
        """Of one that needs no data: how many rows a step has, on all replicas together."""
        return None

    @property
    def takes_noise(self):
        """Whether `loss` is given, for the seed, what one `log_prob` of the batch is drawn with.

        Every row then has the noise that it would have on one device.
        """
        return False

    @property
    def compares_rows(self):
        """Whether the loss of a row depends on the rows beside it."""
        return False

    @property
    def takes_weights(self):
        """Whether the loss of a row is one of that row's data, which a sample weight weighs."""
        return True

    @property
    def allows_xla(self):
        """Whether XLA can compile it."""
        return True

    @property
    def adds_noise(self):
        """Whether it adds noise to the data, which may then be whole numbers."""
        return False

    def check(self, distribution, title):
        """Raises a `ValueError` if a distribution cannot have this objective.

        Args:
          distribution: `tfd.Distribution`.
          title: who asks, for messages.
        """
        del distribution, title

    def draw_noise(self, distribution, rows, seed):
        """Noise of a batch, each row's at its place, which depends on no weight, data or context.

        Where it gives some, `loss` is handed it as `noise`: of several replicas each gets of the
        global batch's that of its own rows, and all train as one device does.

        Args:
          distribution: the `tfd.Distribution` that is trained.
          rows: `int`, or int32 scalar.
          seed: pair of int32, another one at each step, the same on all replicas.

        Returns:
          A tensor `[rows, ...]` or a nest of such; `None` (default) of an objective whose `loss`
          draws by itself, of each replica by a seed of its own.
        """
        del distribution, rows, seed
        return None

    @abc.abstractmethod
    def loss(self, distribution, batch, seed):
        """The loss of each row.

        One with a `draw_noise` takes `noise=None` as well, and draws without it by the seed.

        Args:
          distribution: the `tfd.Distribution` that is trained.
          batch: pair of data `[n, *event_shape]` and their context, or `None`; of an objective
            that needs no data the int32 scalar n.
          seed: pair of int32, another one at each step and on each replica.

        Returns:
          Tensor `[n]`.
        """

    def without_target(self, reason):
        """The objective as a file keeps it that cannot describe it, or `None` to refuse.

        Args:
          reason: `str`, why not.
        """
        del reason
        return None

    def get_config(self):
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """The objective of `get_config`."""
        return cls(**config)

    # --- What several cannot have. ---

    def _refuse_context(self, distribution, title, what, remedy=""):
        if Road(distribution).context_shapes is not None:
            raise ValueError(
                f"{title}: {type(self).__name__} is for {what}, but the distribution takes a "
                f"context. Build it without context_size{remedy}."
            )

    def _refuse_samples_without_gradient(self, distribution, title):
        base = Road(distribution).base
        if base.reparameterization_type != tfd.FULLY_REPARAMETERIZED:
            raise ValueError(
                f"{title}: {type(self).__name__} differentiates through samples, which the base "
                f"'{base.name}' does not allow. Take a normal or logistic base."
            )
