"""A flow of WaveNets."""

import functools

import tensorflow as tf

from tfp_flows import conditioners
from tfp_flows.flows._parts import event_of
from tfp_flows.flows._stepwise import stepwise_flow


def wavenet(
    event_shape,
    *,
    num_blocks=1,
    filters=32,
    skip_filters=None,
    dilations=None,
    elementwise="affine",
    output=None,
    activation="relu",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="wavenet",
    **elementwise_kwargs,
):
    """A flow of sequences: WaveNets give the map of every step from the steps before it.

    With one block and an affine map every step has, given those before it, a normal density whose
    mean and scale a WaveNet gives; with `"logistic_mixture_cdf"` a mixture. Density is one pass
    of each network; sampling goes step by step and keeps, of every layer, the values of its last
    `dilation` steps: memory does not grow with T, and the time of a sequence is a few density
    passes. Blocks go through time from left to right and back in turn.

    Numerics: sampled in float32, a trained audio flow amplifies rounding from step to step, so
    that the latents of data lead back to other data (see `bijectors.MaskedAutoregressive`).
    Densities and samples are as good as ever; where a round trip counts, use float64.

    Args:
      event_shape: `[T, C]`, T steps of C entries. Given the steps before, the C entries of a step
        are independent in a block; several blocks, or an event `[T * C, 1]`, make them depend.
      num_blocks: `int >= 1`, how many autoregressive maps. Default 1.
      filters, skip_filters, dilations, activation: as `conditioners.WaveNet`.
      elementwise: name of a map of `elementwise.get` (`"affine"` by default), or an
        `elementwise.ElementwiseMap`.
      output: with the name of an output of `distributions.get_output`, or an `Output`, the recipe
        gives what the paper is: a density of sequences of levels, exact, of one network:
        `"bernoulli"` (0 and 1), `"categorical"` or `"discretized_logistic_mixture"` (of
        `num_levels=` levels); also `"normal"` or `"gaussian_mixture"`. Default: `None`, a flow.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector; `[T, F]` for one a step, such as a spectrogram;
        or a dictionary of either by name, to give both.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **elementwise_kwargs: for a named map or output, e.g. `num_components=4`. An
        affine one's `rate` and `cap` fall with depth and width by default (see
        `elementwise.Affine`).

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`, or with an output a
      `distributions.AutoregressiveDistribution`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer, or an argument is neither of `wavenet` nor of
        its map.
      ValueError: for an event shape of another rank, an unknown map, a count below 1, a negative
        seed, or a dilation that reaches beyond the sequence.

    >>> flow = wavenet([8, 1], filters=4, dilations=(1, 2), seed=0)
    >>> flow.log_prob(flow.sample(3, seed=[0, 1])).shape
    TensorShape([3])

    References:
      A. van den Oord et al., WaveNet: A generative model for raw audio, 2016, arXiv:1609.03499;
      its outputs are a softmax. As a flow with an affine map: S. Kim et al., FloWaveNet, 2019,
      arXiv:1811.02155, section 3, which compares it with couplings.
    """
    shape = event_of(event_shape, (2,), "wavenet")
    network = functools.partial(
        conditioners.WaveNet,
        shape,
        filters=filters,
        skip_filters=skip_filters,
        dilations=dilations,
        activation=activation,
        context_size=context_size,
    )
    return stepwise_flow(
        wavenet,
        network,
        shape,
        num_blocks=num_blocks,
        fan_in=filters if skip_filters is None else skip_filters,
        elementwise=elementwise,
        output=output,
        base=base,
        trainable_base=trainable_base,
        seed=seed,
        dtype=dtype,
        name=name,
        elementwise_kwargs=elementwise_kwargs,
    )
