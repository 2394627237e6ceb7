"""Maps one after another, and the spline that can move."""

import keras
import tensorflow as tf

from tfp_flows.elementwise.affine import Affine
from tfp_flows.elementwise.base import ElementwiseMap
from tfp_flows.elementwise.spline import RationalQuadraticSpline


@keras.saving.register_keras_serializable(package="tfp_flows")
class Composed(ElementwiseMap):
    """Applies maps one after another: the composition of its parts.

    In the order of `tfb.Chain`: the last map acts first in the forward direction, the first one
    first on data. With the maps f_1, ..., f_m,

        forward:  y = f_1(f_2(... f_m(x)))
        inverse:  x = f_m^-1(... f_2^-1(f_1^-1(y)))
        log|dy/dx| = the sum of those of the maps, each at its own argument

    So `Composed([Affine(), RationalQuadraticSpline()])` first brings data into the spline's box,
    and a spline that is the identity outside of it can shift and shrink a density as well as
    bend it: `elementwise.get("affine_rational_quadratic_spline")`.

    Parameters: those of the first map, then those of the second, and so on: `[..., P n]` with P
    the sum of their `num_parameters`, parameter-major as everywhere. The identity at zero if
    each map is.

    Args:
      maps: list of two maps or more, each an `ElementwiseMap` or a name that
        `elementwise.get` knows.

    Raises:
      TypeError: if `maps` is no list, or an entry neither a map nor a name.
      ValueError: if there are fewer than two, or a name is not known.

    >>> m = Composed([Affine("exp"), RationalQuadraticSpline(num_bins=4, bound=1.0)])
    >>> m.num_parameters
    13
    >>> parameters = tf.concat([[5.0, 2.0], tf.zeros([11])], 0)  # a shift of 5, a scale of e^2
    >>> y, log_det = m.forward(tf.constant([0.5]), parameters)
    >>> round(float(y[0]), 4), round(float(log_det[0]), 4)
    (8.6945, 2.0)
    """

    def __init__(self, maps):
        if not isinstance(maps, (list, tuple)):
            raise TypeError(f"Composed: expected a list of maps, got {maps!r}.")
        if len(maps) < 2:
            raise ValueError(
                f"Composed: expected at least two maps, got {len(maps)}. One map needs no "
                "composition."
            )
        # Here, because the package's `get` knows this class.
        from tfp_flows.elementwise import get

        self.maps = tuple(get(m) for m in maps)

    @property
    def num_parameters(self):
        """The sum over the maps."""
        return sum(m.num_parameters for m in self.maps)

    @property
    def is_constant_log_det(self):
        """Whether that of every map is."""
        return all(m.is_constant_log_det for m in self.maps)

    def get_config(self):
        """Returns the registered name and the config of each map."""
        return {
            "maps": [
                {"name": keras.saving.get_registered_name(type(m)), "config": m.get_config()}
                for m in self.maps
            ]
        }

    @classmethod
    def from_config(cls, config):
        """Builds the map from what `get_config` returned.

        Raises:
          ValueError: if a part's class is not registered here as an `ElementwiseMap`.
        """
        return cls([_part(part) for part in config["maps"]])

    def __hash__(self):
        return hash((type(self), self.maps))

    def __repr__(self):
        return f"Composed({list(self.maps)!r})"

    def _forward(self, x, parameters):
        log_det = tf.zeros_like(x)
        for m, own in reversed(self._parts(parameters)):
            x, part = m._forward(x, own)
            log_det += part
        return x, log_det

    def _inverse(self, y, parameters):
        log_det = tf.zeros_like(y)
        for m, own in self._parts(parameters):
            y, part = m._inverse(y, own)
            log_det += part
        return y, log_det

    def _parts(self, parameters):
        parts, start = [], 0
        for m in self.maps:
            parts.append((m, parameters[start : start + m.num_parameters]))
            start += m.num_parameters
        return parts


def _part(part):
    # Looked up among what is registered, never imported: a file is no program.
    kind = keras.saving.get_registered_object(part["name"])
    if not isinstance(kind, type) or not issubclass(kind, ElementwiseMap):
        raise ValueError(
            f"Composed: no elementwise map is registered as {part['name']!r}. If it is yours, "
            "import the module that registers it (`keras.saving.register_keras_serializable`) "
            "before loading."
        )
    return kind.from_config(part["config"])


def affine_rational_quadratic_spline(
    num_bins=8,
    bound=3.0,
    min_bin_width=1e-3,
    min_bin_height=1e-3,
    min_slope=1e-3,
    log_scale="tanh",
    cap=3.0,
    shift_first=False,
    rate=1.0,
):
    """A spline in the units of the latents, then an affine map: a spline that can move.

    Args:
      num_bins, bound, min_bin_width, min_bin_height, min_slope: of `RationalQuadraticSpline`.
      log_scale, cap, shift_first, rate: of `Affine`.

    Returns:
      `Composed([Affine(...), RationalQuadraticSpline(...)])`, with 3 * num_bins + 1 parameters.
    """
    return Composed(
        [
            Affine(log_scale, cap, shift_first, rate),
            RationalQuadraticSpline(num_bins, bound, min_bin_width, min_bin_height, min_slope),
        ]
    )
