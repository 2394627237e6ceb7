"""Cases of MADE, MAF and IAF: name -> arguments of `assert_bijector`, as in `cases.py`."""

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from drawn import points

from tfp_flows import bijectors, conditioners, elementwise, flows

tfb = tfp.bijectors

AFFINE, SHIFT = elementwise.Affine(), elementwise.Shift()
SPLINE = elementwise.RationalQuadraticSpline(num_bins=2)
NETWORK = elementwise.MonotoneNetwork(num_units=2)
MIXTURE = elementwise.LogisticMixtureCDF(num_components=2, closed="forward")
ANGLES = elementwise.CircularRationalQuadraticSpline(num_bins=2)
SLOW = (SPLINE, NETWORK, MIXTURE, ANGLES)
MAF, IAF = bijectors.MaskedAutoregressive, bijectors.InverseAutoregressive


def zeros_above(places):
    """Entries of the Jacobian that must be zero, given each entry's place in the order."""
    places = np.asarray(places)
    return places[:, np.newaxis] < places[np.newaxis]


def autoregressive(kind, elementwise_map, size=4, *, hidden_units=(9, 9), block_size=3, **kwargs):
    """Builder of a bijector around a MADE; blocks that do not divide the size."""

    def make(dtype):
        made = conditioners.MADE(
            size,
            elementwise_map.num_parameters,
            hidden_units=hidden_units,
            activation="tanh",
            seed=1,
            dtype=dtype,
            **kwargs,
        )
        return kind(made, elementwise_map, block_size=block_size, dtype=dtype)

    return make


def case(kind, elementwise_map, size=4, *, places=None, context_size=None, **kwargs):
    """The case of one bijector; the sequential direction calls no conditioner."""
    if elementwise_map in SLOW:
        # Second derivatives, which a persistent tape prepares, and XLA take long for the many
        # operations of a block of splines or networks.
        kwargs["block_size"] = 1
    make = autoregressive(kind, elementwise_map, size, context_size=context_size, **kwargs)
    found = {
        "make": make,
        "x": points(size),
        "event_ndims": 1,
        "conditioner_calls": (0, 1) if kind is MAF else (1, 0),
    }
    if elementwise_map in SLOW:
        found["xla"] = False
    if elementwise_map in SLOW[1:]:
        found["skip"] = ("weights_round_trip", "keras_file_round_trip", "saved_model_round_trip")
    if places is None:  # A random order: the layer knows the one that its seed gives.
        places = make("float32").conditioner.input_degrees
    found["zero_pattern"] = zeros_above(places)
    if context_size is not None:
        found["context"] = np.random.default_rng(9).normal(size=(4, context_size))
    return found


@keras.saving.register_keras_serializable(package="tests")
class OwnAutoregressive(keras.layers.Layer):
    """A user's own layer: a masked linear map in the order 2, 0, 1, and its square."""

    def build(self, input_shape):
        initializer = keras.initializers.RandomNormal(stddev=0.3, seed=1)
        self.kernel = self.add_weight(name="kernel", shape=(3, 6), initializer=initializer)

    def call(self, x):
        places = np.array([1, 2, 0])
        mask = np.tile(places[np.newaxis] > places[:, np.newaxis], (1, 2))
        h = tf.matmul(x, tf.where(mask, tf.convert_to_tensor(self.kernel), 0.0))
        return tf.tanh(h)


def recipe_of(recipe, shape, **kwargs):
    return lambda dtype: recipe(shape, seed=0, dtype=dtype, activation="tanh", **kwargs).bijector


CASES = {
    # Each order, both directions, each map.
    "maf_affine_left_to_right": case(MAF, AFFINE, places=[0, 1, 2, 3]),
    "maf_affine_right_to_left": case(MAF, AFFINE, order="right-to-left", places=[3, 2, 1, 0]),
    "maf_spline_explicit_order": case(MAF, SPLINE, order=[2, 0, 3, 1], places=[2, 0, 3, 1]),
    "maf_shift_random_order": case(MAF, SHIFT, 5, order="random"),
    "maf_affine_exp_random_degrees_context": case(
        MAF,
        elementwise.Affine("exp"),
        degrees="random",
        hidden_units=(24, 24),
        context_size=2,
        places=[0, 1, 2, 3],
    ),
    "maf_spline_residual_context": case(
        MAF, SPLINE, hidden_units=(8, 8), residual=True, context_size=3, places=[0, 1, 2, 3]
    ),
    "maf_monotone_network": case(MAF, NETWORK, 3, places=[0, 1, 2]),
    "iaf_logistic_mixture_context": case(IAF, MIXTURE, 3, context_size=2, places=[0, 1, 2]),
    "maf_circular_spline": {
        **case(MAF, ANGLES, 3, places=[0, 1, 2]),
        "x": np.clip(points(3), -3.0, 3.0),
        "y": np.clip(points(3, seed=5), -3.0, 3.0),
    },
    "maf_affine_linear": case(MAF, AFFINE, hidden_units=(), context_size=2, places=[0, 1, 2, 3]),
    "maf_one_entry": {
        **case(MAF, AFFINE, 1, hidden_units=(3,), context_size=2),
        # A single entry depends on the context alone: the first kernel is masked throughout.
        "skip": ("gradients_reach_every_weight",),
    },
    "iaf_affine_left_to_right": case(IAF, AFFINE, places=[0, 1, 2, 3]),
    "iaf_spline_right_to_left_context": case(
        IAF, SPLINE, order="right-to-left", places=[3, 2, 1, 0], context_size=2
    ),
    "iaf_shift_explicit_order_context": case(
        IAF, SHIFT, order=[2, 0, 3, 1], places=[2, 0, 3, 1], context_size=2
    ),
    "iaf_affine_random_residual": case(
        IAF, AFFINE, 5, order="random", degrees="random", hidden_units=(20,), residual=True
    ),
    "maf_own_conditioner": dict(
        make=lambda dtype: MAF(OwnAutoregressive(dtype=dtype), size=3, dtype=dtype),
        x=points(3),
        event_ndims=1,
        zero_pattern=zeros_above([1, 2, 0]),
        conditioner_calls=None,
    ),
    "batch_norm_vector": dict(
        make=lambda dtype: bijectors.BatchNorm(3, dtype=dtype), x=points(3), event_ndims=1
    ),
    "batch_norm_image": dict(
        make=lambda dtype: bijectors.BatchNorm(2, dtype=dtype), x=points(2, 2, 2), event_ndims=3
    ),
    # Recipes.
    "maf": dict(
        make=recipe_of(flows.maf, [4], num_layers=3, hidden_units=(8,), normalization="batch_norm"),
        x=points(4),
        event_ndims=1,
        conditioner_calls=(0, 1),
    ),
    "maf_image_context": dict(
        make=recipe_of(
            flows.maf,
            (2, 2, 1),
            num_layers=2,
            hidden_units=(8,),
            order="random",
            normalization="actnorm",
            context_size=2,
        ),
        x=points(4),
        event_ndims=1,
        context=np.random.default_rng(9).normal(size=(4, 2)),
        conditioner_calls=(0, 1),
    ),
    "iaf": dict(
        make=recipe_of(
            flows.iaf,
            [4],
            num_layers=2,
            hidden_units=(8,),
            elementwise="rational_quadratic_spline",
            num_bins=2,
        ),
        x=points(4),
        event_ndims=1,
        conditioner_calls=(1, 0),
        xla=False,
    ),
}
