"""What all pictures share: an empty figure, colours, labels, numbers."""

import functools
import io

import numpy as np

from tfp_flows._optional import optional

# Okabe and Ito's palette, which all kinds of colour vision tell apart.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
FIRST, SECOND = PALETTE[:2]
TRUTH = "black"
# Rises in lightness, and is the same to most kinds of colour vision.
SHADES = "cividis"


def figure_of(title, rows, columns, size, **kwargs):
    """A figure and its axes `[rows, columns]`, without pyplot: no window, no global state.

    Args:
      title: the caller, for messages.
      rows, columns: numbers of panels.
      size: width and height in inches.
      **kwargs: as of `matplotlib.figure.Figure.subplots`.

    Raises:
      ImportError: if matplotlib is not installed.
    """
    figure = optional("matplotlib.figure", title, "plots").Figure(size, layout="constrained")
    # A notebook learns how to show a figure from pyplot alone. (An attribute, of a kind that can be
    # pickled: the class is matplotlib's, which is not imported before.)
    figure._repr_png_ = functools.partial(_png, figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def _png(figure):
    file = io.BytesIO()
    figure.savefig(file, format="png", bbox_inches="tight")
    return file.getvalue()


def array_of(values, name, title, rank=None, missing=False):
    """`values` as a float64 array of finite numbers.

    Args:
      values: array or tensor.
      name: of the argument, for messages.
      title: the caller, for messages.
      rank: number of axes that it must have, or `None` for any.
      missing: whether NaN means a missing entry.
    """
    found = np.asarray(values)
    if found.dtype.kind not in "biuf":
        # TensorFlow's bfloat16 is of no kind that NumPy knows.
        try:
            found = found.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(
                f"{title}: {name} must hold real numbers, got dtype {found.dtype}. Give an array."
            ) from None
    found = found.astype(np.float64)
    if rank is not None and found.ndim != rank:
        raise ValueError(
            f"{title}: {name} must have {rank} axes, got shape {list(found.shape)}. Reshape it."
        )
    if not found.size:
        raise ValueError(f"{title}: {name} of shape {list(found.shape)} is empty. Draw something.")
    bad = np.isinf(found) if missing else ~np.isfinite(found)
    if bad.any():
        kinds = "infinite" if missing else "NaN or infinite"
        raise ValueError(
            f"{title}: {name} holds {int(bad.sum())} of {found.size} entries that are {kinds}. "
            "Leave those rows out, and say how many they were."
        )
    return found


def labelled(labels, units, size, title, default="x{}"):
    """Texts of the axes: labels with their units.

    Args:
      labels: `size` texts, or `None` for `default` numbered from 1.
      units: `size` texts, empty or `None` where there is no unit; or `None`.
      size: number of axes.
      title: the caller, for messages.
      default: text with a place for the number.
    """
    found = []
    for name, texts in (("labels", labels), ("units", units)):
        if texts is not None and (isinstance(texts, str) or len(texts) != size):
            raise ValueError(
                f"{title}: {name} must be {size} texts, one for each entry, got {texts!r}."
            )
    for n in range(size):
        label = default.format(n + 1) if labels is None else str(labels[n])
        unit = None if units is None else units[n]
        found.append(f"{label} ({unit})" if unit else label)
    return found
