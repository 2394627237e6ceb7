"""What the bijectors share whose log-det is exact for small events and estimated for large ones."""

import numpy as np
import tensorflow as tf

from tfp_flows._checks import known_shape, one_of, optional_seed
from tfp_flows.bijectors.base import FlowBijector, Weight
from tfp_flows.bijectors.modes import in_training_mode
from tfp_flows.bijectors.weights import COUNTER

# Up to this size of an event the exact log-det is the default.
_EXACT_UP_TO = 16


class Estimated(FlowBijector):
    """A bijector with a choice of its log-det, and the noise of an estimate.

    In training each pass has noise of its own for each row; outside all rows have the same, at
    every call.

    Args:
      event_shape: shape of one event, known.
      by: "exact", the name of the estimate, or `None` to choose by the size of an event.
      estimate: its name.
      argument: name of the constructor's argument that `by` is, for messages.
      seed: `int` that the noise comes from. Default 0.
      passes: number of training passes so far, or the variable that counts them; of an estimate.
      **kwargs: as `FlowBijector`.
    """

    passes = Weight("Variable `[]`: how many passes of training have drawn noise.")

    def __init__(self, event_shape, *, by, estimate, argument, seed, passes, **kwargs):
        title = self._title()
        shape = known_shape(event_shape, "event_shape", title)
        if by is None:
            by = "exact" if np.prod(shape) <= _EXACT_UP_TO else estimate
        self._log_det_by = one_of(by, ("exact", estimate), argument, title)
        super().__init__(event_shape=shape, **kwargs)
        self._seed = optional_seed(seed, title) or 0
        if self.estimates_log_det:
            self.add_weight(
                "passes",
                passes,
                [],
                0,
                dtype=tf.int32,
                **COUNTER,
            )

    @property
    def estimates_log_det(self):
        """Whether the log-det is an estimate."""
        return self._log_det_by != "exact"

    def _seed_of_pass(self):
        """The seed of the noise of this pass."""
        fold = tf.random.experimental.stateless_fold_in
        seed = tf.stack([tf.cast(self._seed, tf.int32), 0])
        if in_training_mode():
            self.passes.assign_add(1)
            seed = fold(seed, tf.convert_to_tensor(self.passes))
            replica = tf.distribute.get_replica_context()
            if replica is not None:
                seed = fold(seed, replica.replica_id_in_sync_group)
        return seed

    def _signs(self, x, seed):
        """Random signs of the shape of `x`."""
        shape = tf.shape(x) if in_training_mode() else list(self._domain)
        signs = tf.random.stateless_uniform(shape, seed, 0, 2, tf.int32)
        return tf.stop_gradient(tf.cast(2 * signs - 1, x.dtype) + tf.zeros_like(x))
