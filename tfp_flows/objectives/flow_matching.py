"""Flow matching."""

import keras
import numpy as np
import tensorflow as tf

from tfp_flows._checks import one_of
from tfp_flows._optional import optional
from tfp_flows.bijectors import Continuous
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors.composition import walk
from tfp_flows.bijectors.road import Road
from tfp_flows.objectives.base import Objective

_COUPLINGS = ("independent", "optimal_transport")


@keras.saving.register_keras_serializable(package="tfp_flows")
class FlowMatching(Objective):
    """The squared error of a continuous flow's velocity, on straight paths from noise to data.

        x_t = (1 - t) x_0 + t x_1        x_0 from the base, x_1 a row of data, t uniform on [0, 1]
        loss(x_1) = |v(t, x_t) - (x_1 - x_0)|^2

    Its minimum is the velocity whose flow carries the base to the data, and no step solves an
    equation. The loss is no likelihood, and its least value is not 0: `evaluate` reports the mean
    negative log-likelihood, "nats", beside it.

    The flow is a `bijectors.Continuous`, and perhaps fixed bijectors around it, such as a
    preprocessing of the data. A context goes to the velocity.

    Args:
      coupling: how rows of noise and data are paired. "independent" (default): as they come.
        "optimal_transport": within each batch, of each replica, such that the sum of squared
        distances is least, by SciPy; paths then cross less and the flow takes fewer steps, at a
        cost that grows as the cube of the batch. Not for conditional flows, whose pairs would
        mix contexts; nor under `jit_compile`.

    Raises:
      ValueError: for another coupling; by `FlowModel`, for a distribution that is no continuous
        flow, or has other parts with variables, which this objective does not train.
      ImportError: if SciPy is missing, for optimal transport.

    >>> from tfp_flows import flows
    >>> flow = flows.continuous([2], hidden_units=(8,), seed=0)
    >>> FlowMatching().loss(flow, (tf.zeros([3, 2]), None), seed=[0, 1]).shape
    TensorShape([3])

    References:
      Y. Lipman, R. T. Q. Chen, H. Ben-Hamu, M. Nickel, M. Le, Flow matching for generative
        modeling, 2023, arXiv:2210.02747, equation 23 with sigma_min = 0.
      A. Tong et al., Improving and generalizing flow-based generative models with minibatch
        optimal transport, 2023, arXiv:2302.00482, section 3.2.4.
    """

    def __init__(self, coupling="independent"):
        self.coupling = one_of(coupling, _COUPLINGS, "coupling", "FlowMatching")
        if coupling == "optimal_transport":
            _optimize()

    def get_config(self):
        """Returns `coupling`."""
        return {"coupling": self.coupling}

    @property
    def compares_rows(self):
        """Optimal transport pairs those of a batch."""
        return self.coupling == "optimal_transport"

    @property
    def allows_xla(self):
        """Only where pairs are taken as they come."""
        return self.coupling == "independent"

    def check(self, distribution, title):
        """Refuses what is no continuous flow, and parts that it would not train."""
        road = Road(distribution)
        place = _place_of(road)
        if place is None:
            raise ValueError(
                f"{title}: FlowMatching is for a distribution with one bijectors.Continuous from "
                f"the base to the data, got {', '.join(s.title for s in road.steps) or 'none'}. "
                "Take flows.continuous, or leave out the objective."
            )
        others = [s.bijector for n, s in enumerate(road.steps) if n != place] + [road.base]
        for part in others:
            if part.trainable_variables:
                raise ValueError(
                    f"{title}: FlowMatching trains the velocity alone, but '{part.name}' has "
                    f"{len(part.trainable_variables)} variables of its own. Give that part fixed "
                    "values."
                )
        if self.coupling == "optimal_transport" and road.context_shapes is not None:
            raise ValueError(
                f"{title}: coupling='optimal_transport' would pair noise with data of other "
                "contexts. Take coupling='independent' for a conditional flow."
            )

    def draw_noise(self, distribution, rows, seed):
        """Points of the base and times, unless the base takes the context."""
        road = Road(distribution)
        if road.base_context_shapes is not None:
            return None
        return _drawn(road, tf.reshape(rows, [1]), seed)

    def loss(self, distribution, batch, seed, noise=None):
        """The squared error of each row, at one time each."""
        x, context = batch
        road = Road(distribution)
        place = _place_of(road)
        bijector = road.steps[place].bijector
        end, _, _ = walk(road.steps[:place], x, context, road.event_ndims)
        rows = tf.shape(end)[0]
        z, t = _drawn(road, rows[tf.newaxis], seed, context) if noise is None else noise
        # From the base as far as the continuous part.
        behind = len(road.steps) - 1 - place
        start, _, _ = walk(road.back[:behind], z, context, road.base_ndims)
        start = tf.ensure_shape(start, end.shape)
        start, end = tf.stop_gradient(start), tf.stop_gradient(end)
        if self.coupling == "optimal_transport":
            start = _paired(start, end)
        wide = tf.reshape(t, tf.concat([[rows], [1] * (end.shape.rank - 1)], axis=0))
        given = contexts.take(context, bijector._context_shapes)
        velocity = bijector.velocity(t, (1.0 - wide) * start + wide * end, given)
        error = tf.square(velocity - (end - start))
        return tf.reduce_sum(error, axis=list(range(1, error.shape.rank)))


def _drawn(road, shape, seed, context=None):
    """Points of the base, and times."""
    seeds = tf.random.experimental.stateless_split(seed, 2)
    t = tf.random.stateless_uniform(shape, seeds[1], dtype=road.dtype)
    return road.base_sample(shape, seeds[0], context), t


def _place_of(road):
    """The number of the one continuous step, or `None`."""
    found = [n for n, step in enumerate(road.steps) if isinstance(step.bijector, Continuous)]
    return found[0] if len(found) == 1 and road.steps[found[0]].inverse else None


def _paired(start, end):
    """The rows of `start` in the order in which they are closest to those of `end`."""
    order = tf.numpy_function(_assignment, [start, end], tf.int32)
    order.set_shape(start.shape[:1])
    return tf.ensure_shape(tf.gather(start, order), start.shape)


def _assignment(start, end):
    a, b = (v.reshape(len(v), -1).astype(np.float64) for v in (start, end))
    cost = np.sum(a**2, axis=1) + np.sum(b**2, axis=1)[:, np.newaxis] - 2.0 * b @ a.T
    _, columns = _optimize().linear_sum_assignment(cost)
    return columns.astype(np.int32)


def _optimize():
    return optional("scipy.optimize", "FlowMatching: coupling='optimal_transport'", "metrics")
