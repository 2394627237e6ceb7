"""Distillation: one flow taught by another."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import number, one_of
from tfp_flows.bijectors.composition import walk
from tfp_flows.bijectors.modes import training_mode
from tfp_flows.bijectors.road import Road
from tfp_flows.objectives._drawn import Drawn

tfd = tfp.distributions

_DIRECTIONS = ("forward", "inverse")
_LACKS = "a teacher is a model by itself, with a file of its own."


@keras.saving.register_keras_serializable(package="tfp_flows")
class Distillation(Drawn):
    """The squared error of a flow on pairs that another one makes, its teacher.

        z from the base, x = T(z)                           T the teacher
        "forward":  loss = |S(z) - x|^2 / D + w (-log q(x))         S the flow, q its density
        "inverse":  loss = |S^-1(x) - z|^2 / D + w (-log q(x))

    A continuous flow samples at the cost of an equation; a flow of couplings that has learned its
    pairs, in one pass, and its density stays exact. The pairs say more than samples do: where each
    latent goes. The second term, with w = `likelihood`, is the maximum likelihood of the teacher's
    samples, and what it falls to the cross entropy: it keeps the density right where a small error
    of the map is a large one of the density. Each step draws `num_samples` fresh pairs:

    ```python
    student = FlowModel(flows.real_nvp([2]), objective=objectives.Distillation(teacher))
    student.compile(optimizer="adam")
    student.fit(steps_per_epoch=200, epochs=20)
    ```

    Args:
      teacher: `tfd.Distribution` with the same event shape and the same base, of a `FlowModel` its
        `distribution`. It is not trained. No file keeps it: one of the student says so, scores and
        samples, and to train on wants a `FlowModel` of its distribution with the teacher.
      likelihood: number >= 0, the weight w. Default 1.
      direction: which direction of the student is compared, "forward" (default) or "inverse". Take
        the one that is a single pass: "inverse" for `flows.maf`, "forward" for `flows.iaf`, whose
        densities of given rows are slow: with `likelihood=0` they are not computed.
      num_samples: `int >= 1`, pairs a step, on all replicas together. Default: 256.
      seed: `int`, folded into the seed of each step. Default: 0.
      lacks: why there is no teacher, of an objective that was loaded from a file.

    Raises:
      TypeError: if the teacher is no `tfd.Distribution`, or a number none.
      ValueError: if `likelihood` is negative, or not finite; by `FlowModel`, for a conditional
        distribution, another event shape or base than the teacher's, a base with variables, or a
        part that is initialised from data; by a step, if there is no teacher.

    >>> from tfp_flows import flows
    >>> teacher = flows.continuous([2], hidden_units=(8,), seed=0)
    >>> student = flows.real_nvp([2], num_couplings=2, hidden_units=(8,), seed=0)
    >>> Distillation(teacher).loss(student, tf.constant(4), seed=[0, 1]).shape
    TensorShape([4])

    References:
      D. Baranchuk, V. Aliev, A. Babenko, Distilling the knowledge from conditional normalizing
      flows, 2021, arXiv:2106.12699: the error on pairs, for feed-forward students,
      which have no density.
    """

    def __init__(
        self,
        teacher,
        *,
        likelihood=1.0,
        direction="forward",
        num_samples=256,
        seed=None,
        lacks=None,
    ):
        super().__init__(num_samples, seed, lacks)
        if not isinstance(teacher, tfd.Distribution) and lacks is None:
            hint = " Give its `distribution`." if hasattr(teacher, "distribution") else ""
            raise TypeError(
                "Distillation: teacher must be a tfd.Distribution, got "
                f"{type(teacher).__name__}.{hint}"
            )
        self.likelihood = number(likelihood, "likelihood", "Distillation")
        if not 0.0 <= self.likelihood < np.inf:
            raise ValueError(
                f"Distillation: likelihood must be at least 0 and finite, got {likelihood!r}."
            )
        self.direction = one_of(direction, _DIRECTIONS, "direction", "Distillation")
        self.teacher = teacher

    def get_config(self):
        """The constructor's arguments, but the teacher only if it is lacking."""
        config = {"likelihood": self.likelihood, "direction": self.direction}
        return {**config, **super().get_config(), "teacher": None, "lacks": self.lacks or _LACKS}

    def check(self, distribution, title):
        """Refuses what cannot have the teacher's pairs."""
        self._refuse_context(distribution, title, "flows without a context")
        if self.teacher is None:
            return
        self._refuse_context(self.teacher, f"{title}'s teacher", "flows without a context")
        student, teacher = Road(distribution), Road(self.teacher)
        for what, own, other in (
            ("events", distribution.event_shape, self.teacher.event_shape),
            ("points of the base", student.base.event_shape, teacher.base.event_shape),
        ):
            if own != other:
                raise ValueError(
                    f"{title}: Distillation needs the teacher's shapes, but {what} have shape "
                    f"{own.as_list()}, and of the teacher {other.as_list()}."
                )
        if student.base.trainable_variables:
            raise ValueError(
                f"{title}: Distillation is for the teacher's base, but '{student.base.name}' has "
                f"{len(student.base.trainable_variables)} variables of its own. Leave "
                "trainable_base out."
            )
        z = teacher.base_sample(tf.constant([3]), seed=[0, 1])
        densities = [
            np.asarray(road.base_log_prob(tf.cast(z, road.dtype))) for road in (student, teacher)
        ]
        if not np.allclose(*densities, rtol=1e-4, atol=1e-4):
            raise ValueError(
                f"{title}: Distillation needs the teacher's base, but '{student.base.name}' has "
                "another density. Build the flow with the base of the teacher."
            )

    def draw_noise(self, distribution, rows, seed):
        """The latents of pairs."""
        self._refuse_lack(self.teacher, "teacher")
        with training_mode(False):
            return Road(self.teacher).base_sample(tf.reshape(rows, [1]), self._seed_of(seed))

    def loss(self, distribution, batch, seed, noise=None):
        """The error of each pair, and the weighted negative log-density of its data."""
        z = self.draw_noise(distribution, batch, seed) if noise is None else noise
        student, teacher = Road(distribution), Road(self.teacher)
        with training_mode(False):
            x = tf.stop_gradient(tf.cast(teacher.forward(z), student.dtype))
        z = tf.stop_gradient(tf.cast(z, student.dtype))
        if self.direction == "forward":
            loss = _mean_square(student.forward(z) - x)
            if self.likelihood:
                loss -= self.likelihood * student.log_prob(x)
        elif self.likelihood:
            found, log_det, _ = walk(student.steps, x, None, student.event_ndims)
            loss = _mean_square(found - z)
            loss -= self.likelihood * (student.base_log_prob(found) + log_det)
        else:
            loss = _mean_square(student.inverse(x) - z)
        return loss


def _mean_square(error):
    return tf.reduce_mean(tf.square(error), axis=list(range(1, error.shape.rank)))
