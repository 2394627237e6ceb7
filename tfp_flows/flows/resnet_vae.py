"""Hierarchical variational autoencoders of residual convolutions and autoregressive steps."""

import keras
import tensorflow as tf

from tfp_flows import bijectors, conditioners
from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import integer
from tfp_flows.distributions import LadderVAE, get_output
from tfp_flows.flows._parts import (
    SeedStream,
    event_of,
    flow_of,
    layer_policy,
    make_base,
    multiples_of,
    positive,
)


def resnet_vae(
    event_shape,
    *,
    num_scales=2,
    num_cells=1,
    filters=32,
    latent_channels=8,
    num_iaf=1,
    iaf_layers=1,
    output="bernoulli",
    num_samples=None,
    seed=None,
    dtype=tf.float32,
    name="resnet_vae",
    **output_kwargs,
):
    """ResNet VAE with IAF: layers of images of latents, inferred from the top down.

    Residual convolutions lead up from the image to ever smaller features, and down from a learned
    start to the image. On the way down each cell draws an image of latents: its prior is normal,
    with mean and scale from the features; its posterior, which sees those of the way up besides,
    is normal, too, followed by inverse autoregressive steps of a masked convolution.

    Args:
      event_shape: `[H, W, C]`, `H` and `W` multiples of `2^num_scales`.
      num_scales: `int >= 1`, how many times the size is halved. Default: 2.
      num_cells: `int >= 1`, layers of latents of each size. Default: 1.
      filters: `int >= 1`, channels of the features. Default: 32.
      latent_channels: `int >= 1`, channels of the latents of a cell. Default: 8.
      num_iaf: `int >= 0`, inverse autoregressive steps of each posterior; 0 for normal ones.
        Default: 1.
      iaf_layers: `int >= 1`, gated layers of each step's `conditioners.PixelCNN`. Default: 1.
      output: name of an output, or an `Output`, of `distributions.get_output`: `"bernoulli"` for
        bits, `"discretized_logistic_mixture"` for grey levels.
      num_samples: as `distributions.VAE`.
      seed: `int`; the same seed gives the same initial weights.
      dtype: float32 (default) or float64.
      name: name of the distribution.
      **output_kwargs: arguments of a named output, as `num_levels=256`.

    Returns:
      A `distributions.LadderVAE` over `event_shape`, whose `log_prob` is a bound, in nats.

    Raises:
      TypeError: if a count or the seed is no integer.
      ValueError: for an event shape of another rank or size, a count below 1, or an unknown output.

    >>> vae = resnet_vae([4, 4, 1], num_scales=1, filters=4, latent_channels=2, seed=0)
    >>> vae.latent_shapes
    [(2, 2, 2)]

    References:
      D. P. Kingma et al., Improving variational inference with inverse autoregressive flow, 2016,
      arXiv:1606.04934, section 4 and appendix C. There the prior's features and the posterior's
      are different channels of one convolution, and weights are normalized; here neither is so.
    """
    height, width, _ = shape = event_of(event_shape, (3,), "resnet_vae")
    positive(
        "resnet_vae",
        num_scales=num_scales,
        num_cells=num_cells,
        filters=filters,
        latent_channels=latent_channels,
        iaf_layers=iaf_layers,
    )
    num_iaf = integer(num_iaf, "num_iaf", "flows.resnet_vae", least=0)
    multiples_of(
        2**num_scales, shape, "resnet_vae", whose=f"{num_scales} scales", remedy="Use fewer scales"
    )
    output = get_output(output, **output_kwargs)
    net = _Networks(filters, SeedStream(seed, "resnet_vae"), layer_policy(dtype))
    ups, priors, posteriors, downs = [], [], [], []
    for n in range(num_scales * num_cells):
        scale, cell = divmod(n, num_cells)
        above = (height >> scale, width >> scale)
        size = (height >> (scale + 1), width >> (scale + 1))
        latent = (*size, latent_channels)
        ups.append(net.up((*(size if cell else above), filters), halves=not cell))
        downs.append(net.down((*size, filters + latent_channels), doubles=not cell))
        priors.append(_normal(net, latent, (*size, filters), 0, 1, dtype, f"prior_{n}"))
        both = (*size, 2 * filters)
        name_of = f"posterior_{n}"
        posteriors.append(_normal(net, latent, both, num_iaf, iaf_layers, dtype, name_of))
    return LadderVAE(
        net.conv(filters),
        ups,
        priors,
        posteriors,
        downs,
        net.last((height, width, filters), output.num_parameters * shape[-1]),
        output=output,
        num_samples=num_samples,
        name=name,
    )


def _normal(net, shape, context, num_iaf, iaf_layers, dtype, name):
    """Images of latents given features: normal, and so many inverse autoregressive steps."""
    parts = [
        bijectors.ContextMap(
            shape,
            elementwise_maps.Affine(cap=7.0),
            conditioner=conditioners.Convolution(2 * shape[-1], dtype=net.policy),
            context_size=context,
            dtype=dtype,
        )
    ]
    for n in range(num_iaf):
        masked = conditioners.PixelCNN(
            shape,
            filters=net.filters,
            num_layers=iaf_layers,
            first_kernel_size=3,
            order="right-to-left" if n % 2 else "left-to-right",
            context_size=context,
            seed=net.seed(),
            dtype=net.policy,
        )
        step = bijectors.InverseAutoregressive(masked, dtype=dtype, name=f"iaf_{n}")
        parts.insert(0, step)  # The chain's last member acts first on a sample.
    base = make_base("normal", shape, trainable=False, dtype=dtype)
    return flow_of(base, bijectors.Chain(parts), name=name)


class _Networks:
    """Makes the Keras layers, each with seeds of its own."""

    def __init__(self, filters, seed, policy):
        self.filters, self.seed, self.policy = filters, seed, policy

    def conv(self, filters, size=3, stride=1, transposed=False):
        """A convolution of the same padding."""
        make = keras.layers.Conv2DTranspose if transposed else keras.layers.Conv2D
        initializer = keras.initializers.GlorotUniform(self.seed())
        return make(
            filters,
            size,
            strides=stride,
            padding="same",
            kernel_initializer=initializer,
            dtype=self.policy,
        )

    def elu(self, x):
        """The units of the paper."""
        return keras.layers.Activation("elu", dtype=self.policy)(x)

    def branch(self, x):
        """Two convolutions, which go beside a shortcut."""
        return self.conv(self.filters)(self.elu(self.conv(self.filters)(self.elu(x))))

    def up(self, shape, *, halves):
        """Features to those of the next cell, of half the size or of the same."""
        x = given = self._input(shape)
        if halves:
            x = self.conv(self.filters, stride=2)(x)
        return keras.Model(given, x + self.branch(x))

    def down(self, shape, *, doubles):
        """Features and latents side by side to the features below, of twice or of the same size."""
        given = self._input(shape)
        x = given[..., : self.filters] + self.branch(given)
        if doubles:
            x = self.conv(self.filters, stride=2, transposed=True)(x)
        return keras.Model(given, x)

    def last(self, shape, outputs):
        """The last features to the parameters of the output."""
        given = self._input(shape)
        return keras.Model(given, self.conv(outputs)(self.elu(given)))

    def _input(self, shape):
        # Of the weights' dtype: the compute dtype of a mixed policy would round the data.
        return keras.Input(shape, dtype=keras.dtype_policies.get(self.policy).variable_dtype)
