"""Whether simulations from a posterior look like the data."""

import numpy as np

from tfp_flows import _checks
from tfp_flows.plots._canvas import FIRST, SECOND, array_of, figure_of

_MOST_PANELS = 12


def predictive(simulated, observed, *, at=None, shares=(0.5, 0.9), titles=None, label="", unit=""):
    """What a posterior predicts beside what was observed: central bands of simulations.

    Draw parameters from the posterior given the data, simulate data again from each, and see
    whether the observed data could be one of them. A band holds its share of the simulations, place
    by place: as many of the observed values lie outside of it.

    Args:
      simulated: array or tensor `[L, T]`, or `[L, k, T]` for k panels: L simulations of T values.
      observed: array or tensor `[T]` or `[k, T]`.
      at: `T` numbers, the places of the values: times, say. Default: 1, 2, ...
      shares: numbers in (0, 1), of the bands. Default: `(0.5, 0.9)`.
      titles: of the panels.
      label: text below the axis of the places.
      unit: text beside the axis of the values.

    Returns:
      A `matplotlib.figure.Figure`, as `plots.pairs`.

    Raises:
      ImportError: if matplotlib is not installed (extra `plots`).
      TypeError, ValueError: for shapes that do not go together, more than 12 panels, values that
        are not finite, or shares out of range.

    >>> rng = np.random.default_rng(0)
    >>> figure = predictive(rng.normal(size=(100, 2, 30)), rng.normal(size=(2, 30)))
    >>> len(figure.axes)
    2
    """
    owner = "plots.predictive"
    observed = array_of(observed, "observed", owner)
    simulated = array_of(simulated, "simulated", owner)
    if observed.ndim not in (1, 2) or simulated.shape[1:] != observed.shape:
        raise ValueError(
            f"{owner}: expected simulated [L, T] or [L, k, T] and observed [T] or [k, T], got "
            f"{list(simulated.shape)} and {list(observed.shape)}. The first axis counts the draws."
        )
    simulated = simulated.reshape(len(simulated), -1, observed.shape[-1])
    observed = observed.reshape(-1, observed.shape[-1])
    size = len(observed)
    if size > _MOST_PANELS:
        raise ValueError(
            f"{owner}: expected at most {_MOST_PANELS} panels, got {size}. Choose some posteriors."
        )
    shares = sorted((_checks.fraction(s, "shares", owner) for s in shares), reverse=True)
    at = np.arange(1, observed.shape[1] + 1) if at is None else array_of(at, "at", owner, rank=1)
    if len(at) != observed.shape[1]:
        raise ValueError(
            f"{owner}: at must be {observed.shape[1]} numbers, one for each value, got {len(at)}."
        )
    if titles is not None and len(titles) != size:
        raise ValueError(f"{owner}: titles must be {size} texts, one a panel, got {titles!r}.")
    across = min(size, 4)
    down = -(-size // across)
    figure, axes = figure_of(owner, down, across, (3.6 * across, 2.8 * down))
    panels = list(axes.ravel())
    for n, axis in enumerate(panels[:size]):
        for share in shares:
            low, high = np.quantile(simulated[:, n], [(1 - share) / 2, (1 + share) / 2], axis=0)
            axis.fill_between(at, low, high, color=FIRST, alpha=0.25, lw=0, label=f"{share:.0%}")
        axis.plot(at, np.median(simulated[:, n], axis=0), color=FIRST, lw=1, label="median")
        axis.plot(at, observed[n], ".", color=SECOND, ms=4, label="observed")
        axis.set(xlabel=label, title=titles[n] if titles is not None else "")
    for axis in axes[:, 0]:
        axis.set_ylabel(unit)
    for axis in panels[size:]:
        axis.set_axis_off()
    panels[0].legend(fontsize=7)
    return figure
