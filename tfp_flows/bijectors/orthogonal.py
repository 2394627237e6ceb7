"""Trained rotations and reflections of the last axis."""

import abc

import numpy as np
import tensorflow as tf

from tfp_flows._checks import integer, optional_seed, positive_integer
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.base import FlowBijector, Weight


class _Rotation(FlowBijector):
    """What has an orthogonal `matrix`, whose transpose is the way back."""

    def __init__(self, size, *, seed, **kwargs):
        self._seed = optional_seed(seed, self._title())
        super().__init__(event_shape=[size], is_constant_jacobian=True, **kwargs)

    @property
    @abc.abstractmethod
    def matrix(self):
        """The matrix `[size, size]` of the forward direction."""

    def _forward_and_log_det(self, x, context):
        return _linear.matvec(self.matrix, x), tf.zeros([], x.dtype)

    def _inverse_and_log_det(self, y, context):
        return _linear.matvec(tf.transpose(self.matrix), y), tf.zeros([], y.dtype)


class Householder(_Rotation):
    """Trained reflections of the last axis, one after another.

        H_v x = x - 2 v (v . x) / |v|^2
        forward:  y = H_K ... H_1 x
        inverse:  x = H_1 ... H_K y
        log|det dy/dx| = 0

    Of `size` reflections every orthogonal matrix is made whose determinant is (-1)^size, and of one
    less every other. Their product is computed once a call, whatever the number of rows and
    positions.

    It acts on the last axis: `[..., size]` for vectors, `[..., H, W, size]` for images. It mixes
    entries or channels as a permutation does, between couplings say, and cannot change a volume.

    Args:
      size: `int >= 1`, size of the last axis.
      num_reflections: `int >= 1`, K. Default: that of `vectors`, or `size`.
      seed: `int`, seeds the vectors, which are normal. Default: drawn from NumPy's global state.
      vectors: variable `[K, size]` of the vectors, or an array to start from. Their lengths do not
        matter; one of length 0 reflects nothing.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `size`, `num_reflections` or `seed` is no integer.
      ValueError: if one of them is out of range, or `vectors` of another shape.

    >>> swap = Householder(2, vectors=[[1.0, -1.0]])
    >>> tf.round(swap.forward(tf.constant([3.0, 5.0]))).numpy()
    array([5., 3.], dtype=float32)

    References:
      J. M. Tomczak, M. Welling, Improving variational auto-encoders using Householder flow, 2016,
      arXiv:1611.09630.
    """

    vectors = Weight("Variable `[num_reflections, size]`.")

    def __init__(
        self,
        size,
        *,
        num_reflections=None,
        seed=None,
        vectors=None,
        name="householder",
        **kwargs,
    ):
        size = positive_integer(size, "size", self._title())
        number = num_reflections
        if number is None:
            number = size if vectors is None else tf.TensorShape(np.shape(vectors))[0]
        number = positive_integer(number, "num_reflections", self._title())
        super().__init__(size, seed=seed, name=name, **kwargs)
        self._drawn = vectors is None
        shape = [number, size]
        start = _normal(shape, self._seed) if self._drawn else 0.0
        self.add_weight("vectors", vectors, shape, start)

    @property
    def matrix(self):
        """The matrix `[size, size]` of the forward direction."""
        unit = _linear.unit_vectors(tf.convert_to_tensor(self.vectors))
        # Row by row, so that what is reflected are the columns of the transpose.
        rows = tf.eye(unit.shape[-1], dtype=unit.dtype)
        return tf.transpose(_linear.reflected(rows, tf.unstack(unit)))

    def redrawn(self, reseed):
        """Other vectors, if they were drawn."""
        if not self._drawn:
            return ()
        return [(self._vectors, _normal(self._vectors.shape, reseed(self._seed)))]


class Orthogonal(_Rotation):
    """A trained rotation of the last axis, by Cayley's transform.

        Q = R (I - A) (I + A)^-1,    A = S - S^T, S strictly lower triangular, R fixed
        forward:  y = Q x
        inverse:  x = Q^T y
        log|det dy/dx| = 0

    R is a random rotation, or one that is given: of a permutation's matrix it is that permutation
    at first. S starts from 0. All rotations of R are reached but those by half a turn, which are
    limits: as many numbers are trained as a rotation has. One linear solve of size x size is made a
    call, whatever the number of rows and positions. A reflection stays one.

    It acts on the last axis: `[..., size]` for vectors, `[..., H, W, size]` for images. Beside
    `InvertibleConv1x1` it cannot change a volume, and has no small pivots.

    Args:
      size: `int >= 2`, size of the last axis.
      seed: `int`, seeds R. Default: drawn from NumPy's global state.
      start: R, an orthogonal array `[size, size]`, or the variable of it, which is not trained.
      skew: variable `[size (size - 1) / 2]` of S, row by row, or an array to start from.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `size` or `seed` is no integer.
      ValueError: if one of them is out of range, `start` or `skew` of another shape, or the array
        `start` not orthogonal to 1e-5.

    >>> reverse = Orthogonal(3, start=np.eye(3)[::-1])
    >>> reverse.forward(tf.constant([1.0, 2.0, 3.0])).numpy()
    array([3., 2., 1.], dtype=float32)
    >>> turn = Orthogonal(2, start=np.eye(2), skew=[1.0])  # by 2 arctan(1)
    >>> abs(tf.round(turn.forward(tf.constant([1.0, 0.0])))).numpy()
    array([0., 1.], dtype=float32)

    References:
      A. Cayley, Sur quelques proprietes des determinants gauches, 1846. As a layer with a fixed
      factor: K. Helfrich, D. Willmott, Q. Ye, Orthogonal recurrent neural networks with scaled
      Cayley transform, 2018, arXiv:1707.09520; there the factor is a diagonal of signs.
    """

    skew = Weight("Variable `[size (size - 1) / 2]`: the triangle S, row by row.")
    start = Weight("Variable `[size, size]`: the fixed factor R; not trained.")

    def __init__(self, size, *, seed=None, start=None, skew=None, name="orthogonal", **kwargs):
        size = integer(size, "size", self._title(), least=2)
        super().__init__(size, seed=seed, name=name, **kwargs)
        self._drawn = start is None
        if self._drawn:
            start = _linear.random_rotation(size, self._seed)
        elif not isinstance(start, tf.Variable):
            start = np.asarray(start)
            square = start.T @ start if start.shape == (size, size) else np.eye(size)
            if np.abs(square - np.eye(size)).max() > 1e-5:
                raise ValueError(
                    f"{self._title()}: start must be an orthogonal matrix, but start^T start "
                    f"differs from the identity by {np.abs(square - np.eye(size)).max():.2g}. "
                    "Give the Q of its QR decomposition."
                )
        self.add_weight("start", start, [size, size], trainable=False)
        self.add_weight("skew", skew, [size * (size - 1) // 2])
        rows, columns = np.tril_indices(size, -1)
        places = np.zeros([size, size], np.int32)
        places[rows, columns] = np.arange(len(rows))
        self._places = self._no_dependency(places)

    @property
    def matrix(self):
        """The matrix `[size, size]` of the forward direction."""
        size = self._places.shape[0]
        lower = tf.linalg.band_part(tf.gather(self.skew, self._places), -1, 0)
        lower = tf.linalg.set_diag(lower, tf.zeros([size], self.dtype))
        skew, one = lower - tf.transpose(lower), tf.eye(size, dtype=self.dtype)
        # |(I + A) x|^2 = |x|^2 + |A x|^2: it has no small singular value, whatever S.
        return tf.matmul(self.start, tf.linalg.solve(one + skew, one - skew))

    def redrawn(self, reseed):
        """Another R, if it was drawn."""
        if not self._drawn:
            return ()
        return [(self._start, _linear.random_rotation(len(self._places), reseed(self._seed)))]


def _normal(shape, seed):
    return _linear.generator(seed).normal(size=shape)
