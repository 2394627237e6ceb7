"""Adam's update as TensorFlow's one kernel."""

import keras
import tensorflow as tf

from tfp_flows import _private


def use_fused_update(optimizer):
    """Makes a `keras.optimizers.Adam` update each variable by one TensorFlow kernel.

    Keras 3 writes Adam as a dozen small operations a variable. A Glow has hundreds of
    variables, so they are most of what there is to trace, and a good part of a step. The
    kernel computes the same formula on the same slots: checkpoints, configs and results
    (to rounding) are those of Keras. Optimizers of another class, AMSGrad and sparse
    gradients are left to Keras.
    """
    if type(optimizer) is keras.optimizers.Adam and not optimizer.amsgrad:
        update = _FusedUpdate(optimizer)
        _private.replace_update(optimizer, update.update_step, update.update_all)


class _FusedUpdate:
    """Kept out of the optimizer, whose attributes `tf.train.Checkpoint` follows."""

    def __init__(self, optimizer):
        self._optimizer = optimizer
        self._factors = None

    def update_all(self, *args):
        """Keras's loop over the variables, all of which share the powers of the betas."""
        self._factors = {}
        try:
            _private.update_all(self._optimizer, *args)
        finally:
            self._factors = None  # Of this step alone: a graph may hold several.

    def update_step(self, gradient, variable, learning_rate):
        """Updates one variable."""
        optimizer = self._optimizer
        if isinstance(gradient, tf.IndexedSlices):
            keras.optimizers.Adam.update_step(optimizer, gradient, variable, learning_rate)
            return
        dtype = variable.dtype
        mean, square = _private.moments_of(optimizer, variable)
        factors = {} if self._factors is None else self._factors
        if dtype not in factors:
            step = tf.cast(optimizer.iterations + 1, dtype)
            # `tf.constant`: `tf.cast` would take a Python float through float32.
            beta_1, beta_2 = (tf.constant(b, dtype) for b in (optimizer.beta_1, optimizer.beta_2))
            factors[dtype] = {
                "beta1_power": tf.pow(beta_1, step),
                "beta2_power": tf.pow(beta_2, step),
                "lr": tf.cast(learning_rate, dtype),
                "beta1": beta_1,
                "beta2": beta_2,
                "epsilon": tf.constant(optimizer.epsilon, dtype),
            }
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=mean.handle,
            v=square.handle,
            grad=tf.cast(gradient, dtype),
            **factors[dtype],
        )
