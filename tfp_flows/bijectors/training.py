"""Training mode, for the parts that act differently in training."""

import contextlib
import threading

_state = threading.local()


@contextlib.contextmanager
def training_mode(training=True):
    """Puts the parts that act differently in training into training mode inside the block.

    `BatchNorm` normalizes by the moments of the batch and updates its running statistics, and
    an ensemble of orders (`flows.made`) uses one of them. Everything else does not care.
    `FlowModel.fit` does this by itself; a loop of your own does it around the loss:

    ```python
    @tf.function
    def step(x):
        with tf.GradientTape() as tape, tfp_flows.bijectors.training_mode():
            loss = -tf.reduce_mean(distribution.log_prob(x))
    ```

    The mode is read when a function is traced: enter it inside the `tf.function`, and under
    `tf.distribute` inside the function that the replicas run, which have threads of their own.

    Args:
      training: `bool`; `False` switches the mode off inside the block.
    """
    before = in_training_mode()
    _state.training = bool(training)
    try:
        yield
    finally:
        _state.training = before


def in_training_mode():
    """Whether training mode is on.

    >>> with training_mode():
    ...     in_training_mode()
    True
    """
    return getattr(_state, "training", False)
