"""What a batch is drawn with: noise that depends on the step and on a row's place alone."""

import tensorflow as tf

from tfp_flows.models import replicas

# The streams of noise: the first half of their seeds; a counter is the second. The lift of integers
# has these numbers, the objective the next ones, and the distribution the ones after.
_STREAMS = {"initialise": 0, "train": 1, "evaluate": 2}


class Noise:
    """The part of `FlowModel` that draws noise, and gives each row its own."""

    def _prepare(self, x, stream="score", counter=0, counts=None):
        """Data as the distribution scores them: of its dtype, and integers lifted.

        With noise from the seed of the lift, the stream and the counter in it.

        Given the number of rows in each replica, the rows of a replica get the noise that they
        would get on one device: replicas differ, and any number of them trains alike.
        """
        x = tf.convert_to_tensor(x)
        example = self._example
        if not example.needs_lift(x):
            return tf.cast(x, example.event_dtype)
        if stream == "score":  # It depends on no row beside it and on no device.
            return example.lifted(x)
        seed = self._seed(0, stream, counter)
        seed = tf.random.experimental.stateless_fold_in(seed, example.lift.seed or 0)
        noise = self._rows_of_noise(lambda shape: example.draw_noise(shape, seed), x, counts)
        return example.lifted(x, noise)

    def _noise(self, x, stream, counter=0, counts=None):
        """What the log-density of a batch is drawn with; `None` if it is exact."""
        if not self._road.is_noisy:
            return None
        seed = self._seed(2, stream, counter)
        return self._rows_of_noise(lambda shape: self._road.draw_noise(shape, seed), x, counts)

    def _noise_of_scores(self, rank):
        """One draw for all rows of a batch shape of that rank; `None` if none is needed."""
        if not self._road.is_noisy:
            return None
        with tf.init_scope():  # A value, that a graph holds as a constant: the same everywhere.
            noise = self._road.draw_noise([1] * rank, [0, 0])
            noise = tf.nest.map_structure(lambda tensor: tensor.numpy(), noise)
        return tf.nest.map_structure(tf.constant, noise)

    def _noise_of_objective(self, x, stream, counter, counts):
        """What the objective draws with at a step: a seed of this replica, or noise of its rows.

        Returns:
          The seed, and the noise of these rows or `None`; for the likelihood twice `None`.
        """
        if self._objective is None:
            return None, None
        seed, fold_in = self._seed(1, stream, counter), tf.random.experimental.stateless_fold_in
        first = fold_in(seed, 0)  # One device's, by which any number of replicas draws.
        draw = self._objective.draw_noise
        noise = self._rows_of_noise(lambda shape: draw(self.distribution, *shape, first), x, counts)
        if noise is not None:
            return first, noise
        return fold_in(seed, replicas.replica_id()), None

    def _rows_of_noise(self, draw, x, counts):
        """Of the noise of the global batch that of this replica's rows.

        Args:
          draw: function of a batch shape.
          x: this replica's rows.
          counts: the number of rows in each replica, or `None` for one.
        """
        rows = tf.shape(x)[0]
        if counts is None or counts.shape[0] == 1:
            return draw([x.shape[0] or rows])
        before = tf.reduce_sum(counts[: replicas.replica_id()])

        def cut(noise):
            if noise is None:
                return None
            shape = [x.shape[0], *noise.shape[1:]]
            return tf.ensure_shape(noise[before : before + rows], shape)

        return tf.nest.map_structure(cut, draw([tf.reduce_sum(counts)]))

    def _seed(self, kind, stream, counter):
        """The seed of a kind of noise at a step."""
        stream = kind * len(_STREAMS) + _STREAMS[stream]
        return tf.stack([stream, tf.cast(counter, tf.int32)])
