"""What distributions share that are one each, without a batch shape."""

import tensorflow as tf
import tensorflow_probability as tfp


class Unbatched(tfp.distributions.Distribution):
    """The base class of distributions without a batch shape, made of parts and not of tensors.

    A subclass gives `_event_shape`.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # TFP warns at every copy of who inherits this. No part has a batch axis to be sliced, in
        # whatever subclass.
        inherited = vars(cls).get("_parameter_properties")
        if hasattr(getattr(inherited, "__func__", inherited), "__wrapped__"):
            del cls._parameter_properties

    @classmethod
    def _parameter_properties(cls, dtype, num_classes=None):
        return {}

    def _title(self):
        return f"{type(self).__name__} '{self.name}'"

    def __getitem__(self, slices):
        """The distribution itself for `...`; there is no batch shape to take a part of."""
        # TFP slices parameters, of which there are none, and would answer anything by a copy.
        given = slices if isinstance(slices, tuple) else (slices,)
        if any(s is not Ellipsis for s in given):
            raise IndexError(
                f"{self._title()}: too many indices, {len(given)}, for the "
                "batch shape []. Give one with a context to tfp_flows.condition, whose batch shape "
                "is the context's."
            )
        return self.copy()

    def _batch_shape(self):
        return tf.TensorShape([])

    def _batch_shape_tensor(self):
        return tf.constant([], tf.int32)

    def _event_shape_tensor(self):
        return tf.constant(self.event_shape.as_list(), tf.int32)

    def _default_event_space_bijector(self):
        return None


def known_sizes(shape):
    """The sizes of a shape that is a tensor, `None` where they are not known."""
    known = tf.get_static_value(shape)
    return [None] * shape.shape[0] if known is None else known.tolist()
