"""Distances of samples from data: objectives of what need not have a density."""

import keras
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import integer, positive_number
from tfp_flows.bijectors.road import Road
from tfp_flows.objectives.base import Objective

# The median of so many rows' distances is as good as that of all for a bandwidth.
_ROWS_FOR_MEDIAN = 256


class TwoSamples(Objective):
    """What the objectives share that compare a batch of data with as many samples.

    A subclass gives `compare(x, y)` of samples and data `[n, d]`, which returns `[n]` numbers whose
    mean is the distance.
    """

    @property
    def compares_rows(self):
        """Each with all others, and with samples."""
        return True

    @property
    def takes_weights(self):
        """A distance is of all rows together, or of places in an order: it has no rows' losses."""
        return False

    def check(self, distribution, title):
        """Refuses conditional distributions, and samples without a gradient."""
        self._refuse_context(distribution, title, "samples of one distribution")
        self._refuse_samples_without_gradient(distribution, title)

    def loss(self, distribution, batch, seed):
        """Each row's part of the distance from as many fresh samples."""
        y = batch[0]
        seeds = tf.random.experimental.stateless_split(seed, 2)
        x = Road(distribution).sample(tf.shape(y)[:1], seeds[0])
        size = distribution.event_shape.num_elements()
        return self.compare(tf.reshape(x, [-1, size]), tf.reshape(y, [-1, size]), seeds[1])


@keras.saving.register_keras_serializable(package="tfp_flows")
class MMD(TwoSamples):
    """The squared maximum mean discrepancy of fresh samples from the data.

        loss = MMD^2 = E k(x, x') + E k(y, y') - 2 E k(x, y)
        k(a, b)      = mean over s of exp(-|a - b|^2 / (2 (s h)^2))

    with y the rows of a batch, and x as many samples: the unbiased estimate of `metrics.mmd`, whose
    gradient is unbiased, too. Needs no density: `distributions.Sampler` has none; a flow may be
    trained by it as well. Batches of some hundred rows are needed: a step takes n^2 kernels.

    Args:
      scales: positive numbers s, the kernel's widths as multiples of the bandwidth. By default they
        reach down to a tenth of it: wider kernels do not see structure that is finer.
      bandwidth: positive number h. Default: the median distance between different rows of the
        batch (of 256 of them), which knows nothing of the samples.
      root: whether the loss is the square root of the biased estimate, as in the paper of the
        generative moment matching network: its gradient does not fade near the end.

    Raises:
      TypeError, ValueError: for numbers out of range; by `FlowModel`, for a conditional
        distribution, or one whose samples have no gradient.

    >>> from tfp_flows import flows
    >>> flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    >>> MMD().loss(flow, (tf.random.stateless_normal([64, 2], [0, 1]), None), seed=[0, 1]).shape
    TensorShape([64])

    References:
      A. Gretton et al., A kernel two-sample test, JMLR 13, 2012, equations 3 and 5; Y. Li,
      K. Swersky, R. Zemel, Generative moment matching networks, 2015, arXiv:1502.02761, equations
      3 and 8; G. K. Dziugaite, D. M. Roy, Z. Ghahramani, 2015, arXiv:1505.03906.
    """

    def __init__(self, scales=(0.1, 0.3, 1.0), bandwidth=None, root=False):
        if isinstance(scales, (str, bytes)) or not hasattr(scales, "__len__") or not len(scales):
            raise TypeError(f"MMD: scales must be a sequence of numbers > 0, got {scales!r}.")
        self.scales = tuple(positive_number(s, "scales", "MMD") for s in scales)
        if bandwidth is not None:
            bandwidth = positive_number(bandwidth, "bandwidth", "MMD")
        self.bandwidth, self.root = bandwidth, bool(root)

    @property
    def allows_xla(self):
        """Not where a median is taken of the distances that are there."""
        return self.bandwidth is not None

    def get_config(self):
        """The constructor's arguments."""
        return {"scales": self.scales, "bandwidth": self.bandwidth, "root": self.root}

    def compare(self, x, y, seed):
        """Each row's kernels: their mean is MMD^2."""
        del seed
        width = _median_distance(y) if self.bandwidth is None else self.bandwidth
        square = tf.square(tf.convert_to_tensor(width, y.dtype))
        n = tf.cast(tf.shape(y)[0], y.dtype)

        def kernel(a, b):
            distances = _squared_distances(a, b) / square
            return tf.add_n([tf.exp(-0.5 / s**2 * distances) for s in self.scales]) / len(
                self.scales
            )

        across = kernel(x, y)
        across = tf.reduce_sum(across, axis=0) + tf.reduce_sum(across, axis=1)
        within = tf.reduce_sum(kernel(x, x) + kernel(y, y), axis=1)
        if not self.root:
            # Without a row's kernels with itself, which are 1.
            return tf.math.divide_no_nan(within - 2.0, n - 1.0) - across / n
        biased = tf.reduce_mean(within - across) / n
        # Of samples that are the data the root has no gradient.
        return tf.fill(tf.shape(y)[:1], tf.sqrt(tf.maximum(biased, 1e-12)))


@keras.saving.register_keras_serializable(package="tfp_flows")
class SlicedWasserstein(TwoSamples):
    """The sliced Wasserstein distance of fresh samples from the data, to the power p.

        loss = SW_p^p = mean over unit vectors u of W_p(u.x, u.y)^p

    with y the rows of a batch, and x as many samples, over fresh directions at every step. In one
    direction the distance is that of the sorted rows: n log n steps, no kernel, no bandwidth.
    Needs no density, as `MMD`. Between samples of one distribution it is not zero, but falls with
    the batch's size.

    Args:
      num_projections: `int >= 1`, directions a step. Default: 100.
      p: 1 or 2 (default), the power.

    Raises:
      TypeError, ValueError: as `MMD`.

    >>> from tfp_flows import flows
    >>> flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    >>> batch = tf.random.stateless_normal([64, 2], [0, 1]), None
    >>> bool(tf.reduce_mean(SlicedWasserstein().loss(flow, batch, seed=[0, 1])) < 0.1)
    True

    References:
      N. Bonneel, J. Rabin, G. Peyre, H. Pfister, Sliced and Radon Wasserstein barycenters of
      measures, JMIV 51, 2015; I. Deshpande, Z. Zhang, A. Schwing, Generative modeling using the
      sliced Wasserstein distance, 2018, arXiv:1803.11188.
    """

    def __init__(self, num_projections=100, p=2):
        self.num_projections = integer(
            num_projections, "num_projections", "SlicedWasserstein", least=1
        )
        if p not in (1, 2):
            raise ValueError(f"SlicedWasserstein: p must be 1 or 2, got {p!r}.")
        self.p = int(p)

    def get_config(self):
        """The constructor's arguments."""
        return {"num_projections": self.num_projections, "p": self.p}

    def compare(self, x, y, seed):
        """The cost of each place in the order, over all directions."""
        shape = [y.shape[1], self.num_projections]
        directions = tf.random.stateless_normal(shape, seed, dtype=y.dtype)
        directions = tf.math.l2_normalize(directions, axis=0)
        x, y = (tf.sort(tf.matmul(rows, directions), axis=0) for rows in (x, y))
        cost = tf.abs(x - y) if self.p == 1 else tf.math.squared_difference(x, y)
        return tf.reduce_mean(cost, axis=1)


def _squared_distances(a, b):
    centre = tf.reduce_mean(b, axis=0)  # The products of rows far from zero would round.
    a, b = a - centre, b - centre
    norms = tf.reduce_sum(a * a, axis=1)[:, tf.newaxis] + tf.reduce_sum(b * b, axis=1)
    return tf.maximum(norms - 2.0 * tf.matmul(a, b, transpose_b=True), 0.0)


def _median_distance(rows):
    squares = tf.stop_gradient(_squared_distances(*[rows[:_ROWS_FOR_MEDIAN]] * 2))
    # Of different rows: data on a grid may have more equal pairs than others.
    squares = tf.boolean_mask(squares, squares > 1e-6 * tf.reduce_max(squares))
    # If all rows are equal, any width will do.
    squares = tf.concat(
        [squares, tf.ones([tf.cast(tf.size(squares) == 0, tf.int32)], rows.dtype)], 0
    )
    return tf.sqrt(tfp.stats.percentile(squares, 50.0))
