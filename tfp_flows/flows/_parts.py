"""What the recipes share: seeds, base distributions, checks."""

import inspect

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import bijectors, conditioners
from tfp_flows import elementwise as elementwise_maps
from tfp_flows._checks import forms_of, one_of, positive_integer, positive_integers
from tfp_flows.flows._keywords import split_for

tfb = tfp.bijectors
tfd = tfp.distributions

_BASES = ("normal", "logistic")
_CLOSED = ("forward", "inverse")


class SeedStream:
    """Hands out independent integer seeds, the same ones for the same first seed."""

    def __init__(self, seed, recipe):
        try:
            self._sequence = None if seed is None else np.random.SeedSequence(seed)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"flows.{recipe}: seed must be an integer >= 0 or None, got {seed!r}."
            ) from None

    def __call__(self):
        """Returns the next seed, or `None` if there was no first one."""
        if self._sequence is None:
            return None
        return int(self._sequence.spawn(1)[0].generate_state(1)[0] // 2)


def event_of(event_shape, ranks, recipe):
    """Checks an event shape and returns it as a tuple of `int`."""
    wanted = f"flows.{recipe}: event_shape must be {forms_of(ranks)}, got "
    remedy = "It is the shape of one example: x.shape[1:]."
    if np.ndim(event_shape) > 1:
        raise ValueError(f"{wanted}data of shape {list(np.shape(event_shape))}. {remedy}")
    shape = (event_shape,) if isinstance(event_shape, int) else tuple(event_shape)
    if len(shape) not in ranks or any(n is None or int(n) < 1 for n in shape):
        raise ValueError(f"{wanted}{list(shape)}. {remedy}")
    return tuple(int(n) for n in shape)


def positive(recipe, **values):
    """Checks counts and sizes: integers of at least 1, or one or more of them."""
    title = f"flows.{recipe}"
    for name, value in values.items():
        if not isinstance(value, (tuple, list)):
            positive_integer(value, name, title)
        elif not positive_integers(value, name, title):
            raise ValueError(f"{title}: {name} must be one or more integers >= 1, got {value!r}.")


def multiples_of(divisor, shape, recipe, *, whose, remedy):
    """Checks that the height and the width of images can be divided."""
    height, width, _ = shape
    if height % divisor or width % divisor:
        raise ValueError(
            f"flows.{recipe}: {whose} need a height and width that are multiples of {divisor}, got "
            f"{height} x {width}. {remedy}, or pad the images."
        )


def closed_direction(closed, recipe):
    """The direction of one-way layers that is a formula, checked."""
    return one_of(closed, _CLOSED, "closed", f"flows.{recipe}")


def for_rank(recipe, shape, *, vectors, images):
    """The arguments of a recipe for events of this rank, with their defaults filled in.

    Args:
      recipe: name of the recipe.
      shape: event shape, `(D,)` or `(H, W, C)`.
      vectors, images: name -> (what was given, or `None`; default), for either rank.

    Returns:
      Name -> value, of the arguments that are for this rank.

    Raises:
      ValueError: if one was given that is for the other rank: it would be ignored.
    """
    kinds = {1: ("[D]", vectors), 3: ("[H, W, C]", images)}
    own, other = kinds.pop(len(shape))[1], next(iter(kinds.values()))
    for name, (value, _) in other[1].items():
        if value is not None:
            raise ValueError(
                f"flows.{recipe}: {name} is for event_shape {other[0]}, got event_shape "
                f"{list(shape)} and {name}={value!r}. Events of that rank take {', '.join(own)}."
            )
    return {name: default if value is None else value for name, (value, default) in own.items()}


def that_can_move(elementwise):
    """The name of a map, of a spline that of its composition with an affine map.

    A spline is the identity outside of its box: layers of it alone can neither move nor shrink a
    conditional density that is narrow, or lies outside.
    """
    return {"rational_quadratic_spline": "affine_rational_quadratic_spline"}.get(
        elementwise if isinstance(elementwise, str) else None, elementwise
    )


def elementwise_of(recipe, elementwise, kwargs):
    """The elementwise map of a recipe, whose arguments came with the recipe's own.

    Args:
      recipe: the recipe, a function.
      elementwise: name of a map, or an `ElementwiseMap`.
      kwargs: keyword arguments that the recipe doesn't know.

    Raises:
      TypeError, ValueError: as `elementwise.get`, but naming the recipe and what it takes.
    """
    unknown = elementwise_maps.unknown_arguments(elementwise, kwargs)
    try:
        return elementwise_maps.get(elementwise, **kwargs)
    except (TypeError, ValueError) as error:
        if not unknown:
            raise
        parameters = inspect.signature(recipe).parameters.values()
        own = ", ".join(p.name for p in parameters if p.kind != p.VAR_KEYWORD)
        raise type(error)(
            f"flows.{recipe.__name__}: unexpected argument {', '.join(unknown)}. It takes {own}, "
            f"and those of its elementwise map. {error}"
        ) from None


# Elementwise maps, by name, that have the `rate` of an affine part.
WITH_RATE = ("affine", "affine_rational_quadratic_spline")
# The recipes' default shapes, of up to 10 layers and 2048 inputs of their last layers in all, train
# at Adam's 3e-3 as they are.
_LAYERS_OF_ALL, _FAN_IN_OF_ALL = 10, 2048
# Likewise those of Glow's paper for small images: 12 rotations of up to 48 channels.
_SIZES_OF_ALL = 576


def bounded_by_depth(layers, fan_in, blocks=1):
    """The `rate` and `cap` of an affine map by which Adam trains a flow of any depth and width.

        rate = min(1, (2048 / (layers * fan-in))^(3/2) / blocks)      cap = 3 min(1, 10 / layers)

    A step of Adam moves the parameters of one layer by (rate * fan-in * learning rate), and what
    all layers together do to a row grows with the exponential of the sum over them. The cap keeps
    that sum within what ten layers may reach, for a row far from all others too, which every
    layer would carry farther.

    Args:
      layers: number of affine layers that a row goes through.
      fan_in: inputs of each output of the last layer of their networks; of sizes that are wrong,
        which the networks refuse, nothing is said here.
      blocks: by how much more the last layer of a residual network is given than of another.
    """
    share = _FAN_IN_OF_ALL / max(1, layers * fan_in)
    return {
        "rate": min(1.0, share**1.5 / blocks),
        "cap": 3.0 * min(1.0, _LAYERS_OF_ALL / max(1, layers)),
    }


def rate_of_rotations(layers, size):
    """The `rate` of an `InvertibleConv1x1` by which Adam trains a flow of any depth.

        rate = min(1, (576 / (layers * size))^(3/2))

    A step of Adam turns one rotation by (rate * size * learning rate), and a flow by their sum.

    Args:
      layers: number of rotations that a row goes through.
      size: number of channels.
    """
    return min(1.0, (_SIZES_OF_ALL / max(1, layers * size)) ** 1.5)


def in_sequence(
    layer,
    seeds,
    period,
    stacked,
    recipe,
    dtype,
    *,
    unequal=(),
    by_itself_from=None,
    name="steps",
    reverse=False,
):
    """The parts of layers from the data to the latent: one after another, or in a loop.

    Args:
      layer: function of a layer's number and its seeds, that returns its parts.
      seeds: for each layer the seeds of its parts.
      period: after how many layers they are equal again, but for what is drawn by their seeds.
        What is left of a last period is kept as it is.
      stacked: the recipe's argument: `True`, `False`, or `None` for a loop from so many periods on
        as `by_itself_from` says, one whose gradient computes nothing twice.
      recipe: name of the recipe, for messages.
      dtype: dtype of the parts.
      unequal: the recipe's arguments, as they were given, by which no layers are equal.
      by_itself_from: number of periods, or `None` for no loop unless it is asked for.
      name: name of the loop.
      reverse: whether the last layer is next to the data.

    Raises:
      TypeError: if `stacked` is none of them.
      ValueError: if it is `True`, and layers that are not equal cannot be.
    """
    if not isinstance(stacked, (bool, type(None))):
        raise TypeError(f"{recipe}: stacked must be True, False or None, got {stacked!r}.")
    if stacked and unequal:
        raise ValueError(
            f"{recipe}: stacked=True is for equal layers, got {' and '.join(unequal)}, by which "
            "each is another. Leave `stacked` out."
        )
    numbers = range(len(seeds))[:: -1 if reverse else 1]
    num = len(numbers) // period
    in_loop = stacked
    if stacked is None:
        in_loop = by_itself_from is not None and num >= by_itself_from and not unequal
    parts = []
    if in_loop and num:
        first = [part for n in numbers[:period] for part in layer(n, seeds[n])]
        step = first[0]
        if len(first) > 1:
            step = bijectors.Chain(first, dtype=dtype, name=f"{name}_step")
        own = [seed for n in numbers[:period] for seed in seeds[n]]
        tables = []
        for start in range(period, num * period, period):
            others = [seed for n in numbers[start : start + period] for seed in seeds[n]]
            tables.append(dict(zip(own, others, strict=True)))
        reseeds = [table.__getitem__ for table in tables]
        parts.append(bijectors.Repeat.like(step, reseeds, recompute=bool(stacked), name=name))
        numbers = numbers[num * period :]
    return parts + [part for n in numbers for part in layer(n, seeds[n])]


def levels(shape, num_levels, steps, *, learned_prior, dtype, policy, number=1):
    """The parts of a multi-scale flow of images, from the data to the latent.

    At every level squeeze, steps, and half of the channels factored out but at the last.

    Args:
      shape: `(H, W, C)` of the data.
      num_levels: number of levels.
      steps: function of a squeezed shape and a level's number that returns the parts of its steps.
      learned_prior: whether the base of what is factored out is predicted from what is kept.
      dtype: dtype of the parts.
      policy: of the priors' layers.
      number: that of the first level.
    """
    height, width, channels = shape
    squeezed = (height // 2, width // 2, 4 * channels)
    parts = [tfb.Invert(bijectors.Squeeze(dtype=dtype)), *steps(squeezed, number)]
    if number < num_levels:
        kept = (*squeezed[:-1], squeezed[-1] // 2)
        prior = conditioners.Convolution(2 * kept[-1], dtype=policy) if learned_prior else None
        rest = {"learned_prior": learned_prior, "dtype": dtype, "policy": policy}
        below = levels(kept, num_levels, steps, number=number + 1, **rest)
        below = bijectors.Chain(below, name=f"level_{number + 1}")
        parts.append(
            bijectors.FactorOut(below, squeezed, conditioner=prior, name=f"factor_out_{number}")
        )
    return [*parts, bijectors.Squeeze(dtype=dtype)]


def by_own_networks(conditioner):
    """Of `in_sequence`: networks that a function makes need not be equal."""
    return [] if conditioner is None else ["a conditioner of one's own"]


def last_width(inputs, hidden_units):
    """The inputs of the last layer of a fully connected network."""
    return [inputs, *np.atleast_1d(hidden_units)][-1]


def layer_policy(dtype):
    """The policy of a recipe's Keras layers: the global one if it is a mixed one that fits.

    A global `mixed_bfloat16` lets the networks compute in bfloat16; their weights, and all that
    is no network, have the recipe's dtype.
    """
    policy, dtype = keras.config.dtype_policy(), tf.as_dtype(dtype).name
    mixed = policy.compute_dtype != policy.variable_dtype == dtype
    return policy.name if mixed else dtype


def make_base(base, event_shape, *, trainable, dtype):
    """Makes the base distribution of a recipe.

    Args:
      base: `"normal"`, `"logistic"` or a `tfd.Distribution` with event shape `event_shape`.
      event_shape: tuple of `int`.
      trainable: whether location and scale of every entry are variables (a named base only).
      dtype: dtype of the base.
    """
    if isinstance(base, tfd.Distribution):
        if base.event_shape != tf.TensorShape(event_shape):
            raise ValueError(
                f"base '{base.name}' has event shape {base.event_shape.as_list()}, expected "
                f"{list(event_shape)}. Wrap it in tfd.Sample or tfd.Independent."
            )
        if trainable:
            raise ValueError(
                "trainable_base=True is for a named base; give a distribution with tf.Variables "
                "as parameters instead."
            )
        return base
    if base not in _BASES:
        raise ValueError(f"base must be one of {_BASES} or a tfd.Distribution, got {base!r}.")
    family = {"normal": tfd.Normal, "logistic": tfd.Logistic}[base]
    if not trainable:
        # Not tfd.Sample: it has the same samples, but of its density ONNX lacks an operation.
        fixed = family(tf.zeros(event_shape, dtype), tf.ones([], dtype))
        return tfd.Independent(fixed, len(event_shape), name="base")
    loc = tf.Variable(tf.zeros(event_shape, dtype), name="base/loc")
    log_scale = tf.Variable(tf.zeros(event_shape, dtype), name="base/log_scale")
    scale = tfp.util.DeferredTensor(log_scale, tf.exp)
    return tfd.Independent(family(loc, scale), len(event_shape), name="base")


def flow_of(base, bijector, *, support=None, name):
    """The distribution of a recipe. If it is conditional, its methods take `context=`.

    Args:
      base: the base distribution.
      bijector: from the base to all real values.
      support: where the data lie, as the recipes take it: see `constraint_of`.
      name: name of the distribution.
    """
    if support is not None:
        constraint = constraint_of(support, bijector, name)
        bijector = bijectors.Chain([constraint, bijector])
    split = split_for(base, bijector)
    return tfd.TransformedDistribution(base, bijector, kwargs_split_fn=split, name=name)


def constraint_of(support, bijector, recipe):
    """The bijector from all real values to the support of the data.

        (low, high)     y = low + (high - low) s(x)       s the sigmoid
        (low, inf)      y = low + e^x                     "positive": low = 0
        (-inf, high)    y = high - e^x

    Args:
      support: `"positive"`, or a pair of numbers or arrays that broadcast to the event.
      bijector: of the recipe, whose dtype it has.
      recipe: name of the recipe, for messages.
    """
    form = (
        f"flows.{recipe}: support must be None, 'positive', or a pair (low, high) of numbers or "
        f"arrays of the event's shape with low < high, got {support!r}."
    )
    if isinstance(support, str) and support == "positive":
        support = 0.0, np.inf
    if isinstance(support, str) or not isinstance(support, (tuple, list)) or len(support) != 2:
        raise ValueError(form)
    dtype = tf.as_dtype(bijector.dtype or tf.float32).as_numpy_dtype
    try:
        low, high = (np.asarray(bound, dtype) for bound in support)
        np.broadcast_shapes(low.shape, high.shape)
    except (TypeError, ValueError):
        raise ValueError(form) from None
    if not (low < high).all():
        raise ValueError(form)
    finite = np.isfinite(low).all(), np.isfinite(high).all()
    if not all(bound.all() or not bound.any() for bound in map(np.isfinite, (low, high))):
        raise ValueError(
            f"flows.{recipe}: support: a bound must be finite for all entries or for none, got "
            f"{support!r}. For others put a tfb.Blockwise around the flow."
        )
    if finite == (True, True):
        return tfb.Sigmoid(low, high, name="support")
    if finite == (True, False):
        return tfb.Chain([tfb.Shift(low), tfb.Exp()], name="support")
    if finite == (False, True):
        minus = tfb.Scale(dtype(-1.0))
        return tfb.Chain([tfb.Shift(high), minus, tfb.Exp()], name="support")
    return tfb.Identity(name="support")


def network_of(recipe, conditioner, input_shape, output_size, context_size, seed):
    """A user's own network for one coupling of a recipe.

    Args:
      recipe: name of the recipe, for messages.
      conditioner: function of the other arguments.
      input_shape: shape of what passes through the coupling, `(n,)` or `(H, W, C)`.
      output_size: size of the output's last axis.
      context_size: as the recipe's.
      seed: `int` or `None`, another for each coupling.
    """
    layer = conditioner(tuple(input_shape), int(output_size), context_size, seed)
    if not isinstance(layer, keras.layers.Layer):
        raise TypeError(
            f"flows.{recipe}: conditioner must be a function (input_shape, output_size, "
            f"context_size, seed) that returns a new keras.layers.Layer, got "
            f"{type(layer).__name__} from it."
        )
    return layer
