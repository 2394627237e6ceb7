"""Hidden entries of data, drawn by a `FlowModel`."""

import math

import numpy as np
import tensorflow as tf

from tfp_flows._checks import integer, positive_integer
from tfp_flows.models import completion
from tfp_flows.models.inputs import as_array
from tfp_flows.models.sampling import stateless_seed


class Completing:
    """The part of `FlowModel` that draws some entries given the others."""

    def complete(
        self,
        x,
        mask,
        n=1,
        *,
        context=None,
        seed=None,
        num_particles=None,
        num_steps=100,
        least=0.05,
    ):
        """Draws of the hidden entries of data given the others.

        Exact where the order of the model allows: where no given entry depends on a hidden one, as
        in a `flows.maf(order="same")` with the first entries given, in a `flows.pixel_cnn` of one
        block, or with an output, given the upper rows, or in a coupling with the half that it
        passes through. Exact, too, for a `TableDistribution`. Other flows draw by annealed
        importance sampling, whose draws are worth fewer independent ones: their effective sample
        size, of `num_particles` weighted ones, is returned, and refused where it is too low. It
        sees by the weights that particles are few in some place; not that there is a place where
        none is. An `AutoregressiveDistribution` refuses what its order does not allow.

        Args:
          x: data, as `log_prob`; hidden entries may be anything, NaN too. Integers of a model that
            dequantizes get the noise of scores, and its draws are continuous.
          mask: Boolean, of the shape of one event or of `x`: `True` where an entry is given.
          n: `int >= 1`, number of draws for each row.
          context: as `log_prob`.
          seed: as `sample`.
          num_particles: `int`, at least `n`. Default: `4 n`, and 256 or more.
          num_steps: `int >= 1`, of the annealing; more make the weights more equal.
          least: least effective sample size, as a share of `num_particles`.

        Returns:
          A `Completion`: `draws`, `[n, ..., *event_shape]`, of the distribution's dtype, and
          `effective_sample_size`, `[...]`.

        Raises:
          TypeError, ValueError: for a mask of another kind or shape, or one that the order of a
            discrete distribution does not allow.
          RuntimeError: if the effective sample size of a row is too low.

        References: R. Neal, Annealed importance sampling, 2001, Statistics and Computing 11.
        """
        title = f"{self._example.title}.complete"
        n = positive_integer(n, "n", title)
        num_steps = positive_integer(num_steps, "num_steps", title)
        if num_particles is None:
            num_particles = max(256, 4 * n)
        num_particles = integer(num_particles, "num_particles", title, least=n)
        x = tf.convert_to_tensor(as_array(x, self._example.dtype))
        mask = completion.check_mask(mask, x, self.event_shape, title)
        x = tf.where(mask, x, tf.zeros([], x.dtype))  # What is hidden is not looked at.
        x, context = self._data("complete", x, context)
        x, batch = self._prepare(x), x.shape[: x.shape.rank - self.event_shape.rank]
        if hasattr(self.distribution, "complete"):
            holes = tf.where(mask, x, tf.constant(math.nan, x.dtype))
            rows = tf.tile(tf.reshape(holes, [-1, *self.event_shape]), [n, 1])
            draws = self.distribution.complete(rows, seed=stateless_seed(seed))
            draws = tf.reshape(draws, [n, *batch, *self.event_shape])
            return completion.Completion(draws, tf.fill(batch, tf.cast(n, x.dtype)))
        if self._road.is_noisy:
            raise ValueError(
                f"{title}: the log-density of '{self._road.base.name}' is a "
                f"{self._road.likelihood}, drawn with noise, by which no hidden entry is drawn. "
                "Take a flow, or a distribution with a method `complete` of its own."
            )
        if completion.is_triangular(self._road, mask):
            draws = self._completed_exactly(x, mask, n, context, stateless_seed(seed))
            return completion.Completion(draws, tf.fill(batch, tf.cast(n, self._example.dtype)))
        if not self._example.continuous:
            raise ValueError(
                f"{title}: the distribution '{self.distribution.name}' is discrete, or has no "
                "gradient to search by, and draws hidden entries in its own order, if it has one "
                "step by step: all given entries must come before the hidden ones. In the order "
                "of images, give the upper rows."
            )
        sizes = num_particles, num_steps, n

        def annealed(x, given, context, seed):
            return self._annealed(x, given, context, seed, *sizes)

        key = f"complete_{sizes}"
        function = self._function(key, annealed, x.shape.rank, context)
        given = np.broadcast_to(mask, x.shape)
        draws, effective = function(x, given, context, stateless_seed(seed))
        worst = float(tf.reduce_min(effective))
        if not worst >= least * num_particles:
            raise RuntimeError(
                f"{title}: the {num_particles} particles of a row are worth {worst:.1f} "
                f"independent draws, less than the {least * num_particles:.1f} asked for. Take "
                f"more steps (num_steps={10 * num_steps}), more particles, or a lower `least`."
            )
        return completion.Completion(draws, effective)

    def _completed_exactly(self, x, mask, n, context, seed):
        """Latents of the given entries from the data, the others from the base."""
        road = self._road
        in_order = hasattr(road.base, "complete_in_order")

        def completed(x, mask, context, seed):
            whole = tf.concat([[n], tf.shape(x)], 0)
            shape = whole[: tf.size(whole) - self.event_shape.rank]
            if in_order and not road.steps:
                known = tf.broadcast_to(x, whole)
            else:
                latents = road.base_sample(shape, seed, context)
                # Anything that has a density will do for what is hidden, on which nothing given
                # depends.
                known = road.inverse(tf.where(mask, x, road.forward(latents, context)), context)
            if in_order:
                latents = road.base_completed(known, mask, seed, context)
            else:
                latents = tf.where(mask, known, latents)
            return tf.where(mask, x, road.forward(latents, context))

        function = self._function(f"complete_exactly_{n}", completed, x.shape.rank, context)
        return tf.ensure_shape(function(x, mask, context, seed), [n, *x.shape])

    def _annealed(self, x, given, context, seed, num_particles, num_steps, n):
        event = self.event_shape.as_list()
        batch, size = tf.shape(x)[: x.shape.rank - len(event)], math.prod(event)

        def as_event(rows, number):
            return tf.reshape(rows, tf.concat([[number], batch, event], 0))

        def log_prob(rows):
            found = self._log_prob(as_event(rows, tf.shape(rows)[0]), context)
            return tf.reshape(found, tf.shape(rows)[:2])

        def sample(number, seed):
            shape = tf.concat([[number], batch], 0)
            found = self._road.sample(shape, seed, context)
            return tf.reshape(found, [number, -1, size])

        draws, effective = completion.annealed(
            log_prob,
            sample,
            tf.reshape(x, [-1, size]),
            tf.reshape(given, [-1, size]),
            num_particles,
            num_steps,
            n,
            seed,
        )
        return as_event(draws, n), tf.reshape(effective, batch)
