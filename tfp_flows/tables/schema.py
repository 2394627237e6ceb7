"""The columns of a table, by name."""

import numbers

import keras
import numpy as np

from tfp_flows.tables import column as columns_of
from tfp_flows.tables.column import Column

_STEPS = [m * 10.0**k for k in range(6, -7, -1) for m in (5.0, 1.0)]
# More levels than this are names of rows rather than categories.
_MOST_LEVELS = 1000
# Steps from 0 to a value of a grid that is guessed.
_MOST_CELLS = 1e9


@keras.saving.register_keras_serializable(package="tfp_flows")
class Schema:
    """The columns of a table, by name, each with its kind.

    A frame is a pandas `DataFrame`, or a dictionary of arrays or lists of one length. `None` and
    NaN mean that an entry is missing.

    Args:
      columns: dictionary, name -> `tables.real()`, `positive()`, `bounded(low, high)`, `count()`,
        `ordinal(levels)`, `categorical(levels)` or `angle(period)`. Its order is the order in
        which the columns are modelled, one given those before.

    Raises:
      TypeError, ValueError: if it is empty, or a value is no column.

    >>> from tfp_flows import tables
    >>> schema = tables.Schema({"age": tables.count(), "wind": tables.angle(360)})
    >>> print(schema)
    age   count (log-probability)
    wind  angle of period 360 (log-density per unit)
    """

    def __init__(self, columns):
        if not isinstance(columns, dict) or not columns:
            raise TypeError(
                f"Schema: expected a dictionary of columns by name, got {columns!r}. Of a frame "
                "make one by Schema.infer."
            )
        for name, column in columns.items():
            if not isinstance(column, Column):
                raise TypeError(
                    f"Schema: column '{name}': expected a kind such as tables.real(), got "
                    f"{column!r}."
                )
        self.columns = dict(columns)

    @classmethod
    def infer(cls, frame, *, verbose=True, **known):
        """Guesses the kinds of a frame's columns, and prints the guesses.

            numbers             real; positive, if none is below 0 and the logarithm is less skewed;
                                on a grid, if all are multiples of a decimal step and repeat
            whole numbers       count if none is negative, else real with step 1; floats are taken
                                for whole numbers where some are missing and the others are whole,
                                as pandas has integers with holes
            strings, Booleans   categorical
            pandas categories   categorical or, if they are ordered, ordinal, with all their levels

        It cannot see that a number is bounded, an angle, or the name of a category, nor the order
        of levels: say so by keyword, or in the schema. Missing entries are looked past.

        Args:
          frame: pandas `DataFrame`, or dictionary of arrays.
          verbose: whether to print the guesses.
          **known: columns that are not to be guessed, by name: `cut=tables.ordinal([...])`.

        Raises:
          ValueError: naming a column that is empty, constant, or of another value in each row.
          TypeError: for columns of anything but numbers, strings and Booleans.

        >>> frame = {"age": [31, 45, 31, 27], "smokes": ["no", "yes", "no", None]}
        >>> schema = Schema.infer(frame)
        age     count (log-probability)
        smokes  categorical with 2 levels: no, yes (log-probability)
        """
        frame = columns_in(frame, "Schema.infer")
        unknown = sorted(set(known) - set(frame))
        if unknown:
            raise ValueError(
                f"Schema.infer: the frame has no column '{unknown[0]}'. It has "
                f"{', '.join(map(str, list(frame)[:20]))}."
            )
        found = {name: known.get(name) or _guess(values, name) for name, values in frame.items()}
        schema = cls(found)
        if verbose:
            print(schema)
        return schema

    def get_config(self):
        """The constructor arguments, for saving."""
        return {"columns": self.columns}

    @classmethod
    def from_config(cls, config):
        """The schema of `get_config`."""
        return cls(**config)

    @property
    def names(self):
        """Names of the columns, in order."""
        return list(self.columns)

    def __len__(self):
        return len(self.columns)

    def __str__(self):
        width = max(len(str(name)) for name in self.columns)
        return "\n".join(
            f"{name!s:<{width}}  {column.describe()}" for name, column in self.columns.items()
        )

    def encode(self, frame, *, owner="Schema.encode", unseen="refuse"):
        """A frame as a float64 array `[rows, columns]`, NaN where entries are missing.

        Args:
          frame: pandas `DataFrame`, or dictionary of arrays, with the columns of the schema.
          owner: name of the calling method, for messages.
          unseen: as `TableFlow.log_prob`.

        Raises:
          ValueError, TypeError: naming the column that is missing, new, or holds what it must not.
        """
        frame = columns_in(frame, owner)
        missing = [name for name in self.columns if name not in frame]
        new = [name for name in frame if name not in self.columns]
        if missing or new:
            what = [f"lacks the columns {missing}"] if missing else []
            what += [f"has columns that the schema does not know, {new}"] if new else []
            raise ValueError(
                f"{owner}: the frame {' and '.join(what)}. The schema's are {self.names[:20]}: "
                "give a missing one as a column of None, and drop a new one."
            )
        try:
            codes = [c.encode(frame[name], name, unseen) for name, c in self.columns.items()]
        except (TypeError, ValueError) as error:
            raise type(error)(f"{owner}: {error}") from None
        return np.stack(codes, axis=1)

    def decode(self, codes, index=None):
        """A frame of codes: a pandas `DataFrame` where pandas is installed, else a dictionary."""
        found = {
            name: column.decode(codes[:, n])
            for n, (name, column) in enumerate(self.columns.items())
        }
        try:
            import pandas
        except ImportError:
            return found
        for name, column in self.columns.items():
            if column.kind == "ordinal":
                found[name] = pandas.Categorical(found[name], column.levels, ordered=True)
        return pandas.DataFrame(found, index=index)

    def measured(self, codes):
        """The schema with the locations, scales and heaps of the training rows."""
        return Schema(
            {
                name: column.measured(codes[:, n], name)
                for n, (name, column) in enumerate(self.columns.items())
            }
        )


def columns_in(frame, owner):
    """A frame as a dictionary of object or number arrays of one length."""
    if hasattr(frame, "columns") and hasattr(frame, "iloc"):
        if not frame.columns.is_unique:
            raise ValueError(f"{owner}: two columns of the frame have one name. Rename one.")
        frame = {name: frame[name] for name in frame.columns}
    if not isinstance(frame, dict) or not frame:
        row = hasattr(frame, "to_frame")
        raise TypeError(
            f"{owner}: expected a pandas DataFrame or a dictionary of columns, got "
            f"{type(frame).__name__}." + " For one row take frame.iloc[[0]]." * row
        )
    for name, values in frame.items():
        if isinstance(values, str) or not hasattr(values, "__len__"):
            raise TypeError(
                f"{owner}: column '{name}': expected an array or a list of values, got {values!r}. "
                f"For one row write [{values!r}]."
            )
    lengths = {name: len(values) for name, values in frame.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"{owner}: expected columns of one length, got {lengths}.")
    if not next(iter(lengths.values())):
        raise ValueError(f"{owner}: the frame has no rows.")
    arrays = {name: _array(values) for name, values in frame.items()}
    for name, values in arrays.items():
        if values.ndim != 1:
            raise ValueError(
                f"{owner}: column '{name}': expected one value a row, got an array of shape "
                f"{list(values.shape)}. Make a column of each of its entries."
            )
    return arrays


def _array(values):
    """A column as an array, its pandas categories as the `.levels` of a subclass."""
    categories = getattr(getattr(values, "dtype", None), "categories", None)
    # A list of strings and NaN would become one of strings, "nan" among them.
    texts = isinstance(values, (list, tuple)) and any(isinstance(v, str) for v in values)
    found = np.asarray(values, object if texts or categories is not None else None)
    if found.dtype.kind in "fiub" or found.ndim != 1:
        return found
    if found.dtype.kind in "mM":
        found = found.astype(f"{found.dtype.kind}8[us]")  # `tolist` makes numbers of nanoseconds.
    plain = [None if columns_of.is_missing(v) else v for v in found.tolist()]
    found = np.empty(len(plain), object)
    found[:] = plain
    if categories is not None:
        found = found.view(_Categories)
        found.levels, found.ordered = list(categories), values.dtype.ordered
    return found


class _Categories(np.ndarray):
    """A column whose levels are said."""

    levels: list
    ordered: bool


def _guess(values, name):
    known = [v for v in values if not columns_of.is_missing(v)]
    if not known:
        raise ValueError(f"Schema.infer: column '{name}' is empty. Drop it.")
    said = isinstance(values, _Categories)
    if said or all(isinstance(v, (str, bool, np.bool_)) for v in known):
        different = set(known)
        levels = values.levels if said else sorted(different, key=lambda v: (str(type(v)), v))
        if len(different) < 2:
            raise ValueError(f"Schema.infer: column '{name}' is constant: {known[0]!r}. Drop it.")
        if said and values.ordered:
            return _of_levels(columns_of.ordinal, levels, name)
        if len(levels) > _MOST_LEVELS or len(different) == len(known) > 20:
            raise ValueError(
                f"Schema.infer: column '{name}' has {len(levels)} different values in "
                f"{len(known)} rows: names, not categories. Drop it, or say what it is by keyword."
            )
        return _of_levels(columns_of.categorical, levels, name)
    if not all(isinstance(v, numbers.Real) for v in known):
        raise TypeError(
            f"Schema.infer: column '{name}': expected numbers, strings or Booleans, got "
            f"{type(known[0]).__name__}. Convert it: times to seconds or to an angle of the day."
        )
    found = np.array(known, np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"Schema.infer: column '{name}' holds infinite values. Drop those rows.")
    if (found == found[0]).all():
        raise ValueError(f"Schema.infer: column '{name}' is constant: {found[0]:g}. Drop it.")
    holes = len(known) < len(values) and (found == np.round(found)).all()
    if (values.dtype.kind in "iub" or holes) and np.abs(found).max() < _MOST_CELLS:
        return columns_of.count() if found.min() >= 0 else columns_of.real(step=1.0)
    step = _step_of(found, np.finfo(values.dtype).eps if values.dtype.kind == "f" else 0.0)
    if found.min() > 0.0 and abs(_skewness(np.log(found))) < abs(_skewness(found)):
        return columns_of.positive(step)
    return columns_of.real(step)


def _of_levels(kind, levels, name):
    try:
        return kind(levels)
    except TypeError as error:
        raise TypeError(f"Schema.infer: column '{name}': {error}") from None


def _step_of(values, rounding):
    """The largest decimal step that all values, so rounded, are multiples of, or `None`."""
    if len(np.unique(values)) == len(values) > 20:
        return None
    for step in _STEPS:
        cells = values / step
        # No wider than what `encode` takes.
        near = np.minimum(1e-6 + 2.0 * rounding * np.abs(cells), columns_of.rounding_of(cells))
        whole = np.abs(cells - np.round(cells)) <= near
        if np.abs(cells).max() < _MOST_CELLS and (
            (whole & ((np.round(cells) != 0) | (values == 0))).all()
        ):
            return step
    return None


def _skewness(values):
    z = values / np.abs(values).max()  # Of no unit that its cubes could leave float64 by.
    z -= z.mean()
    return (z**3).mean() / max((z**2).mean(), 1e-200) ** 1.5
