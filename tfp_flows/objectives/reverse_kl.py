"""The reverse Kullback-Leibler divergence."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.road import Road
from tfp_flows.objectives._drawn import Drawn

tfd = tfp.distributions


@keras.saving.register_keras_serializable(package="tfp_flows")
class ReverseKL(Drawn):
    """The divergence from an unnormalised density: variational inference, which needs no data.

        loss = E over x from q of (log q(x) - log p~(x)) = KL(q || p) - log Z

    with q the flow and p = p~ / Z the target: the negative evidence lower bound, whose least value
    is -log Z. Each step draws `num_samples` fresh rows from the flow, and differentiates through
    them. `FlowModel.fit` then takes no data but `steps_per_epoch`, and `evaluate` `steps`:

    ```python
    model = FlowModel(flows.planar([2], seed=0), objective=objectives.ReverseKL(target))
    model.compile(optimizer="adam")
    model.fit(steps_per_epoch=200, epochs=20)
    ```

    Flows whose sampling is cheap suit it: `flows.planar`, `flows.sylvester`, `flows.iaf` and
    couplings. The divergence is small where q has found one mode of several.

    Args:
      target: function of x `[n, *event_shape]` that returns log p~ `[n]`, or a `tfd.Distribution`.
        A file keeps a distribution, or a function or object that is registered by
        `keras.saving.register_keras_serializable`; of any other it says that it lacks it.
      num_samples: `int >= 1`, rows a step, on all replicas together. Default: 256.
      seed: `int`, folded into the seed of each step. Default: 0.
      lacks: why a file has no target, of an objective that was loaded without.

    Raises:
      TypeError: if the target is neither, or a number no integer.
      ValueError: by `FlowModel`, for a conditional distribution, one whose base has no gradient
        through its samples, or a part that is initialised from data; by a step, if the target
        gives another shape than `[n]`, or there is none.

    >>> from tfp_flows import flows
    >>> target = tfd.MultivariateNormalDiag([1.0, 2.0])
    >>> flow = flows.planar([2], num_layers=2, seed=0)
    >>> ReverseKL(target).loss(flow, tf.constant(4), seed=[0, 1]).shape
    TensorShape([4])

    References:
      D. J. Rezende, S. Mohamed, Variational inference with normalizing flows, 2015,
      arXiv:1505.05770, section 4.2.
    """

    def __init__(self, target, *, num_samples=256, seed=None, lacks=None):
        if not callable(target) and not isinstance(target, tfd.Distribution) and lacks is None:
            raise TypeError(
                "ReverseKL: target must be a function of x that returns log-densities, or a "
                f"tfd.Distribution, got {type(target).__name__}."
            )
        super().__init__(num_samples, seed, lacks)
        self.target = target

    def get_config(self):
        """The constructor's arguments."""
        return {"target": self.target, **super().get_config()}

    def without_target(self, reason):
        """The same without the target, and why."""
        return ReverseKL(None, num_samples=self.num_samples, seed=self.seed, lacks=reason)

    def check(self, distribution, title):
        """Refuses what has no gradient through its samples, and conditional distributions."""
        road = Road(distribution)
        amortised = "; an amortised posterior belongs into a distributions.VAE"
        self._refuse_context(distribution, title, "one target", amortised)
        if road.is_noisy:
            raise ValueError(
                f"{title}: ReverseKL needs the log-density of its samples, of which "
                f"'{road.base.name}' has a {road.likelihood} from below, which is none of the "
                "divergence. Take a flow."
            )
        self._refuse_samples_without_gradient(distribution, title)

    def draw_noise(self, distribution, rows, seed):
        """Points of the base, unless that is trained: then they have a gradient."""
        road = Road(distribution)
        if road.base.variables:
            return None
        return road.base_sample(tf.reshape(rows, [1]), self._seed_of(seed))

    def loss(self, distribution, batch, seed, noise=None):
        """log q - log p~ of fresh samples."""
        self._refuse_lack(self.target, "target")
        road, z = Road(distribution), noise
        if z is None:
            z = road.base_sample(batch[tf.newaxis], self._seed_of(seed))
        x, log_q = road.forward_and_log_prob(z)
        act = self.target.log_prob if isinstance(self.target, tfd.Distribution) else self.target
        log_p = tf.convert_to_tensor(act(x))
        if log_p.shape.rank != 1 or not log_p.shape.is_compatible_with(log_q.shape):
            raise ValueError(
                f"ReverseKL: the target must give one log-density a row, of shape [n] for x of "
                f"shape [n, {', '.join(map(str, distribution.event_shape))}], got shape "
                f"{log_p.shape}. Sum over the event: tf.reduce_sum(..., axis=-1)."
            )
        return log_q - tf.cast(log_p, log_q.dtype)
