"""A pair plot."""

import numpy as np

from tfp_flows import _checks
from tfp_flows._optional import optional
from tfp_flows.plots._canvas import FIRST, SECOND, TRUTH, array_of, figure_of, labelled

_MOST_COLUMNS = 12
_TAIL = 0.002  # of the numbers on either side, which an axis leaves out
_BINS = 40


def pairs(
    x,
    y=None,
    *,
    names=("data", "samples"),
    columns=None,
    labels=None,
    units=None,
    levels=None,
    limits=None,
    truth=None,
    max_points=1500,
    title=None,
):
    """A pair plot: x below the diagonal, y above it, the histograms of both on it.

    A panel below the diagonal and its mirror image above show the same two columns, of x and of y,
    each with the columns' own axes: a good sample makes the picture look alike on both sides.

    Args:
      x: array or tensor `[n, d]`, or a frame: a pandas `DataFrame` or dictionary of `d` arrays
        `[n]`. Columns of strings or Booleans are levels, numbered and spread out a little; those of
        datetime64 are dates. NaN (of levels `None`, of dates NaT) is a missing entry, and left out
        where it is needed.
      y: as x, with the same columns, or `None` to draw x alone.
      names: what x and y are, for the legend. Default: `('data', 'samples')`.
      columns: which to draw, names of a frame's or numbers, in this order. Default: all.
      labels: names of the drawn columns. Default: a frame's, or `x1`, `x2`, ...
      units: of the drawn columns, `None` or empty for those without.
      levels: dictionary, column -> its levels in order. Default: those that are there, sorted, or
        as an ordered pandas categorical has them. Numbers that are the indices of levels get their
        names here, too.
      limits: dictionary, column -> `(low, high)` of its axis. Default: all but 0.2% of x and of
        y on either side.
      truth: `d` numbers, marked in every panel: the parameters that data were simulated with, an
        observation.
      max_points: `int >= 1`, rows that panels off the diagonal show, the first ones; the histograms
        count all. Default: 1500.
      title: of the figure.

    Returns:
      A `matplotlib.figure.Figure` that belongs to no window: `figure.savefig("pairs.png")`, or the
      last line of a notebook's cell.

    Raises:
      ImportError: if matplotlib is not installed (extra `plots`).
      TypeError, ValueError: for other shapes, columns that differ, more than 12 of them, infinite
        entries, or levels that are not among those given.

    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(2, 200, 2))
    >>> figure = pairs(x, y, labels=["height", "weight"], units=["m", "kg"])
    >>> figure.axes[2].get_xlabel(), figure.axes[2].get_ylabel()
    ('height (m)', 'weight (kg)')
    """
    owner = "plots.pairs"
    max_points = _checks.positive_integer(max_points, "max_points", owner)
    table = {"x": _columns_of(x, "x", owner)}
    if y is not None:
        table["y"] = _columns_of(y, "y", owner)
        if list(table["y"]) != list(table["x"]):
            raise ValueError(
                f"{owner}: x and y must have the same columns, got {list(table['x'])} and "
                f"{list(table['y'])}."
            )
    chosen = _chosen(columns, list(table["x"]), owner)
    known = {"levels": levels or {}, "limits": limits or {}}
    for name, given in known.items():
        _among(given, table["x"], name, owner)
    if truth is not None:
        truth = array_of(truth, "truth", owner, rank=1)
        if len(truth) != len(table["x"]):
            raise ValueError(
                f"{owner}: truth must be {len(table['x'])} numbers, one for each column of x, got "
                f"{len(truth)}."
            )
        truth = dict(zip(table["x"], truth, strict=True))
    drawn = [
        _Column(name, [part[name] for part in table.values()], known, owner) for name in chosen
    ]
    if labels is None and not all(isinstance(name, int) for name in chosen):
        labels = chosen
    default = [f"x{name + 1}" if isinstance(name, int) else name for name in chosen]
    texts = labelled(labels or default, units, len(chosen), owner)
    size = len(drawn)
    figure, axes = figure_of(owner, size, size, [2.0 * size + 0.4] * 2)
    rng = np.random.default_rng(0)
    for i, down in enumerate(drawn):
        for j, across in enumerate(drawn):
            axis = axes[i, j]
            if i == j:
                _histograms(axis, down)
            elif i < j and y is None:
                axis.set_axis_off()
                continue
            else:
                which = 0 if i > j else 1
                points = [c.spread(which, max_points, rng) for c in (across, down)]
                colour = (FIRST, SECOND)[which]
                axis.plot(*points, ".", ms=2.5, alpha=0.5, mew=0, color=colour)
                axis.set_ylim(down.limits)
            axis.set_xlim(across.limits)
            _mark(axis, truth, across.name, None if i == j else down.name)
            across.ticks(axis.xaxis, shown=i == size - 1)
            if i != j:
                down.ticks(axis.yaxis, shown=j == 0)
            if i == size - 1:
                axis.set_xlabel(texts[j])
            if j == 0:
                axis.set_ylabel(texts[i])
    _legend(figure, names, y is not None, truth is not None, title)
    return figure


def _columns_of(x, name, owner):
    """A frame or an array as a dictionary of columns; those of an array are named by numbers."""
    if hasattr(x, "columns") and hasattr(x, "iloc"):
        if not x.columns.is_unique:
            raise ValueError(f"{owner}: two columns of {name} have one name. Rename one.")
        x = {column: x[column] for column in x.columns}
    if isinstance(x, dict):
        if not x or len({len(column) for column in x.values()}) != 1:
            raise ValueError(f"{owner}: the columns of {name} must be of one length, at least one.")
        return x
    return dict(enumerate(array_of(x, name, owner, rank=2, missing=True).T))


def _chosen(columns, there, owner):
    columns = there if columns is None else list(columns)
    _among(columns, there, "columns", owner)
    if not columns or len(columns) > _MOST_COLUMNS:
        raise ValueError(
            f"{owner}: expected 1 to {_MOST_COLUMNS} columns, got {len(columns)}: their pairs are "
            "too many to look at. Choose some by `columns`."
        )
    return columns


def _among(given, there, name, owner):
    unknown = [column for column in given if column not in there]
    if unknown:
        raise ValueError(
            f"{owner}: {name}: there is no column {unknown[0]!r}. There are {list(there)[:20]}."
        )


class _Column:
    """A column of both samples as numbers, and its axis."""

    def __init__(self, name, parts, known, owner):
        self.name = name
        self.levels = known["levels"].get(name)
        dates = [np.asarray(part).dtype.kind == "M" for part in parts]
        self.are_dates = self.levels is None and any(dates)
        if self.are_dates and not all(dates):
            raise ValueError(
                f"{owner}: column {name!r} must hold dates in both x and y, or in neither; in one "
                "it does. Convert the other, `np.asarray(column, 'datetime64[s]')`."
            )
        parts = [self._numbered(part, parts, owner) for part in parts]
        self.values = [array_of(p, f"column {name!r}", owner, missing=True) for p in parts]
        there = [values[~np.isnan(values)] for values in self.values]
        if not any(len(values) for values in there):
            raise ValueError(f"{owner}: column {name!r} is empty. Leave it out.")
        self.limits = known["limits"].get(name)
        if self.limits is not None:
            if self.are_dates:
                self.limits = _days(np.array(self.limits, "datetime64[ns]"))
            return
        if self.levels is not None:
            self.limits = -0.5, len(self.levels) - 0.5
            return
        ends = [np.quantile(values, [_TAIL, 1.0 - _TAIL]) for values in there if len(values)]
        low, high = np.min(ends, axis=0)[0], np.max(ends, axis=0)[1]
        margin = 0.05 * (high - low) or 0.5
        self.limits = low - margin, high + margin

    def _numbered(self, values, parts, owner):
        """Levels by their numbers; numbers as they are."""
        held = np.asarray(values)
        if self.are_dates:
            return _days(held)
        if held.dtype.kind in "iuf" or (held.dtype.kind not in "bOUS" and self.levels is None):
            return held
        if self.levels is None:
            self.levels = _levels_of(parts)
        try:
            numbers = {level: n for n, level in enumerate(self.levels)}
            return np.array([np.nan if _missing(v) else numbers[v] for v in held])
        except (KeyError, TypeError):
            raise ValueError(
                f"{owner}: column {self.name!r} must hold numbers, or levels out of "
                f"{list(self.levels)[:8]}; it holds others. Name all of them in `levels`."
            ) from None

    def spread(self, which, rows, rng):
        """The first rows of x or of y; levels apart from each other, within their places."""
        values = self.values[which][:rows]
        if self.levels is None:
            return values
        return values + rng.uniform(-0.3, 0.3, len(values))

    def bins(self):
        """Edges of the histogram."""
        if self.levels is not None:
            return np.arange(len(self.levels) + 1) - 0.5
        held = np.concatenate(self.values)
        if (held[~np.isnan(held)] % 1.0 == 0.0).all():
            # As many whole numbers in each bin: else it would be higher where there is one more.
            low, high = np.floor(self.limits[0]), np.ceil(self.limits[1])
            width = max(1.0, np.ceil((high - low) / _BINS))
            return np.arange(low - 0.5, high + width, width)
        return np.linspace(*self.limits, _BINS + 1)

    def ticks(self, axis, *, shown):
        """A few numbers or dates, or the levels."""
        if self.levels is not None and len(self.levels) <= 10:
            texts = [str(level) for level in self.levels] if shown else []
            axis.set_ticks(range(len(self.levels)))
            across = axis.axis_name == "x"
            if shown:
                turned = 90 if across and max(map(len, texts)) * len(texts) > 16 else 0
                axis.set_ticklabels(texts, fontsize=7, rotation=turned)
        elif self.are_dates:
            dates = optional("matplotlib.dates", "plots.pairs", "plots")
            locator = dates.AutoDateLocator(minticks=2, maxticks=4)
            axis.set_major_locator(locator)
            axis.set_major_formatter(dates.ConciseDateFormatter(locator, show_offset=shown))
        else:
            axis.get_major_locator().set_params(nbins=4)
        axis.set_tick_params(labelsize=7, labelbottom=shown, labelleft=shown)


def _days(dates):
    """datetime64 as days since 1970, as matplotlib has them; NaT as NaN."""
    return (dates - np.datetime64("1970-01-01")) / np.timedelta64(1, "D")


def _levels_of(parts):
    """The levels of a column: as ordered in a pandas categorical, else sorted."""
    categories = getattr(getattr(parts[0], "dtype", None), "categories", None)
    if categories is not None:
        return list(categories)
    found = {v for part in parts for v in np.asarray(part, object) if not _missing(v)}
    return sorted(found, key=lambda v: (str(type(v)), v))


def _missing(value):
    # NaN, and pandas' NaT, are not equal to themselves; pandas' NA is not even comparable.
    return value is None or type(value).__name__ == "NAType" or value != value


def _histograms(axis, column):
    for n, values in enumerate(column.values):
        values = values[~np.isnan(values)]
        how = {"color": SECOND, "histtype": "step", "lw": 1.5}
        if n == 0:
            how = {"color": FIRST, "alpha": 0.45}
        if len(values):
            # By shares and not densities: values beyond the axis count too.
            axis.hist(values, column.bins(), weights=np.full(len(values), 1 / len(values)), **how)
    axis.set_yticks([])


def _mark(axis, truth, across, down):
    if truth is None:
        return
    if down is None:
        axis.axvline(truth[across], color=TRUTH, lw=1.0, ls="--")
    else:
        axis.plot(truth[across], truth[down], "+", color=TRUTH, ms=10, mew=1.5)


def _legend(figure, names, both, truth, title):
    lines = []
    for name, colour in zip(names, (FIRST, SECOND)[: 1 + both], strict=False):
        lines.append(({"marker": ".", "ls": "", "ms": 10, "color": colour}, name))
    if truth:
        lines.append(({"marker": "+", "ls": "", "ms": 10, "mew": 1.5, "color": TRUTH}, "truth"))
    axis = figure.axes[0]
    handles = [axis.plot([], [], **how)[0] for how, _ in lines]
    figure.legend(
        handles, [name for _, name in lines], loc="outside upper right", ncols=3, frameon=False
    )
    if title:
        figure.suptitle(title)
