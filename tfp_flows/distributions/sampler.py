"""What can be sampled, and has no density."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows.bijectors.composition import check_distribution, title_of
from tfp_flows.bijectors.network import Network
from tfp_flows.bijectors.road import Road
from tfp_flows.distributions.unbatched import Unbatched

tfd = tfp.distributions


def event_of(layer, input_shape, dtype, title):
    """The shape of an event that a Keras layer makes of one of `input_shape`."""
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"{title}: its network must be a keras.layers.Layer, got {type(layer).__name__}. Wrap "
            "a function in a Layer subclass."
        )
    with tf.init_scope():
        shape = layer(tf.zeros([1, *input_shape], dtype)).shape[1:]
    if not shape.rank or not shape.is_fully_defined() or 0 in shape.as_list():
        raise ValueError(
            f"{title}: the layer '{layer.name}' must give events of a known shape, as [D] or "
            f"[H, W, C], got [batch, {', '.join(map(str, shape))}]. Set the size of its output."
        )
    return tuple(shape.as_list())


class Sampler(Unbatched):
    """The distribution of what a network makes of noise: samples without a density.

        x = network(z),     z ~ base

    Any network, between any two shapes: a generator. `log_prob` is refused, for a density would
    need the network's inverse. It is trained by an objective that compares samples,

    ```python
    sampler = distributions.Sampler(network, base)
    model = FlowModel(sampler, objective=objectives.MMD())
    model.compile(optimizer="adam")
    model.fit(x, batch_size=500, epochs=20)
    ```

    and scored by `metrics.mmd`, `metrics.sliced_wasserstein` and their like.

    Args:
      network: Keras layer that maps `[batch, *base.event_shape]` to `[batch, *event_shape]`; built
        here if it was not.
      base: distribution of the noise, without batch or context; normal, say.
      validate_args, allow_nan_stats, name: as `tfd.Distribution`.

    Raises:
      TypeError: if the network is no Keras layer, or the base no distribution.
      ValueError: if the base is none of a known event shape; by `FlowModel`, without an objective
        for samples.
      NotImplementedError: by `log_prob`.

    >>> import keras
    >>> sampler = Sampler(keras.layers.Dense(3), tfd.MultivariateNormalDiag(tf.zeros([2])))
    >>> sampler.sample(5, seed=[0, 1]).shape
    TensorShape([5, 3])

    References: Y. Li, K. Swersky, R. Zemel, Generative moment matching networks, 2015,
    arXiv:1502.02761, section 3.1.
    """

    has_density = False

    def __init__(self, network, base, *, validate_args=False, allow_nan_stats=True, name="sampler"):
        parameters = dict(locals())
        title = f"Sampler '{name}'"
        check_distribution(
            base, "the base", title, "Take tfd.MultivariateNormalDiag(tf.zeros([D]))."
        )
        road = Road(base)
        known = base.event_shape.rank and base.event_shape.is_fully_defined()
        if base.batch_shape.rank or not known or road.context_shapes is not None:
            raise ValueError(
                f"{title}: the base must be one distribution of vectors or images, without a "
                f"context, got {title_of(base)} of batch shape {base.batch_shape} and event shape "
                f"{base.event_shape}. Wrap it in tfd.Independent or tfd.Sample."
            )
        shape = tuple(base.event_shape.as_list())
        self._base, self._road = base, self._no_dependency(road)
        self._event = event_of(network, shape, road.dtype, title)
        self._network = Network(
            network, input_shape=shape, output_shape=self._event, owner=title, dtype=road.dtype
        )
        super().__init__(
            dtype=road.dtype,
            reparameterization_type=road.base.reparameterization_type,
            validate_args=validate_args,
            allow_nan_stats=allow_nan_stats,
            parameters=parameters,
            name=name,
        )

    @property
    def network(self):
        """The Keras layer."""
        return self._network.layer

    @property
    def base(self):
        """The distribution of the noise."""
        return self._base

    def _event_shape(self):
        return tf.TensorShape(self._event)

    def _log_prob(self, x):
        raise NotImplementedError(
            f"{self._title()}: it has no density: its network has no inverse. Train it by "
            "objectives.MMD or objectives.SlicedWasserstein, and score its samples by metrics.mmd."
        )

    def _sample_n(self, n, seed=None):
        return self._network(self._road.sample(tf.reshape(n, [1]), tfp.random.sanitize_seed(seed)))
