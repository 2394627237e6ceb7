"""Draws of some entries of an event given the others."""

import typing

import numpy as np
import tensorflow as tf

from tfp_flows.bijectors import (
    ActNorm,
    BatchNorm,
    Coupling,
    FlowBijector,
    InverseAutoregressive,
    MaskedAutoregressive,
    Rescale,
    stepwise,
    stock,
)

_ELEMENTWISE = (ActNorm, BatchNorm, Rescale)
# Draws of the flow itself, by whose moments the first particles are thrown.
_DRAWS = 500
# The first particles are wider than these moments, by this factor: tails must be reached.
_WIDER = 1.5
_LEAPFROGS = 5
# What a density of zero counts as: finite, so that (1 - beta) times it is.
_NOTHING = -1e8


class Completion(typing.NamedTuple):
    """What `FlowModel.complete` returns: draws, and how many independent ones they are worth.

    Args:
      draws: `[n, ..., *event_shape]`, equally weighted; given entries as they were given.
      effective_sample_size: `[...]`, `n` for exact draws.

    ```python
    draws, effective = model.complete(x, mask, 100)
    ```
    """

    draws: tf.Tensor
    effective_sample_size: tf.Tensor


def is_triangular(road, given):
    """Whether hidden entries can be drawn in the order of the flow.

    That is, whether the given entries of data are a function of the same entries of latents alone.
    Then these latents are known, and the others are as they are in the base, or as this draws them
    given the known ones. It is so if in no part a given entry depends on one that is not.

    Args:
      road: that of the distribution.
      given: Boolean array of the event shape, or, of a density by itself, of the shape of data.
    """
    if road.steps and given.ndim != road.event_ndims:
        return False
    if road.base_ndims != road.event_ndims or not _comes_first_in(road.base, given):
        return False
    return all(_keeps_apart(step.bijector, given) for step in road.steps)


def _comes_first_in(base, given):
    if hasattr(base, "can_complete"):
        return base.can_complete(given)
    if given.ndim != base.event_shape.rank:
        return False
    return isinstance(base, stock.Independent) and base.distribution.event_shape.rank == 0


def _keeps_apart(part, given):
    if isinstance(part, Coupling):
        if part.mask.shape != given.shape:
            return False
        # Either nothing hidden is looked at, or nothing given is changed.
        return bool(given[part.mask].all() or not given[~part.mask].any())
    if isinstance(part, (MaskedAutoregressive, InverseAutoregressive)):
        degrees = getattr(part.conditioner, "input_degrees", None)
        if degrees is None:
            places = stepwise.places_of(part.conditioner, given.shape, part.name)
            return places is not None and stepwise.comes_first(places, given)
        if not given.any() or given.all():
            return True
        return given.ndim == 1 and bool(degrees[given].max() < degrees[~given].min())
    if isinstance(part, FlowBijector):
        return isinstance(part, _ELEMENTWISE) or part.forward_min_event_ndims == 0
    ndims = part.forward_min_event_ndims, part.inverse_min_event_ndims
    return ndims == (0, 0) and not part.variables


def annealed(log_prob, sample, x, given, num_particles, num_steps, n, seed):
    """Draws of the hidden entries by annealed importance sampling.

    Particles e of a standard normal distribution q, which are hidden entries h by an affine map
    that has the moments of the flow's own draws given the given entries, go step by step to the
    density p of h given the rest,

        p_b(e) = q(e)^(1 - b) p(h(e))^b,    b = (k / num_steps)^2,  k = 1, ..., num_steps

    by one move of Hamiltonian Monte Carlo each, whose step size follows the share of moves that
    are accepted. Their weights are the products of p_b(e) / p_b'(e) on the way.

    Args:
      log_prob: function of `[particles, rows, size]`.
      sample: function of a number and a seed: `[number, rows, size]`.
      x: `[rows, size]`, flattened events, whose hidden entries may be anything.
      given: Boolean `[rows, size]`.
      num_particles, num_steps, n: ints.
      seed: pair of int32.

    Returns:
      Draws `[n, rows, size]` and the effective sample size `[rows]` of the weighted particles.

    References: R. Neal, Annealed importance sampling, 2001, Statistics and Computing 11,
    sections 2 and 3.
    """
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    rows, size = tf.shape(x)[0], x.shape[1]
    hidden = tf.cast(~given, x.dtype)
    to_event = _affine_map(sample(_DRAWS, seeds[0]), x, given)

    def density(e):
        with tf.GradientTape() as tape:
            tape.watch(e)
            found = log_prob(to_event(e))
            # A row far out may have no density, or one that is NaN.
            good = tf.math.is_finite(found) & (found > _NOTHING)
            found = tf.where(good, found, tf.constant(_NOTHING, x.dtype))
        slope = tape.gradient(found, e)
        fine = good[..., tf.newaxis] & tf.math.is_finite(slope)
        return found, tf.where(fine, slope, tf.zeros_like(slope))

    def log_normal(e):
        return -0.5 * tf.reduce_sum(e * e, axis=-1)

    def body(number, e, found, slope, log_weight, step):
        before, beta = (tf.square(tf.cast(k, x.dtype) / num_steps) for k in (number, number + 1))
        log_weight += (beta - before) * (found - log_normal(e))
        own = tf.random.experimental.stateless_fold_in(seeds[1], number)
        own = tf.random.experimental.stateless_split(own, 2)
        push = tf.random.stateless_normal(tf.shape(e), own[0], dtype=x.dtype) * hidden
        width = step[:, tf.newaxis]
        new, new_found, new_slope = e, found, slope
        new_push = push
        for _ in range(_LEAPFROGS):
            new_push += 0.5 * width * (beta * new_slope - (1.0 - beta) * new) * hidden
            new += width * new_push
            new_found, new_slope = density(new)
            new_push += 0.5 * width * (beta * new_slope - (1.0 - beta) * new) * hidden
        gain = beta * (new_found - found) + (1.0 - beta) * (log_normal(new) - log_normal(e))
        gain += log_normal(new_push) - log_normal(push)
        rate = tf.exp(tf.minimum(gain, 0.0))
        taken = tf.random.stateless_uniform(tf.shape(rate), own[1], dtype=x.dtype) < rate
        step *= tf.exp(tf.reduce_mean(rate, axis=0) - 0.7)
        wide = taken[..., tf.newaxis]
        return (
            number + 1,
            tf.where(wide, new, e),
            tf.where(taken, new_found, found),
            tf.where(wide, new_slope, slope),
            log_weight,
            tf.minimum(step, 1.0),
        )

    shape = tf.stack([num_particles, rows, size])
    start = tf.random.stateless_normal(shape, seeds[2], dtype=x.dtype) * hidden
    start = tf.ensure_shape(start, [None, None, size])
    found, slope = density(start)
    state = tf.constant(0), start, found, slope, tf.zeros_like(found), 0.3 * tf.ones_like(x[:, 0])
    _, e, _, _, log_weight, _ = tf.while_loop(
        lambda number, *_: number < num_steps, body, state, maximum_iterations=num_steps
    )
    weight = tf.nn.softmax(log_weight, axis=0)
    effective = 1.0 / tf.reduce_sum(tf.square(weight), axis=0)
    # Systematic: each particle is drawn as often as its weight says, to one.
    offset = tf.random.stateless_uniform([rows], seeds[3], dtype=x.dtype)
    wanted = (tf.range(n, dtype=x.dtype)[tf.newaxis] + offset[:, tf.newaxis]) / float(n)
    sums = tf.cumsum(tf.transpose(weight), axis=1)
    chosen = tf.minimum(tf.searchsorted(sums, wanted), num_particles - 1)
    events = tf.transpose(to_event(e), [1, 0, 2])
    return tf.transpose(tf.gather(events, chosen, batch_dims=1), [1, 0, 2]), effective


def _affine_map(draws, x, given):
    """From standard normal hidden entries to events with the moments of draws, given the rest."""
    size = x.shape[1]
    mean = tf.reduce_mean(draws, axis=0)
    off = draws - mean
    covariance = tf.einsum("nri,nrj->rij", off, off) / tf.cast(tf.shape(draws)[0], x.dtype)
    variance = tf.linalg.diag_part(covariance)
    # A little independent noise: there may be more entries than draws.
    noise = 1e-3 * variance + 1e-6 * tf.reduce_mean(variance, axis=-1, keepdims=True)
    precision = tf.linalg.inv(covariance + tf.linalg.diag(noise))
    hidden = tf.cast(~given, x.dtype)
    known = tf.where(given, x - mean, tf.zeros_like(x))
    both = hidden[:, :, tf.newaxis] * hidden[:, tf.newaxis, :]
    inner = both * precision + tf.linalg.diag(1.0 - hidden)
    root = tf.linalg.cholesky(inner)
    pull = hidden * tf.einsum("rij,rj->ri", precision, known)
    center = mean - hidden * tf.linalg.cholesky_solve(root, pull[..., tf.newaxis])[..., 0]

    def to_event(e):
        columns = tf.transpose(e, [1, 2, 0])
        moved = tf.linalg.triangular_solve(root, columns, adjoint=True)
        moved = _WIDER * tf.transpose(moved, [2, 0, 1])
        return tf.ensure_shape(tf.where(given, x, center + moved), [None, None, size])

    return to_event


def check_mask(mask, x, event_shape, title):
    """A mask as a Boolean array that broadcasts to `x`, and whether it is one for all rows."""
    mask = np.asarray(mask)
    event = tuple(event_shape.as_list())
    if mask.dtype != bool:
        raise TypeError(
            f"{title}: mask must be Boolean, True where an entry is given, got {mask.dtype}."
        )
    rank = len(event)
    fits = mask.ndim >= rank and mask.shape[mask.ndim - rank :] == event
    if not fits or (mask.ndim > rank and mask.shape != tuple(x.shape)):
        raise ValueError(
            f"{title}: mask must have the shape of one event, {list(event)}, or that of x, "
            f"{x.shape.as_list()}, got {list(mask.shape)}."
        )
    if mask.ndim > rank and (mask == mask.reshape(-1, *event)[0]).all():
        mask = mask.reshape(-1, *event)[0]
    return mask
