"""Class guidance of autoregressive flows."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows._checks import number
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import stepwise
from tfp_flows.bijectors.composition import context_shapes_of, is_transformed, replaced
from tfp_flows.bijectors.road import Road


def guided(flow, guidance, *, annealed_guidance=False, null_context=None, name=None):
    """A flow whose samples follow their context more closely than those of the flow it is made of.

    Of every autoregressive network, with p its parameters of an entry, `c` the context and `n` what
    stands for none,

        p_guided = (1 + w) p(x, c) - w p(x, n)        w = guidance, or guidance * s / (S - 1)

    at step s = 0 .. S - 1, so that what the context adds is added again w times. The result is a
    flow like the other, with the same variables: its samples are drawn, step by step, at twice the
    cost, and their log-density under it is exact. It is not the density of the data; train the flow
    itself, some rows without their context (`objectives.NoisyLikelihood(..., drop_label=0.1)`).

    Args:
      flow: `tfd.TransformedDistribution` with a context, such as `flows.tarflow(...,
        context_size=10)`: its parts that take one must be autoregressive, around a network that
        runs step by step. Preprocessing around it stays.
      guidance: `float >= 0`, the w. 0 is the flow itself.
      annealed_guidance: `bool`, whether the guidance rises from 0 at the first step to w at the
        last. Default: `False`.
      null_context: what stands for no context, as in `objectives.NoisyLikelihood`. Default: zeros.
      name: name of the distribution. Default: that of the flow.

    Returns:
      A `tfd.TransformedDistribution`.

    Raises:
      TypeError: if `flow` is no `tfd.TransformedDistribution`, or the guidance no number.
      ValueError: if the guidance is negative or not finite, or nothing takes a context, or a part
        that does is not autoregressive or its network has no steps.

    Numerics: it is the parameters as a network gives them that are mixed. With `log_scale="exp"`
    and `shift_first=False`, as in the paper, these are the shift and the log-scale themselves; the
    bound of other log-scales holds for the mixture, too.

    >>> from tfp_flows import flows
    >>> flow = flows.tarflow([4, 1], patch_size=2, width=8, num_layers=1, context_size=3, seed=0)
    >>> sharper = guided(flow, 2.0, annealed_guidance=True)
    >>> sharper.sample(5, seed=[0, 1], context=tf.one_hot([0, 1, 2, 0, 1], 3)).shape
    TensorShape([5, 4, 1])

    References: S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024,
    arXiv:2412.06329, section 2.5. J. Ho, T. Salimans, Classifier-free diffusion guidance, 2022,
    arXiv:2207.12598.
    """
    title = "flows.guided"
    if not is_transformed(flow):
        raise TypeError(
            f"{title}: expected a tfd.TransformedDistribution with a context, got "
            f"{type(flow).__name__}. Take flows.tarflow(..., context_size=...)."
        )
    guidance = number(guidance, "guidance", title)
    if not 0.0 <= guidance < np.inf:
        raise ValueError(f"{title}: guidance must be finite and at least 0, got {guidance}.")

    if Road(flow).context_shapes is None:
        raise ValueError(
            f"{title}: nothing in the flow '{flow.name}' takes a context. Build it with "
            "`context_size`, and train it so."
        )

    def replace(bijector):
        if context_shapes_of(bijector) is None:
            return bijector
        network = _steps_of(bijector)
        options = {"annealed_guidance": annealed_guidance, "null_context": null_context}
        return bijector.copy(conditioner=Guided(network, guidance, **options))

    return replaced(flow, replace, flow.name if name is None else name)


def _steps_of(bijector):
    """The network of an autoregressive bijector, if it runs step by step."""
    reason = f"it is a {type(bijector).__name__}"
    if isinstance(bijector, bijectors.MaskedAutoregressive):
        missing = stepwise.missing_parts(bijector.conditioner)
        if not missing:
            return bijector.conditioner
        reason = f"its network '{bijector.conditioner.name}' lacks {', '.join(missing)}"
    raise ValueError(
        f"flows.guided: '{bijector.name}' takes a context, but is no autoregressive bijector "
        f"around a network that runs step by step: {reason}. Take flows.tarflow, flows.pixel_cnn "
        "or another of networks with steps."
    )


@keras.saving.register_keras_serializable(package="tfp_flows")
class Guided(keras.layers.Layer):
    """A stepwise network whose parameters are those with a context, away from those without.

    It has the variables of `layer`, and runs it on twice the rows. See `guided`.

    Args:
      layer: Keras layer that runs step by step, with an `event_shape`, and takes a context.
      guidance, annealed_guidance, null_context: as `guided` has them.
      **kwargs: those of `keras.layers.Layer`.

    Raises:
      ValueError: if the null context does not broadcast to the layer's context.
    """

    def __init__(
        self, layer, guidance, *, annealed_guidance=False, null_context=None, dtype=None, **kwargs
    ):
        super().__init__(dtype=layer.dtype_policy if dtype is None else dtype, **kwargs)
        self.layer, self.guidance = layer, float(guidance)
        self.annealed_guidance = bool(annealed_guidance)
        self.event_shape, self.context_size = tuple(layer.event_shape), layer.context_size
        self.num_parameters = getattr(layer, "num_parameters", None)
        shapes = contexts.shapes_of(self.context_size, "flows.guided")
        self.null_context = contexts.check_null(null_context, shapes, "flows.guided")

    @property
    def num_steps(self):
        """Those of the layer."""
        return self.layer.num_steps

    @property
    def step_entries(self):
        """Those of the layer."""
        return self.layer.step_entries

    @property
    def cycle(self):
        """That of the layer, if it has one."""
        return self.layer.cycle

    def build(self, input_shape):
        """Builds the layer."""
        if not self.layer.built:
            self.layer.build(input_shape)

    def call(self, x, context):
        """The parameters of all entries."""
        n = tf.shape(x)[0]
        both = self.layer(tf.concat([x, x], 0), context=self._both(n, context))
        steps = np.empty(int(np.prod(self.event_shape)), np.int32)
        for step, entries in enumerate(self.step_entries):
            steps[entries] = step
        weight = np.broadcast_to(self._weight(steps.reshape(self.event_shape)), self.event_shape)
        # Parameter-major in the last axis.
        weight = np.tile(weight, both.shape[-1] // self.event_shape[-1])
        return _mixed(both, tf.constant(weight, both.dtype))

    def _weight(self, step):
        if not self.annealed_guidance:
            return self.guidance
        return self.guidance * step / max(1, self.num_steps - 1)

    def _both(self, n, context):
        """The contexts of n rows, and as many of none."""

        def rows(tensor):
            return tf.broadcast_to(tensor, tf.concat([[n], tf.shape(tensor)[1:]], 0))

        context = tf.nest.map_structure(rows, context)
        nothing = contexts.nothing(self.null_context, context)
        return tf.nest.map_structure(lambda a, b: tf.concat([a, b], 0), context, nothing)

    def init_cache(self, n, context, dtype):
        """That of the layer, of twice the rows."""
        return self.layer.init_cache(2 * n, self._both(n, context), dtype)

    def step(self, cache, s, previous, **told):
        """Parameters of step s: see `tfp_flows.bijectors.stepwise`."""
        both, cache = self.layer.step(cache, s, tf.concat([previous, previous], 0), **told)
        step = tf.cast(s, both.dtype) if self.annealed_guidance else s
        return _mixed(both, tf.cast(self._weight(step), both.dtype)), cache

    def get_config(self):
        """The constructor's arguments, for `keras.saving`."""
        return {
            **super().get_config(),
            "layer": keras.saving.serialize_keras_object(self.layer),
            "guidance": self.guidance,
            "annealed_guidance": self.annealed_guidance,
            "null_context": self.null_context,
        }

    @classmethod
    def from_config(cls, config):
        """The layer of `get_config`."""
        layer = keras.saving.deserialize_keras_object(config["layer"])
        return cls(**{**config, "layer": layer})


def _mixed(both, weight):
    with_it, without = tf.split(both, 2)
    return with_it + weight * (with_it - without)
