"""The base class of the maps with a formula in one direction alone."""

import abc

from tfp_flows._checks import one_of
from tfp_flows._solve import increasing_root
from tfp_flows.elementwise.base import ElementwiseMap

_DIRECTIONS = ("forward", "inverse")


class OneWayMap(ElementwiseMap):
    """A monotone map with a formula one way, and a numeric solution the other way.

    The formula w = f(v) is the direction named by `closed`:

        "inverse":  from data to latents. Densities, and so training by maximum likelihood, need
                    no solution; samples do. The default, and how the papers write their maps.
        "forward":  from latents to data. Samples, and so variational inference, need none.

    The other direction is solved entry by entry by Newton's method within a bracket that holds
    the solution, on average in some 5 to 15 evaluations of the formula, as many as the hardest
    entry of the batch takes:

        |f(v) - w| <= 4 eps max(1, |w|), or v to within 64 eps max(1, |v|),

    with eps that of the dtype (2.2e-16 in float64, 1.2e-7 in float32), as far as the rounding of
    f allows. Its gradients are those of the solution, by the implicit function theorem, and cost
    one more evaluation. If an entry does not converge, an error says how many; under XLA, which
    drops errors, the entry is NaN. Of infinities and NaN the solution is NaN.

    A subclass sets `num_parameters` and gives

        _closed(v, natural):   w and log(dw/dv)
        _bracket(w, natural):  two tensors, below and above the solution, by rounding at most
                               beyond it
        _natural(parameters):  optional. A list of tensors that are computed once from the
                               parameters, and not at every step of the search. Default: the
                               parameters themselves.

    `_closed` and `_bracket` must depend on no other tensors, for gradients reach no others.

    Args:
      closed: "inverse" or "forward".

    Raises:
      ValueError: if `closed` is neither.

    References:
      William H. Press, Saul A. Teukolsky, William T. Vetterling, Brian P. Flannery. Numerical
        Recipes, 3rd edition, 2007, section 9.4, for Newton's method safeguarded by bisection.

    >>> import tensorflow as tf
    >>> class Bend(OneWayMap):  # v + sinh(exp(a) v), whose inverse has no formula
    ...     num_parameters = 1
    ...     def _closed(self, v, natural):
    ...         rate = tf.exp(natural[0])
    ...         return v + tf.sinh(rate * v), tf.math.log1p(rate * tf.cosh(rate * v))
    ...     def _bracket(self, w, natural):
    ...         return -tf.abs(w), tf.abs(w)
    >>> x, log_det = Bend().inverse(tf.constant([0.5]), tf.constant([0.0]))
    >>> y, minus_log_det = Bend().forward(x, tf.constant([0.0]))
    >>> bool(tf.abs(y[0] - 0.5) < 1e-6), bool(tf.abs(log_det + minus_log_det)[0] < 1e-6)
    (True, True)
    """

    def __init__(self, closed="inverse"):
        self.closed = one_of(closed, _DIRECTIONS, "closed", type(self).__name__)

    def get_config(self):
        """Returns `closed`."""
        return {"closed": self.closed}

    def _forward(self, x, parameters):
        return self._apply(x, parameters, "forward")

    def _inverse(self, y, parameters):
        return self._apply(y, parameters, "inverse")

    def _apply(self, argument, parameters, direction):
        natural = list(self._natural(parameters))
        if direction == self.closed:
            return self._closed(argument, natural)
        bracket = self._bracket(argument, natural)
        v = increasing_root(self._closed, argument, natural, bracket, name=repr(self))
        return v, -self._closed(v, natural)[1]

    def _natural(self, parameters):
        return parameters

    @abc.abstractmethod
    def _closed(self, v, natural):
        """Returns `w` and `log(dw/dv)`."""

    @abc.abstractmethod
    def _bracket(self, w, natural):
        """Returns two tensors that the solution `v` of w = f(v) lies between."""
