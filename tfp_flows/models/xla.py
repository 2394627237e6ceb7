"""Whether XLA pays for a training step: the rule of `FlowModel.compile(jit_compile="auto")`."""

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.bijectors.inverse_autoregressive import InverseAutoregressive
from tfp_flows.conditioners.dense import Dense

# Those that were measured, in `tools/benchmark.py --gpu`: matrix products and elementwise maps.
_MEASURED = (
    bijectors.ActNorm,
    bijectors.Chain,
    bijectors.Coupling,
    bijectors.MaskedAutoregressive,
    bijectors.Repeat,
    bijectors.Rescale,
)


def pays(distribution, layers, strategy):
    """Whether `"auto"` stands for `True`.

    On a GPU, which waits for its host while that launches kernel after kernel, a step of dense or
    masked networks takes a half to a ninth of its time under XLA. Nothing else is compiled
    unasked: convolutions gain little, and on a CPU the tenths that dense networks gain come after
    compiling for as long as some thousand steps take.

    Args:
      distribution: the model's.
      layers: its networks.
      strategy: what it is trained under.
    """
    parts = [part for part in distribution.submodules if isinstance(part, bijectors.FlowBijector)]
    return (
        bool(parts)
        and on_gpu(strategy)
        and all(isinstance(layer, Dense) for layer in layers)
        # The sequential direction, by which an InverseAutoregressive trains, compiles for minutes.
        and all(
            isinstance(p, _MEASURED) and not isinstance(p, InverseAutoregressive) for p in parts
        )
    )


def on_gpu(strategy):
    """Whether a strategy computes on GPUs."""
    if strategy is tf.distribute.get_strategy() and not tf.distribute.has_strategy():
        return bool(tf.config.list_logical_devices("GPU"))
    return any("GPU" in device.upper() for device in strategy.extended.worker_devices)
