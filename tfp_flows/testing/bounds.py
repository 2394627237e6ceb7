"""One harness for every distribution whose log-density is drawn with noise."""

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.road import Road

_ROWS = 4


def assert_bound(distribution, x, *, exact=None, num_draws=2000, tolerance=5.0, seed=0):
    """Checks that a distribution keeps the contract of a bound, or of an estimate.

    That its noise depends on nothing but the seed, and weights not on other rows; that the row's
    own noise makes a row's score, in a graph as in eager mode; that a gradient reaches every
    trainable variable; and, where the exact log-probability is known, that the mean lies below it
    and the mean of weights on it.

    Args:
      distribution: `tfd.Distribution` whose `likelihood` is `"bound"` or `"estimate"`:
        `distributions.StochasticDistribution` is a base class of such. One that takes a context:
        `tfp_flows.condition` of it.
      x: data `[n, *event_shape]` of its dtype, at least two rows that differ.
      exact: array `[n]` of their log-probabilities in nats, or `None` (default) if not known.
      num_draws: `int >= 2`, draws for the means. Default: 2000.
      tolerance: `float > 0`, how many standard errors off a mean may be. Default: 5.
      seed: `int`, of the noise.

    Raises:
      AssertionError: naming the first part of the contract that is not kept.

    >>> import tensorflow_probability as tfp
    >>> from tfp_flows import bijectors, distributions
    >>> normal = tfp.distributions.MultivariateNormalDiag([0.0, 0.0])
    >>> half = distributions.Surjected(normal, bijectors.AbsoluteValue())
    >>> x = np.array([[1.0, 2.0], [0.5, 0.0]], "float32")
    >>> assert_bound(half, x, exact=normal.log_prob(x) + np.log(4.0))

    Reference: the contract of `bijectors.StochasticTransform`.
    """
    road, x = Road(distribution), tf.convert_to_tensor(x)
    rows = x.shape[0]
    if road.likelihood == "exact":
        raise AssertionError("its `likelihood` is 'exact': there is nothing drawn")

    def noise_of(shape, number=0):
        return road.draw_noise(shape, tf.constant([seed, number], tf.int32))

    def score(noise, data=x):
        return road.log_prob(data, noise=noise).numpy()

    def check(condition, message):
        if not condition:
            raise AssertionError(message)

    first = noise_of([rows])
    check(_equal(first, noise_of([rows])), "the same seed gives other noise")
    check(not _equal(first, noise_of([rows], 1)), "another seed gives the same noise")
    together = score(first)
    check(together.shape == (rows,), f"log_prob has the shape {together.shape}, not ({rows},)")
    close = {"rtol": 1e-4, "atol": 1e-4}
    for n in range(min(rows, _ROWS)):
        alone = score(tf.nest.map_structure(lambda t, n=n: t[n : n + 1], first), x[n : n + 1])
        check(
            np.allclose(alone, together[n], **close),
            f"row {n} scores {alone[0]} alone and {together[n]} among others, with equal noise",
        )
    shared = score(noise_of([1]))
    one = score(noise_of([1]), x[-1:])
    check(np.allclose(one, shared[-1], **close), "one draw for all rows is not that of each row")
    in_graph = tf.function(lambda noise: road.log_prob(x, noise=noise))(first)
    check(np.allclose(in_graph, together, **close), "a graph gives other scores")
    _check_variables(distribution, noise_of, lambda noise: road.log_prob(x, noise=noise), check)
    if exact is not None:
        draws = (
            road.log_prob(
                tf.repeat(x[tf.newaxis], num_draws, axis=0), noise=noise_of([num_draws, rows], 2)
            )
            .numpy()
            .astype("float64")
        )
        _check_means(draws, np.asarray(exact, "float64"), tolerance, check)


def _check_variables(distribution, noise_of, log_prob, check):
    """The noise is of no variable, and each has a gradient."""
    variables = distribution.trainable_variables
    before = noise_of([2])
    values = [v.numpy() for v in variables]
    random = np.random.default_rng(0)
    for v in variables:
        v.assign_add(tf.cast(0.1 * random.normal(size=v.shape), v.dtype))
    same = _equal(before, noise_of([2]))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(log_prob(noise_of([1])))
    gradients = tape.gradient(total, variables)
    for v, value in zip(variables, values, strict=True):
        v.assign(value)
    check(same, "the noise depends on a variable, which would get no gradient through it")
    for v, gradient in zip(variables, gradients, strict=True):
        check(gradient is not None, f"no gradient reaches the variable '{v.name}'")


def _check_means(draws, exact, tolerance, check):
    """Bound below, weights of the right mean; of draws `[number, n]`."""
    number = len(draws)
    error = draws.std(axis=0) / number**0.5 + 1e-5 * (1.0 + abs(exact))
    over = draws.mean(axis=0) - exact - tolerance * error
    check(
        np.all(over <= 0.0),
        f"the mean of row {over.argmax()} is {draws.mean(axis=0)[over.argmax()]}, above the exact "
        f"{exact[over.argmax()]}",
    )
    ratios = np.exp(draws - exact)
    error = ratios.std(axis=0) / number**0.5 + 1e-4
    off = abs(ratios.mean(axis=0) - 1.0) - tolerance * error
    check(
        np.all(off <= 0.0),
        f"the mean weight of row {off.argmax()} is {ratios.mean(axis=0)[off.argmax()]} of the "
        "exact probability",
    )


def _equal(one, other):
    pairs = zip(tf.nest.flatten(one), tf.nest.flatten(other), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)
