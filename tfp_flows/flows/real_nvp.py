"""RealNVP, for vectors and for images."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks
from tfp_flows.flows._parts import (
    WITH_RATE,
    SeedStream,
    bounded_by_depth,
    by_own_networks,
    elementwise_of,
    event_of,
    flow_of,
    for_rank,
    in_sequence,
    last_width,
    layer_policy,
    make_base,
    multiples_of,
    network_of,
    positive,
    that_can_move,
)

tfb = tfp.bijectors

# Some pixels hardly vary, such as a border's: couplings that enlarge them without bound meet, now
# and then, an image that has something there (`tools/defaults_report.py`, Fashion-MNIST).
_CAP_OF_IMAGES = 1 / 3
# An input of a last layer, a sum over residual blocks, is that much larger than a plain layer's.
_FAN_IN_OF_RESIDUALS = 3.5


def real_nvp(
    event_shape,
    *,
    num_couplings=None,
    hidden_units=None,
    activation="relu",
    mask=None,
    num_scales=None,
    num_blocks=None,
    filters=None,
    elementwise="affine",
    actnorm=None,
    batch_normalization=False,
    base="normal",
    trainable_base=False,
    support=None,
    conditioner=None,
    context_size=None,
    stacked=None,
    seed=None,
    dtype=tf.float32,
    name="real_nvp",
    **elementwise_kwargs,
):
    """RealNVP: couplings whose halves take turns.

    For vectors, `num_couplings` couplings with an MLP each. For images the paper's multi-scale
    architecture: at every scale three checkerboard couplings, squeeze, three channel
    couplings, then half of the channels is factored out (in checkerboard order); the last
    scale is four checkerboard couplings. Each has a residual network.

    Args:
      event_shape: `[D]` with `D >= 2`, or `[H, W, C]` with `H` and `W` multiples of
        `2 ** (num_scales - 1)`, and not both of them equal to it.
      num_couplings: vectors only: `int >= 1`, default 8. One leaves half of the entries as
        they are; fewer than 3 leave some entries independent of others.
      hidden_units: vectors only: widths of each coupling's hidden layers, default `(256, 256)`.
      activation: Keras activation of the hidden layers. Default: `"relu"`.
      mask: vectors only: `"halves"` (default, the faster: it needs no gather) or
        `"alternating"`, for entries whose neighbours are alike.
      num_scales: images only: `int >= 1`, default 2.
      num_blocks: images only: residual blocks of each coupling's network, default 2.
      filters: images only: its width, default 32.
      elementwise: name of a map of `elementwise.get` (`"affine"` by default, as the paper has it,
        with `shift_first=True`; `"rational_quadratic_spline"`, ...), or an
        `elementwise.ElementwiseMap`. The spline of that name comes with an affine map, without
        which it can neither move nor shrink a density; for a spline alone pass
        `elementwise.RationalQuadraticSpline()`.
      actnorm: whether an `ActNorm` follows each coupling. Default: for images without batch
        normalization, for which it stands in. It wants `FlowModel.initialize` or `fit`.
      batch_normalization: whether a `BatchNorm` follows each coupling, as in the paper: in training
        by the moments of the batch, elsewhere by running ones. Default: not.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      support: where the data lie: `None` (default) for all reals, `"positive"`, or `(low, high)`,
        numbers or arrays of the event's shape, of which one may be infinite. A constraint bijector
        next to the data: a sigmoid of a box, an exponential of half a line.
      conditioner: function `(input_shape, output_size, context_size, seed)` that returns the Keras
        layer of a coupling, from `[batch, *input_shape]` to a last axis of `output_size`; a
        context, if there is one, is its second argument. Default: an `MLP`, of images a
        `ResNet`.
      context_size: size of a conditioning vector, or `None`.
      stacked: vectors only: whether pairs of couplings run in a loop, as `flows.glow`. Default:
        not; layers without convolutions are traced fast one by one, and a spline's training is a
        tenth slower in a loop.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **elementwise_kwargs: for a named map, e.g. `num_bins=8` or `log_scale="exp"`. An affine
        one's `rate` and `cap` fall with depth and width by default (see `elementwise.Affine`):
        below 1 beyond 8 couplings of 256 units and, for images, at the default sizes already
        (there the pairs of residual blocks count); below 3 beyond 10 couplings, and a third of
        that for images, where a pixel that is nearly always black would be enlarged without bound.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer, or an argument is neither of `real_nvp` nor
        of its map.
      ValueError: for an event shape of another rank or of odd size, an argument for events of
        the other rank, an unknown mask or map, a count below 1, a negative seed, ActNorm and
        batch normalization at once, `stacked=True` for images or with batch normalization.

    >>> flow = real_nvp([4], num_couplings=2, hidden_units=(8,), seed=0)
    >>> flow.sample(3, seed=[0, 1]).shape
    TensorShape([3, 4])

    References:
      L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017,
      arXiv:1605.08803, sections 3.4-3.7. Splines: C. Durkan et al., Neural spline flows, 2019,
      arXiv:1906.04032.
    """
    shape = event_of(event_shape, (1, 3), "real_nvp")
    sizes = for_rank(
        "real_nvp",
        shape,
        vectors={
            "num_couplings": (num_couplings, 8),
            "hidden_units": (hidden_units, (256, 256)),
            "mask": (mask, "halves"),
        },
        images={
            "num_scales": (num_scales, 2),
            "num_blocks": (num_blocks, 2),
            "filters": (filters, 32),
        },
    )
    mask = sizes.pop("mask", None)
    positive("real_nvp", **sizes)
    given = {"hidden_units": hidden_units, "num_blocks": num_blocks, "filters": filters}
    ignored = [name for name, value in given.items() if value is not None]
    if conditioner is not None and ignored:
        raise ValueError(
            f"flows.real_nvp: {ignored[0]} is of the recipe's own networks: with a conditioner it "
            "would be ignored. Leave it out."
        )
    elementwise = that_can_move(elementwise)
    if elementwise in WITH_RATE:
        bounds = _bounds_of_vectors if len(shape) == 1 else _bounds_of_images
        # As the paper has it: from data to latent it scales, then shifts.
        elementwise_kwargs = {"shift_first": True, **bounds(shape, **sizes), **elementwise_kwargs}
    elementwise = elementwise_of(real_nvp, elementwise, elementwise_kwargs)
    if actnorm and batch_normalization:
        raise ValueError(
            "flows.real_nvp: actnorm and batch_normalization stand in for each other, got both. "
            "Leave one of them out."
        )
    normalization = None
    if batch_normalization:
        normalization = bijectors.BatchNorm
    elif len(shape) == 3 if actnorm is None else actnorm:
        normalization = bijectors.ActNorm
    couplings = _Couplings(
        elementwise,
        activation=activation,
        normalization=normalization,
        conditioner=conditioner,
        context_size=context_size,
        seed=seed,
        dtype=dtype,
    )
    if len(shape) == 1:
        parts = couplings.vectors(shape[0], mask=mask, stacked=stacked, **sizes)
    else:
        _check_scales(shape, sizes["num_scales"], stacked)
        parts = couplings.scale(shape, **sizes)
    return flow_of(
        make_base(base, shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        support=support,
        name=name,
    )


def _bounds_of_vectors(shape, num_couplings, hidden_units):
    return bounded_by_depth(num_couplings, last_width(shape[0], hidden_units))


def _bounds_of_images(shape, num_scales, num_blocks, filters):
    # Each residual block adds a step to what all later ones and the last layer are given.
    blocks = num_blocks * (num_blocks + 1) // 2
    # 6 couplings a scale and 4 at the last one, whose networks are the widest.
    width = _FAN_IN_OF_RESIDUALS * filters * 2 ** (num_scales - 1)
    bounds = bounded_by_depth(6 * num_scales - 2, width, blocks)
    return {**bounds, "cap": bounds["cap"] * _CAP_OF_IMAGES}


def _check_scales(shape, num_scales, stacked):
    """Raises a `ValueError` unless images can be halved so often, their couplings one by one."""
    divisor = 2 ** (num_scales - 1)
    multiples_of(
        divisor, shape, "real_nvp", whose=f"{num_scales} scales", remedy="Use fewer scales"
    )
    if shape[0] * shape[1] // divisor**2 < 2:
        remedy = f"Use num_scales={num_scales - 1}, or pad the images."
        if num_scales == 1:
            remedy = f"Make vectors of them, event_shape [{shape[2]}], or pad the images."
        raise ValueError(
            f"flows.real_nvp: num_scales={num_scales} leaves one pixel of {shape[0]} x {shape[1]} "
            f"at the last scale, whose checkerboard needs two. {remedy}"
        )
    if stacked:
        raise ValueError(
            "flows.real_nvp: stacked=True is for vectors: of an image's couplings no more than two "
            "pairs of a scale are equal. Leave it out."
        )


class _Couplings:
    """Makes the couplings of one flow; all lists run from the data to the latent."""

    def __init__(
        self, elementwise, *, activation, normalization, conditioner, context_size, seed, dtype
    ):
        self._elementwise = elementwise
        self._conditioner = conditioner
        self._normalization = normalization
        self._dtype = dtype
        self.next_seed = SeedStream(seed, "real_nvp")
        self._network = {
            "activation": activation,
            "context_size": context_size,
            "dtype": layer_policy(dtype),
        }
        self._count = 0

    def vectors(self, size, num_couplings, hidden_units, *, mask, stacked):
        """All couplings of vectors."""
        if size < 2:
            raise ValueError(
                "flows.real_nvp: event_shape [1] has nothing to split in two halves, whose one "
                "transforms the other. Use flows.maf, which takes events of one entry."
            )
        if mask not in ("alternating", "halves"):
            raise ValueError(
                f"flows.real_nvp: mask must be 'alternating' or 'halves', got {mask!r}."
            )
        make_mask = getattr(masks, mask)
        unequal = by_own_networks(self._conditioner)
        if self._normalization is bijectors.BatchNorm:
            unequal.append("batch_normalization=True")
        return in_sequence(
            lambda n, seeds: self.vector(
                make_mask(size, flip=bool(n % 2)), hidden_units, n, *seeds
            ),
            [(self.next_seed(),) for _ in range(num_couplings)],
            2,
            stacked,
            "flows.real_nvp",
            self._dtype,
            unequal=unequal,
        )

    def vector(self, mask, hidden_units, n, seed):
        changed = int((~mask).sum())
        size = changed * self._elementwise.num_parameters
        if self._conditioner is not None:
            network = self._own_network((mask.size - changed,), size, seed)
        else:
            network = conditioners.MLP(size, hidden_units=hidden_units, seed=seed, **self._network)
        return self._coupling(mask, network, n)

    def image(self, mask, num_blocks, filters):
        channels = seen = mask.shape[-1]
        if (mask == mask[:1, :1]).all():  # a channel mask: only the other channels change
            channels = int((~mask[0, 0]).sum())
            seen -= channels
        size, seed = channels * self._elementwise.num_parameters, self.next_seed()
        if self._conditioner is not None:
            network = self._own_network((*mask.shape[:-1], seen), size, seed)
        else:
            network = conditioners.ResNet(
                size, filters=filters, num_blocks=num_blocks, seed=seed, **self._network
            )
        n, self._count = self._count, self._count + 1
        return self._coupling(mask, network, n)

    def _own_network(self, input_shape, size, seed):
        context_size = self._network["context_size"]
        return network_of("real_nvp", self._conditioner, input_shape, size, context_size, seed)

    def scale(self, shape, num_scales, num_blocks, filters):
        height, width, channels = shape
        parts = []
        for n in range(3 if num_scales > 1 else 4):
            parts += self.image(masks.checkerboard(shape, flip=bool(n % 2)), num_blocks, filters)
        if num_scales == 1:
            return parts
        unsqueeze = tfb.Invert(bijectors.Squeeze(dtype=self._dtype))
        squeezed = (height // 2, width // 2, 4 * channels)
        parts.append(unsqueeze)
        for n in range(3):
            # As in the paper, the network is twice as wide at half the resolution.
            parts += self.image(masks.channel(squeezed, flip=bool(n % 2)), num_blocks, 2 * filters)
        parts.append(bijectors.Squeeze(dtype=self._dtype))
        # Squeezed again with the colours of a checkerboard apart, so that each scale keeps
        # every second pixel instead of some of the channels.
        deeper = (height // 2, width // 2, 2 * channels)
        below = bijectors.Chain(
            self.scale(deeper, num_scales - 1, num_blocks, 2 * filters),
            name=f"scale_{num_scales - 1}",
        )
        parts += [
            tfb.Invert(bijectors.Squeeze("diagonal", dtype=self._dtype)),
            bijectors.FactorOut(below, squeezed, name=f"factor_out_{num_scales - 1}"),
            bijectors.Squeeze("diagonal", dtype=self._dtype),
        ]
        return parts

    def _coupling(self, mask, conditioner, n):
        parts = [
            bijectors.Coupling(
                conditioner,
                mask,
                self._elementwise,
                context_size=self._network["context_size"],
                dtype=self._dtype,
                name=f"coupling_{n}",
            )
        ]
        if self._normalization is not None:
            # On the data side: it normalizes what the coupling is about to see.
            kind = {bijectors.ActNorm: "actnorm", bijectors.BatchNorm: "batch_norm"}
            name = f"{kind[self._normalization]}_{n}"
            parts.insert(0, self._normalization(mask.shape[-1], dtype=self._dtype, name=name))
        return parts
