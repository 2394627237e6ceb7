"""Bijectors whose parameters are their own, or partly the output of a network of a context."""

import abc

import numpy as np
import tensorflow as tf

from tfp_flows._checks import optional_seed, positive_integer
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network


class Amortised(FlowBijector):
    """A bijector over `[D]` with own parameters, to which a network of the context may add.

        parameters = own variables + conditioner(context)

    So a conditioner may start at zero, and the bijector still starts from useful parameters. A
    subclass declares each as a `Weight`, says by `_start` what they start from, calls
    `add_parameters` in its constructor, and reads them by `self._parameters_at(context)`.

    Args:
      size: `int >= 1`, number of entries D.
      conditioner: Keras layer that maps the context to `[batch, count]`, the values of all
        parameters side by side in their order; or `None`.
      context_size: size of the context. Default: that of the conditioner.
      seed: `int >= 0`, or `None`, of what they start from.
      **kwargs: as `FlowBijector`.
    """

    _random: tuple = ()  # Names of the parameters whose start is drawn.

    def __init__(self, size, *, conditioner, context_size, seed, **kwargs):
        title = self._title()
        size = positive_integer(size, "size", title)
        self._seed = optional_seed(seed, title)
        context_size = contexts.given_or_own(context_size, conditioner)
        super().__init__(event_shape=[size], context_size=context_size, **kwargs)

    @abc.abstractmethod
    def _start(self, size, seed):
        """Returns by the name of each `Weight` the array that it starts from, in their order."""

    def add_parameters(self, conditioner, **given):
        """Makes the variables and takes the conditioner.

        Args:
          conditioner: the constructor's.
          **given: by the name of the `Weight`, what the constructor was given for it.

        Raises:
          ValueError: if there is a conditioner and no `context_size`, or the other way round, or
            the context is no vector.
        """
        size = self.context_size
        if (conditioner is None) != (size is None):
            got = "no conditioner" if conditioner is None else "no context_size"
            raise ValueError(
                f"{self._title()}: a conditioner and the size of the context that it takes go "
                f"together, got {got}. Give both, or none."
            )
        starts = self._start(self._domain[0], self._seed)
        self._shapes = self._no_dependency({name: np.shape(v) for name, v in starts.items()})
        for name, start in starts.items():
            self.add_weight(name, given[name], self._shapes[name], start)
        drawn = [name for name in self._random if name in starts and given[name] is None]
        self._drawn = self._no_dependency(drawn)
        self._network = None
        if conditioner is None:
            return
        contexts.check_vector(size, self._title())
        self._network = Network(
            conditioner,
            input_shape=[size],
            output_shape=[self.num_parameters],
            owner=self._title(),
            dtype=self.dtype,
        )

    @property
    def num_parameters(self):
        """How many numbers a conditioner has to give."""
        return sum(int(np.prod(shape)) for shape in self._shapes.values())

    def redrawn(self, reseed):
        """Others of the parameters that were drawn."""
        starts = self._start(self._domain[0], reseed(self._seed))
        return [(getattr(self, f"_{name}"), starts[name]) for name in self._drawn]

    def _parameters_at(self, context):
        """The parameters in their order, each `[*shape]` or `[..., *shape]`."""
        own = [tf.convert_to_tensor(getattr(self, name)) for name in self._shapes]
        if self._network is None:
            return own
        sizes = [int(np.prod(shape)) for shape in self._shapes.values()]
        parts = tf.split(self._network(context), sizes, axis=-1)
        batch = tf.shape(context)[:-1]
        return [
            value + tf.reshape(part, tf.concat([batch, shape], axis=0))
            for value, part, shape in zip(own, parts, self._shapes.values(), strict=True)
        ]
