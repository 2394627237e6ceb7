"""Invertible 1x1 convolution."""

import numpy as np
import tensorflow as tf

from tfp_flows._checks import optional_seed, positive_integer, positive_number
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.base import FlowBijector, Weight


class InvertibleConv1x1(FlowBijector):
    """A trained invertible matrix over the channels of every pixel, LU-decomposed.

        W = P L (U + diag(sign * exp(rate * log_scale)))
        inverse:  x = W y      (data to latent, as the paper writes it)
        forward:  y = W^-1 x
        log|det dx/dy| = rate * sum(log_scale), for every position of an image

    with `P` a fixed permutation, `L` unit lower and `U` strictly upper triangular: `rate * lu`
    below and above the diagonal. The direction that training uses, `inverse`, needs no solve;
    `forward` solves two triangular systems of size C x C, once a call, whatever the number of
    pixels. The C x C matrix is applied as one matrix product.

    It acts on the last axis: `[..., size]` for vectors, `[..., H, W, size]` for images.

    Args:
      size: `int >= 1`, number of channels.
      seed: `int`, seeds the random rotation that `W` starts from. Default: drawn from NumPy's
        global state, which `keras.utils.set_random_seed` seeds.
      lu: variable `[size, size]` holding `L` below and `U` above the diagonal (the diagonal
        is not used). With `log_scale` `[size]`, `sign` `[size]` and `permutation` `[size]`
        it is what `copy()` hands over; give all four or none.
      log_scale, sign, permutation: see `lu`. `sign` and `permutation` are not trained, but
        they are variables, so that a checkpoint restores the whole matrix.
      rate: positive finite number that `lu` and `log_scale` are multiplied by before their use;
        default 1. Adam moves every entry of a matrix by the learning rate, all the same way at
        first: a rate below 1 keeps within bounds what a step does to a flow of many rotations.
        `flows.glow` takes one by the number of its steps. The rotation that `W` starts from is the
        same for each.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `size` or `seed` is no integer, or `rate` no number.
      ValueError: if one of them is out of range, or only some of the variables are given.

    Numerics: `exp(log_scale)` are the pivots; the inverse matrix is as accurate as the
    condition numbers of the two triangular factors allow, 1e-6 relative for a trained Glow.

    >>> conv = InvertibleConv1x1(3, seed=0)
    >>> x = tf.random.stateless_normal([2, 4, 4, 3], seed=[0, 1])
    >>> error = tf.reduce_max(tf.abs(conv.inverse(tf.identity(conv.forward(x))) - x))
    >>> bool(error < 1e-5)
    True

    References:
      D. P. Kingma, P. Dhariwal, Glow: Generative flow with invertible 1x1 convolutions, 2018,
      arXiv:1807.03039, section 3.2, eq. 10-11. There `s` is the diagonal itself; here its
      sign and logarithm are kept apart, so that it cannot pass through 0 in training.
    """

    lu = Weight("Variable `[size, size]`: `L` below and `U` above the diagonal.")
    log_scale = Weight("Variable `[size]`: logarithms of the pivots.")
    sign = Weight("Variable `[size]`: signs of the pivots; not trained.")
    permutation = Weight("Variable `[size]`: the rows of `P`; not trained.")

    def __init__(
        self,
        size,
        *,
        seed=None,
        lu=None,
        log_scale=None,
        sign=None,
        permutation=None,
        rate=1.0,
        name="conv1x1",
        **kwargs,
    ):
        size = positive_integer(size, "size", self._title())
        seed = optional_seed(seed, self._title())
        self.rate = positive_number(rate, "rate", self._title())
        given = [value is not None for value in (lu, log_scale, sign, permutation)]
        if any(given) and not all(given):
            raise ValueError(
                f"{self._title()}: give all of lu, log_scale, sign and permutation, or none of "
                "them."
            )
        self._drawn_by = None if any(given) else (seed,)
        if not any(given):
            lu, log_scale, sign, permutation = self._random_start(size, seed)
        super().__init__(event_shape=[size], is_constant_jacobian=True, name=name, **kwargs)
        self.add_weight("lu", lu, [size, size])
        self.add_weight("log_scale", log_scale, [size])
        self.add_weight("sign", sign, [size], trainable=False)
        # TensorFlow keeps int32 variables on the host, where XLA on a GPU cannot read them. Those
        # of version 0.1 were.
        if isinstance(permutation, tf.Variable) and permutation.dtype == tf.int32:
            permutation = permutation.numpy()
        self.add_weight("permutation", permutation, [size], dtype=tf.int64, trainable=False)
        lower = np.tril(np.ones((size, size), dtype=bool), -1)
        self._lower, self._upper = self._no_dependency(lower), self._no_dependency(lower.T)

    @property
    def matrix(self):
        """The matrix `W` `[size, size]` of the data-to-latent direction."""
        lower, upper = self._factors()
        # `tf.math.invert_permutation` would send it from a GPU to the host and back.
        hits = tf.one_hot(self.permutation, lower.shape[0], dtype=lower.dtype)
        return tf.gather(lower @ upper, tf.argmax(hits, axis=0))

    def redrawn(self, reseed):
        """Another random rotation, if it started from one."""
        if self._drawn_by is None:
            return ()
        variables = self._lu, self._log_scale, self._sign, self._permutation
        values = self._random_start(self.lu.shape[0], reseed(*self._drawn_by))
        return zip(variables, values, strict=True)

    def _random_start(self, size, seed):
        lu, log_scale, sign, permutation = _random_rotation_lu(size, seed)
        return lu / self.rate, log_scale / self.rate, sign, permutation

    def _log_pivots(self):
        log_scale = tf.convert_to_tensor(self.log_scale)
        return log_scale if self.rate == 1.0 else self.rate * log_scale

    def _factors(self):
        lu = tf.convert_to_tensor(self.lu)
        lu = lu if self.rate == 1.0 else self.rate * lu
        zero = tf.zeros([], lu.dtype)
        log_pivots = self._log_pivots()
        lower = tf.linalg.set_diag(tf.where(self._lower, lu, zero), tf.ones_like(log_pivots))
        pivots = self.sign * tf.exp(log_pivots)
        return lower, tf.linalg.set_diag(tf.where(self._upper, lu, zero), pivots)

    def _inverse_and_log_det(self, y, context):
        return _linear.matvec(self.matrix, y), tf.reduce_sum(self._log_pivots())

    def _forward_and_log_det(self, x, context):
        lower, upper = self._factors()
        # W^-1 = U^-1 L^-1 P^T, and P^T is the identity with its columns permuted.
        permuted = tf.one_hot(self.permutation, lower.shape[0], dtype=lower.dtype)
        matrix = tf.linalg.triangular_solve(
            upper, tf.linalg.triangular_solve(lower, permuted), lower=False
        )
        return _linear.matvec(matrix, x), -tf.reduce_sum(self._log_pivots())


def _random_rotation_lu(size, seed):
    """LU factors of a random rotation, pivots as logarithm and sign."""
    rotation = _linear.random_rotation(size, seed)
    with tf.init_scope():
        lu, permutation = (v.numpy() for v in tf.linalg.lu(tf.constant(rotation)))
    pivots = np.diag(lu)
    return lu, np.log(np.abs(pivots)), np.sign(pivots), permutation
