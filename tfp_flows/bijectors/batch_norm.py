"""Batch normalization as a bijector."""

import numpy as np
import tensorflow as tf

from tfp_flows._checks import positive_integer, positive_number
from tfp_flows.bijectors import initialization, modes
from tfp_flows.bijectors.base import FlowBijector, Weight


class BatchNorm(FlowBijector):
    """Batch normalization between the layers of a flow, with running statistics.

    With mean m and variance v per feature, and trained log_scale and shift,

        inverse:  x = (y - m) / sqrt(v + epsilon) * exp(log_scale) + shift
        forward:  y = (x - shift) * exp(-log_scale) * sqrt(v + epsilon) + m
        log|det dx/dy| = sum(log_scale - log(v + epsilon) / 2)

    The inverse is the direction from data to latents. There, and in training mode alone
    (`FlowModel.fit`, or `training_mode()` in a loop of your own), m and v are the moments of
    the batch, with gradients through them, and move the running statistics:

        running = momentum * running + (1 - momentum) * batch

    Everywhere else m and v are the running statistics: a density then depends on its own row
    only, and the two directions are exact inverses. Under a `tf.distribute` strategy the
    moments are those of the global batch. A batch that holds NaN or infinities leaves the
    running statistics as they are.

    Inside `data_dependent_initialization()` (`FlowModel.initialize(batch)` and `fit` use it) the
    first batch sets the running statistics, once, as it does for `ActNorm`.

    Shapes: it acts on the last axis, `[..., size]`; for images the moments are those of all
    positions. Every axis before the last but the batch's belongs to a single event or not:
    the log-det is that of one vector `[size]`.

    Args:
      size: `int >= 1`, size of the last axis.
      momentum: in `[0, 1)`, weight of the past in the running statistics. Default 0.9. With 0.99
        they lag behind the layers before them by a hundred steps.
      epsilon: `> 0`, added to the variance. Default 1e-5, as in the MAF paper. A feature that
        hardly varies in a batch is divided by its root.
      log_scale, shift, mean, variance, initialized: the variables, as `copy()` hands them over,
        or arrays of shape `[size]` (and a `bool`) to start from. Default: 0, 0, 0, 1, False.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `size` is no integer.
      ValueError: if `size`, `momentum` or `epsilon` is out of range, the batch that it is
        initialised from is empty, not finite, or a single position, or if in training mode the
        argument is a single event without a batch axis.

    >>> norm = BatchNorm(2, momentum=0.0)
    >>> data = tf.constant([[1.0, 10.0], [3.0, 30.0]])
    >>> from tfp_flows.bijectors.modes import training_mode
    >>> with training_mode():
    ...     z = norm.inverse(data)
    >>> tf.round(z).numpy()
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)
    >>> norm.mean.numpy()
    array([ 2., 20.], dtype=float32)

    References:
      G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
      estimation, 2017, arXiv:1705.07057, appendix B; L. Dinh, J. Sohl-Dickstein, S. Bengio,
      Density estimation using Real NVP, 2017, arXiv:1605.08803, section 3.7 and appendix E.
      Unlike in RealNVP the gradient goes through the batch's moments, not through running
      ones; the log-det, as in both, leaves out that the moments depend on the row.
    """

    log_scale = Weight("Variable `[size]`.")
    shift = Weight("Variable `[size]`.")
    mean = Weight("Variable `[size]`, the running mean.")
    variance = Weight("Variable `[size]`, the running variance.")
    initialized = Weight("Boolean variable: whether the running statistics were set from data.")

    def __init__(
        self,
        size,
        *,
        momentum=0.9,
        epsilon=1e-5,
        log_scale=None,
        shift=None,
        mean=None,
        variance=None,
        initialized=None,
        name="batch_norm",
        **kwargs,
    ):
        title = self._title()
        size = positive_integer(size, "size", title)
        if not 0 <= momentum < 1:
            raise ValueError(f"{title}: momentum must be in [0, 1), got {momentum!r}.")
        epsilon = positive_number(epsilon, "epsilon", title)
        super().__init__(event_shape=[size], is_constant_jacobian=True, name=name, **kwargs)
        # Each replica moves its own copy, to equal values, for their moments are those of the
        # global batch: no reduction is needed at the assignment.
        running = {
            "trainable": False,
            "synchronization": tf.VariableSynchronization.ON_READ,
            "aggregation": tf.VariableAggregation.MEAN,
        }
        self.add_weight("log_scale", log_scale, [size])
        self.add_weight("shift", shift, [size])
        self.add_weight("mean", mean, [size], **running)
        self.add_weight("variance", variance, [size], 1.0, **running)
        self.add_weight("initialized", initialized, [], False, dtype=tf.bool, trainable=False)
        self._momentum, self._epsilon = momentum, epsilon

    def _forward_and_log_det(self, x, context):
        variance = self.variance + self._epsilon
        y = (x - self.shift) * (tf.exp(-self.log_scale) * tf.sqrt(variance)) + self.mean
        return y, tf.reduce_sum(0.5 * tf.math.log(variance) - self.log_scale)

    def _inverse_and_log_det(self, y, context):
        if modes.initializing():
            self._initialize(y)
        mean, variance = self.mean, self.variance
        if modes.in_training_mode():
            mean, variance = self._moments(y)
            self._move(self.mean, mean)
            self._move(self.variance, variance)
        variance = variance + self._epsilon
        x = (y - mean) * (tf.exp(self.log_scale) * tf.math.rsqrt(variance)) + self.shift
        return x, tf.reduce_sum(self.log_scale - 0.5 * tf.math.log(variance))

    def _moments(self, y):
        """Moments of the global batch, differentiable."""
        if y.shape.rank == 1:
            raise ValueError(
                f"{self._title()}: in training mode it needs a batch to normalize by, got a single "
                "event."
            )
        axes = list(range(y.shape.rank - 1))
        rows = tf.cast(tf.reduce_prod(tf.shape(y)[:-1]), y.dtype)
        # Float32 sums of raw values would lose a spread that is small against the mean, so both
        # sums are of distances: to the running mean, then to the mean that this gives, of which
        # the second one corrects what is left. Both pivots are the same on all replicas.
        pivot = tf.convert_to_tensor(self.mean)
        total, rows = _over_replicas([tf.reduce_sum(y - pivot, axes), rows])
        pivot = tf.stop_gradient(pivot + total / rows)  # no moment depends on it
        distance = y - pivot
        total, squares = _over_replicas(
            [tf.reduce_sum(distance, axes), tf.reduce_sum(tf.square(distance), axes)]
        )
        rest = total / rows
        variance = squares / rows - tf.square(rest)
        # What rounding leaves of the difference may be negative.
        least = tf.stop_gradient(tf.square(rest)) * np.finfo(y.dtype.as_numpy_dtype).eps
        return pivot + rest, tf.where(variance < least, least, variance)

    def _move(self, running, batch):
        batch = tf.stop_gradient(batch)
        moved = self._momentum * running + (1.0 - self._momentum) * batch
        running.assign(tf.where(tf.reduce_all(tf.math.is_finite(batch)), moved, running))

    def _initialize(self, y):
        # Moments first: all workers take part in the reduction, whatever their flag says.
        moments = initialization.global_moments(y, axes=list(range(y.shape.rank - 1)))
        if self.initialized.numpy():  # a MirroredVariable itself is always true (TF 2.21)
            return
        initialization.check_moments(moments, y, self._title())
        mean, variance, _ = moments
        self.mean.assign(tf.cast(mean, self.dtype))
        self.variance.assign(tf.cast(variance, self.dtype))
        self.initialized.assign(True)


def _over_replicas(values):
    replica = tf.distribute.get_replica_context()
    if replica is None or replica.num_replicas_in_sync == 1:
        return values
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, values)
