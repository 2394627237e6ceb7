"""Densities of the plane."""

import numpy as np

from tfp_flows import _checks
from tfp_flows.plots._canvas import SECOND, SHADES, array_of, figure_of, labelled

_ROWS = 10_000  # of the grid, at a time


def density_2d(
    log_prob, low, high, *, points=None, mass=(0.5, 0.9), num=150, labels=None, units=None
):
    """Densities of two entries, shaded on a grid, with the contours that hold a share of the mass.

    Args:
      log_prob: function of `[m, 2]` float32 that returns log-densities `[m]`, such as
        `model.log_prob`; or a dictionary, title -> function, for panels side by side with one
        scale.
      low, high: two numbers each, the corners of the grid.
      points: array `[n, 2]` to draw on top, data or samples; the first 2,000 are.
      mass: shares of the density's mass on the grid, in (0, 1); each contour surrounds where the
        density is highest. Default: `(0.5, 0.9)`.
      num: `int >= 2`, points of the grid along either axis. Default: 150.
      labels, units: of the two axes.

    Returns:
      A `matplotlib.figure.Figure`, as `plots.pairs`. The title of each panel says how much of the
      mass the grid holds, by the sum over it: 1 if it covers all, and resolves it.

    Raises:
      ImportError: if matplotlib is not installed (extra `plots`).
      TypeError, ValueError: for other shapes, a low that is not below its high, log-densities
        that are NaN, or shares out of range.

    >>> def normal(x):
    ...     return -0.5 * np.sum(x**2, axis=-1) - np.log(2.0 * np.pi)
    >>> density_2d({"normal": normal}, [-4.0, -4.0], [4.0, 4.0]).axes[0].get_title()
    'normal\\n1.00 of the mass'
    """
    owner = "plots.density_2d"
    low, high = (array_of(v, n, owner) for v, n in ((low, "low"), (high, "high")))
    if low.shape != (2,) or high.shape != (2,) or not (low < high).all():
        raise ValueError(
            f"{owner}: low and high must be two numbers each, low below high, got {low.tolist()} "
            f"and {high.tolist()}."
        )
    num = _checks.integer(num, "num", owner, least=2)
    mass = [_checks.fraction(share, "mass", owner) for share in np.atleast_1d(mass).tolist()]
    texts = labelled(labels, units, 2, owner)
    panels = log_prob if isinstance(log_prob, dict) else {"": log_prob}
    if points is not None:
        points = array_of(points, "points", owner, rank=2)[:2000]
        if points.shape[1] != 2:
            raise ValueError(
                f"{owner}: points must be [n, 2], got shape {list(points.shape)}. Choose two "
                "columns."
            )
    # The middles of cells, so that a sum over them is the integral.
    width = (high - low) / num
    axes_of = [low[k] + width[k] * (np.arange(num) + 0.5) for k in range(2)]
    grid = np.stack(np.meshgrid(*axes_of), axis=-1).reshape(-1, 2).astype(np.float32)
    found = {name: _density(f, grid, owner).reshape(num, num) for name, f in panels.items()}
    most = max(density.max() for density in found.values())
    figure, axes = figure_of(owner, 1, len(found), (4.2 * len(found) + 0.8, 4.4))
    for axis, (name, density) in zip(axes[0], found.items(), strict=True):
        shown = axis.imshow(
            density,
            origin="lower",
            extent=[low[0], high[0], low[1], high[1]],
            aspect="auto",
            cmap=SHADES,
            vmin=0.0,
            vmax=most or 1.0,
        )
        heights = _heights(density, mass)
        if heights:
            lines = axis.contour(*axes_of, density, list(heights), colors="white", linewidths=0.9)
            axis.clabel(lines, fmt=heights, fontsize=7)
        if points is not None:
            axis.plot(*points.T, ".", ms=3, alpha=0.7, mew=0, color=SECOND)
            axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        inside = f"{density.sum() * width.prod():.2f} of the mass"
        axis.set_title(f"{name}\n{inside}" if name else inside, fontsize=10)
        axis.set_xlabel(texts[0])
    axes[0, 0].set_ylabel(texts[1])
    figure.colorbar(shown, ax=axes[0].tolist(), label="density")
    return figure


def _density(log_prob, grid, owner):
    parts = [np.asarray(log_prob(grid[i : i + _ROWS])) for i in range(0, len(grid), _ROWS)]
    if any(part.ndim != 1 for part in parts) or sum(map(len, parts)) != len(grid):
        raise ValueError(
            f"{owner}: log_prob must return one number a row, got shape {list(parts[0].shape)} of "
            f"{min(_ROWS, len(grid))} rows. Give `model.log_prob` of a density of two entries."
        )
    found = np.concatenate(parts).astype(np.float64)
    if np.isnan(found).any():
        raise ValueError(
            f"{owner}: log_prob is NaN at {int(np.isnan(found).sum())} of {len(found)} points of "
            "the grid. Outside of a support it is to be -inf."
        )
    return np.exp(found)


def _heights(density, mass):
    """Of shares of the mass the heights above which they lie, rising, with their texts."""
    falling = np.sort(density.ravel())[::-1]
    if not 0.0 < falling[0] < np.inf:
        return {}
    sums = np.cumsum(falling) / falling.sum()
    heights = {falling[np.searchsorted(sums, share)]: f"{share:.0%}" for share in mass}
    return dict(sorted(heights.items()))
