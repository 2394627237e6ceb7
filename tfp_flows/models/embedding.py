"""The network between raw conditions and the context of a flow."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import context as contexts


class Embedding:
    """Maps raw conditions (images, labels, sets) to the context that a distribution takes.

    Args:
      layer: Keras layer or model, called with the raw conditions as they are.
      example: `models.example.Example`, with the shapes of the context that it is to give.
    """

    def __init__(self, layer, example):
        title = example.title
        if not isinstance(layer, keras.layers.Layer):
            raise TypeError(
                f"{title}: context_network must be a keras.layers.Layer (Keras 3), got "
                f"{type(layer).__name__}."
            )
        if example.context_shapes is None:
            raise ValueError(
                f"{title}: got a context_network, but no part of the distribution takes a context. "
                "Build the flow with `context_size`."
            )
        self.layer = layer
        self.specs = None  # `tf.TensorSpec`s of the raw conditions, once they are known
        self._example, self._title = example, title

    def __call__(self, raw, training=False):
        """The context of a batch of raw conditions."""
        context = self.layer(raw, training=training)
        contexts.check(
            context,
            self._example.context_shapes,
            f"{self._title}: its context_network '{self.layer.name}'",
            required="",
            ignored="",
        )
        return context

    def build(self, raw):
        """Makes the network's variables, from conditions of which one is enough.

        Args:
          raw: tensors, arrays or `tf.TensorSpec`s with a batch axis.
        """
        if self.specs is not None:
            return
        specs = tf.nest.map_structure(self._spec_of, raw)
        with tf.init_scope():
            self(tf.nest.map_structure(lambda s: tf.zeros([1, *s.shape[1:]], s.dtype), specs))
        self.specs = specs

    def _spec_of(self, tensor):
        shape = tf.TensorShape(tensor.shape if hasattr(tensor, "shape") else np.shape(tensor))
        if not shape.rank or not shape[1:].is_fully_defined():
            raise ValueError(
                f"{self._title}: the shapes of the raw conditions are not known ({shape}). Give "
                "arrays, or a dataset of batches with known sizes but for the first."
            )
        dtype = tf.as_dtype(getattr(tensor, "dtype", np.asarray(tensor).dtype))
        return tf.TensorSpec(
            [None, *shape[1:]], self._example.dtype if dtype.is_floating else dtype
        )
