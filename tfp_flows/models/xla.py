"""Whether XLA pays for a training step: the rule of `FlowModel.compile(jit_compile="auto")`."""

import tensorflow as tf

from tfp_flows import bijectors

# Those that were measured, by `tools/benchmark.py --gpu`, around dense and masked networks.
_MEASURED = (
    bijectors.ActNorm,
    bijectors.Chain,
    bijectors.Coupling,
    bijectors.MaskedAutoregressive,
    bijectors.Repeat,
    bijectors.Rescale,
)


def pays(distribution, strategy):
    """Whether `"auto"` stands for `True`.

    On a GPU, which waits for its host while that launches kernel after kernel, a step of dense or
    masked networks takes a half to a ninth of its time under XLA. Nothing else is compiled
    unasked: on a CPU most steps gain nothing, and those of small images come after compiling for as
    long as a thousand steps take (`tools/fit_report.py --modes`).

    Args:
      distribution: the model's.
      strategy: what it is trained under.
    """
    parts = [part for part in distribution.submodules if isinstance(part, bijectors.FlowBijector)]
    # The sequential direction, by which an InverseAutoregressive trains, compiles for long.
    measured = [
        isinstance(part, _MEASURED) and not isinstance(part, bijectors.InverseAutoregressive)
        for part in parts
    ]
    vectors = distribution.event_shape.rank == 1
    return vectors and bool(parts) and all(measured) and on_gpu(strategy)


def on_gpu(strategy):
    """Whether a strategy computes on GPUs."""
    if strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy():
        return bool(tf.config.list_logical_devices("GPU"))
    return any("GPU" in device.upper() for device in strategy.extended.worker_devices)
