"""How bijectors act for a while: in training, while they are initialised, or with other values."""

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


@contextlib.contextmanager
def data_dependent_initialization(reduce_sum=None, *, on_part=None):
    """Lets the bijectors that see data inside the block initialise themselves from it.

    Outside such a block nothing in this package is ever initialised by a call. Inside,
    `ActNorm` sets its shift and scale so that what it puts out has mean 0 and variance 1 per
    channel, once: a bijector that is initialised already, or was restored from a
    checkpoint, is left alone.

    Run data through the flow in eager mode, as a fresh tensor (`tf.identity`), because TFP
    answers for a tensor it has met from its cache:

    ```python
    with tfp_flows.bijectors.data_dependent_initialization():
        distribution.log_prob(tf.identity(batch))
    ```

    Args:
      reduce_sum: function that sums a tensor over the workers of a distributed training. The
        moments of the global batch are made of such sums (count, sum, sum of squares), which
        is exact; a mean of the workers' standard deviations is not. Default: no other worker.
      on_part: function without arguments, called whenever the data reach such a bijector: for a
        progress bar. Default: none.

    Raises:
      RuntimeError: if another such block is active, or data come in a `tf.function`.
      ValueError: if a bijector is reached by data that have no moments: not finite, or one row.
    """
    if initializing():
        raise RuntimeError("data_dependent_initialization() is active already: do not nest it.")
    _state.reduce_sum = (lambda x: x) if reduce_sum is None else reduce_sum
    _state.on_part = on_part
    try:
        yield
    finally:
        _state.reduce_sum = _state.on_part = None


def initializing():
    """Whether a data-dependent initialisation pass is running."""
    return reduce_sum() is not None


def tell_of_part():
    """Tells whoever watches a data-dependent initialisation that the data reached a part."""
    if _state.on_part is not None:
        _state.on_part()


def reduce_sum():
    """The function that sums over the workers of a data-dependent initialisation, or `None`."""
    return getattr(_state, "reduce_sum", None)


class AssignedInCall(ValueError):
    """Raised where a part that reads other values than those of its variables changes some."""


@contextlib.contextmanager
def reading(values):
    """Has bijectors and their networks read other values than those of their variables.

    Args:
      values: pairs of a `tf.Variable` and a tensor of its shape and dtype.
    """
    before = substitutes()
    _state.substitutes = {**before, **{id(variable): value for variable, value in values}}
    try:
        yield
    finally:
        _state.substitutes = before


def substitutes():
    """The values that variables have inside `reading`, by their identity."""
    return getattr(_state, "substitutes", {})


@contextlib.contextmanager
def values_alone():
    """Tells bijectors inside the block that nobody asks for their log-dets, which may be 0.

    For those whose log-det costs more than their value.
    """
    before = log_dets_matter()
    _state.values_alone = True
    try:
        yield
    finally:
        _state.values_alone = not before


def log_dets_matter():
    """Whether log-dets are asked for."""
    return not getattr(_state, "values_alone", False)
