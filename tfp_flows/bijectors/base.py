"""The base class of every bijector in this package."""

import abc

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import _arguments
from tfp_flows.bijectors import context as contexts
from tfp_flows.bijectors._shapes import static_shape, with_batch_shape, with_event_shape
from tfp_flows.bijectors.cache import FreshCache
from tfp_flows.bijectors.modes import substitutes
from tfp_flows.bijectors.weights import make_weight


class Weight:
    """A variable of a bijector, as an attribute of its class.

    `FlowBijector.add_weight` makes the variable. It is read as `self.name`, and so every bijector
    can be evaluated with other values than those of its variables (`reading`), which is how steps
    with stacked weights share one graph.

    Args:
      doc: what it is, for `help`.

    >>> class Scale(FlowBijector):
    ...     log_scale = Weight("Variable of the event shape.")
    >>> Scale.log_scale.__doc__
    'Variable of the event shape.'
    """

    def __init__(self, doc=None):
        self.__doc__ = doc

    def __set_name__(self, owner, name):
        self.attribute = f"_{name}"

    def __get__(self, bijector, owner=None):
        if bijector is None:
            return self
        variable = getattr(bijector, self.attribute)
        values = substitutes()
        return values.get(id(variable), variable) if values else variable


class FlowBijector(tfp.bijectors.Bijector, abc.ABC):
    """A `tfb.Bijector` whose value and log-det come out of one evaluation.

    A subclass gives two methods,

        _forward_and_log_det(x, context) -> y, log|det dy/dx|
        _inverse_and_log_det(y, context) -> x, log|det dx/dy|

    and the base class wires them into TFP's hooks, so that `log_prob`, `sample` and
    `experimental_sample_and_log_prob` of a `tfd.TransformedDistribution` each call the
    conditioner once. The log-det has the batch shape, or is a scalar where it does not
    depend on the argument.

    Variables are class attributes, made in the constructor by `add_weight`, and Keras layers are
    held in a `Network`. The constructor's arguments are remembered for `copy()` and for files,
    so that a whole bijector is

    ```python
    @keras.saving.register_keras_serializable(package="mine")
    class Scale(bijectors.FlowBijector):
        log_scale = bijectors.Weight("Variable of the event shape.")

        def __init__(self, event_shape, *, log_scale=None, **kwargs):
            super().__init__(event_shape=event_shape, is_constant_jacobian=True, **kwargs)
            self.add_weight("log_scale", log_scale, event_shape)

        def _forward_and_log_det(self, x, context):
            return x * tf.exp(self.log_scale), tf.reduce_sum(self.log_scale)

        def _inverse_and_log_det(self, y, context):
            return y * tf.exp(-self.log_scale), -tf.reduce_sum(self.log_scale)
    ```

    Arguments are checked here, once, for all subclasses: floating dtype, rank, event shape,
    and the context, which is passed as `context=` to `forward`, `inverse` and the log-dets.
    In a `tf.function` the rank has to be known. Sizes that are not known are checked when it
    runs, those that are known when it is traced.

    Args:
      event_shape: the static event shape of the domain; an entry may be `None` (free), and
        `None` for the whole leaves only the rank to check.
      event_ndims: `int >= 0`, the rank of one event of the domain. Default: that of `event_shape`.
      inverse_event_ndims: rank of one event of the codomain. Default: `event_ndims`.
      inverse_event_shape: as `event_shape`, for the codomain. Default: `event_shape`.
      context_size: what context it takes: the size of a vector, or the shape of another tensor
        (`[T, C]`, a vector a step; `[H, W, C]`, one a pixel), batch apart, or a dictionary of
        such by name. Default: none.
      is_constant_jacobian: whether the Jacobian itself, not its determinant alone, is the same at
        every argument: TFP takes the map of a mean for the mean then.
      parameters: the constructor's arguments, if they are not to be those that it was called with.
      dtype: dtype of the arguments, float32 (default) or float64.
      validate_args: whether to run the costlier checks of the subclass.
      name: name of the bijector. Default: that of the class in small letters.

    Raises:
      TypeError: if an argument's dtype is not `dtype`.
      ValueError: if rank or event shape do not fit or the rank is not known, or the context is
        missing, unused, or of the wrong size.
      tf.errors.InvalidArgumentError: if a size does not fit that was not known before.
    """

    has_bounded_values = False
    """Whether the values of `forward` are not all real ones, of all real arguments."""

    _cache = FreshCache(forward_name="_cached_forward", inverse_name="_cached_inverse")

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        if "__init__" in vars(cls):
            cls.__init__ = _arguments.remembering(cls.__init__)

    def __init__(
        self,
        *,
        event_shape=None,
        event_ndims=None,
        inverse_event_shape=None,
        inverse_event_ndims=None,
        context_size=None,
        is_constant_jacobian=False,
        parameters=None,
        dtype=tf.float32,
        validate_args=False,
        name=None,
    ):
        name = name or type(self).__name__.lower()
        dtype = tf.as_dtype(dtype)
        if dtype not in (tf.float32, tf.float64):
            raise TypeError(
                f"{name}: dtype must be float32 or float64, got {dtype.name}. For bfloat16 give "
                "the conditioner a mixed policy; the bijector's own arithmetic stays in float32."
            )
        domain = static_shape(event_shape, event_ndims)
        codomain = domain
        if inverse_event_shape is not None or inverse_event_ndims is not None:
            codomain = static_shape(inverse_event_shape, inverse_event_ndims)
        super().__init__(
            forward_min_event_ndims=len(domain),
            inverse_min_event_ndims=len(codomain),
            dtype=dtype,
            is_constant_jacobian=is_constant_jacobian,
            validate_args=validate_args,
            parameters=getattr(self, "_bound", None) if parameters is None else parameters,
            name=name,
        )
        if self._parameters is None:  # TFP's word for none.
            self._parameters = self._no_dependency({})
        self._domain = self._no_dependency(domain)
        self._codomain = self._no_dependency(codomain)
        shapes = contexts.shapes_of(context_size, self._title())
        self._context_shapes = self._no_dependency(shapes)

    def add_weight(self, name, value, shape, start=0.0, *, dtype=None, trainable=True, **kwargs):
        """Makes the variable of a `Weight`, or takes the one that the constructor was given.

        It is written back into `parameters`, so that `copy()` shares it.

        Args:
          name: that of the constructor's argument, and of the `Weight` among the class's
            attributes.
          value: the constructor's argument: `None`; an array of `shape`; or a `tf.Variable` or
            `tfp.util.TransformedVariable` of it, which is used as it is.
          shape: shape of the variable.
          start: number, or array of `shape`: what it starts from if `value` is `None`. Default: 0.
          dtype: its dtype. Default: the bijector's.
          trainable: whether it is trained.
          **kwargs: as `tf.Variable`.

        Raises:
          TypeError: if it is no `Weight` of the class, or `value` has another dtype.
          ValueError: if `value` has another shape.
        """
        weight = getattr(type(self), name, None)
        if not isinstance(weight, Weight):
            raise TypeError(
                f"{self._title()}: '{name}' is no Weight of its class. Write `{name} = "
                f"bijectors.Weight()` into the body of class {type(self).__name__}."
            )
        variable = make_weight(
            value,
            shape=shape,
            start=start,
            name=f"{self.name}/{name}",
            title=self._title(),
            dtype=tf.as_dtype(dtype or self.dtype),
            trainable=trainable,
            **kwargs,
        )
        setattr(self, weight.attribute, variable)
        self._parameters[name] = variable

    # Every object is itself: TFP would compare and hash all constructor parameters, down a whole
    # chain, at every call, to let equal bijectors share a cache.
    def __eq__(self, other):
        return self is other

    def __hash__(self):
        return id(self)

    @property
    def context_size(self):
        """The context that it takes: size of a vector, shape, dictionary of them, or `None`."""
        return contexts.declared(self._context_shapes)

    @property
    def in_sequence(self):
        """The bijectors that this one is but a sequence of, as `tfb.Chain` has them; else empty."""
        return ()

    @property
    def solved_direction(self):
        """What has no formula and is solved for: "forward", "inverse", "both" or `None`."""
        return None

    @property
    def estimates_log_det(self):
        """Whether the log-det is a random estimate, and so `log_prob` too."""
        return False

    @property
    def branches(self):
        """Parts of it that act on some of the channels by themselves: pairs of slice, bijector."""
        return ()

    @property
    def in_loop(self):
        """The steps that this one goes in a loop, as `tfb.Chain` has them; else empty."""
        return ()

    def redrawn(self, reseed):
        """What another one like it would start from, where that is drawn at random.

        Args:
          reseed: function from the seed that it was made with, or `None`, to another.

        Returns:
          Pairs of a variable and an array. A network's variables are not among them.
        """
        del reseed
        return ()

    def get_config(self):
        """The constructor arguments, for saving; of a subclass, if it is registered with Keras."""
        return {name: v for name, v in self.parameters.items() if name != "parameters"}

    @classmethod
    def from_config(cls, config):
        """The bijector of `get_config`."""
        return cls(**config)

    @abc.abstractmethod
    def _forward_and_log_det(self, x, context):
        """Returns `y` and `log|det dy/dx|`, scalar or of the batch shape."""

    @abc.abstractmethod
    def _inverse_and_log_det(self, y, context):
        """Returns `x` and `log|det dx/dy|`, scalar or of the batch shape."""

    # --- Joint evaluation, without TFP's cache: what Chain and FactorOut call. AutoGraph, which
    # leaves TFP's own methods alone, would convert all that is below, for a second or more. ---

    @tf.autograph.experimental.do_not_convert
    def forward_and_log_det(self, x, context=None):
        """Returns `forward(x)` and its log-det from one evaluation.

        The log-det is a scalar where it does not depend on `x`, else of the batch shape.

        Args:
          x: tensor `[..., *event]` of the bijector's dtype.
          context: what the bijector takes as context, whose batch shape broadcasts to that of
            `x`; `None` for one without.
        """
        x, context = self._check(x, context, self._domain, "forward")
        with tf.name_scope(self.name):
            return self._forward_and_log_det(*self._pinned(x, context, self._domain, "forward"))

    @tf.autograph.experimental.do_not_convert
    def inverse_and_log_det(self, y, context=None):
        """Returns `inverse(y)` and its log-det from one evaluation.

        The log-det is a scalar where it does not depend on `y`, else of the batch shape.

        Args:
          y: tensor `[..., *event]` of the bijector's dtype.
          context: what the bijector takes as context, whose batch shape broadcasts to that of
            `y`; `None` for one without.
        """
        y, context = self._check(y, context, self._codomain, "inverse")
        with tf.name_scope(self.name):
            return self._inverse_and_log_det(*self._pinned(y, context, self._codomain, "inverse"))

    # --- TFP's hooks. ---

    def _cached_forward(self, x, context=None):
        before = self._cache.snapshot(context)
        pinned = self._pinned(x, self._as_tensors(context), self._domain, "forward")
        y, log_det = self._forward_and_log_det(*pinned)
        ildj = -with_batch_shape(log_det, x, self.forward_min_event_ndims)
        return y, self._cache.attributes(before, x, y, ildj)

    def _cached_inverse(self, y, context=None):
        before = self._cache.snapshot(context)
        pinned = self._pinned(y, self._as_tensors(context), self._codomain, "inverse")
        x, log_det = self._inverse_and_log_det(*pinned)
        ildj = with_batch_shape(log_det, y, self.inverse_min_event_ndims)
        return x, self._cache.attributes(before, y, x, ildj)

    # TFP calls these two only when the log-det is asked for before the value.
    def _forward_log_det_jacobian(self, x, **kwargs):
        _, attributes = self._cached_forward(x, **kwargs)
        self._cache.forward_attributes(x, **kwargs).update(attributes)
        return -attributes["ildj"]

    def _inverse_log_det_jacobian(self, y, **kwargs):
        _, attributes = self._cached_inverse(y, **kwargs)
        self._cache.inverse_attributes(y, **kwargs).update(attributes)
        return attributes["ildj"]

    def _call_forward(self, x, name, **kwargs):
        x, kwargs = self._check_call(x, kwargs, self._domain, "forward")
        return super()._call_forward(x, name, **kwargs)

    def _call_inverse(self, y, name, **kwargs):
        y, kwargs = self._check_call(y, kwargs, self._codomain, "inverse")
        return super()._call_inverse(y, name, **kwargs)

    def _call_forward_log_det_jacobian(self, x, event_ndims, name, **kwargs):
        x, kwargs = self._check_call(x, kwargs, self._domain, "forward_log_det_jacobian")
        return super()._call_forward_log_det_jacobian(x, event_ndims, name, **kwargs)

    def _call_inverse_log_det_jacobian(self, y, event_ndims, name, **kwargs):
        y, kwargs = self._check_call(y, kwargs, self._codomain, "inverse_log_det_jacobian")
        return super()._call_inverse_log_det_jacobian(y, event_ndims, name, **kwargs)

    @classmethod
    def _parameter_properties(cls, dtype):
        # Our parameters are shared by the whole batch: the bijector has batch shape [].
        del dtype
        return {}

    # --- Checks. ---

    def _check_call(self, value, kwargs, event_shape, method):
        unknown = sorted(set(kwargs) - {"context"})
        if unknown:
            raise TypeError(
                f"{self._title()}.{method}: unexpected keyword {', '.join(unknown)}; the only one "
                "is `context`. To route a context through stock TFP containers use "
                "`tfp_flows.bijectors.context_kwargs(bijector, context)`."
            )
        context = kwargs.get("context")
        value, _ = self._check(value, context, event_shape, method)
        # The context is handed on as it was given: TFP's cache knows it by its identity.
        return value, {} if context is None else {"context": context}

    def _check(self, value, context, event_shape, method):
        dtype = getattr(value, "dtype", None)
        if dtype is not None and tf.as_dtype(dtype) != self.dtype:
            dtype = tf.as_dtype(dtype)
            remedy = "Cast the argument, or build the bijector with that dtype."
            if dtype.is_integer or dtype.is_bool:
                remedy = (
                    "Cast the argument if its values are continuous. Discrete ones have no "
                    "density: add noise of the width of their steps "
                    "(preprocessing.UniformDequantization)."
                )
            raise TypeError(
                f"{self._title()}.{method}: expected {self.dtype.name}, got {dtype.name}. {remedy}"
            )
        value = tf.convert_to_tensor(value, dtype=self.dtype)
        rank, ndims = value.shape.rank, len(event_shape)
        if rank is not None:
            got = value.shape[rank - ndims :] if rank >= ndims else None
            if got is None or not got.is_compatible_with(event_shape):
                raise ValueError(
                    f"{self._title()}.{method}: expected shape {contexts.text(event_shape)}, "
                    f"got {value.shape.as_list()}."
                )
        elif ndims:
            raise ValueError(
                f"{self._title()}.{method}: expected shape {contexts.text(event_shape)}, got a "
                "tensor of unknown rank. State its rank with "
                f"tf.ensure_shape(x, {[None, *event_shape]})."
            )
        self._check_event(value, method)
        if context is None and self._context_shapes is None:
            return value, None
        title = f"{self._title()}.{method}"
        contexts.check(
            context,
            self._context_shapes,
            title,
            required="Pass `context=` (for a distribution: `bijector_kwargs={'context': ...}`, for "
            "a FlowModel: `context=`).",
            ignored=", which this bijector would ignore. Leave it out, or build the flow with "
            "`context_size`.",
        )
        context = self._as_tensors(context)
        if rank is not None:
            batch = value.shape[: rank - ndims].as_list()
            contexts.check_batch(context, self._context_shapes, batch, title)
        return value, context

    def _pinned(self, value, context, event_shape, method):
        """The argument and the context with the static sizes that `_check` could not see.

        Behind TFP's cache, which knows a tensor by its identity.
        """
        if context is None and value.shape.is_fully_defined():
            return value, None
        title = f"{self._title()}.{method}: "
        value = with_event_shape(value, event_shape, f"{title}expected shape")
        return value, contexts.each(
            lambda tensor, shape: with_event_shape(
                tensor, shape, f"{title}expected a context of shape"
            ),
            context,
            self._context_shapes,
        )

    def _check_event(self, value, method):
        """Further static checks of a subclass on an argument (Squeeze: even sizes)."""

    def _as_tensors(self, context):
        if context is None:
            return None
        return contexts.each(
            lambda tensor, _: tf.cast(tf.convert_to_tensor(tensor), self.dtype),
            context,
            self._context_shapes,
        )

    def _title(self):
        name = vars(self).get("_name") or self._bound.get("name")  # before the base has named it
        return f"{type(self).__name__} '{name}'"
