"""MAF."""

import tensorflow as tf

from tfp_flows import bijectors
from tfp_flows.flows._autoregressive import autoregressive_flow


def maf(
    event_shape,
    *,
    num_layers=5,
    hidden_units=(256, 256),
    elementwise="affine",
    order="reversed",
    degrees="equal",
    normalization=None,
    activation="relu",
    residual=False,
    base="normal",
    trainable_base=False,
    support=None,
    context_size=None,
    stacked=None,
    seed=None,
    dtype=tf.float32,
    name="maf",
    **elementwise_kwargs,
):
    """MAF: masked autoregressive layers, whose density is one pass each.

    With an affine map it is MAF, with a spline the autoregressive neural spline flow, with a
    shift a volume-preserving flow. Sampling goes through the entries in order, at a small
    multiple of the cost of a density (see `bijectors.MaskedAutoregressive`).

    Args:
      event_shape: `[D]`, or `[H, W, C]`, which is flattened inside.
      num_layers: `int >= 1`. Default: 5.
      hidden_units: widths of each MADE's hidden layers, at least `D - 1` or dependencies are lost,
        with a warning. Default: `(256, 256)`.
      elementwise: name of a map of `elementwise.get` (`"affine"` by default;
        `"rational_quadratic_spline"`, ...), or an `elementwise.ElementwiseMap`. The spline of that
        name comes with an affine map, without which it can neither move nor shrink a density;
        for a spline alone pass `elementwise.RationalQuadraticSpline()`.
      order: of the entries. `"reversed"` (default): left to right and right to left in turn;
        `"random"`: left to right in the layer next to the data, then a random order each;
        `"same"`: left to right in all.
      degrees: `"equal"` (default) or `"random"`, of the hidden units.
      normalization: `None` (default), `"actnorm"` or `"batch_norm"` (the paper's), one on the
        data side of each layer. Either wants `FlowModel.initialize` or `fit`.
      activation: Keras activation of the hidden layers. Default: `"relu"`.
      residual: whether each entry of `hidden_units` is a residual block of two layers.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` with event shape `[D]`.
      trainable_base: whether the base's location and scale are trained.
      support: where the data lie: `None` (default) for all reals, `"positive"`, or `(low, high)`,
        numbers or arrays of the event's shape, of which one may be infinite. A constraint bijector
        next to the data: a sigmoid of a box, an exponential of half a line.
      context_size: size of a conditioning vector that every layer of every MADE sees, or
        `None`.
      stacked: whether the layers run in a loop, by pairs if their orders take turns, as
        `flows.glow`. Not those of random orders or degrees, nor with batch normalization.
        Default: not; layers without convolutions are traced fast one by one.
      seed: `int`; the same seed gives the same initial weights, orders and degrees.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **elementwise_kwargs: for a named map, e.g. `num_bins=8` or `log_scale="exp"`. An affine
        one's `rate` and `cap` fall with depth and width by default (see `elementwise.Affine`):
        below 1 beyond 8 layers of 256 units, and below 3 beyond 10 layers.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer, or an argument is neither of `maf` nor of its
        map.
      ValueError: for an event shape of another rank, an unknown order, map or normalization,
        a count below 1, a negative seed, `stacked=True` for layers that differ.

    >>> flow = maf([4], num_layers=2, hidden_units=(16,), seed=0)
    >>> flow.log_prob(flow.sample(3, seed=[0, 1])).shape
    TensorShape([3])

    References:
      G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
      estimation, 2017, arXiv:1705.07057. Splines: C. Durkan et al., Neural spline flows, 2019,
      arXiv:1906.04032.
    """
    return autoregressive_flow(
        maf,
        bijectors.MaskedAutoregressive,
        event_shape,
        num_layers=num_layers,
        hidden_units=hidden_units,
        elementwise=elementwise,
        order=order,
        degrees=degrees,
        normalization=normalization,
        activation=activation,
        residual=residual,
        base=base,
        trainable_base=trainable_base,
        support=support,
        context_size=context_size,
        stacked=stacked,
        seed=seed,
        dtype=dtype,
        name=name,
        elementwise_kwargs=elementwise_kwargs,
    )
