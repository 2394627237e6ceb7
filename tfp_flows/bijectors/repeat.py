"""Depth: equal steps, one after another, as one loop over stacked weights."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._checks import optional_seed, positive_integer
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors import modes
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import context_shapes_of, dtype_of, steps_of, title_of, walk
from tfp_flows.bijectors.loop import Loop
from tfp_flows.bijectors.pattern import (
    by_seed,
    draw,
    event_shape_of,
    layout_of,
    mixed,
    random_states_of,
    start,
    variables_of,
)
from tfp_flows.bijectors.step_of import StepOf
from tfp_flows.bijectors.unrolled import Place, Unrolled
from tfp_flows.bijectors.weights import make_weight

tfb = tfp.bijectors


class Repeat(FlowBijector, Unrolled):
    """Equal steps one after another, each with weights of its own, as one loop.

        forward(x) = step_0(step_1(... step_{num-1}(x)))
        inverse(y) = step_{num-1}^-1(... step_0^-1(y))
        log|det dy/dx| = sum of the steps' log-dets

    It is `Chain([step_0, ..., step_{num-1}])`, of which only one step is traced, whatever `num`:
    the weights of all steps are stacked along a first axis, and a loop reads them by index. The
    time to the first training step hardly grows with depth then, nor does the memory.

    Going back, the gradient reads what each step was given, and computes the step anew: exact to
    rounding, for up to a quarter more time. `recompute=False` keeps everything instead, as the
    gradient of the steps one by one does, and takes no more time than that.

    A step of a period of several (couplings whose masks take turns) is a `Chain` of them.

    Shapes: those of the step; `context` goes to every step, and gets the sum of their gradients.
    Log-dets are in nats, of the batch shape.

    What it asks of a step: it keeps the event's shape; its variables are `Weight`s of a
    `FlowBijector` or those of Keras layers in a `Network`; and it assigns none in a call, which
    leaves out `BatchNorm` and Keras's own batch normalization. Dropout draws for every step, and
    on the way back again what it drew. What a layer adds by `add_loss` has no way out of the loop;
    regularizers do. Integers that a layer keeps (a MADE's degrees) are the same in all steps. What
    an optimizer does by variable it does by stack: `clipnorm`, layer-wise rates, the norms of LAMB
    and Adafactor. To Muon a stack of biases would be a matrix: `FlowModel.compile` refuses it.

    Args:
      step: any `tfb.Bijector` of that kind: the pattern of the others. Its variables become the
        first entries of the stacks and are not used any more. Layers in it are frozen
        (`trainable`), regularized, and given a policy as elsewhere, for all steps at once.
      num: `int >= 1`, number of steps.
      recompute: whether the gradient computes each step anew (default), or TensorFlow's own
        gradient of a loop keeps what it needs.
      seed: `int >= 0` that fixes what the other steps start from. Default: it follows from the
        seeds in `step`; parts of it without one draw afresh. What is not drawn at random starts
        as in `step`.
      weights: the stacks, as `copy()` hands them over: arrays or variables `[num, ...]`, in the
        order of `step.variables`, of which integers that layers keep are left out. Default: drawn.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `step` is no bijector, or `num` or `seed` no integer.
      ValueError: if `num` is below 1, or the step is none that can be in it; if `weights` are
        those of another step or another number of them.

    >>> from tfp_flows import bijectors, conditioners, masks
    >>> def coupling(flip):
    ...     network = conditioners.MLP(4, hidden_units=(8,), seed=int(flip))
    ...     return bijectors.AffineCoupling(network, masks.halves(4, flip=flip))
    >>> flow = Repeat(bijectors.Chain([coupling(False), coupling(True)]), 16)
    >>> flow.inverse(tf.ones([2, 4])).shape, len(flow.trainable_variables)
    (TensorShape([2, 4]), 8)
    >>> flow.steps[3].inverse(tf.ones([2, 4])).shape
    TensorShape([2, 4])

    References:
      T. Chen, B. Xu, C. Zhang, C. Guestrin, Training deep nets with sublinear memory cost, 2016,
      arXiv:1604.06174, section 4.1. Nothing is inverted on the way back, as A. N. Gomez et al.,
      The reversible residual network, 2017, arXiv:1707.04585, do: that drifts with depth.
    """

    # tf.Module would list the variables of the pattern, which nothing reads.
    _TF_MODULE_IGNORED_PROPERTIES = FlowBijector._TF_MODULE_IGNORED_PROPERTIES.union(
        ("_parameters", "_step", "_slots", "_ways", "_random")
    )

    def __init__(
        self, step, num, *, recompute=True, seed=None, weights=None, name="repeat", **kwargs
    ):
        title = self._title()
        if not isinstance(step, tfb.Bijector):
            raise TypeError(f"{title}: expected a tfb.Bijector, got a {type(step).__name__}.")
        num = positive_integer(num, "num", title)
        seed = optional_seed(seed, title)
        super().__init__(
            event_shape=event_shape_of(step, title),
            context_size=context_shapes_of(step),
            dtype=dtype_of(step) or tf.float32,
            is_constant_jacobian=step.is_constant_jacobian,
            name=name,
            **kwargs,
        )
        self._step, self._num, self._recompute = self._no_dependency(step), num, bool(recompute)
        slots, shared = variables_of(step, title)
        if not slots:
            raise ValueError(
                f"{title}: {title_of(step)} has no variables: all steps would be the same. Use a "
                "Chain."
            )
        self._slots, self._shared = self._no_dependency(slots), shared
        random = random_states_of(step)
        self._random = self._no_dependency([v for v in shared if id(v) in random])
        self._ways = self._no_dependency(
            {inverse: tuple(steps_of(step, inverse)) for inverse in (True, False)}
        )
        self._drawn = weights is None
        if weights is None:
            self._check_step()
            weights = start(step, slots, [by_seed(seed, k) for k in range(1, num)])
        self._weights = self._stacks(tuple(weights))
        self._place = Place(self)
        self._parameters["weights"] = tuple(self._weights)

    @classmethod
    def of(cls, steps, **kwargs):
        """A `Repeat` of bijectors that are there: equal, but for the values of their variables.

        Args:
          steps: non-empty sequence of them, as in a `Chain`; the first one becomes the pattern.
          **kwargs: as of the constructor.

        Raises:
          ValueError: if their variables differ in number, dtype or shape, or in integers that
            are the same in all steps of a `Repeat`.
        """
        steps = tuple(steps)
        title = f"{cls.__name__}.of"
        if not steps:
            raise ValueError(f"{title}: expected at least one bijector, got none.")
        found = [variables_of(step, title) for step in steps]
        for n, (slots, shared) in enumerate(found):
            if layout_of(slots) != layout_of(found[0][0]) or any(
                not np.array_equal(a.numpy(), b.numpy())
                for a, b in zip(shared, found[0][1], strict=True)
            ):
                raise ValueError(
                    f"{title}: the variables of step {n}, {title_of(steps[n])}, are not like those "
                    f"of step 0, {title_of(steps[0])}. Steps differ in nothing but the values of "
                    "their variables; a period of several steps is a Chain of them."
                )
        stacks = zip(
            *([slot.variable.numpy() for slot in slots] for slots, _ in found), strict=True
        )
        repeat = cls(steps[0], len(steps), weights=[np.stack(s) for s in stacks], **kwargs)
        repeat._check_step()
        return repeat

    @classmethod
    def like(cls, step, reseeds, **kwargs):
        """A `Repeat` of `step` and of others like it, drawn by seeds of their own.

        It is that `of` the same steps built one by one, and made in a fraction of the time.

        Args:
          step: the first step, one that can be in it.
          reseeds: for each step but the first, a function from the seed of a part of `step`, or
            `None`, to that of the part in its place.
          **kwargs: as of the constructor.
        """
        slots, _ = variables_of(step, f"{cls.__name__}.like")
        weights = start(step, slots, reseeds)
        return cls(step, 1 + len(reseeds), weights=weights, **kwargs)

    @property
    def step(self):
        """The pattern: its parts, layers and masks are those of every step, its weights are not."""
        return self._step

    @property
    def num(self):
        """Number of steps."""
        return self._num

    @property
    def steps(self):
        """The steps, each as a bijector that reads its own weights, in the order of a `Chain`."""
        return tuple(StepOf(self, k, self._step) for k in range(self._num))

    @property
    def initialized(self):
        """Flags of the parts that are initialised from data: variables `[num]`."""
        return [
            stack
            for slot, stack in zip(self._slots, self._weights, strict=True)
            if slot.from_data and slot.variable.dtype == tf.bool
        ]

    @property
    def in_loop(self):
        """The same as `steps`, for whoever looks into a composition."""
        return self.steps

    def weights_of(self, k):
        """What the variables of `step` are in step `k`: pairs for `modes.reading`."""
        return self._pairs([stack[k] for stack in self._values()])

    def redrawn(self, reseed):
        """The stacks that another one like it would start from."""
        if not self._drawn:
            return
        rows = [
            draw(self._step, lambda own, k=k: reseed(own if own is None else mixed(own, k)))
            for k in range(self._num)
        ]
        for slot, stack in zip(self._slots, self._weights, strict=True):
            if all(id(slot.variable) in row for row in rows):
                yield stack, np.stack([row[id(slot.variable)] for row in rows])

    def _stacks(self, weights):
        title = self._title()
        if len(weights) != len(self._slots):
            raise ValueError(
                f"{title}: the weights of another step: expected {len(self._slots)} stacks, got "
                f"{len(weights)}."
            )
        stacks = []
        for slot, given in zip(self._slots, weights, strict=True):
            own, shape = slot.variable, (self._num, *slot.variable.shape)
            which = own.name.split(":")[0]
            if len(given.shape) and given.shape[0] != self._num:
                raise ValueError(
                    f"{title}: the weights are those of {given.shape[0]} steps ({which} of shape "
                    f"{list(given.shape)}), expected {self._num}. Build it with num="
                    f"{given.shape[0]}."
                )
            stacks.append(
                make_weight(
                    given,
                    shape=shape,
                    start=0.0,
                    name=f"{self.name}/{which}",
                    title=title,
                    dtype=own.dtype,
                    trainable=own.trainable,
                )
            )
        return stacks

    # --- The loop. ---

    def _forward_and_log_det(self, x, context):
        return self._run(x, context, inverse=False)

    def _inverse_and_log_det(self, y, context):
        return self._run(y, context, inverse=True)

    def _order(self, n, inverse):
        """Index of the `n`-th step that a direction meets."""
        return n if inverse else self._num - 1 - n

    def _run(self, value, context, inverse):
        if modes.initializing():
            return self._initialize(value, context, inverse)
        stacks = self._values()
        # Integers and truth values have no gradient: they need not be arguments of the loop.
        floating = [stack.dtype.is_floating for stack in stacks]
        fixed = [
            stack for stack, has_gradient in zip(stacks, floating, strict=True) if not has_gradient
        ]
        flat = [] if context is None else tf.nest.flatten(context)
        training = modes.in_training_mode()
        batch = self._batch(value)
        draws = self._draws() if training else []

        def step(n, value, flat, weights):
            """The `n`-th step that the loop meets, with the weights that have a gradient."""
            k = self._order(n, inverse)
            weights, rest = iter(weights), iter(fixed)
            values = [next(weights) if f else next(rest)[k] for f in floating]
            here = tf.nest.pack_sequence_as(context, flat) if flat else None
            # The way back comes by here when the modes that the way there was in are over.
            seeds = [(v, tf.random.fold_in(seed, k)) for v, seed in draws]
            with modes.training_mode(training), modes.reading([*self._pairs(values), *seeds]):
                result, log_det, _ = self._walk(value, here, inverse)
            return tf.ensure_shape(result, value.shape), log_det + tf.zeros(batch, value.dtype)

        loop = Loop(step, self._num, lambda n: self._order(n, inverse), len(flat))
        run = loop.recomputed if self._recompute else loop.plain
        has_gradient = [stack for stack, f in zip(stacks, floating, strict=True) if f]
        return run(value, tf.zeros(batch, value.dtype), *flat, *has_gradient)

    def _walk(self, value, context, inverse):
        return walk(self._ways[inverse], value, context, self.forward_min_event_ndims)

    def _values(self):
        """The stacks, or what `reading` has in their place where this is a part of a step."""
        values = modes.substitutes()
        return [tf.convert_to_tensor(values.get(id(v), v)) for v in self._weights]

    def _draws(self):
        """The random states of the layers, and what this pass takes of each.

        They move on here, once for all steps: a step is computed twice, and must draw the same.
        """
        values, pairs = modes.substitutes(), []
        for state in self._random:
            seed = values.get(id(state))
            if seed is None:
                seed = tf.identity(state)
                state.assign_add([0, 1])
            pairs.append((state, seed))
        return pairs

    def _pairs(self, values):
        """What `reading` takes for a step of these values."""
        return [(slot.variable, v) for slot, v in zip(self._slots, values, strict=True)]

    def _batch(self, value):
        rank = value.shape.rank - self.forward_min_event_ndims
        batch = value.shape[:rank]
        return batch if batch.is_fully_defined() else tf.shape(value)[:rank]

    def _initialize(self, value, context, inverse):
        """The pass that initialises parts from data: step by step, in the pattern's own variables.

        What the parts set goes into the stacks when all steps have passed: of a pass that fails
        nothing stays.
        """
        rows = [tf.unstack(stack) for stack in self._values()]
        own = [n for n, slot in enumerate(self._slots) if slot.from_data]
        total = 0.0
        for k in sorted(range(self._num), key=lambda n: self._order(n, inverse)):
            for n in own:
                self._slots[n].variable.assign(rows[n][k])
            pairs = [
                pair for n, pair in enumerate(self._pairs([r[k] for r in rows])) if n not in own
            ]
            with modes.reading(pairs):
                value, log_det, _ = self._walk(value, context, inverse)
            for n in own:
                rows[n][k] = tf.convert_to_tensor(self._slots[n].variable)
            total += log_det
        for n in own:
            self._weights[n].assign(tf.stack(rows[n]))
        return value, total

    # --- What a step must keep to. ---

    def _check_step(self):
        """Refuses a step that assigns in a call, or gives another dtype than it is given.

        By its graphs, in which is also what is done under a condition.
        """

        def spec(shape, dtype=self.dtype):
            return tf.TensorSpec(shape, dtype)

        context = contexts.each(
            lambda shape, _: spec([None, *shape]), self._context_shapes, self._context_shapes
        )
        weights = [spec(slot.variable.shape, slot.variable.dtype) for slot in self._slots]
        states = [(v, tf.identity(v)) for v in self._random]
        for inverse in (True, False):

            def run(value, context, weights, inverse=inverse):
                with modes.training_mode(), modes.reading([*self._pairs(weights), *states]):
                    return self._walk(value, context, inverse)[:2]

            trace = tf.function(run, autograph=False).get_concrete_function
            try:
                result = trace(spec([None, *self._domain]), context, weights).structured_outputs
            except (AttributeError, modes.AssignedInCall) as error:
                if isinstance(error, AttributeError) and "assign" not in str(error):
                    raise
                raise ValueError(
                    f"{self._title()}: {title_of(self._step)} cannot be repeated in a loop: in a "
                    f"call it assigns a variable or adds a loss ({error}). "
                    "Make a Chain of such steps, or use parts that keep no statistics (ActNorm)."
                ) from None
            if any(value.dtype != self.dtype for value in result):
                raise ValueError(
                    f"{self._title()}: {title_of(self._step)} must give {self.dtype.name}, as it "
                    f"is given, but gives {[value.dtype.name for value in result]}."
                )
