"""PixelRNNs as a flow, or as a density of integers."""

import functools

import tensorflow as tf

from tfp_flows import conditioners
from tfp_flows._checks import one_of
from tfp_flows.flows._parts import event_of
from tfp_flows.flows._stepwise import stepwise_flow

_NETWORKS = {
    "diagonal_bilstm": conditioners.DiagonalBiLSTM,
    "row_lstm": conditioners.RowLSTM,
}


def pixel_rnn(
    event_shape,
    *,
    num_blocks=1,
    network="diagonal_bilstm",
    filters=32,
    num_layers=7,
    units=None,
    hidden_filters=None,
    first_kernel_size=7,
    elementwise="affine",
    output=None,
    activation="relu",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="pixel_rnn",
    **elementwise_kwargs,
):
    """A flow of images: memories give the map of every entry from those before it.

    As `flows.pixel_cnn`, with memories that see all that is before a pixel (Diagonal BiLSTM), or a
    triangle of it (Row LSTM), in place of convolutions that see what is within reach. A pass goes
    through `num_layers (H + W - 1)` diagonals, or `num_layers H` rows, in order, so that density
    takes longer than a PixelCNN's of that width; sampling, entry by entry, takes a few density
    passes. Blocks go through the image from the first entry to the last and back in turn.

    Args:
      event_shape: `[H, W, C]`.
      num_blocks: `int >= 1`, how many autoregressive maps. Default 1.
      network: `"diagonal_bilstm"` (default), which sees more, or `"row_lstm"`, of fewer steps.
      filters, num_layers, units, hidden_filters, first_kernel_size, activation: of every block's
        network, as `conditioners.DiagonalBiLSTM` and `conditioners.RowLSTM`. The defaults are the
        paper's for MNIST; for colour images it takes 12 layers, `filters=256`.
      elementwise: name of a map of `elementwise.get` (`"affine"` by default), or an
        `elementwise.ElementwiseMap`.
      output: with the name of an output of `distributions.get_output`, or an `Output`, the recipe
        gives what the paper is: a density of images of levels, exact, of one network:
        `"bernoulli"` (0 and 1), `"categorical"` or `"discretized_logistic_mixture"` (of
        `num_levels=` levels); also `"normal"` or `"gaussian_mixture"`. Default: `None`, a flow.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector, such as a class; `[H, W, F]` for one a pixel; or
        a dictionary of either by name.
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
      TypeError: if a count or the seed is no integer, or an argument is neither of `pixel_rnn` nor
        of its map.
      ValueError: for an event shape of another rank, an even kernel size, an unknown network or
        map, a count below 1, or a negative seed.

    >>> flow = pixel_rnn([4, 4, 1], filters=4, num_layers=1, seed=0)
    >>> flow.log_prob(flow.sample(3, seed=[0, 1])).shape
    TensorShape([3])

    >>> density = pixel_rnn([4, 4, 1], output="bernoulli", filters=4, num_layers=1)
    >>> density.sample(2, seed=[0, 1]).dtype
    tf.int32

    References:
      A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks, 2016,
      arXiv:1601.06759: 79.20 nats on binarized MNIST, 3.00 bits/dim on CIFAR-10.
    """
    shape = event_of(event_shape, (3,), "pixel_rnn")
    make = functools.partial(
        _NETWORKS[one_of(network, _NETWORKS, "network", "pixel_rnn")],
        shape,
        filters=filters,
        num_layers=num_layers,
        units=units,
        hidden_filters=hidden_filters,
        first_kernel_size=first_kernel_size,
        activation=activation,
        context_size=context_size,
    )
    return stepwise_flow(
        pixel_rnn,
        make,
        shape,
        num_blocks=num_blocks,
        fan_in=filters if hidden_filters is None else hidden_filters,
        elementwise=elementwise,
        output=output,
        base=base,
        trainable_base=trainable_base,
        seed=seed,
        dtype=dtype,
        name=name,
        elementwise_kwargs=elementwise_kwargs,
    )
