"""What the parameters of a network mean: closed forms, sums, and draws that follow them."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import tensorflow as tf

from tfp_flows import distributions
from tfp_flows.distributions import get_output

RNG = np.random.default_rng(0)
DISCRETE = {
    "bernoulli": {},
    "categorical": {"num_levels": 5},
    "discretized_logistic_mixture": {"num_levels": 6, "num_components": 3},
}


def parameters_of(output, *shape, scale=2.0):
    return scale * RNG.normal(size=(*shape[:-1], output.num_parameters, shape[-1]))


@pytest.mark.parametrize("scale", [0.0, 2.0, 30.0])
@pytest.mark.parametrize("name", DISCRETE)
def test_levels_sum_to_one(name, scale):
    output = get_output(name, **DISCRETE[name])
    parameters = parameters_of(output, 7, scale=scale)
    total = sum(
        np.exp(output.log_prob(tf.fill([7], tf.constant(float(level), tf.float64)), parameters))
        for level in range(output.num_levels)
    )
    np.testing.assert_allclose(total, np.ones(7), rtol=1e-12)


@pytest.mark.parametrize("levels", [2, 256, 65536])
def test_discretized_logistics_are_differences_of_the_distribution_function(levels):
    output = get_output("discretized_logistic_mixture", num_levels=levels, num_components=4)
    top, k = levels - 1, 4
    x = np.unique(np.round(np.linspace(0, top, 9)))
    parameters = parameters_of(output, len(x), scale=1.0)
    raw, means, scales = np.split(parameters, 3, axis=-2)
    means = means + np.linspace(-1, 1, k)[:, None]
    scales = np.exp(np.clip(scales - np.log(k), -7 - np.log(top / 255), 7))
    v, half = 2 * x / top - 1, 1 / top
    upper = np.where(x == top, 1.0, scipy.stats.logistic.cdf(v + half, means, scales))
    lower = np.where(x == 0, 0.0, scipy.stats.logistic.cdf(v - half, means, scales))
    wanted = np.log((scipy.special.softmax(raw, axis=0) * (upper - lower)).sum(axis=0))
    np.testing.assert_allclose(output.log_prob(tf.constant(x), parameters), wanted, rtol=1e-7)


def test_discretized_logistics_are_exact_far_from_their_mean():
    output = get_output("discretized_logistic_mixture", num_levels=256, num_components=1)
    parameters = np.array([[0.0], [-3.0], [-6.0]], np.float32)
    # log(sigmoid(b) - sigmoid(a)) is -a + log(1 - exp(a - b)) far out; in float32 it underflows.
    a, b = (np.float64(v + 3.0) * np.exp(6.0) for v in (1.0 - 3 / 255, 1.0 - 1 / 255))
    wanted = -a + np.log(-np.expm1(a - b))
    got = output.log_prob(tf.constant([254.0]), parameters)
    np.testing.assert_allclose(got, [wanted], rtol=1e-6)
    with tf.GradientTape() as tape:
        variable = tf.Variable(parameters)
        loss = tf.reduce_sum(output.log_prob(tf.constant([254.0]), variable))
    assert np.isfinite(tape.gradient(loss, variable)).all()


def test_coupled_pixels_sum_to_one_and_follow_the_order_of_colours():
    output = get_output(
        "discretized_logistic_mixture", num_levels=3, num_components=2, coupled=True
    )
    assert output.num_parameters == 8 and output.whole_pixels
    parameters = parameters_of(output, 3)
    pixels = np.array(list(itertools.product(range(3), repeat=3)), np.float64)
    log_p = output.log_prob(tf.constant(pixels), np.tile(parameters, (27, 1, 1)))[:, 0]
    np.testing.assert_allclose(np.exp(log_p).sum(), 1.0, rtol=1e-12)
    # By hand: the components, each a chain of three.
    raw, means, scales, coefficients = np.split(parameters, 4, axis=0)
    weights = scipy.special.softmax(raw.sum(axis=1))
    scales = np.exp(np.clip(scales - np.log(2), -7 - np.log(2 / 255), 7))
    a, b, c = np.tanh(coefficients).T
    total = 0.0
    for k in range(2):
        p = weights[k]
        for channel in range(3):
            v = pixels - 1.0
            mean = means[k, channel] + (-1.0, 1.0)[k]
            mean = mean + [0.0, a[k] * v[:, 0], b[k] * v[:, 0] + c[k] * v[:, 1]][channel]
            x = pixels[:, channel]
            upper = scipy.special.expit((v[:, channel] + 0.5 - mean) / scales[k, channel])
            lower = scipy.special.expit((v[:, channel] - 0.5 - mean) / scales[k, channel])
            p = p * (np.where(x == 2, 1.0, upper) - np.where(x == 0, 0.0, lower))
        total = total + p
    np.testing.assert_allclose(log_p, np.log(total), rtol=1e-9)


def test_gaussian_mixture_is_scipys():
    output = get_output("gaussian_mixture", num_components=3, cap=2.0)
    parameters = parameters_of(output, 6)
    raw, means, scales = np.split(parameters, 3, axis=0)
    means, scales = means + [[-1.0], [0.0], [1.0]], np.exp(2.0 * np.tanh(scales / 2.0))
    x = 3.0 * RNG.normal(size=6)
    each = np.log(scipy.special.softmax(raw, axis=0)) + scipy.stats.norm.logpdf(x, means, scales)
    wanted = scipy.special.logsumexp(each, axis=0)
    np.testing.assert_allclose(output.log_prob(tf.constant(x), parameters), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", [*DISCRETE, "coupled", "gaussian_mixture", "normal"])
def test_draws_follow_their_probabilities(name):
    kwargs = (
        {"num_components": 2, "cap": 1.0} if name == "gaussian_mixture" else DISCRETE.get(name, {})
    )
    if name == "coupled":
        name, kwargs = "discretized_logistic_mixture", {"num_levels": 3, "coupled": True}
    output, n = get_output(name, **kwargs), 20000
    k = 3 if output.whole_pixels else 1
    parameters = parameters_of(output, 1, k)
    noise = output.noise(tf.constant([n, output.num_noises, k]), [1, 2], tf.float64)
    x = output.draw(noise, np.tile(parameters, (n, 1, 1))).numpy()
    assert x.shape == (n, k)
    if output.num_levels is None:
        grid = np.linspace(-60.0, 60.0, 40001)[:, None]
        p = np.exp(output.log_prob(tf.constant(grid), np.tile(parameters, (len(grid), 1, 1))))
        distribution = np.cumsum(p[:, 0]) * (grid[1, 0] - grid[0, 0])
        ranks = np.interp(x[:, 0], grid[:, 0], distribution)
        assert scipy.stats.kstest(ranks, "uniform").pvalue > 1e-3
        return
    cells = np.array(list(itertools.product(range(output.num_levels), repeat=k)), np.float64)
    log_p = output.log_prob(tf.constant(cells), np.tile(parameters, (len(cells), 1, 1)))
    p = np.exp(log_p).sum(axis=-1)
    counts = (x[:, None] == cells).all(axis=-1).sum(axis=0)
    assert counts.sum() == n
    assert (np.abs(counts / n - p) < 5 * np.sqrt(p * (1 - p) / n) + 1e-4).all()


@pytest.mark.parametrize("name", DISCRETE)
def test_what_is_no_level_is_impossible(name):
    output = get_output(name, **DISCRETE[name])
    top = output.num_levels - 1.0
    x = tf.constant([-1.0, top + 1.0, 0.0, top, 0.5])
    found = np.isneginf(output.log_prob(x, np.zeros((output.num_parameters, 5), np.float32)))
    assert found.tolist() == [True, True, False, False, name != "bernoulli"]


def test_extreme_noise_stays_among_the_levels():
    output = get_output("discretized_logistic_mixture", num_levels=4)
    noise = np.array([[0.0, np.nextafter(np.float32(1), 0)], [-np.inf, 40.0]], np.float32)
    parameters = np.zeros((output.num_parameters, 2), np.float32)
    np.testing.assert_array_equal(output.draw(noise, parameters), [0.0, 3.0])
    logits = np.zeros((4, 2), np.float32)
    np.testing.assert_array_equal(
        get_output("categorical", num_levels=4).draw(noise, logits), [0, 3]
    )


def test_outputs_by_name():
    mixture = get_output("gaussian_mixture", num_components=2)
    assert mixture == distributions.GaussianMixtureOutput(2) and get_output(mixture) is mixture
    assert len({mixture, distributions.GaussianMixtureOutput(2), get_output("normal")}) == 2
    for arguments, error, message in [
        (("poisson", {}), ValueError, "output must be one of .*'gaussian_mixture'.*got 'poisson'"),
        (("bernoulli", {"num_levels": 2}), TypeError, "takes no arguments, got num_levels"),
        (("categorical", {"levels": 2}), TypeError, "takes num_levels, got levels"),
        (("categorical", {"num_levels": 1}), ValueError, "num_levels must be an integer >= 2"),
        (("gaussian_mixture", {"cap": 0}), ValueError, "cap must be positive"),
        (("gaussian_mixture", {"num_components": 0}), ValueError, "num_components must be"),
        ((mixture, {"cap": 1.0}), ValueError, "finished output"),
    ]:
        with pytest.raises(error, match=message):
            get_output(arguments[0], **arguments[1])
