"""Sylvester flows."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows._checks import one_of, positive_integer
from tfp_flows._private import record
from tfp_flows._solve import increasing_root
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.amortised import Amortised
from tfp_flows.bijectors.base import Weight
from tfp_flows.bijectors.planar import LEAST_SLOPE, log_slope

_KINDS = ("orthogonal", "householder", "triangular")


class Sylvester(Amortised):
    """A planar flow along M directions at once, which bend each other in order.

    With Q of orthonormal columns `[D, M]`, and upper triangular matrices R and S,

        forward:  y = x + Q R tanh(S Q^T x + b)
        inverse:  numeric; x = y - Q R tanh(S z + b), where z = Q^T x solves
                  z + R tanh(S z + b) = Q^T y, the last entry first
        log|det dy/dx| = sum_i log(1 + r_ii s_ii sech(S z + b)_i^2)

    A tanh keeps both diagonals within 0.9995 of 0, and so r_ii s_ii above -0.999 and the map a
    bijection. At R = 0 it is the identity, and so is a fresh one. The orthonormal columns are

        "orthogonal":   M <= D columns of a free matrix, made orthonormal by QR decomposition, each
                        with the sign that keeps them continuous. The default.
        "householder":  M = D; a product of reflections I - 2 v v^T / |v|^2.
        "triangular":   M = D; the entries themselves, or in reversed order (`flip`), which
                        successive layers should alternate.

    Forward, from latents to data, it is one formula; for densities of data take `tfb.Invert` of
    it, whose data go the closed way. The numeric direction takes M solves, one after another.

    Shapes: `x`, `y` `[..., D]`; `context` `[..., context_size]`; the conditioner maps `[batch,
    context_size]` to all parameters side by side, in the order r, s, b, q; `num_parameters` of one
    without a conditioner says how many they are.

    Args:
      size: `int >= 1`, the size D of an event.
      num_directions: `int`, M from 1 to D, for `kind="orthogonal"`. Default: `min(D, 8)`.
      kind: "orthogonal", "householder" or "triangular".
      num_reflections: `int >= 1`, for `kind="householder"`. Default: 4.
      flip: whether `kind="triangular"` takes the entries in reversed order.
      conditioner, context_size: as `Planar`.
      r, s: arrays `[M (M + 1) / 2]` to start from, or variables: the upper triangular matrices as
        `tfp.math.fill_triangular(upper=True)` takes them, with diagonals before the tanh. Default:
        `r` 0, `s` normal with variance 1/M.
      b: array `[M]` to start from, or a variable. Default: 0.
      q: array to start from, or a variable: `[D, M]` if orthogonal, `[num_reflections, D]` if
        Householder. Default: normal.
      seed: `int` that fixes the initial `q` and `s`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if the conditioner is no Keras layer, or a size no integer.
      ValueError: if a size is out of range or for another kind, a start has another shape, or a
        conditioner comes without the size of its context.
      tf.errors.InvalidArgumentError: by the inverse, if rows did not converge, with their number.

    Numerics: each of the M solves as the inverse of `Planar`. Gradients, second ones too, are those
    of the solution, by the implicit function theorem.

    >>> sylvester = Sylvester(3, num_directions=2, r=[0.5, 0.5, 0.5], seed=0)
    >>> x = tf.constant([[0.5, 1.0, -1.0]])
    >>> y = sylvester.forward(x)
    >>> bool(tf.reduce_max(abs(sylvester.inverse(tf.identity(y)) - x)) < 1e-5)
    True

    References:
      R. van den Berg, L. Hasenclever, J. M. Tomczak, M. Welling, Sylvester normalizing flows for
      variational inference, 2018, arXiv:1803.05649, theorem 2 and section 3.
    """

    r = Weight("Variable `[M (M + 1) / 2]`, the matrix R.")
    s = Weight("Variable `[M (M + 1) / 2]`, the matrix S.")
    b = Weight("Variable `[M]`.")
    q = Weight("Variable from which Q is made; of a triangular one there is none.")
    _random = ("s", "q")

    def __init__(
        self,
        size,
        *,
        num_directions=None,
        kind="orthogonal",
        num_reflections=None,
        flip=False,
        conditioner=None,
        context_size=None,
        r=None,
        s=None,
        b=None,
        q=None,
        seed=None,
        name="sylvester",
        **kwargs,
    ):
        title = self._title()
        self._kind, self._flip = one_of(kind, _KINDS, "kind", title), bool(flip)
        for argument, given, own in (
            ("num_directions", num_directions is not None, "orthogonal"),
            ("num_reflections", num_reflections is not None, "householder"),
            ("flip", flip, "triangular"),
        ):
            if given and kind != own:
                raise ValueError(
                    f"{title}: {argument} is for kind='{own}', got kind='{kind}', which would "
                    "ignore it. Leave it out."
                )
        size = positive_integer(size, "size", title)
        self._count = size
        if kind == "orthogonal":
            count = min(size, 8) if num_directions is None else num_directions
            self._count = positive_integer(count, "num_directions", title)
            if self._count > size:
                raise ValueError(
                    f"{title}: num_directions must be at most the size {size} of an event, got "
                    f"{self._count}."
                )
        elif kind == "householder":
            number = 4 if num_reflections is None else num_reflections
            self._num_reflections = positive_integer(number, "num_reflections", title)
        elif q is not None:
            raise ValueError(
                f"{title}: kind='triangular' has no q, which would be ignored. Leave it out."
            )
        common = {"conditioner": conditioner, "context_size": context_size, "seed": seed}
        super().__init__(size, **common, name=name, **kwargs)
        self.add_parameters(conditioner, r=r, s=s, b=b, q=q)

    def _start(self, size, seed):
        rng, count = _linear.generator(seed), self._count
        triangle = count * (count + 1) // 2
        starts = {
            "r": np.zeros(triangle),
            "s": rng.normal(size=triangle) / math.sqrt(count),
            "b": np.zeros(count),
        }
        if self._kind == "orthogonal":
            starts["q"] = rng.normal(size=[size, count])
        elif self._kind == "householder":
            starts["q"] = rng.normal(size=[self._num_reflections, size])
        return starts

    @property
    def solved_direction(self):
        """The inverse."""
        return "inverse"

    def _forward_and_log_det(self, x, context):
        to_z, to_x, r, s, b = self._matrices(context)
        z = to_z(x)
        bend = tf.tanh(tf.linalg.matvec(s, z) + b)
        return x + to_x(tf.linalg.matvec(r, bend)), _log_det(bend, r, s)

    def _inverse_and_log_det(self, y, context):
        to_z, to_x, r, s, b = self._matrices(context)
        z = _solve(to_z(y), [r, s, b], self._title() + ".inverse")
        bend = tf.tanh(tf.linalg.matvec(s, z) + b)
        return y - to_x(tf.linalg.matvec(r, bend)), -_log_det(bend, r, s)

    def _matrices(self, context):
        """Q^T and Q as functions, R, S and b."""
        r, s, b, *q = self._parameters_at(context)
        return *self._rotation(*q), _triangle(r), _triangle(s), b

    def _rotation(self, q=None):
        if self._kind == "triangular":

            def act(x):
                return tf.reverse(x, axis=[-1]) if self._flip else x

            return act, act
        if self._kind == "householder":
            unit = tf.unstack(_linear.unit_vectors(q), axis=-2)
            return (
                lambda x: _linear.reflected(x, unit),
                lambda z: _linear.reflected(z, unit[::-1]),
            )
        columns, upper = tf.linalg.qr(q)
        # LAPACK's signs jump where an entry of `q` changes its own.
        signs = tf.where(tf.linalg.diag_part(upper) < 0.0, -1.0, 1.0)
        columns *= tf.cast(signs, columns.dtype)[..., tf.newaxis, :]
        return (
            lambda x: tf.linalg.matvec(columns, x, transpose_a=True),
            lambda z: tf.linalg.matvec(columns, z),
        )


def _triangle(packed):
    """The upper triangular matrix, its diagonal within 0.9995 of 0."""
    size = math.isqrt(2 * packed.shape[-1])
    rows, columns = np.triu_indices(size)
    places = np.zeros([size, size], np.int32)
    places[rows, columns] = np.arange(len(rows))
    matrix = tf.gather(packed, places, axis=-1)
    bound = math.sqrt(1.0 - LEAST_SLOPE)
    upper = np.triu(np.ones([size, size]), 1)
    diagonal = bound * tf.tanh(tf.linalg.diag_part(matrix))
    return tf.cast(upper, packed.dtype) * matrix + tf.linalg.diag(diagonal)


def _log_det(bend, r, s):
    product = tf.linalg.diag_part(r) * tf.linalg.diag_part(s)
    return tf.reduce_sum(log_slope(product, bend), axis=-1)


def _solve(y, parameters, name):
    """The z of z + R tanh(S z + b) = y."""

    @tf.custom_gradient
    def solve(y, *parameters):
        with record.stop_recording():
            z = _in_order(y, *parameters, name)

        def gradient(z_bar):
            # For a second derivative z has to be a function of the arguments again.
            known = solve(y, *parameters) if record.could_possibly_record() else z
            # As in `increasing_root`: of the graph that this runs in.
            own = r, s, b = [tf.identity(p) for p in parameters]
            with tf.GradientTape() as tape:
                tape.watch(own)
                bend = tf.tanh(tf.linalg.matvec(s, known) + b)
                value = known + tf.linalg.matvec(r, bend)
            steep = (1.0 - tf.square(bend))[..., tf.newaxis]
            jacobian = tf.eye(y.shape[-1], dtype=y.dtype) + tf.matmul(r, steep * s)
            y_bar = tf.linalg.triangular_solve(
                jacobian, z_bar[..., tf.newaxis], lower=False, adjoint=True
            )[..., 0]
            return y_bar, *tape.gradient(value, own, output_gradients=-y_bar)

        return z, gradient

    return solve(y, *parameters)


def _in_order(y, r, s, b, name):
    """Entry by entry from the last, each of which depends on itself and on later ones alone."""
    size = y.shape[-1]
    batch = tf.shape(y)[:-1]
    rank = y.shape[:-1]

    def body(number, z, bend):
        i = size - 1 - number
        r_row, s_row = tf.gather(r, i, axis=-2), tf.gather(s, i, axis=-2)
        # Entries up to this one are 0 yet.
        target = tf.gather(y, i, axis=-1) - tf.reduce_sum(r_row * bend, axis=-1)
        shift = tf.gather(b, i, axis=-1) + tf.reduce_sum(s_row * z, axis=-1)
        values = [tf.gather(r_row, i, axis=-1), tf.gather(s_row, i, axis=-1), shift]
        values = [tf.broadcast_to(value, batch) for value in values]
        reach = tf.abs(values[0])
        root = increasing_root(_entry, target, values, (target - reach, target + reach), name=name)
        here = tf.one_hot(i, size, dtype=y.dtype)
        z += root[..., tf.newaxis] * here
        bend += tf.tanh(values[1] * root + shift)[..., tf.newaxis] * here
        z.set_shape(rank.concatenate([size]))
        bend.set_shape(rank.concatenate([size]))
        return number + 1, z, bend

    start = tf.zeros_like(y)
    return tf.while_loop(
        lambda number, *_: number < size,
        body,
        (tf.constant(0), start, start),
        maximum_iterations=size,
        parallel_iterations=1,
    )[1]


def _entry(t, parameters):
    """t + r tanh(s t + b), and the log of its slope."""
    r, s, b = parameters
    bend = tf.tanh(s * t + b)
    return t + r * bend, log_slope(r * s, bend)
