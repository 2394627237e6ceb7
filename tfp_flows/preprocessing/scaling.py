"""Affine preprocessing with constants."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import integer
from tfp_flows.bijectors.base import FlowBijector

tfb = tfp.bijectors

# Entries to be converted to float64 at a time: 16 MiB.
_CHUNK = 2**21


class Standardize(FlowBijector):
    """Maps standardized values to data, with the means and scales of the training data.

        forward:  y = x * scale + mean
        inverse:  x = (y - mean) / scale
        log|det dy/dx| = sum(log(scale)), over the last axis and every position of the event

    Forward is from the latent side to data, so `inverse` standardizes, and the flow's density is
    over data in their original units. `mean` and `scale` are constants, not trained. Make it by
    `fit` from the training data alone: statistics of all data leak the test set into the model.

    Shapes: `x` and `y` are `[..., D]` for vectors, with one mean per feature, or `[..., H, W, C]`
    for images, with one per channel. For `mean` and `scale` of shape `[]`, any.

    Args:
      mean: number or array `[D]`, finite.
      scale: number or array `[D]`, positive and finite.
      name, **kwargs: as `bijectors.FlowBijector`.

    Raises:
      ValueError: if the two shapes differ or have more than one axis, or a value is out of
        range.

    >>> standardize = Standardize.fit(np.array([[0.0, 10.0], [2.0, 30.0]]))
    >>> standardize.inverse([2.0, 10.0]).numpy().tolist()
    [1.0, -1.0]
    """

    def __init__(self, mean, scale, *, name="standardize", **kwargs):
        mean, scale = np.asarray(mean, np.float64), np.asarray(scale, np.float64)
        if mean.shape != scale.shape or mean.ndim > 1:
            raise ValueError(
                f"{self._title()}: mean and scale must be two numbers or two arrays [D] of one "
                f"size, got the shapes {mean.shape} and {scale.shape}."
            )
        if not (np.all(np.isfinite(mean)) and np.all((scale > 0) & (scale < np.inf))):
            raise ValueError(
                f"{self._title()}: mean must be finite and scale positive and finite, got mean "
                f"{mean} and scale {scale}. `Standardize.fit` names the columns at fault."
            )
        super().__init__(event_shape=mean.shape, is_constant_jacobian=True, name=name, **kwargs)
        self._parameters.update(mean=mean, scale=scale)
        self._mean, self._scale = mean, scale

    @classmethod
    def fit(cls, train, *, dtype=tf.float32, name="standardize"):
        """Makes a `Standardize` from the means and standard deviations of training data.

        Args:
          train: floating array or tensor `[N]`, `[N, D]` (per feature) or `[N, ..., C]` (per
            channel), `N >= 2`, without NaN. The sums are taken in float64.
          dtype: float32 (default) or float64, of the bijector.
          name: name of the bijector.

        Returns:
          A `Standardize` whose `inverse` gives the training data mean 0 and variance 1.

        Raises:
          TypeError: if the data are not floating.
          ValueError: if there are fewer than two rows, a value is NaN or infinite, or a column is
            constant; the message names the columns.
        """
        train = np.asarray(train)
        if not np.issubdtype(train.dtype, np.floating):
            raise TypeError(
                f"Standardize.fit: expected floating data, got {train.dtype}. A density over "
                "integers degenerates: dequantize them first (UniformDequantization), or cast them "
                "if they are rounded continuous values."
            )
        if train.ndim == 0 or train.shape[0] < 2 or train.size == 0:
            raise ValueError(
                "Standardize.fit: expected an array [N, ...] of at least two rows, got shape "
                f"{train.shape}."
            )
        columns = train.reshape((-1, train.shape[-1] if train.ndim > 1 else 1))
        bad = np.flatnonzero(_reduce(columns, lambda c: np.any(~np.isfinite(c), 0), np.logical_or))
        if bad.size:
            raise ValueError(
                f"Standardize.fit: NaN or infinite values in {_names(bad)}. Drop those rows, or "
                "fill the values in."
            )
        low = _reduce(columns, lambda c: np.min(c, 0), np.minimum)
        high = _reduce(columns, lambda c: np.max(c, 0), np.maximum)
        constant = np.flatnonzero(low == high)
        if constant.size:
            raise ValueError(
                f"Standardize.fit: constant in the training data: {_names(constant)}. No scale "
                "fits and no density exists. Drop what is constant: its value is known."
            )
        mean = _reduce(columns, lambda c: np.sum(c, 0), np.add) / len(columns)
        # Around the mean: the difference of two large sums would lose the digits.
        squares = _reduce(columns, lambda c: np.sum(np.square(c - mean), 0), np.add)
        scale = np.sqrt(squares / len(columns))
        if train.ndim == 1:
            mean, scale = mean[0], scale[0]
        return cls(mean, scale, dtype=dtype, name=name)

    @property
    def mean(self):
        """NumPy array, float64: the means."""
        return self._mean

    @property
    def scale(self):
        """NumPy array, float64: the standard deviations."""
        return self._scale

    def _forward_and_log_det(self, x, context):
        mean, scale, log_det = self._constants()
        return x * scale + mean, log_det

    def _inverse_and_log_det(self, y, context):
        mean, scale, log_det = self._constants()
        return (y - mean) / scale, -log_det

    def _constants(self):
        values = (self._mean, self._scale, np.sum(np.log(self._scale)))
        return (tf.constant(value, self.dtype) for value in values)


def center(num_levels=256, *, dtype=tf.float32, name="center"):
    """The stock bijector from `[-0.5, 0.5]` to dequantized integers in `[0, num_levels]`.

        forward:  y = num_levels * (x + 0.5)
        inverse:  x = y / num_levels - 0.5
        log|dy/dx| = log(num_levels), for each entry of an event

    This is Glow's preprocessing. As the last bijector of a flow it keeps the density over data in
    their original units, so that `bits_per_dim` needs no `scale`.

    Args:
      num_levels: `int >= 2`, the number of levels. Default: 256.
      dtype: float32 (default) or float64.
      name: name of the bijector.

    Returns:
      A `tfb.Chain` of `tfb.Scale` and `tfb.Shift`, for any shape.

    Raises:
      TypeError: if `num_levels` is no integer.
      ValueError: if it is below 2.

    >>> center(256).inverse([0.0, 128.0, 256.0]).numpy().tolist()
    [-0.5, 0.0, 0.5]

    Reference: D. P. Kingma, P. Dhariwal, Glow, 2018, arXiv:1807.03039, its code (`preprocess`).
    """
    num_levels = integer(num_levels, "num_levels", "center", least=2)
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    return tfb.Chain([tfb.Scale(dtype(num_levels)), tfb.Shift(dtype(0.5))], name=name)


def _reduce(columns, over_rows, combine):
    """Reduces `[rows, D]` over the rows in float64, a chunk at a time: images are large."""
    step = max(1, _CHUNK // columns.shape[1])
    total = None
    for start in range(0, len(columns), step):
        part = over_rows(columns[start : start + step].astype(np.float64))
        total = part if total is None else combine(total, part)
    return total


def _names(indices):
    shown = ", ".join(str(i) for i in indices[:10])
    more = f" and {indices.size - 10} more" if indices.size > 10 else ""
    return f"column{'s' if indices.size > 1 else ''} {shown}{more} (of the last axis)"
