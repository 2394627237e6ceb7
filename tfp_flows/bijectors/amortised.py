"""Bijectors whose parameters are their own, or partly the output of a network of a context."""

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network


class Amortised(FlowBijector):
    """A bijector with own parameters, to which a network of the context may add.

        parameters = own variables + conditioner(context)

    So a conditioner may start at zero, and the bijector still starts from useful parameters. A
    subclass declares each as a `Weight`, calls `add_parameters` in its constructor, and reads them
    by `self._parameters_at(context)`.
    """

    def add_parameters(self, conditioner, **parameters):
        """Makes the variables and takes the conditioner.

        Args:
          conditioner: Keras layer that maps the context to `[batch, count]`, the values of all
            parameters side by side in the order given; or `None`.
          **parameters: by the name of the `Weight`, what the constructor was given for it and the
            array that it starts from by default.

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
        shapes = {}
        for name, (value, start) in parameters.items():
            shapes[name] = np.shape(start)
            self.add_weight(name, value, shapes[name], start)
        self._shapes = self._no_dependency(shapes)
        self._network = None
        if conditioner is None:
            return
        if not isinstance(size, int):
            raise ValueError(
                f"{self._title()}: expected a context that is a vector, got context_size={size!r}. "
                "Flatten it first."
            )
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
