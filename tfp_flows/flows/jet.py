"""Jet."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners, elementwise, masks
from tfp_flows.flows._parts import (
    SeedStream,
    bounded_by_depth,
    event_of,
    flow_of,
    layer_policy,
    make_base,
    multiples_of,
    positive,
)

tfb = tfp.bijectors


def jet(
    event_shape,
    *,
    patch_size=4,
    num_couplings=32,
    num_layers=2,
    width=512,
    num_heads=None,
    channels_per_spatial=4,
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="jet",
):
    """Jet: affine couplings of vision transformers over the patches of an image.

    Patches become the channels of a smaller image, `[H/p, W/p, p p C]`. Most couplings split these
    channels at random, in each patch alike; after every `channels_per_spatial` of them one splits
    the patches as a checkerboard, in turn one colour and the other. Towards the latents a coupling
    does

        y -> (y - t) * 2 sigmoid(s)

    with t and s from a `conditioners.VisionTransformer`. No multi-scale structure, no ActNorm, no
    1x1 convolution: one pass each way.

    Args:
      event_shape: `[H, W, C]` with `H` and `W` multiples of `patch_size`, and at least two patches
        if there are spatial couplings.
      patch_size: `int >= 1`, the p above. Default: 4.
      num_couplings: `int >= 1`. Default: 32 (the paper's 64x64 images: 32 couplings of 2 layers of
        width 512, 3.72 bits/dim; 64 of 5, 3.66).
      num_layers: `int >= 1`, layers of each transformer. Default: 2.
      width: `int >= 1`, their width. Default: 512.
      num_heads: their heads. Default: heads of 64 units.
      channels_per_spatial: `int >= 0`, how many channel couplings come before a spatial one; 0 for
        channel couplings alone. Default: 4.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector that every coupling sees, or `None`.
      seed: `int`; the same seed gives the same initial weights and splits.
      dtype: float32 (default) or float64.
      name: name of the distribution.

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer.
      ValueError: for an event shape that is not made of such patches or leaves nothing to split, a
        count below 1, a width that is no multiple of the heads, a negative seed.

    >>> flow = jet([4, 4, 1], patch_size=2, num_couplings=3, num_layers=1, width=8, seed=0)
    >>> flow.log_prob(tf.zeros([3, 4, 4, 1])).shape
    TensorShape([3])

    References: A. Kolesnikov, A. S. Pinto, M. Tschannen, Jet: a modern transformer-based
    normalizing flow, 2024, arXiv:2412.15129. Departures: both halves of the patches of a spatial
    coupling go through the network, those to be transformed as zeros, of whose outputs the last
    layer computes theirs alone; a `rate` that falls with
    depth and width (see `elementwise.Affine`), so that Adam at its default trains any of them.
    """
    shape = event_of(event_shape, (3,), "jet")
    positive(
        "jet",
        patch_size=patch_size,
        num_couplings=num_couplings,
        num_layers=num_layers,
        width=width,
    )
    height, columns, channels = shape
    p = patch_size
    multiples_of(p, shape, "jet", whose=f"patches of {p} x {p}", remedy="Use other patches")
    patches = (height // p, columns // p, p * p * channels)
    every = channels_per_spatial + 1
    if channels_per_spatial < 0 or patches[-1] < 2 or (every > 1 and np.prod(patches[:2]) < 2):
        raise ValueError(
            f"flows.jet: {patches[0]} x {patches[1]} patches of {patches[2]} entries, with "
            f"channels_per_spatial={channels_per_spatial}, leave nothing to split. A patch needs "
            "two entries, and spatial couplings need two patches: use another patch_size, or "
            "channels_per_spatial=0."
        )
    affine = elementwise.Affine(
        "double_sigmoid", rate=bounded_by_depth(num_couplings, width)["rate"]
    )
    next_seed, policy = SeedStream(seed, "jet"), layer_policy(dtype)
    parts, num_spatial = [_patches(shape, p)], 0
    for n in range(num_couplings):
        rng = np.random.default_rng(next_seed())
        if every > 1 and n % every == channels_per_spatial:
            mask = masks.checkerboard(patches, flip=bool(num_spatial % 2))
            num_spatial, changed, wanted = num_spatial + 1, patches[-1], ~mask[..., 0]
        else:
            passed = rng.permutation(patches[-1])[: (patches[-1] + 1) // 2]
            mask = np.broadcast_to(masks.explicit(passed, patches[-1]), patches)
            changed, wanted = patches[-1] - len(passed), None
        conditioner = conditioners.VisionTransformer(
            changed * affine.num_parameters,
            width=width,
            num_layers=num_layers,
            num_heads=num_heads,
            wanted=wanted,
            context_size=context_size,
            seed=next_seed(),
            dtype=policy,
        )
        parts.append(
            bijectors.Coupling(conditioner, mask, affine, dtype=dtype, name=f"coupling_{n}")
        )
    parts.append(tfb.Invert(parts[0]))  # Latents are images too.
    return flow_of(
        make_base(base, shape, trainable=trainable_base, dtype=dtype),
        bijectors.Chain(parts),
        name=name,
    )


def _patches(shape, p):
    """From patches as channels, `[H/p, W/p, p p C]`, to the image `[H, W, C]`."""
    height, width, channels = shape
    apart = (height // p, width // p, p, p, channels)
    together = (height // p, p, width // p, p, channels)
    return tfb.Chain(
        [
            tfb.Reshape(event_shape_out=shape, event_shape_in=together),
            tfb.Transpose(perm=[0, 2, 1, 3, 4]),
            tfb.Reshape(event_shape_out=apart, event_shape_in=(*apart[:2], p * p * channels)),
        ],
        name="patches",
    )
