"""Adam's update as TensorFlow's one kernel."""

import types

import keras
import tensorflow as tf


def use_fused_update(optimizer):
    """Makes a `keras.optimizers.Adam` update each variable by one TensorFlow kernel.

    Keras 3 writes Adam as a dozen small operations a variable. A Glow has hundreds of
    variables, so they are most of what there is to trace, and a good part of a step. The
    kernel computes the same formula on the same slots: checkpoints, configs and results
    (to rounding) are those of Keras. Optimizers of another class, AMSGrad and sparse
    gradients are left to Keras.
    """
    if type(optimizer) is keras.optimizers.Adam and not optimizer.amsgrad:
        optimizer.update_step = types.MethodType(_update_step, optimizer)


def _update_step(self, gradient, variable, learning_rate):
    if isinstance(gradient, tf.IndexedSlices):
        keras.optimizers.Adam.update_step(self, gradient, variable, learning_rate)
        return
    dtype = variable.dtype
    index = self._get_variable_index(variable)
    step = tf.cast(self.iterations + 1, dtype)
    # `tf.constant`: `tf.cast` would take a Python float through float32.
    beta_1, beta_2 = tf.constant(self.beta_1, dtype), tf.constant(self.beta_2, dtype)
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=self._momentums[index].value.handle,
        v=self._velocities[index].value.handle,
        beta1_power=tf.pow(beta_1, step),
        beta2_power=tf.pow(beta_2, step),
        lr=tf.cast(learning_rate, dtype),
        beta1=beta_1,
        beta2=beta_2,
        epsilon=tf.constant(self.epsilon, dtype),
        grad=tf.cast(gradient, dtype),
    )
