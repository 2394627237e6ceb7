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
        context = self.layer(self.check(raw), training=training)
        contexts.check(
            context,
            self._example.context_shapes,
            f"{self._title}: its context_network '{self.layer.name}'",
            required="",
            ignored="",
        )
        return context

    def check(self, raw):
        """The raw conditions, if they are no labels that an `Embedding` has no vector of.

        Keras takes -1, which often stands for a missing label, for the last one, and 2.7 for 2.

        Raises:
          ValueError: if they are, of arrays and eager tensors.
          tf.errors.InvalidArgumentError: of others. Not under XLA, which drops assertions.
        """
        layer = self.layer
        if isinstance(layer, keras.Sequential) and layer.layers:
            layer = layer.layers[0]
        if not isinstance(layer, keras.layers.Embedding) or isinstance(raw, (dict, list, tuple)):
            return raw
        expected = (
            f"{self._title}: expected labels from 0 to {layer.input_dim - 1}, of which its "
            f"context_network '{self.layer.name}' has vectors, got"
        )
        remedy = "Number them so, or give the Embedding a larger input_dim."
        known = tf.get_static_value(raw)
        if known is None:
            labels = tf.convert_to_tensor(raw)
            wrong = ~((labels >= 0) & (labels < layer.input_dim))
            if labels.dtype.is_floating:
                wrong |= labels != tf.floor(labels)
            count = tf.math.count_nonzero(wrong)
            check = tf.debugging.Assert(count == 0, [expected, count, f"others. {remedy}"])
            with tf.control_dependencies([check]):
                return tf.identity(labels)
        known = np.asarray(known)
        if known.dtype.kind not in "biuf":
            return raw
        fits = (known >= 0) & (known < layer.input_dim) & (known == np.floor(known))
        if not fits.all():
            raise ValueError(f"{expected} {known[~fits].flat[0]}. {remedy}")
        return raw

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
