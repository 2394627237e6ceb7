"""Activation normalization."""

import tensorflow as tf

from tfp_flows._checks import positive_integer, positive_number
from tfp_flows.bijectors import initialization, modes
from tfp_flows.bijectors.base import FlowBijector, Weight


class ActNorm(FlowBijector):
    """A trained scale and shift per channel (or feature), initialised from data.

        forward:  y = x * exp(log_scale) + shift
        inverse:  x = (y - shift) * exp(-log_scale)
        log|det dy/dx| = sum(log_scale), for every position of an image

    It acts on the last axis: `[..., size]` for vectors, `[..., H, W, size]` for images.

    A fresh `ActNorm` is the identity and `initialized` is False. Inside
    `data_dependent_initialization()` (`FlowModel.initialize(batch)` and `fit` use it) the
    first batch it meets sets `shift` and `log_scale` so that what it puts out, in the
    direction in which the data passes, has mean 0 and variance 1 per channel. The flag is a
    variable: a checkpoint keeps it, and an initialised `ActNorm` is never set again.

    Args:
      size: `int >= 1`, size of the last axis.
      log_scale, shift, initialized: the variables, as `copy()` hands them over; arrays of
        shape `[size]` (and a `bool`) to start from. Default: 0, 0, False.
      epsilon: `> 0`, added to the standard deviation, so that a channel that hardly varies
        does not give a huge scale. Default 1e-6. One that is constant in the batch, but for
        rounding, starts with the scale 1, and a warning names it.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `size` is no integer.
      ValueError: if `size` or `epsilon` is out of range, or the batch that it is initialised
        from is empty, not finite, or a single position.
      RuntimeError: if initialised inside a `tf.function`.

    >>> actnorm = ActNorm(2)
    >>> data = tf.constant([[1.0, 10.0], [3.0, 30.0]])
    >>> with modes.data_dependent_initialization():
    ...     z = actnorm.inverse(data)
    >>> tf.round(z).numpy()
    array([[-1., -1.],
           [ 1.,  1.]], dtype=float32)

    References:
      D. P. Kingma, P. Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
      arXiv:1807.03039, section 3.1. Glow states it from data to latent.
    """

    log_scale = Weight("Variable `[size]`.")
    shift = Weight("Variable `[size]`.")
    initialized = Weight(
        "Boolean variable: whether the data-dependent initialisation has happened."
    )

    def __init__(
        self,
        size,
        *,
        log_scale=None,
        shift=None,
        initialized=None,
        epsilon=1e-6,
        name="actnorm",
        **kwargs,
    ):
        size = positive_integer(size, "size", self._title())
        epsilon = positive_number(epsilon, "epsilon", self._title())
        super().__init__(event_shape=[size], is_constant_jacobian=True, name=name, **kwargs)
        self.add_weight("log_scale", log_scale, [size])
        self.add_weight("shift", shift, [size])
        self.add_weight("initialized", initialized, [], False, dtype=tf.bool, trainable=False)
        self._epsilon = epsilon

    def _forward_and_log_det(self, x, context):
        if modes.initializing():
            self._initialize(x, inverse=False)
        y = x * tf.exp(self.log_scale) + self.shift
        return y, tf.reduce_sum(self.log_scale)

    def _inverse_and_log_det(self, y, context):
        if modes.initializing():
            self._initialize(y, inverse=True)
        x = (y - self.shift) * tf.exp(-self.log_scale)
        return x, -tf.reduce_sum(self.log_scale)

    def _initialize(self, value, *, inverse):
        # Moments first: all workers take part in the reduction, whatever their flag says.
        moments = initialization.global_moments(value, axes=list(range(value.shape.rank - 1)))
        # `.numpy()`: a MirroredVariable itself is always true (TF 2.21).
        if self.initialized.numpy():
            return
        initialization.check_moments(moments, value, self._title())
        mean, variance, _ = moments
        constant = initialization.warn_of_constant(mean, variance, self.dtype, self._title())
        log_std = tf.math.log(tf.where(constant, 1.0, tf.sqrt(variance) + self._epsilon))
        if inverse:
            shift, log_scale = mean, log_std
        else:
            shift, log_scale = -mean * tf.exp(-log_std), -log_std
        self.shift.assign(tf.cast(shift, self.dtype))
        self.log_scale.assign(tf.cast(log_scale, self.dtype))
        self.initialized.assign(True)
