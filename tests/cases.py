"""One case a public bijector (at least): name -> arguments of `assert_bijector`."""

import keras
import numpy as np
import tensorflow_probability as tfp
from drawn import points

from tfp_flows import bijectors, conditioners, elementwise, flows, masks

tfb = tfp.bijectors


def context(size=2):
    return np.random.default_rng(9).normal(size=(4, size))


def vector_coupling(mask, elementwise_map, *, context_size=None, **kwargs):
    size = int((~mask).sum()) * elementwise_map.num_parameters

    def make(dtype):
        network = conditioners.MLP(
            size,
            hidden_units=(8, 8),
            activation="tanh",
            context_size=context_size,
            seed=1,
            dtype=dtype,
            **kwargs,
        )
        return bijectors.Coupling(network, mask, elementwise_map, dtype=dtype)

    return make


def image_coupling(mask, elementwise_map, network=conditioners.ConvNet, **kwargs):
    channels = mask.shape[-1]
    if (mask == mask[:1, :1]).all():
        channels = int((~mask[0, 0]).sum())

    def make(dtype):
        conditioner = network(
            channels * elementwise_map.num_parameters,
            filters=6,
            activation="tanh",
            seed=1,
            dtype=dtype,
            **kwargs,
        )
        return bijectors.Coupling(conditioner, mask, elementwise_map, dtype=dtype)

    return make


def _coupling_zeros(mask):
    """Entries of the Jacobian of a coupling that must be zero."""
    size = mask.size
    flat = mask.reshape(-1)
    zeros = ~np.eye(size, dtype=bool)
    zeros[np.ix_(~flat, flat)] = False  # a transformed entry depends on all that pass
    return zeros


def masked_convolution(direction, num_rows=1, **kwargs):
    shape = (3, 2, 2) if num_rows == 2 else (2, 3, 1)

    def make(dtype):
        network = conditioners.RowConvNet(
            2 * shape[-1],
            num_rows=num_rows,
            kernel_width=5,
            filters=4,
            activation="tanh",
            seed=1,
            dtype=dtype,
            **kwargs,
        )
        return bijectors.MaskedConvolution(network, shape, direction=direction, dtype=dtype)

    return make


def _rows_after(direction, shape):
    """Entries of the Jacobian that must be zero: of other pixels of a row, and of later rows."""
    row, column, channel = np.indices(shape).reshape(3, -1)
    place = {"down": row, "up": -row, "right": column, "left": -column}[direction]
    own = np.eye(len(row), dtype=bool)
    return (place[:, np.newaxis] <= place[np.newaxis]) & ~own


def _factor_out(dtype, prior=False):
    below = bijectors.Chain(
        [
            bijectors.ActNorm(2, dtype=dtype, name="below"),
            bijectors.InvertibleConv1x1(2, seed=3, dtype=dtype),
        ]
    )
    conditioner = None
    if prior:
        conditioner = keras.layers.Conv2D(4, 3, padding="same", dtype=dtype)
        conditioner.kernel_initializer = keras.initializers.GlorotUniform(seed=2)
    return bijectors.FactorOut(below, (2, 2, 4), conditioner=conditioner)


def _glow_step(dtype):
    return bijectors.Chain(
        [
            bijectors.ActNorm(2, dtype=dtype),
            bijectors.InvertibleConv1x1(2, seed=3, dtype=dtype),
            image_coupling(masks.channel(IMAGE), AFFINE)(dtype),
        ]
    )


def _conditional_period(dtype):
    halves = masks.halves(4), masks.halves(4, flip=True)
    parts = [vector_coupling(mask, AFFINE, context_size=2)(dtype) for mask in halves]
    return bijectors.Repeat(bijectors.Chain(parts), 2, recompute=False, seed=5)


def _functional_conditioner(dtype):
    x, c = keras.Input([2], dtype=dtype), keras.Input([2], dtype=dtype)
    merged = keras.layers.Concatenate(dtype=dtype)([x, c])
    initializer = keras.initializers.GlorotUniform(seed=4)
    hidden = keras.layers.Dense(5, activation="tanh", kernel_initializer=initializer, dtype=dtype)(
        merged
    )
    out = keras.layers.Dense(
        4, kernel_initializer=keras.initializers.GlorotUniform(seed=5), dtype=dtype
    )(hidden)
    return keras.Model([x, c], out)


def _mixed_chain(dtype):
    conditional = vector_coupling(masks.halves(4), elementwise.Affine(), context_size=2)(dtype)
    inner = tfb.Chain([tfb.Shift(np.asarray(0.5, dtype)), conditional])
    unconditional = vector_coupling(masks.halves(4, flip=True), elementwise.Affine())(dtype)
    blocks = tfb.Blockwise(
        [
            vector_coupling(masks.halves(2), elementwise.Affine(), context_size=2)(dtype),
            tfb.Scale(np.asarray(2.0, dtype)),
        ],
        block_sizes=[2, 2],
    )
    return bijectors.Chain(
        [tfb.Softplus(), tfb.Permute([3, 1, 0, 2]), tfb.Invert(inner), unconditional, blocks]
    )


def _recipe(recipe, shape, **kwargs):
    return lambda dtype: recipe(shape, seed=0, dtype=dtype, **kwargs).bijector


AFFINE, SHIFT = elementwise.Affine(), elementwise.Shift()
SPLINE = elementwise.RationalQuadraticSpline(num_bins=4)
IMAGE = (2, 2, 2)
FILES = ("weights_round_trip", "keras_file_round_trip", "saved_model_round_trip")


def context_map(dtype):
    network = conditioners.MLP(6, hidden_units=(4,), activation="tanh", seed=1, dtype=dtype)
    return bijectors.ContextMap([3], conditioner=network, context_size=2, dtype=dtype)


CASES = {
    "context_map": dict(
        make=context_map, x=points(3), context=context(), event_ndims=1, xla=False, skip=FILES[::2]
    ),
    # Couplings over vector masks.
    "coupling_affine_halves": dict(
        make=vector_coupling(masks.halves(5), AFFINE),
        x=points(5),
        event_ndims=1,
        zero_pattern=_coupling_zeros(masks.halves(5)),
    ),
    "coupling_affine_halves_flipped": dict(
        make=vector_coupling(masks.halves(5, flip=True), AFFINE), x=points(5), event_ndims=1
    ),
    "coupling_affine_alternating": dict(
        make=vector_coupling(masks.alternating(4), AFFINE),
        x=points(4),
        event_ndims=1,
        zero_pattern=_coupling_zeros(masks.alternating(4)),
    ),
    "coupling_affine_exp": dict(
        make=vector_coupling(masks.halves(4), elementwise.Affine("exp")), x=points(4), event_ndims=1
    ),
    "coupling_affine_sigmoid": dict(
        make=vector_coupling(masks.halves(4), elementwise.Affine("sigmoid")),
        x=points(4),
        event_ndims=1,
    ),
    "coupling_spline_explicit": dict(
        make=vector_coupling(masks.explicit([0, 3], 4), SPLINE), x=points(4), event_ndims=1
    ),
    "coupling_spline_context": dict(
        make=vector_coupling(masks.halves(4), SPLINE, context_size=2),
        x=points(4),
        context=context(),
        event_ndims=1,
    ),
    # The other maps, one structure each. XLA and a file where they add something: the loop of a
    # numeric inverse, a map made of maps.
    "coupling_moving_spline": dict(
        make=vector_coupling(
            masks.halves(4), elementwise.get("affine_rational_quadratic_spline", num_bins=3)
        ),
        x=points(4),
        event_ndims=1,
        xla=False,
    ),
    "coupling_quadratic_spline": dict(
        make=vector_coupling(masks.halves(4), elementwise.QuadraticSpline(num_bins=3)),
        x=points(4),
        event_ndims=1,
        xla=False,
        skip=FILES,
    ),
    "coupling_linear_spline": dict(
        make=vector_coupling(masks.halves(4), elementwise.LinearSpline(num_bins=3)),
        x=points(4),
        event_ndims=1,
        xla=False,
        skip=FILES,
    ),
    "coupling_circular_spline": dict(
        make=vector_coupling(
            masks.halves(4), elementwise.CircularRationalQuadraticSpline(num_bins=3)
        ),
        x=np.clip(points(4), -3.0, 3.0),
        y=np.clip(points(4, seed=5), -3.0, 3.0),
        event_ndims=1,
        xla=False,
        skip=FILES,
    ),
    "coupling_bernstein": dict(
        make=vector_coupling(masks.halves(4), elementwise.Bernstein(degree=3)),
        x=points(4),
        event_ndims=1,
    ),
    "coupling_checkerboard_logistic_mixture": dict(
        make=image_coupling(
            masks.checkerboard(IMAGE), elementwise.LogisticMixtureCDF(num_components=2)
        ),
        x=points(*IMAGE),
        event_ndims=3,
        xla=False,
        skip=FILES,
    ),
    "coupling_shift_residual": dict(
        make=vector_coupling(masks.halves(4), SHIFT, residual=True), x=points(4), event_ndims=1
    ),
    "affine_coupling": dict(
        make=lambda dtype: bijectors.AffineCoupling(
            conditioners.MLP(4, hidden_units=(8,), activation="tanh", seed=1, dtype=dtype),
            masks.halves(4),
            dtype=dtype,
        ),
        x=points(4),
        event_ndims=1,
    ),
    "additive_coupling": dict(
        make=lambda dtype: bijectors.AdditiveCoupling(
            conditioners.MLP(2, hidden_units=(8,), activation="tanh", seed=1, dtype=dtype),
            masks.alternating(4),
            dtype=dtype,
        ),
        x=points(4),
        event_ndims=1,
        zero_pattern=_coupling_zeros(masks.alternating(4)),
    ),
    "coupling_functional_keras_model": dict(
        make=lambda dtype: bijectors.AffineCoupling(
            _functional_conditioner(dtype), masks.halves(4), context_size=2, dtype=dtype
        ),
        x=points(4),
        context=context(),
        event_ndims=1,
    ),
    # Couplings over image masks.
    "coupling_checkerboard": dict(
        make=image_coupling(masks.checkerboard((3, 2, 2)), AFFINE),
        x=points(3, 2, 2),
        event_ndims=3,
    ),
    "coupling_checkerboard_spline_resnet": dict(
        make=image_coupling(
            masks.checkerboard(IMAGE, flip=True), SPLINE, conditioners.ResNet, num_blocks=1
        ),
        x=points(*IMAGE),
        event_ndims=3,
        zero_pattern=_coupling_zeros(masks.checkerboard(IMAGE, flip=True)),
    ),
    "coupling_channel": dict(
        make=image_coupling(masks.channel((2, 2, 3)), AFFINE), x=points(2, 2, 3), event_ndims=3
    ),
    "coupling_channel_context": dict(
        make=image_coupling(masks.channel(IMAGE), AFFINE, context_size=2),
        x=points(*IMAGE),
        context=context(),
        event_ndims=3,
    ),
    "coupling_arbitrary_image_mask": dict(
        make=image_coupling(np.arange(8).reshape(IMAGE) % 3 == 0, SHIFT),
        x=points(*IMAGE),
        event_ndims=3,
    ),
    # The other structures.
    "masked_convolution_down": dict(
        make=masked_convolution("down", num_rows=2),
        x=points(3, 2, 2),
        event_ndims=3,
        conditioner_calls=None,
        zero_pattern=_rows_after("down", (3, 2, 2)),
    ),
    **{
        f"masked_convolution_{direction}": dict(
            make=masked_convolution(direction, context_size=2),
            x=points(2, 3, 1),
            context=context(),
            event_ndims=3,
            conditioner_calls=None,
            zero_pattern=_rows_after(direction, (2, 3, 1)),
            xla=False,
            skip=FILES,
        )
        for direction in ("up", "right", "left")
    },
    "rescale": dict(
        make=lambda dtype: bijectors.Rescale(IMAGE, min_scale=0.1, dtype=dtype),
        x=points(*IMAGE),
        event_ndims=3,
    ),
    "actnorm_vector": dict(
        make=lambda dtype: bijectors.ActNorm(3, dtype=dtype), x=points(3), event_ndims=1
    ),
    "actnorm_image": dict(
        make=lambda dtype: bijectors.ActNorm(2, dtype=dtype), x=points(*IMAGE), event_ndims=3
    ),
    "conv1x1_image": dict(
        make=lambda dtype: bijectors.InvertibleConv1x1(3, seed=2, dtype=dtype),
        x=points(2, 2, 3),
        event_ndims=3,
    ),
    "conv1x1_vector": dict(
        make=lambda dtype: bijectors.InvertibleConv1x1(5, seed=2, dtype=dtype),
        x=points(5),
        event_ndims=1,
    ),
    "householder": dict(
        make=lambda dtype: bijectors.Householder(3, num_reflections=2, seed=2, dtype=dtype),
        x=points(3),
        event_ndims=1,
        xla=False,
        skip=FILES[::2],
    ),
    "orthogonal": dict(
        make=lambda dtype: bijectors.Orthogonal(3, seed=2, dtype=dtype),
        x=points(2, 2, 3),
        event_ndims=3,
        xla=False,
        skip=FILES[::2],
    ),
    "periodic_convolution": dict(
        make=lambda dtype: bijectors.PeriodicConvolution((3, 3, 1), seed=2, dtype=dtype),
        x=points(3, 3, 1),
        event_ndims=3,
    ),
    "squeeze_glow": dict(
        make=lambda dtype: bijectors.Squeeze(dtype=dtype),
        x=points(4, 2, 2),
        event_ndims=3,
    ),
    "squeeze_diagonal": dict(
        make=lambda dtype: bijectors.Squeeze("diagonal", dtype=dtype),
        x=points(2, 4, 3),
        event_ndims=3,
    ),
    "factor_out": dict(make=_factor_out, x=points(2, 2, 4), event_ndims=3),
    "factor_out_learned_prior": dict(
        make=lambda dtype: _factor_out(dtype, prior=True), x=points(2, 2, 4), event_ndims=3
    ),
    "repeat": dict(
        make=lambda dtype: bijectors.Repeat(_glow_step(dtype), 3),
        x=points(*IMAGE),
        event_ndims=3,
    ),
    "repeat_context_keeping": dict(
        make=_conditional_period,
        x=points(4),
        context=context(),
        event_ndims=1,
        xla=False,
        skip=FILES,
    ),
    "chain_of_everything": dict(
        make=_mixed_chain,
        x=points(4),
        y=np.abs(points(4, seed=5)) + 0.1,
        context=context(),
        event_ndims=1,
        skip=("wrong_input_is_refused",),
    ),
    # Recipes.
    "nice": dict(
        make=_recipe(flows.nice, [5], num_couplings=3, hidden_units=(8,), activation="tanh"),
        x=points(5),
        event_ndims=1,
    ),
    "real_nvp_vector": dict(
        make=_recipe(
            flows.real_nvp,
            [4],
            num_couplings=3,
            hidden_units=(8,),
            activation="tanh",
            actnorm=True,
            context_size=2,
        ),
        x=points(4),
        context=context(),
        event_ndims=1,
    ),
    "real_nvp_image": dict(
        make=_recipe(
            flows.real_nvp, (4, 4, 1), num_scales=2, num_blocks=1, filters=4, activation="tanh"
        ),
        x=points(4, 4, 1),
        event_ndims=3,
        xla=False,  # its parts are compiled one by one above
    ),
    "glow": dict(
        make=_recipe(
            flows.glow, (4, 4, 1), num_levels=2, num_steps=1, hidden_filters=4, activation="tanh"
        ),
        x=points(4, 4, 1),
        event_ndims=3,
    ),
    "macow": dict(
        make=_recipe(
            flows.macow, (4, 4, 1), num_levels=1, num_steps=1, hidden_filters=4, activation="tanh"
        ),
        x=points(4, 4, 1),
        event_ndims=3,
        conditioner_calls=None,
        xla=False,  # its parts are compiled one by one above
        skip=FILES,
    ),
    "flow_plus_plus": dict(
        make=_recipe(
            flows.flow_plus_plus,
            (4, 2, 1),
            num_checkerboard=0,
            num_channel=1,
            num_last=0,
            filters=4,
            num_blocks=1,
            num_heads=2,
            elementwise="affine",  # the mixture's solve is checked with the map itself
        ),
        x=points(4, 2, 1),
        event_ndims=3,
        xla=False,
        skip=FILES,
    ),
    "jet": dict(
        make=_recipe(
            flows.jet,
            (4, 2, 1),
            patch_size=2,
            num_couplings=2,
            channels_per_spatial=1,
            num_layers=1,
            width=8,
            num_heads=2,
        ),
        x=points(4, 2, 1),
        event_ndims=3,
        xla=False,  # its network is compiled by itself, in test_vision_transformer.py
        skip=FILES[:1],
    ),
    "glow_context": dict(
        make=_recipe(
            flows.glow,
            (4, 2, 2),
            num_levels=1,
            num_steps=1,
            hidden_filters=4,
            activation="tanh",
            coupling="additive",
            context_size=2,
        ),
        x=points(4, 2, 2),
        context=context(),
        event_ndims=3,
    ),
}
