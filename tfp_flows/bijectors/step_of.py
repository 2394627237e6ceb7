"""One step of a loop, for whoever looks into a composition."""

from tfp_flows.bijectors import modes
from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.composition import context_shapes_of, steps_of, walk


class StepOf(FlowBijector):
    """A part of one step of a `Repeat`, which reads the weights of that step.

    Args:
      repeat: the `Repeat`.
      k: number of the step.
      part: its pattern, or a part of that.
    """

    def __init__(self, repeat, k, part):
        shapes = {"event_ndims": part.forward_min_event_ndims}
        shapes["inverse_event_ndims"] = part.inverse_min_event_ndims
        if isinstance(part, FlowBijector):
            shapes |= {"event_shape": part._domain, "inverse_event_shape": part._codomain}
        super().__init__(
            **shapes,
            context_size=context_shapes_of(part),
            dtype=repeat.dtype,
            is_constant_jacobian=part.is_constant_jacobian,
            name=f"{repeat.name}/{k}/{part.name}",
        )
        self._repeat, self._k, self._part = repeat, k, self._no_dependency(part)

    # Of the part, whose own variables are not read.
    _TF_MODULE_IGNORED_PROPERTIES = FlowBijector._TF_MODULE_IGNORED_PROPERTIES.union(
        ("_parameters", "_part")
    )

    @property
    def in_sequence(self):
        """The members of a `Chain`."""
        members = self._part.in_sequence if isinstance(self._part, FlowBijector) else ()
        return tuple(StepOf(self._repeat, self._k, member) for member in members)

    @property
    def branches(self):
        """Those of the part."""
        branches = self._part.branches if isinstance(self._part, FlowBijector) else ()
        return tuple((where, StepOf(self._repeat, self._k, inner)) for where, inner in branches)

    def _forward_and_log_det(self, x, context):
        return self._act(x, context, inverse=False)

    def _inverse_and_log_det(self, y, context):
        return self._act(y, context, inverse=True)

    def _act(self, value, context, inverse):
        ndims = self.inverse_min_event_ndims if inverse else self.forward_min_event_ndims
        with modes.reading(self._repeat.weights_of(self._k)):
            return walk(steps_of(self._part, inverse), value, context, ndims)[:2]
