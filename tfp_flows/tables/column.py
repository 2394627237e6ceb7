"""What a column of a table holds."""

import dataclasses
import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import number, positive_number

# Of a logistic distribution of scale 1: standardized coordinates have it, as the base has.
_DEVIATION = math.pi / math.sqrt(3.0)
# The share of a heaped column that is spread over its whole grid, seen values or not.
_SPREAD = 0.01
# A heaped grid is kept as a histogram: of as many cells at most, with as many rows in each.
_MOST_CELLS, _ROWS_PER_CELL = 2000, 20
_ON_GRID = 1e-6
_MOST_STEPS = 2.0**53  # Beyond, float64 has no place for every step.
# Cells of a width below this, in the standardized coordinate, are lost in rounding.
_LEAST_WIDTH = 1e-11

NUMERIC = ("real", "positive", "bounded", "count", "ordinal")
KINDS = (*NUMERIC, "categorical", "angle")


@keras.saving.register_keras_serializable(package="tfp_flows")
@dataclasses.dataclass(frozen=True, eq=False)
class Column:
    """What a column of a table holds: its kind, and what the kind has to know.

    Made by the functions of the kinds (`tables.real`, `positive`, `bounded`, `count`, `ordinal`,
    `categorical`, `angle`) or by `Schema.infer`, not by hand. A numeric column has a coordinate t,
    increasing in its value v, in which the model works:

        real, ordinal   t = v
        positive        t = log v
        bounded         t = log((v - low) / (high - v))
        count           t = log(v + 1)

    standardized by `location` and `scale`. Values on a grid own a cell of the width `step` around
    them, the first and the last value of a grid all that lies beyond. Of a heaped column, whose
    values prefer some cells of their grid (carats of 1.00), t is the log odds of the share of the
    training rows below a cell's edge, one percent of them spread out: heaps are wide there.

    Args:
      kind: one of `real`, `positive`, `bounded`, `count`, `ordinal`, `categorical`, `angle`.
      step: of the grid that the values lie on, or `None`.
      low, high: of a bounded one.
      levels: tuple of the values of an ordinal or categorical one.
      period: of an angle.
      location, scale: of the coordinate, measured from the training rows.
      first_cell, cell_shares: index of the first cell of a heaped column's histogram, and the
        share of the training rows in each cell, measured from them.

    >>> column = ordinal(["low", "high"])
    >>> column.encode(["high", None, "low"], "speed").tolist()
    [1.0, nan, 0.0]
    """

    kind: str
    step: float | None = None
    low: float | None = None
    high: float | None = None
    levels: tuple | None = None
    period: float | None = None
    location: float = 0.0
    scale: float = 1.0
    first_cell: int | None = None
    cell_shares: np.ndarray | None = None

    def get_config(self):
        """The constructor arguments, for saving."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def from_config(cls, config):
        """The column of `get_config`."""
        return cls(**config)

    # --- What it is. ---

    @property
    def is_numeric(self):
        """Whether it has a coordinate: neither categories nor angles have one."""
        return self.kind in NUMERIC

    @property
    def is_discrete(self):
        """Whether its log-probabilities are those of single values; else they are densities."""
        return self.step is not None or self.kind == "categorical"

    @property
    def is_heaped(self):
        """Whether the values prefer some cells of their grid."""
        return self.cell_shares is not None

    def describe(self):
        """One line for people."""
        parts = [self.kind]
        if self.step is not None and self.kind not in ("count", "ordinal"):
            parts.append(f"in steps of {self.step:g}")
        if self.kind == "bounded":
            parts.append(f"from {self.low:g} to {self.high:g}")
        if self.levels is not None:
            shown = ", ".join(map(str, self.levels[:8])) + (", ..." if len(self.levels) > 8 else "")
            parts.append(f"with {len(self.levels)} levels: {shown}")
        if self.period is not None:
            parts.append(f"of period {self.period:g}")
        units = "log-probability" if self.is_discrete else "log-density per unit"
        return f"{' '.join(parts)} ({units})"

    # --- From the frame, and back. ---

    def encode(self, values, name, unseen="refuse"):
        """Values as float64: numbers as they are, levels by their index, missing ones as NaN.

        Args:
          values: array or list of them.
          name: name of the column, for messages.
          unseen: `"refuse"`, or `"impossible"` for levels that are not in `levels`: -1.

        Raises:
          ValueError, TypeError: if a value is not of the column's kind.
        """
        if self.levels is not None:
            return self._encode_levels(values, name, unseen)
        try:
            found = np.array([np.nan if v is None else v for v in values], np.float64)
        except (TypeError, ValueError):
            kind = "numbers" if self.kind != "angle" else "angles"
            raise TypeError(
                f"column '{name}': expected {kind}, got {np.asarray(values).dtype} values. Convert "
                "them, or make the column categorical."
            ) from None
        known = found[~np.isnan(found)]
        self._refuse(np.isinf(found), found, name, "finite values", "Drop them or mark as missing")
        if self.kind == "positive":
            self._refuse(found <= 0.0, found, name, "positive values", 'Or make it "real"')
        if self.kind == "count":
            self._refuse(found < 0.0, found, name, "counts from 0 up", 'Or make it "real"')
        if self.kind == "bounded":
            outside = (found < self.low) | (found > self.high)
            if self.step is None:
                outside |= (found == self.low) | (found == self.high)
            ends = "ends included" if self.step is not None else "ends excluded"
            self._refuse(
                outside,
                found,
                name,
                f"values from {self.low:g} to {self.high:g}, {ends}",
                "Widen the bounds, or give the step of its grid",
            )
        if self.step is not None and known.size:
            cells = (found - self._origin) / self.step
            near = np.round(cells)
            self._refuse(
                np.abs(cells) > _MOST_STEPS,
                found,
                name,
                f"values within 2^53 steps of {self.step:g}",
                "Subtract what they have in common, or leave `step` out",
            )
            self._refuse(
                np.abs(cells - near) > rounding_of(cells),
                found,
                name,
                f"multiples of {self.step:g}",
                "Round them, or leave `step` out",
            )
            found = near * self.step + self._origin
        return found

    def decode(self, codes):
        """What `encode` was given, of codes; an array of the values' own type."""
        codes = np.asarray(codes)
        if self.levels is not None:
            levels = np.empty(len(self.levels) + 1, object)
            levels[:-1], levels[-1] = self.levels, None
            found = levels[np.where(np.isnan(codes), -1, codes).astype(int)]
            plain = np.array(self.levels)
            same = not np.isnan(codes).any() and plain.dtype.kind in "biu"
            return found.astype(plain.dtype) if same else found
        whole = self.step is not None and float(self.step).is_integer()
        if whole and float(self._origin).is_integer() and not np.isnan(codes).any():
            return np.round(codes).astype(np.int64)
        if self.step is None:
            return codes
        # Of 0.1 * 617 the shortest number within the grid: 61.7. Thirds have no short one.
        digits = max(0, 2 - math.floor(math.log10(self.step)))
        short = np.round(codes, digits)
        return np.where(np.abs(short - codes) < 0.5 * _ON_GRID * self.step, short, codes)

    def _encode_levels(self, values, name, unseen):
        index = {level: n for n, level in enumerate(self.levels)}
        codes = np.array([np.nan if is_missing(v) else index.get(v, -1) for v in values], float)
        strange = np.flatnonzero(codes == -1)
        if len(strange) and unseen == "refuse":
            raise ValueError(
                f"column '{name}': {len(strange)} values are not among its {len(self.levels)} "
                f"levels, the first is {values[strange[0]]!r} in row {strange[0]}. Mark them as "
                'missing (None), or score them with unseen="impossible".'
            )
        return codes

    def _refuse(self, wrong, found, name, expected, remedy):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            raise ValueError(
                f"column '{name}': expected {expected}, got {int(wrong.sum())} others, the first "
                f"is {found[row]:g} in row {row}. {remedy}."
            )

    # --- The grid. ---

    @property
    def _origin(self):
        return self.low if self.kind == "bounded" else 0.0

    @property
    def _ends(self):
        """The first and the last value of the grid, infinite if there is none."""
        if self.kind == "positive":
            return self.step, math.inf
        if self.kind == "bounded":
            return self.low, self.high
        if self.kind == "ordinal":
            return 0.0, len(self.levels) - 1.0
        return (0.0 if self.kind == "count" else -math.inf), math.inf

    def edges(self, values):
        """Standardized coordinates of the edges of the cells of values on the grid.

        Args:
          values: float64 tensor, codes.

        Returns:
          Two tensors of its shape, infinite where the first or the last cell is open.
        """
        first, last = self._ends
        half = 0.5 * self.step
        infinite = tf.constant(math.inf, tf.float64)
        below = tf.where(values < first + half, -infinite, self._coordinate_at(values, -half))
        above = tf.where(values > last - half, infinite, self._coordinate_at(values, half))
        return below, above

    def _coordinate_at(self, values, offset):
        edge = values + offset
        if not self.is_heaped:
            return self.coordinate(edge)[0]
        # As floats: a value far off has a number that no int32 holds.
        number = tf.round((values - self._origin) / self.step) - float(self.first_cell)
        number += 1.0 if offset > 0 else 0.0
        below, above = self._shares_at(number)
        z = self._smooth(edge)[0]
        below = (1.0 - _SPREAD) * below + _SPREAD * tf.sigmoid(z)
        above = (1.0 - _SPREAD) * above + _SPREAD * tf.sigmoid(-z)
        return tf.math.log(below) - tf.math.log(above)

    def _shares_at(self, number):
        """The shares of the training rows below and above the edges of these numbers."""
        shares = np.concatenate([[0.0], np.cumsum(self.cell_shares)])
        number = tf.cast(tf.clip_by_value(number, 0.0, len(shares) - 1.0), tf.int32)
        below = tf.gather(tf.constant(shares / shares[-1]), number)
        return below, tf.gather(tf.constant(1.0 - shares / shares[-1]), number)

    # --- The coordinate. ---

    def coordinate(self, values):
        """Standardized coordinates of values, and log|dt/dv|; for a column that is not heaped."""
        return self._smooth(values)

    def _smooth(self, values):
        t, log_det = values, tf.zeros_like(values)
        tiny = 1e-300
        if self.kind == "positive":
            t = tf.math.log(tf.maximum(values, tiny))
            log_det = -t
        elif self.kind == "count":
            t = tf.math.log(tf.maximum(values + 1.0, tiny))
            log_det = -t
        elif self.kind == "bounded":
            low, high = self._box
            left = tf.math.log(tf.maximum(values - low, tiny))
            right = tf.math.log(tf.maximum(high - values, tiny))
            t, log_det = left - right, math.log(high - low) - left - right
        return (t - self.location) / self.scale, log_det - math.log(self.scale)

    @property
    def _box(self):
        half = 0.5 * (self.step or 0.0)
        return self.low - half, self.high + half

    def value(self, t):
        """The value of a standardized coordinate; on its grid, if it has one."""
        if self.is_heaped:
            return self._heaped_value(t)
        return self._rounded(self._unsmooth(t))

    def _unsmooth(self, z):
        t = z * self.scale + self.location
        if self.kind == "positive":
            return tf.exp(t)
        if self.kind == "count":
            return tf.exp(t) - 1.0
        if self.kind == "bounded":
            low, high = self._box
            return low + (high - low) * tf.sigmoid(t)
        return t

    def _rounded(self, values):
        if self.step is None:
            return values
        values = tf.round((values - self._origin) / self.step) * self.step + self._origin
        return tf.clip_by_value(values, *self._ends)

    def _heaped_value(self, t):
        count = len(self.cell_shares)
        cells = (self.first_cell + np.arange(count)) * self.step + self._origin
        inner = self._coordinate_at(
            tf.constant(np.append(cells, cells[-1] + self.step)), -0.5 * self.step
        )
        number = tf.searchsorted(inner, tf.reshape(t, [-1]), side="right") - 1
        number = tf.reshape(number, tf.shape(t))
        inside = tf.gather(tf.constant(cells), tf.clip_by_value(number, 0, count - 1))
        # Beyond the histogram there is the spread part alone.
        left = tf.math.log_sigmoid(t) - math.log(_SPREAD)
        right = tf.math.log_sigmoid(-t) - math.log(_SPREAD)
        least = tf.constant(-1e-12, t.dtype)
        z_left = tf.minimum(left, least) - tf.math.log(-tf.math.expm1(tf.minimum(left, least)))
        z_right = tf.minimum(right, least) - tf.math.log(-tf.math.expm1(tf.minimum(right, least)))
        beyond = tf.where(number < 0, z_left, -z_right)
        outside = self._rounded(self._unsmooth(beyond))
        outside = tf.where(
            number < 0,
            tf.minimum(outside, cells[0] - self.step),
            tf.maximum(outside, cells[-1] + self.step),
        )
        outside = tf.clip_by_value(outside, *self._ends)
        return tf.where((number < 0) | (number >= count), outside, inside)

    # --- What the training rows say. ---

    def measured(self, codes, name):
        """The column with the location, the scale and the heaps of the training rows' codes."""
        known = codes[~np.isnan(codes)]
        if not known.size:
            raise ValueError(f"column '{name}': all of its values are missing. Drop it.")
        if (known == known[0]).all():
            raise ValueError(
                f"column '{name}': constant in the training rows. Drop it: its value is known."
            )
        if not self.is_numeric:
            return self
        plain = dataclasses.replace(
            self, location=0.0, scale=1.0, first_cell=None, cell_shares=None
        )
        t = plain.coordinate(tf.constant(known))[0].numpy()
        with np.errstate(all="ignore"):
            location, scale = float(t.mean()), float(t.std()) / _DEVIATION
        if not (math.isfinite(location) and 0.0 < scale < math.inf):
            raise ValueError(
                f"column '{name}': the mean {location:g} and the deviation "
                f"{scale * _DEVIATION:g} of its training rows are beyond float64. Give it in other "
                "units."
            )
        plain = dataclasses.replace(plain, location=location, scale=scale)
        if self.step is None or self.kind == "ordinal":
            return plain
        below, above = (edge.numpy() for edge in plain.edges(tf.constant(known)))
        if (above - below).min() < _LEAST_WIDTH:
            raise ValueError(
                f"column '{name}': steps of {self.step:g} are too fine for its values, which go to "
                f"{np.abs(known).max():g}, to have probabilities in float64. Take tables.real() or "
                "tables.positive() without a step, or subtract what they have in common."
            )
        cells = np.round((known - self._origin) / self.step).astype(np.int64)
        first, count = int(cells.min()), int(cells.max() - cells.min()) + 1
        if count > _MOST_CELLS or len(known) < _ROWS_PER_CELL * len(np.unique(cells)):
            return plain
        shares = np.bincount(cells - first, minlength=count) / len(known)
        if not _are_heaped(shares, len(known)):
            return plain
        return dataclasses.replace(plain, first_cell=first, cell_shares=shares)


def _are_heaped(shares, rows, width=5):
    """Whether neighbouring cells differ by more than the number of rows accounts for."""
    padded = np.pad(shares, width)
    around = np.convolve(padded, np.ones(2 * width + 1) / (2 * width + 1), mode="valid")
    off = 0.5 * np.abs(shares - around).sum()
    by_chance = 0.5 * np.sqrt(2.0 / np.pi * around / rows).sum()
    return bool(off > 0.1 + 2.0 * by_chance)


def rounding_of(cells):
    """How far off a whole number of steps a value may be: as far as 61.7 in float32 is."""
    return np.clip(_ON_GRID * np.abs(cells), _ON_GRID, 0.05)


def is_missing(value):
    """Whether an entry of a frame is missing."""
    # NA of pandas first: it compares to nothing, itself included.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return value != value


# --- The kinds. ---


def real(step=None):
    """A column of real numbers.

    Args:
      step: if the values are rounded, to multiples of this: 0.01, say. They then have
        probabilities. Without it, a density of rounded values has no bound.

    >>> real(step=0.1).describe()
    'real in steps of 0.1 (log-probability)'
    """
    return Column("real", step=_step(step, "real"))


def positive(step=None):
    """A column of positive numbers, of which the logarithm is modelled.

    Args:
      step: as of `real`.

    >>> positive().describe()
    'positive (log-density per unit)'
    """
    return Column("positive", step=_step(step, "positive"))


def bounded(low, high, step=None):
    """A column of numbers between two bounds, which belong to it if it has a step.

    Args:
      low, high: numbers, the bounds.
      step: as of `real`; of a grid from `low` to `high`.

    >>> bounded(0, 1).describe()
    'bounded from 0 to 1 (log-density per unit)'
    """
    title = "tables.bounded"
    low, high = number(low, "low", title), number(high, "high", title)
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{title}: low must be below high, both finite, got {low:g} and {high:g}.")
    step = _step(step, "bounded")
    cells = None if step is None else (high - low) / step
    if cells is not None and abs(cells - round(cells)) > _ON_GRID * cells:
        raise ValueError(
            f"{title}: the steps of {step:g} must lead from {low:g} to {high:g}, got {cells:g} of "
            "them. Change a bound."
        )
    return Column("bounded", low=low, high=high, step=step)


def count():
    """A column of counts: 0, 1, 2 and so on, without a bound.

    >>> count().describe()
    'count (log-probability)'
    """
    return Column("count", step=1.0)


def ordinal(levels):
    """A column of levels that have an order.

    Args:
      levels: list of them, in that order: strings, numbers or Booleans.

    >>> ordinal(["S", "M", "L"]).describe()
    'ordinal with 3 levels: S, M, L (log-probability)'
    """
    return Column("ordinal", levels=_levels(levels, "ordinal"), step=1.0)


def categorical(levels):
    """A column of levels without an order.

    Args:
      levels: list of them: strings, numbers or Booleans.

    >>> categorical(["red", "blue"]).describe()
    'categorical with 2 levels: red, blue (log-probability)'
    """
    return Column("categorical", levels=_levels(levels, "categorical"))


def angle(period=2.0 * math.pi):
    """A column of angles, of which the first is next to the last.

    Args:
      period: of a full turn, in the units of the column: 360, or 24 for hours of the day. Values
        are taken by their remainder.

    >>> angle(360).describe()
    'angle of period 360 (log-density per unit)'
    """
    return Column("angle", period=positive_number(period, "period", "tables.angle"))


def _step(step, kind):
    return None if step is None else positive_number(step, "step", f"tables.{kind}")


def _levels(levels, kind):
    if isinstance(levels, (str, bytes, numbers.Number)):
        raise TypeError(f"tables.{kind}: expected a list of levels, got {levels!r}.")
    levels = tuple(v.item() if isinstance(v, np.generic) else v for v in levels)
    strange = [v for v in levels if is_missing(v) or not isinstance(v, (str, int, float))]
    if strange:
        raise TypeError(
            f"tables.{kind}: expected levels that are strings, numbers or Booleans, got "
            f"{strange[0]!r}: a file keeps no others, and what is missing is no level. Convert "
            "them: str(level), or column.cat.rename_categories(str) in pandas."
        )
    if len(levels) < 2 or len(set(levels)) < len(levels):
        raise ValueError(
            f"tables.{kind}: expected two levels or more, all different, got {list(levels)[:10]}."
        )
    return levels
