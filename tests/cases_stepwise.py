"""Cases of networks that run step by step: name -> arguments of `assert_bijector`."""

import numpy as np
from cases_autoregressive import AFFINE, IAF, MAF, recipe_of, zeros_above
from drawn import points

from tfp_flows import conditioners, flows

# Checked once for the engine, not once a network.
FILES = ("weights_round_trip", "keras_file_round_trip", "saved_model_round_trip")


def context(*shape):
    return np.random.default_rng(9).normal(size=(4, *shape))


def in_double(make):
    """A builder that takes no dtype: the checks run in float64 alone, in half the time."""
    return lambda *_: make("float64")


def case(
    kind, elementwise_map, network, shape, *, places, context_size=None, files=False, skip=(), **kw
):
    """The case of one bijector; `places` says in which step each entry is."""

    def make(dtype):
        layer = network(
            shape,
            elementwise_map.num_parameters,
            activation="tanh",
            context_size=context_size,
            seed=1,
            dtype=dtype,
            **kw,
        )
        return kind(layer, elementwise_map, dtype=dtype)

    places = np.asarray(places)
    same_step = (places[:, np.newaxis] == places) & ~np.eye(len(places), dtype=bool)
    found = {
        "make": make if files else in_double(make),
        "x": points(*shape),
        "event_ndims": len(shape),
        "conditioner_calls": (0, 1) if kind is MAF else (1, 0),
        "zero_pattern": zeros_above(places) | same_step,
        "xla": files,
        "skip": () if files else (*FILES, *skip),
    }
    if context_size is not None:
        sizes = context_size if isinstance(context_size, list) else [context_size]
        found["context"] = context(*sizes)
    return found


def wavenet(kind, elementwise_map, **kwargs):
    kwargs = {"filters": 4, "dilations": (1, 2), **kwargs}
    return case(kind, elementwise_map, conditioners.WaveNet, **kwargs)


def transformer(kind, elementwise_map, **kwargs):
    kwargs = {"patch_size": 2, "num_layers": 1, "width": 4, "expansion": 2, **kwargs}
    return case(kind, elementwise_map, conditioners.CausalTransformer, **kwargs)


def pixel_cnn(kind, elementwise_map, **kwargs):
    kwargs = {"num_layers": 2, "filters": 3, **kwargs}
    return case(kind, elementwise_map, conditioners.PixelCNN, **kwargs)


def pixel_rnn(kind, elementwise_map, **kwargs):
    kwargs = {"num_layers": 2, "filters": 3, "units": 2, "first_kernel_size": 3, **kwargs}
    return case(kind, elementwise_map, conditioners.DiagonalBiLSTM, **kwargs)


CASES = {
    "pixel_cnn_channels_context": pixel_cnn(
        MAF, AFFINE, shape=[2, 2, 2], places=range(8), context_size=2, num_layers=1
    ),
    "pixel_cnn_right_to_left_context_a_pixel": pixel_cnn(
        IAF,
        AFFINE,
        shape=[2, 2, 1],
        places=range(4)[::-1],
        order="right-to-left",
        context_size=[2, 2, 1],
        first_kernel_size=3,
        num_layers=1,
    ),
    "pixel_rnn_right_to_left_context_a_pixel": pixel_rnn(
        IAF,
        AFFINE,
        shape=[3, 2, 1],
        places=range(6)[::-1],
        order="right-to-left",
        context_size=[3, 2, 1],
        num_layers=1,
        # The engine's, checked above; through loops in loops it takes long.
        skip=("log_det_matches_autodiff", "modes_agree"),
    ),
    "pixel_rnn_by_rows_context": case(
        MAF,
        AFFINE,
        conditioners.RowLSTM,
        num_layers=2,
        filters=3,
        units=2,
        first_kernel_size=3,
        shape=[3, 2, 1],
        places=range(6),
        context_size=2,
        skip=("log_det_matches_autodiff", "modes_agree"),  # as above
    ),
    "transformer_of_patches_context": transformer(
        MAF, AFFINE, shape=[2, 4, 1], places=[0, 0, 1, 1, 0, 0, 1, 1], context_size=2, num_heads=2
    ),
    "transformer_right_to_left_context_a_step": transformer(
        IAF, AFFINE, shape=[4, 1], places=[1, 1, 0, 0], order="right-to-left", context_size=[4, 2]
    ),
    "wavenet": wavenet(MAF, AFFINE, shape=[4, 1], places=range(4), files=True),
    "wavenet_channels_right_to_left_context": wavenet(
        IAF, AFFINE, shape=[3, 2], places=[2, 2, 1, 1, 0, 0], order="right-to-left", context_size=3
    ),
    "wavenet_recipe_context_a_step": dict(
        make=in_double(
            recipe_of(flows.wavenet, [2, 2], num_blocks=2, filters=3, context_size=[2, 3])
        ),
        x=points(2, 2),
        event_ndims=2,
        context=context(2, 3),
        conditioner_calls=(0, 1),
        xla=False,
        skip=FILES,
    ),
}
