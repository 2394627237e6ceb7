"""What the fully connected networks share: their layers, plain or in residual blocks."""

import typing

from tfp_flows._checks import positive_integers
from tfp_flows.conditioners.base import Conditioner


class Layer(typing.NamedTuple):
    """One layer of a network.

    Attributes:
      width: its number of units.
      ends_block: whether its value is added to that at the end of the block before. The first
        layer of a residual network is a block by itself, with none before it.
      zero: whether it starts at zero.
    """

    width: int
    ends_block: bool = False
    zero: bool = False


class Dense(Conditioner):
    """Base class of the conditioners with `hidden_units` and `residual` among their arguments.

    Args:
      arguments, sizes: as `Conditioner`.

    Raises:
      TypeError: if the widths are no sequence of integers.
      ValueError: if one is out of range, or `residual` widths differ.
    """

    def __init__(self, *, arguments, sizes):
        super().__init__(input_rank=2, arguments=arguments, sizes=sizes)
        units = positive_integers(arguments["hidden_units"], "hidden_units", self._title())
        self.hidden_units, self.residual = units, bool(self.residual)
        if self.residual and len(set(units)) != 1:
            raise ValueError(
                f"{self._title()}: residual blocks add to their input, so hidden_units must be "
                f"one or more equal widths, got {units}. Make them equal, or set residual=False."
            )

    def _plan(self):
        """The layers in order, the output's last."""
        hidden = [Layer(width) for width in self.hidden_units]
        if self.residual:
            width = self.hidden_units[0]
            block = [Layer(width), Layer(width, ends_block=True, zero=True)]
            hidden = [Layer(width, ends_block=True), *(block * len(self.hidden_units))]
        return [*hidden, Layer(self._num_outputs, zero=self.zero_output)]

    def _add_layers(self, input_size, *, context_to_all):
        """Makes kernel and bias of every layer, and returns `(kernel, bias, ends_block)` of each.

        Args:
          input_size: size of the input.
          context_to_all: whether the context reaches every layer, or the first alone.
        """
        layers, size = [], input_size
        for i, (width, ends_block, zero) in enumerate(self._plan()):
            more = self.context_size or 0 if context_to_all or not i else 0
            kernel = self._add_kernel(
                f"kernel_{i}", (size, width), more_inputs=more, zero=zero, small=True
            )
            bias = self._add_bias(f"bias_{i}", width, fan_in=None if zero else size + more)
            layers.append((kernel, bias, ends_block))
            size = width
        return layers
