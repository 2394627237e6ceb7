"""Grids of images."""

import numpy as np

from tfp_flows import _checks
from tfp_flows.plots._canvas import array_of, figure_of


def images(x, *, columns=8, low=None, high=None):
    """Images side by side, in one grid or in several.

    Args:
      x: array or tensor `[n, H, W]`, `[n, H, W, 1]` or `[n, H, W, 3]`, of images or of samples; or
        a dictionary, title -> such an array, for grids side by side.
      columns: `int >= 1`, images in a row of a grid. Default: 8.
      low, high: numbers that are drawn black and white (in colours: dark and bright). Default: the
        least and the largest value there is, in all of the grids; of bytes 0 and 255.

    Returns:
      A `matplotlib.figure.Figure`, as `plots.pairs`.

    Raises:
      ImportError: if matplotlib is not installed (extra `plots`).
      TypeError, ValueError: for other shapes, values that are not finite, or a low that is not
        below its high.

    >>> noise = np.random.default_rng(0).integers(0, 256, [6, 4, 4, 1], "uint8")
    >>> len(images({"noise": noise, "more": noise[::-1]}, columns=3).axes)
    2
    >>> images(noise)._repr_png_()[1:4]  # what a notebook shows
    b'PNG'
    """
    owner = "plots.images"
    columns = _checks.positive_integer(columns, "columns", owner)
    panels = x if isinstance(x, dict) else {"": x}
    if not panels:
        raise ValueError(f"{owner}: the dictionary is empty. Give title -> images.")
    # `np.asarray` of a tensor keeps its dtype, by which bytes are known.
    if all(np.asarray(one).dtype == np.uint8 for one in panels.values()):
        low, high = 0 if low is None else low, 255 if high is None else high
    panels = {name: _grey_or_colour(one, owner) for name, one in panels.items()}
    low = min(one.min() for one in panels.values()) if low is None else float(low)
    high = max(one.max() for one in panels.values()) if high is None else float(high)
    if high <= low:
        raise ValueError(
            f"{owner}: low must be below high, got {low:g} and {high:g}. Of images that are all of "
            "one value, give both."
        )
    grids = {
        name: _grid(np.clip((one - low) / (high - low), 0.0, 1.0), columns)
        for name, one in panels.items()
    }
    tall = max(grid.shape[0] / grid.shape[1] for grid in grids.values())
    height = 5.0 * min(tall, 2.0) + 0.3  # As tall as the tallest, but for strips.
    figure, axes = figure_of(owner, 1, len(panels), (5.0 * len(panels), height))
    figure.get_layout_engine().set(wspace=0.04)
    for axis, (name, grid) in zip(axes[0], grids.items(), strict=True):
        axis.imshow(grid[..., 0] if grid.shape[-1] == 1 else grid, cmap="gray", vmin=0.0, vmax=1.0)
        axis.set_title(name)
        axis.set_axis_off()
    return figure


def _grey_or_colour(x, owner):
    x = array_of(x, "x", owner)
    if x.ndim == 3:
        x = x[..., None]
    if x.ndim != 4 or x.shape[-1] not in (1, 3):
        raise ValueError(
            f"{owner}: expected images [n, H, W], [n, H, W, 1] or [n, H, W, 3], got shape "
            f"{list(x.shape)}. A single image is x[None]."
        )
    return x


def _grid(x, columns):
    """Images `[n, H, W, C]` as one, with blank lines between; what is left of the last row, too."""
    columns = min(columns, len(x))
    rows = -(-len(x) // columns)
    filled = np.ones([rows * columns, *x.shape[1:]])
    filled[: len(x)] = x
    padded = np.pad(filled, [(0, 0), (0, 1), (0, 1), (0, 0)], constant_values=1.0)
    height, width, channels = padded.shape[1:]
    tiles = padded.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return tiles.reshape(rows * height, columns * width, channels)[:-1, :-1]
