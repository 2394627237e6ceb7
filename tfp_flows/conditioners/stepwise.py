"""What the networks share that go from one step of an event to the next."""

import collections.abc
import math
import numbers

import numpy as np
import tensorflow as tf

from tfp_flows._checks import forms_of, one_of, positive_integer, positive_integers
from tfp_flows.conditioners.base import Conditioner

_ORDERS = ("left-to-right", "right-to-left")


def product(x, kernel):
    """`[..., m]` times `[m, k]`, as one matrix product."""
    if x.shape.rank == 2:
        return tf.matmul(x, kernel)
    sizes = tf.shape(x)
    sizes = [sizes[i] if n is None else n for i, n in enumerate(x.shape[:-1].as_list())]
    flat = tf.matmul(tf.reshape(x, [-1, x.shape[-1]]), kernel)
    return tf.reshape(flat, [*sizes, flat.shape[-1]])


def gate(z):
    """tanh of the first half of the last axis, times the sigmoid of the other."""
    signal, share = tf.split(z, 2, axis=-1)
    return tf.tanh(signal) * tf.sigmoid(share)


def in_dtype(dtype, *weights):
    """Weights as tensors of a dtype: what a step, which runs outside `call`, needs."""
    return [tf.cast(tf.convert_to_tensor(w), dtype) for w in weights]


class StepwiseConditioner(Conditioner):
    """Base class of the networks that also run step by step.

    They give parameters of every entry of an event from the entries of earlier steps, all at once
    in `call`, and one step after another in `init_cache` and `step`, the contract of
    `tfp_flows.bijectors.stepwise`.

    A context is a vector, `context_size=3`; one vector a step, of the event's leading sizes
    (`[T, 3]`, `[H, W, 3]`); or several of either kind by name, a dictionary.

    Args:
      arguments, sizes: as `Conditioner`; `event_shape` and `order` are among the arguments,
        `num_parameters` among the sizes.
      ranks: ranks of the events that the network takes.

    Raises:
      TypeError: if a size is no integer.
      ValueError: if the event has another rank, or a context is neither one vector nor one a step,
        or the order is unknown.
    """

    def __init__(self, *, arguments, sizes, ranks):
        shape = arguments["event_shape"]
        shape = (shape,) if isinstance(shape, numbers.Integral) else tuple(shape)
        super().__init__(input_rank=len(shape) + 1, arguments=arguments, sizes=sizes)
        if len(shape) not in ranks:
            raise ValueError(
                f"{self._title()}: event_shape must be {forms_of(ranks)}, got {list(shape)}. "
                "Reshape the events."
            )
        self.event_shape = positive_integers(shape, "event_shape", self._title())
        self._num_outputs = self.num_parameters * self.event_shape[-1]
        one_of(self.order, _ORDERS, "order", self._title())
        for name, shape in self._context_shapes().items():
            if len(shape) > 1 and shape[:-1] != self.event_shape[:-1]:
                wanted = ", ".join(map(str, self.event_shape[:-1]))
                raise ValueError(
                    f"{self._title()}: context_size{'' if name is None else f' of {name!r}'} must "
                    f"be the size of a vector, or [{wanted}, n], one a step, got {list(shape)}."
                )

    @property
    def _is_reversed(self):
        return self.order == "right-to-left"

    @property
    def num_steps(self):
        """Number of steps."""
        return len(self.step_entries)

    @property
    def step_entries(self):
        """Int array `[num_steps, k]`: entries of the flattened event that each step is about."""
        raise NotImplementedError(f"{type(self).__name__} must define step_entries.")

    @property
    def _places_a_step(self):
        """Leading places of the event, such as pixels, that a step is about."""
        return 1

    # --- Context. ---

    def _checked_context_size(self, value):
        title = self._title()
        if isinstance(value, collections.abc.Mapping):
            return {name: self._checked_context_size(size) for name, size in value.items()}
        if isinstance(value, numbers.Integral):
            return positive_integer(value, "context_size", title)
        sizes = positive_integers(value, "context_size", title)
        return sizes[0] if len(sizes) == 1 else sizes

    def _context_shapes(self):
        """Name -> shape; the only context has the name `None`."""
        size = self.context_size
        sizes = size if isinstance(size, dict) else {} if size is None else {None: size}
        return {k: (v,) if isinstance(v, int) else tuple(v) for k, v in sorted(sizes.items())}

    def _context_sizes(self):
        """Sizes of the vectors side by side, once an event and once a step."""
        shapes = self._context_shapes().values()
        return tuple(sum(s[-1] for s in shapes if (len(s) > 1) == a_step) for a_step in (0, 1))

    def _contexts(self, context):
        """The vectors side by side, `[n, F]`, and those a step, `[n, ..., F]`; `None` for none."""
        context = context if isinstance(context, dict) else {None: context}
        found = []
        for a_step in (False, True):
            shapes = self._context_shapes().items()
            parts = [context[name] for name, shape in shapes if (len(shape) > 1) == a_step]
            found.append(tf.concat(parts, -1) if len(parts) > 1 else parts[0] if parts else None)
        return found

    def _add_context_kernels(self, shape, *, more_inputs=0):
        """Kernels `[F, *shape]` of the vectors and of those a step, `None` for none."""
        vectors, a_step = self._context_sizes()
        sizes = vectors, a_step * self._places_a_step
        names = ("context_kernel", "step_context_kernel")
        width = math.prod(shape)
        kernels = []
        for name, size in zip(names, sizes, strict=True):
            more = more_inputs + sum(sizes) - size
            kernels.append(
                self._add_kernel(name, (size, width), more_inputs=more) if size else None
            )
        return kernels

    # --- Checks. ---

    def _check_input(self, shape):
        shape = tf.TensorShape(shape)
        if not shape.is_compatible_with([None, *self.event_shape]):
            longer = ""
            if shape.rank == self._input_rank and shape[-1] == self.event_shape[-1]:
                longer = " It was made for events of one size: make another for longer ones."
            raise ValueError(
                f"{self._title()}: expected an input of shape "
                f"[batch, {', '.join(map(str, self.event_shape))}], got {shape}.{longer}"
            )
        return self.event_shape[-1]

    def _check_context(self, x, context):
        shapes = self._context_shapes()
        if not shapes or context is None:
            if shapes or context is not None:
                what = "is required, got none" if shapes else "was given, but none is expected"
                raise ValueError(
                    f"{self._title()}: a context of shape {self._wanted()} {what}. "
                    + ("Pass `context=`." if shapes else "Leave it out, or set `context_size`.")
                )
            return
        given = context if isinstance(context, dict) else {None: context}
        if set(given) != set(shapes):
            got = sorted(map(str, given)) if isinstance(context, dict) else "one tensor"
            raise ValueError(
                f"{self._title()}: expected a context of shape {self._wanted()}, got {got}."
            )
        for name, shape in shapes.items():
            found = given[name].shape
            if not found.is_compatible_with([None, *shape]):
                kinds = len(shape) > 1 and found.is_compatible_with([None, shape[-1]])
                remedy = " That is one vector an event: repeat it, or declare it so." * kinds
                raise ValueError(
                    f"{self._title()}: expected a context of shape [batch, "
                    f"{', '.join(map(str, shape))}], got {found}.{remedy}"
                )
            self._check_rows(x, found)

    def _wanted(self):
        texts = {
            name: f"[batch, {', '.join(map(str, shape))}]"
            for name, shape in self._context_shapes().items()
        }
        return texts.get(None, texts)


class SequenceConditioner(StepwiseConditioner):
    """Base class of the networks of one sequence of steps, each of k entries, in either order.

    A subclass gives `_tokens`, int array `[num_steps, k]`, the entries of each step from left to
    right; `_all_steps(before, vector, steps)`, which gets of every step the entries of the step
    before it and a one, `[n, S, k + 1]`, zeros at the first step, and the contexts, and returns
    parameters `[n, S, P * k]`, parameter-major; and `init_cache` and `step`.
    """

    @property
    def _tokens(self):
        raise NotImplementedError(f"{type(self).__name__} must define _tokens.")

    @property
    def step_entries(self):
        """Int array `[num_steps, k]`: entries of the flattened event, of each step in order."""
        return self._tokens[::-1] if self._is_reversed else self._tokens

    def _compute(self, x, context):
        steps, width = self.step_entries.shape
        entries = self.step_entries.reshape(-1)
        size = len(entries)
        channels, parameters = self.event_shape[-1], self.num_parameters
        if width == channels:
            tokens = tf.reshape(x, [-1, steps, width])
            tokens = tf.reverse(tokens, [1]) if self._is_reversed else tokens
        else:
            tokens = tf.gather(tf.reshape(x, [-1, size]), entries, axis=1)
            tokens = tf.reshape(tokens, [-1, steps, width])
        before = tf.pad(self._with_one(tokens[:, :-1]), [[0, 0], [1, 0], [0, 0]])
        vector, a_step = self._contexts(context)
        if a_step is not None:
            a_step = self._by_step(a_step)
        out = self._all_steps(before, vector, a_step)
        # From [n, steps, P, k] to [n, ..., P * C].
        if width == channels:
            out = tf.reverse(out, [1]) if self._is_reversed else out
            return tf.reshape(out, [-1, *self.event_shape[:-1], parameters * channels])
        out = tf.transpose(tf.reshape(out, [-1, steps, parameters, width]), [0, 1, 3, 2])
        out = tf.gather(tf.reshape(out, [-1, size, parameters]), np.argsort(entries), axis=1)
        out = tf.transpose(
            tf.reshape(out, [-1, size // channels, channels, parameters]), [0, 1, 3, 2]
        )
        return tf.reshape(out, [-1, *self.event_shape[:-1], parameters * channels])

    def _with_one(self, tokens):
        # So that the first step, which has none before it, is told from zeros.
        return tf.concat([tokens, tf.ones_like(tokens[..., :1])], -1)

    @property
    def _places_a_step(self):
        return self._tokens.shape[1] // self.event_shape[-1]

    def _by_step(self, context):
        """Vectors `[n, ..., F]`, one a leading place of the event, as `[n, S, places * F]`."""
        steps, places, size = self.num_steps, self._places_a_step, context.shape[-1]
        if places > 1:
            channels = self.event_shape[-1]
            order = self.step_entries.reshape(-1, channels)[:, 0] // channels
            context = tf.gather(tf.reshape(context, [-1, steps * places, size]), order, axis=1)
            return tf.reshape(context, [-1, steps, places * size])
        context = tf.reshape(context, [-1, steps, size])  # Of an image, row by row.
        return tf.reverse(context, [1]) if self._is_reversed else context
