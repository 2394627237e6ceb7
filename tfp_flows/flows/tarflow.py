"""TarFlow: transformers over the patches of an image."""

import functools

import tensorflow as tf

from tfp_flows import conditioners
from tfp_flows.flows._parts import event_of
from tfp_flows.flows._stepwise import stepwise_flow


def tarflow(
    event_shape,
    *,
    patch_size=4,
    num_blocks=4,
    num_layers=4,
    width=128,
    num_heads=None,
    expansion=4,
    elementwise="affine",
    activation="gelu",
    base="normal",
    trainable_base=False,
    context_size=None,
    seed=None,
    dtype=tf.float32,
    name="tarflow",
    **elementwise_kwargs,
):
    """TarFlow: blocks of causal transformers, which go through the patches to and fro.

    Every block gives the map of a patch from the patches before it, the first one in the order of
    the rows, the next one in the reverse order, and so on. Density is one pass of each
    transformer; sampling goes patch by patch through each block, with keys and values kept, and
    takes a few density passes. The defaults are those of the paper's small set-up for MNIST.

    This is the flow. The rest of the paper's recipe for samples: noise in training and a step back
    from it, `objectives.NoisyLikelihood(noise_std, drop_label)` and its `denoise`; class guidance,
    `flows.guided(flow, guidance, annealed_guidance=...)`.

    Args:
      event_shape: `[H, W, C]`, or `[T, C]`, whose patches are stretches of time.
      patch_size: `int >= 1`, a divisor of H and W. Default 4.
      num_blocks: `int >= 1`, how many autoregressive maps. Default 4; the paper has 8. With one,
        the entries of a patch are independent given earlier patches.
      num_layers, width, num_heads, expansion, activation: of every block's transformer, as
        `conditioners.CausalTransformer`. The paper's for 64x64 images: 8 layers of width 768.
      elementwise: name of a map of `elementwise.get` (`"affine"` by default), or an
        `elementwise.ElementwiseMap`.
      base: `"normal"` (default), `"logistic"` or a `tfd.Distribution` over `event_shape`.
      trainable_base: whether the base's location and scale are trained.
      context_size: size of a conditioning vector, such as a class; `[H, W, F]` for one a pixel; or
        a dictionary of either by name.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **elementwise_kwargs: for a named map, e.g. `log_scale="exp"`, the paper's, which is not
        bounded. An affine one's `rate` and `cap` fall with depth and width by default (see
        `elementwise.Affine`).

    Returns:
      A `tfd.TransformedDistribution` over `event_shape`; `log_prob` in nats.

    Raises:
      TypeError: if a count or the seed is no integer, or an argument is neither of `tarflow` nor of
        its map.
      ValueError: for an event shape of another rank, patches that do not divide the image, an
        unknown map, a count below 1, or a negative seed.

    >>> flow = tarflow([4, 4, 1], patch_size=2, num_blocks=2, num_layers=1, width=8, seed=0)
    >>> flow.log_prob(flow.sample(3, seed=[0, 1])).shape
    TensorShape([3])

    References:
      S. Zhai et al., Normalizing Flows are Capable Generative Models, 2024, arXiv:2412.06329,
      sections 2.2 to 2.5.
    """
    shape = event_of(event_shape, (2, 3), "tarflow")
    network = functools.partial(
        conditioners.CausalTransformer,
        shape,
        patch_size=patch_size,
        num_layers=num_layers,
        width=width,
        num_heads=num_heads,
        expansion=expansion,
        activation=activation,
        context_size=context_size,
    )
    return stepwise_flow(
        tarflow,
        network,
        shape,
        num_blocks=num_blocks,
        fan_in=width,
        elementwise=elementwise,
        base=base,
        trainable_base=trainable_base,
        seed=seed,
        dtype=dtype,
        name=name,
        elementwise_kwargs=elementwise_kwargs,
    )
