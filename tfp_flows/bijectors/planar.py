"""Planar flows."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows._solve import increasing_root
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.amortised import Amortised
from tfp_flows.bijectors.base import Weight

# What is left of the slope of the map in the direction in which it contracts most.
LEAST_SLOPE = 1e-3


class Planar(Amortised):
    """A shift along one direction by a tanh of another one: contracts or expands about a plane.

        forward:  y = x + u' tanh(w . x + b)
        inverse:  numeric; x = y - u' tanh(a + b), where a = w . x solves
                  a + (w . u') tanh(a + b) = w . y
        log|det dy/dx| = log(1 + (w . u') sech(w . x + b)^2)

    It is a bijection if and only if w . u' >= -1, so the trained vector is another, u, whose part
    along w is bent to where this holds:

        u' = u + (m(w . u) - w . u) w / |w|^2,    1 + m(s) = 0.999 softplus(s + log(e - 1)) + 0.001

    At u = 0 it is the identity, and so is a fresh one.

    Forward, from latents to data, it is one formula: samples and their densities are cheap, as
    variational inference needs. For densities of data take `tfb.Invert(Planar(...))`, whose data
    go the closed way.

    Shapes: `x`, `y` `[..., D]`; `context` `[..., context_size]`; the conditioner maps `[batch,
    context_size]` to `[batch, 2 D + 1]`: w, u, b.

    Args:
      size: `int >= 1`, the size D of an event.
      conditioner: Keras layer of the context, whose output is added to the parameters: an
        amortised posterior. Default: none.
      context_size: size of the vector that the conditioner takes. Default: the conditioner's
        own `context_size`, if it has one.
      w, u: arrays `[D]` to start from, or variables of that shape. Default: `w` normal with
        variance 1/D, `u` 0.
      b: number to start from, or a variable. Default: 0.
      seed: `int` that fixes the initial `w`.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if the conditioner is no Keras layer, or the size no integer.
      ValueError: if the size is below 1, a start has another shape, or a conditioner comes
        without the size of its context.
      tf.errors.InvalidArgumentError: by the inverse, if rows did not converge, with their number.

    Numerics: the inverse is Newton's method within a bracket, to w . x within 4 eps max(1, |w .
    x|) as far as rounding allows, with the gradients of the solution. The slope is at least 0.001
    in any direction, so an error of the data grows by at most 1,000 there.

    >>> planar = Planar(2, w=[1.0, 0.0], u=[2.0, 0.0])
    >>> y = planar.forward(tf.constant([[0.5, 1.0]]))
    >>> tf.round(100 * planar.inverse(tf.identity(y))).numpy()
    array([[ 50., 100.]], dtype=float32)

    References:
      D. J. Rezende, S. Mohamed, Variational inference with normalizing flows, 2015,
      arXiv:1505.05770, equations 10 to 12 and appendix A.1. There 1 + m(s) = softplus(s), which
      is not 1 at s = 0 and has no least value.
    """

    w = Weight("Variable `[D]`, the direction that it looks along.")
    u = Weight("Variable `[D]`, the direction that it shifts along, before it is bent.")
    b = Weight("Variable `[]`.")
    _random = ("w",)

    def __init__(
        self,
        size,
        *,
        conditioner=None,
        context_size=None,
        w=None,
        u=None,
        b=None,
        seed=None,
        name="planar",
        **kwargs,
    ):
        common = {"conditioner": conditioner, "context_size": context_size, "seed": seed}
        super().__init__(size, **common, name=name, **kwargs)
        self.add_parameters(conditioner, w=w, u=u, b=b)

    def _start(self, size, seed):
        w = _linear.generator(seed).normal(size=size) / math.sqrt(size)
        return {"w": w, "u": np.zeros(size), "b": 0.0}

    @property
    def solved_direction(self):
        """The inverse."""
        return "inverse"

    def _forward_and_log_det(self, x, context):
        w, u, slope, b = self._bent(context)
        a = _dot(w, x)
        return x + u * tf.tanh(a + b)[..., tf.newaxis], ridge(a, [slope - 1.0, b])[1]

    def _inverse_and_log_det(self, y, context):
        w, u, slope, b = self._bent(context)
        wy = _dot(w, y)
        # Of a batch of contexts, or none, for each row.
        parameters = [tf.broadcast_to(value, tf.shape(wy)) for value in (slope - 1.0, b)]
        reach = tf.abs(parameters[0])
        a = increasing_root(
            ridge, wy, parameters, (wy - reach, wy + reach), name=self._title() + ".inverse"
        )
        return y - u * tf.tanh(a + b)[..., tf.newaxis], -ridge(a, parameters)[1]

    def _bent(self, context):
        """w, u', 1 + w . u' and b."""
        w, u, b = self._parameters_at(context)
        s = _dot(w, u)
        slope = (1.0 - LEAST_SLOPE) * tf.nn.softplus(s + math.log(math.e - 1.0)) + LEAST_SLOPE
        # With w = 0 there is no plane, and m(0) = 0.
        square = tf.maximum(_dot(w, w), np.finfo(w.dtype.as_numpy_dtype).tiny ** 0.5)
        normal = w / square[..., tf.newaxis]
        across = u - s[..., tf.newaxis] * normal
        # Once more, for of a long u along w the rounding would leave more than the least slope.
        across -= _dot(w, across)[..., tf.newaxis] * normal
        return w, across + (slope - 1.0)[..., tf.newaxis] * normal, slope, b


def ridge(a, parameters):
    """a + m tanh(a + b), and the log of its slope, for m > -1."""
    m, b = parameters
    bend = tf.tanh(a + b)
    return a + m * bend, log_slope(m, bend)


def log_slope(m, bend):
    """log(1 + m (1 - bend^2)), for m > -1: of this form no difference of close numbers."""
    return tf.math.log((1.0 + m) * (1.0 - tf.square(bend)) + tf.square(bend))


def _dot(a, b):
    return tf.reduce_sum(a * b, axis=-1)
