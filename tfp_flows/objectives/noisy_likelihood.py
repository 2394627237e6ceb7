"""The likelihood of noisy data, and the step back from noisy samples."""

import keras
import tensorflow as tf

from tfp_flows._checks import number, positive_number
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.road import Road
from tfp_flows.objectives.base import Objective


@keras.saving.register_keras_serializable(package="tfp_flows")
class NoisyLikelihood(Objective):
    """The negative log-likelihood of data with Gaussian noise, some of them without their context.

        loss(x, c) = -log p(x + noise_std e | c')        e standard normal, of every entry
        c' = null_context with the probability drop_label, else c

    TarFlow's recipe for samples that look good. Noise in training spreads the density over the
    neighbourhood of the data, in place of dequantization: images may be whole numbers, as floats.
    Samples are then as noisy as what it was trained on, and `denoise` takes one step back, towards
    the mean of the data that a noisy sample may have come from (Tweedie's formula),

        denoise(y) = y + noise_std^2 grad log p(y | c)

    which is exact if p is the density of noisy data. A flow that has seen rows without their
    context can be sharpened by `flows.guided`.

    ```python
    flow = flows.tarflow([28, 28, 1], context_size=10, log_scale="exp")
    objective = objectives.NoisyLikelihood(noise_std=0.1, drop_label=0.1)
    model = FlowModel(flow, objective=objective)
    model.fit(images, classes)  # within -1 and 1; one-hot
    sharper = FlowModel(flows.guided(flow, guidance=2.0, annealed_guidance=True))
    noisy = sharper.sample(10, context=classes[:10])
    clean = objective.denoise(flow, noisy, classes[:10])
    ```

    `evaluate` reports the loss, of noisy data, and "nats", the mean negative log-likelihood of
    the data as they are. The latter has no bound where these are whole numbers: for likelihoods
    train by `preprocessing.UniformDequantization` without this objective, as the paper does.

    Args:
      noise_std: `float > 0`, deviation of the noise in the data's units. The paper has 0.05 to 0.15
        for images within -1 and 1.
      drop_label: `float` in `[0, 1)`, share of rows that are trained without their context.
        Default: 0; the paper has 0.1.
      null_context: what stands for no context: array of the context's shape or one that broadcasts
        to it, or a dictionary of them by name. Default: zeros. Of one-hot labels of K classes
        `[1 / K] * K` is the mean of their embeddings, as the paper has it. With a `context_network`
        it takes the place of what that gives.

    Raises:
      TypeError: if a number is none.
      ValueError: if one is out of range; by `FlowModel`, for a distribution of discrete values, or
        labels to drop where there is no context.

    >>> from tfp_flows import flows
    >>> flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    >>> objective = NoisyLikelihood(0.1)
    >>> objective.loss(flow, (tf.zeros([3, 2]), None), seed=[0, 1]).shape
    TensorShape([3])
    >>> objective.denoise(flow, tf.ones([1, 2])).numpy().round(3)  # of a standard normal one
    array([[0.99, 0.99]], dtype=float32)

    References: S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024,
    arXiv:2412.06329, sections 2.3 to 2.5. B. Efron, Tweedie's formula and selection bias, 2011,
    Journal of the American Statistical Association 106.
    """

    def __init__(self, noise_std, drop_label=0.0, null_context=None):
        title = type(self).__name__
        self.noise_std = positive_number(noise_std, "noise_std", title)
        self.drop_label = number(drop_label, "drop_label", title)
        if not 0.0 <= self.drop_label < 1.0:
            raise ValueError(f"{title}: drop_label must lie in [0, 1), got {drop_label!r}.")
        self.null_context = contexts.check_null(null_context, None, title)

    def get_config(self):
        """Returns `noise_std`, `drop_label` and `null_context`."""
        names = "noise_std", "drop_label", "null_context"
        return {name: getattr(self, name) for name in names}

    @property
    def adds_noise(self):
        """Always."""
        return True

    def check(self, distribution, title):
        """Refuses distributions of discrete values, and labels to drop where there are none."""
        levels = getattr(distribution, "num_levels", None)
        if levels is not None or not tf.as_dtype(distribution.dtype).is_floating:
            raise ValueError(
                f"{title}: NoisyLikelihood adds noise to real numbers, but the distribution "
                f"'{distribution.name}' is one of levels. Leave the objective out."
            )
        shapes = Road(distribution).context_shapes
        if shapes is None and (self.drop_label or self.null_context is not None):
            raise ValueError(
                f"{title}: NoisyLikelihood would drop labels, but the distribution takes no "
                "context. Set drop_label=0, or build it with `context_size`."
            )
        contexts.check_null(self.null_context, shapes, title)

    def draw_noise(self, distribution, rows, seed):
        """That of entries, the chance of each row to lose its label, and that of the density."""
        road, own = Road(distribution), tf.random.experimental.stateless_fold_in(seed, 1)
        seeds = tf.random.experimental.stateless_split(seed, 2)
        shape = [rows, *distribution.event_shape]
        found = {"entries": tf.random.stateless_normal(shape, seeds[0], dtype=road.dtype)}
        if self.drop_label:
            found["chance"] = tf.random.stateless_uniform([rows], seeds[1])
        if road.is_noisy:
            found["density"] = road.draw_noise([rows], own)
        return found

    def loss(self, distribution, batch, seed, noise=None):
        """The negative log-density of each row with noise."""
        x, context = batch
        if noise is None:
            noise = self.draw_noise(distribution, tf.shape(x)[0], seed)
        if context is not None and self.drop_label:
            context = self._without(context, noise["chance"] < self.drop_label)
        noisy = x + self.noise_std * noise["entries"]
        return -Road(distribution).log_prob(noisy, context, noise.get("density"))

    def _without(self, context, dropped):
        def of_rows(tensor, nothing):
            rows = tf.reshape(dropped, [-1] + [1] * (tensor.shape.rank - 1))
            return tf.where(rows, nothing, tensor)

        nothing = contexts.nothing(self.null_context, context)
        return tf.nest.map_structure(of_rows, context, nothing)

    def denoise(self, distribution, y, context=None):
        """One step from noisy samples towards the data: `y + noise_std^2 grad log p(y | context)`.

        Args:
          distribution: the one that was trained; a guided one is narrower than the noise, and the
            step would go too far.
          y: tensor or array `[..., *event_shape]`, samples of it, or of a guided one.
          context: as `log_prob` of the distribution takes it.

        Returns:
          Tensor of the shape of `y`.
        """
        road = Road(distribution)
        y = tf.convert_to_tensor(y, road.dtype)
        if context is not None:
            context = tf.nest.map_structure(
                lambda c: tf.cast(tf.convert_to_tensor(c), road.dtype), context
            )
        with tf.GradientTape() as tape:
            tape.watch(y)
            total = tf.reduce_sum(road.log_prob(y, context))
        return y + self.noise_std**2 * tape.gradient(total, y)
