"""Flow++."""

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, masks
from tfp_flows._checks import integer
from tfp_flows.flows._parts import (
    WITH_RATE,
    SeedStream,
    bounded_by_depth,
    elementwise_of,
    event_of,
    flow_of,
    layer_policy,
    make_base,
    rate_of_rotations,
)

tfb = tfp.bijectors


def flow_plus_plus(
    event_shape,
    *,
    num_checkerboard=4,
    num_channel=2,
    num_last=3,
    filters=32,
    num_blocks=2,
    attention=True,
    num_heads=4,
    activation="elu",
    elementwise="logistic_mixture_cdf",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="flow_plus_plus",
    **elementwise_kwargs,
):
    """Flow++: mixture-of-logistics couplings of gated convolutions with attention.

    From the data: checkerboard couplings; then, on the image squeezed to `[H/2, W/2, 4C]`, channel
    couplings and checkerboard couplings again. Before each coupling an ActNorm, and a 1x1
    convolution of more than one channel.

    The noise of a `preprocessing.VariationalDequantization` is a flow of the checkerboard couplings
    alone, whose network sees the image: `flow_plus_plus([H, W, C], num_channel=0, num_last=0,
    context_size=[H, W, C], base="logistic", closed="forward")`, with the formula of its map in the
    direction of its samples.

    Args:
      event_shape: `[H, W, C]`, with two pixels or more; `H` and `W` even, and more than four pixels
        together, if there are couplings of the squeezed image.
      num_checkerboard: `int >= 0`, couplings of the image. Default: 4, the paper's for CIFAR-10.
      num_channel: `int >= 0`, channel couplings of the squeezed image. Default: 2, as there.
      num_last: `int >= 0`, checkerboard couplings after them. Default: 3, as there.
      filters: `int >= 1`, width of the networks. Default: 32. The paper: 96.
      num_blocks: `int >= 0`, their blocks. Default: 2. The paper: 10.
      attention: whether they attend (default); its cost grows with the square of the pixels.
      num_heads: `int >= 1`, heads of the attention. Default: 4.
      activation: Keras activation of the networks. Default: `"elu"`.
      elementwise: name of a map of `elementwise.get` (`"logistic_mixture_cdf"` by default,
        `"affine"`), or an `elementwise.ElementwiseMap`.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector; of a flow without squeezed couplings also
        `[H, W, K]`, a vector a pixel. Default: `None`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **elementwise_kwargs: of a named map, e.g. `num_components=8` (the paper: 32), or
        `closed="forward"`. An affine one's `rate` and `cap` fall with depth and width by default.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats, a network a coupling.
      Its samples cost a network a coupling and, of the mixture, a numeric solve. Its ActNorms are
      to be initialised from data: `FlowModel.initialize(batch)`, or `fit`, does it.

    Raises:
      TypeError: if a count or the seed is no integer, or an argument is neither of the recipe nor
        of its map.
      ValueError: for an event shape of another rank or of odd size, no coupling at all, a size
        below its least, or a context a pixel of a flow that squeezes.

    >>> flow = flow_plus_plus([4, 4, 1], filters=8, num_blocks=1, num_components=4, seed=0)
    >>> flow.log_prob(tf.zeros([3, 4, 4, 1])).shape
    TensorShape([3])

    Reference: J. Ho, X. Chen, A. Srinivas, Y. Duan, P. Abbeel, Flow++: improving flow-based
    generative models with variational dequantization and architecture design, 2019,
    arXiv:1902.00275, section 3 and appendix A.
    """
    shape = event_of(event_shape, (3,), "flow_plus_plus")
    counts = {
        "num_checkerboard": num_checkerboard,
        "num_channel": num_channel,
        "num_last": num_last,
    }
    for argument, value in counts.items():
        integer(value, argument, "flows.flow_plus_plus", least=0)
    total, squeezes = sum(counts.values()), num_channel + num_last > 0
    _check_image(shape, total, num_channel, num_last)
    if squeezes and context_size is not None and not isinstance(context_size, int):
        raise ValueError(
            f"flows.flow_plus_plus: a context a pixel, got context_size={context_size!r}, has no "
            "place in couplings of the squeezed image. Use num_channel=0 and num_last=0, or a "
            "vector."
        )
    if elementwise in WITH_RATE:
        elementwise_kwargs = {**bounded_by_depth(total, 9 * filters), **elementwise_kwargs}
    elementwise = elementwise_of(flow_plus_plus, elementwise, elementwise_kwargs)
    next_seed, policy = SeedStream(seed, "flow_plus_plus"), layer_policy(dtype)
    parts = []

    def step(mask, label):
        size = mask.shape[-1]
        # Of a checkerboard's network the masked pixels are zeros, and all have an output.
        changed = size if (mask == mask[..., :1]).all() else int((~mask[0, 0]).sum())
        parts.append(bijectors.ActNorm(size, dtype=dtype, name=f"actnorm_{label}"))
        if size > 1:
            rotation = bijectors.InvertibleConv1x1(
                size,
                seed=next_seed(),
                rate=rate_of_rotations(total, size),
                dtype=dtype,
                name=f"conv1x1_{label}",
            )
            parts.append(rotation)
        network = conditioners.GatedConvNet(
            changed * elementwise.num_parameters,
            filters=filters,
            num_blocks=num_blocks,
            attention=attention,
            num_heads=num_heads,
            activation=activation,
            context_size=context_size,
            seed=next_seed(),
            dtype=policy,
        )
        coupling = bijectors.Coupling(
            network,
            mask,
            elementwise,
            context_size=context_size,
            dtype=dtype,
            name=f"coupling_{label}",
        )
        parts.append(coupling)

    for n in range(num_checkerboard):
        step(masks.checkerboard(shape, flip=bool(n % 2)), f"1_{n}")
    if squeezes:
        squeezed = (shape[0] // 2, shape[1] // 2, 4 * shape[2])
        parts.append(tfb.Invert(bijectors.Squeeze(dtype=dtype)))
        for n in range(num_channel):
            step(masks.channel(squeezed, flip=bool(n % 2)), f"2_{n}")
        for n in range(num_last):
            step(masks.checkerboard(squeezed, flip=bool(n % 2)), f"3_{n}")
        parts.append(bijectors.Squeeze(dtype=dtype))
    return flow_of(
        make_base(base, shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        name=name,
    )


def _check_image(shape, total, num_channel, num_last):
    """Raises a `ValueError` unless images have the pixels that couplings need."""
    height, width, _ = shape
    if not total or height * width < 2:
        raise ValueError(
            f"flows.flow_plus_plus: {total} couplings of {height} x {width} pixels: it needs one, "
            "and two pixels. Use flows.real_nvp for vectors."
        )
    odd = height % 2 or width % 2
    if num_channel + num_last and (odd or (num_last and height * width == 4)):
        raise ValueError(
            f"flows.flow_plus_plus: couplings of the squeezed image need an even height and width, "
            f"and checkerboards two pixels of it, got {height} x {width}. Pad the images, or use "
            "num_channel=0 and num_last=0."
        )
