"""A bijector under test, with its points."""

import numpy as np
import tensorflow as tf

DIRECTIONS = ("forward", "inverse")
BACK = {"forward": "inverse", "inverse": "forward"}


class Subject:
    """Builds the bijector, perturbs its weights and calls it past TFP's caches.

    Args:
      make: function that returns a fresh bijector.
      x, y, context: points, as in `assert_bijector`.
      dtype: dtype of the points.
      event_ndims: rank of one event of `x`.
      perturbation: standard deviation of the noise on the weights.
      seed: seeds the noise and the points.
      reference: the same bijector in float64, whose Jacobian is the better judge.
      directions: those that there are.
    """

    def __init__(
        self,
        make,
        x,
        *,
        dtype,
        event_ndims,
        y,
        context,
        perturbation,
        seed,
        reference,
        directions=DIRECTIONS,
    ):
        self.make = make
        self.dtype, self.directions = dtype, tuple(directions)
        self.rng = np.random.default_rng(seed)
        self._perturbation = perturbation
        self._seed = seed
        self.bijector = self.perturbed(make())
        self.reference = reference
        self.context = None if context is None else tf.constant(context, dtype)
        self.x = tf.constant(x, dtype)
        self.event_ndims = {"forward": event_ndims}
        self.event_ndims["inverse"] = self.bijector.forward_event_ndims(event_ndims)
        if y is None:
            shape = [len(x), *self.bijector.forward_event_shape(self.x.shape[1:])]
            if self.directions == DIRECTIONS:  # Then no word of the bijector is taken for it.
                shape = self.call("forward", self.x).shape
            scale = np.where(np.arange(len(x)) % 2, 3.0, 1.0)
            y = self.rng.normal(size=shape) * scale.reshape([-1] + [1] * (len(shape) - 1))
        self.y = tf.constant(y, dtype)
        # Filled in by assert_bijector.
        self.zero_pattern = None
        self.conditioner_calls = (1, 1)
        self.xla = True
        self.round_trip_tolerance = self.log_det_tolerance = None

    def perturbed(self, bijector):
        """Adds the same noise to every trainable variable of a fresh bijector."""
        rng = np.random.default_rng(self._seed + 1)
        for variable in bijector.trainable_variables:
            noise = rng.normal(size=variable.shape, scale=self._perturbation)
            variable.assign_add(tf.cast(noise, variable.dtype))
        return bijector

    @property
    def kwargs(self):
        """What every call of the bijector takes besides its argument."""
        return {} if self.context is None else {"context": self.context}

    def points(self, direction):
        """The argument of a direction."""
        return self.x if direction == "forward" else self.y

    def call(self, direction, value, bijector=None, **kwargs):
        """`forward` or `inverse`, on a fresh tensor."""
        act = getattr(bijector or self.bijector, direction)
        return act(tf.identity(value), **(kwargs or self.kwargs))

    def log_det(self, direction, value, bijector=None, **kwargs):
        """The log-det of a direction, on a fresh tensor."""
        act = getattr(bijector or self.bijector, f"{direction}_log_det_jacobian")
        ndims = self.event_ndims[direction]
        return act(tf.identity(value), event_ndims=ndims, **(kwargs or self.kwargs))

    def outputs(self, bijector):
        """Values and log-dets of both directions, as arrays."""
        return {
            f"{direction} {what}": act(direction, self.points(direction), bijector).numpy()
            for direction in self.directions
            for what, act in (("value", self.call), ("log-det", self.log_det))
        }


def expect(condition, message):
    """Raises an `AssertionError`, also where Python runs with -O."""
    if not condition:
        raise AssertionError(message)


def expect_close(got, wanted, tolerance, message):
    """Compares relative to `1 + |wanted|`, and refuses NaN; one number may stand for many."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    got = np.broadcast_to(got, wanted.shape) if got.ndim == 0 else got
    expect(got.shape == wanted.shape, f"{message}: shape {got.shape}, expected {wanted.shape}")
    error = np.abs(got.astype(np.float64) - wanted) / (1.0 + np.abs(wanted))
    worst = error.max() if error.size else 0.0
    expect(worst <= tolerance, f"{message}: off by {worst:.3g} (relative), allowed {tolerance:g}")
