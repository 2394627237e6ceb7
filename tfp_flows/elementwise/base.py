"""The base class of the scalar maps."""

import abc

import tensorflow as tf

from tfp_flows._configured import Configured


class ElementwiseMap(Configured, abc.ABC):
    """A monotone map of each entry of a vector, whose parameters are given at the call.

    It holds no variables: a conditioner computes the parameters, and a coupling or an
    autoregressive bijector applies the map. It acts on the last axis of its argument, of
    static size n, entry by entry:

        forward:      y_i = f(x_i; parameters_i)
        inverse:      x_i = f^-1(y_i; parameters_i)
        log-det:      log|dy_i/dx_i| and log|dx_i/dy_i|, one an entry, in nats

    The parameters of all n entries lie side by side, parameter by parameter: the first n are
    parameter 0 of every entry, the next n parameter 1, and so on, so that they come apart by
    one `tf.split`.

    At zero parameters a map is the identity, so that a fresh flow starts there. A map that
    departs from this says so (`Affine(log_scale="sigmoid")`).

    A subclass sets `num_parameters`, gives `_forward(x, parameters)` and
    `_inverse(y, parameters)`, where `parameters` is a list of `num_parameters` tensors shaped
    as `x`, and returns its constructor arguments from `get_config`. For saving it registers
    itself by `keras.saving.register_keras_serializable`. Maps of one class and one config are
    equal.

    >>> import keras
    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Sinh(ElementwiseMap):
    ...     num_parameters = 1
    ...     def _forward(self, x, parameters):
    ...         y = tf.sinh(x)
    ...         return y + parameters[0], tf.math.log(tf.cosh(x))
    ...     def _inverse(self, y, parameters):
    ...         x = tf.asinh(y - parameters[0])
    ...         return x, -tf.math.log(tf.cosh(x))
    >>> y, log_det = Sinh().forward(tf.zeros([5, 3]), tf.ones([5, 3]))
    >>> y.shape, log_det.shape
    (TensorShape([5, 3]), TensorShape([5, 3]))
    """

    @property
    @abc.abstractmethod
    def num_parameters(self):
        """Number of parameters of one entry."""

    @property
    def is_constant_log_det(self):
        """Whether the log-det is zero for every argument and all parameters."""
        return False

    def forward(self, x, parameters):
        """Maps `x` to `y`, the generative direction.

        Args:
          x: floating tensor, at least float32, of shape `[..., n]`, n static.
          parameters: tensor of the dtype of `x` and of shape `[..., num_parameters * n]`, whose
            leading axes are those of `x` or broadcast to them.

        Returns:
          `y` and `log|dy/dx|`, both of the shape of `x`.

        Raises:
          TypeError: if the dtype is below float32, or the two differ.
          ValueError: if the shapes do not fit.
        """
        return self._forward(*self._prepare(x, parameters))

    def inverse(self, y, parameters):
        """Maps `y` to `x`, the inverse of `forward`.

        Args:
          y: floating tensor, at least float32, of shape `[..., n]`, n static.
          parameters: as in `forward`.

        Returns:
          `x` and `log|dx/dy|`, both of the shape of `y`.

        Raises:
          TypeError: if the dtype is below float32, or the two differ.
          ValueError: if the shapes do not fit.
        """
        return self._inverse(*self._prepare(y, parameters))

    @abc.abstractmethod
    def _forward(self, x, parameters):
        """Returns `y` and `log|dy/dx|`."""

    @abc.abstractmethod
    def _inverse(self, y, parameters):
        """Returns `x` and `log|dx/dy|`."""

    def _prepare(self, x, parameters):
        """Checks the arguments and splits the parameters, `num_parameters` times `[..., n]`."""
        x = tf.convert_to_tensor(x)
        if not tf.is_tensor(parameters):
            parameters = tf.convert_to_tensor(parameters, dtype=x.dtype)
        if not x.dtype.is_floating or x.dtype.size < 4:
            raise TypeError(
                f"{self!r}: the argument must be float32 or float64, got {x.dtype.name}. Cast it: "
                "log-dets are not computed in less."
            )
        if parameters.dtype != x.dtype:
            raise TypeError(
                f"{self!r}: parameters must have the argument's dtype {x.dtype.name}, got "
                f"{parameters.dtype.name}. Cast the conditioner's output."
            )
        if not x.shape.rank or x.shape[-1] is None:
            raise ValueError(
                f"{self!r}: the argument must have a last axis of known size, got shape {x.shape}. "
                "Use tf.ensure_shape."
            )
        expected = self.num_parameters * x.shape[-1]
        if not parameters.shape.rank or parameters.shape[-1] != expected:
            raise ValueError(
                f"{self!r}: parameters must end in num_parameters * n = {self.num_parameters} * "
                f"{x.shape[-1]} = {expected} for an argument of shape {x.shape}, got shape "
                f"{parameters.shape}. Set the size of the conditioner's output accordingly."
            )
        # Unknown sizes at the same place are taken to be equal: a batch is one batch.
        if parameters.shape[:-1].as_list() != x.shape[:-1].as_list():
            _check_leading_axes(self, x, parameters)
            parameters = tf.broadcast_to(
                parameters, tf.concat([tf.shape(x)[:-1], [expected]], axis=0)
            )
        if self.num_parameters == 1:
            return x, [parameters]
        return x, tf.split(parameters, self.num_parameters, axis=-1)


def _check_leading_axes(elementwise, x, parameters):
    leading, given = x.shape[:-1].as_list(), parameters.shape[:-1].as_list()
    fits = len(given) <= len(leading) and all(
        p in (n, 1, None) or n is None
        for n, p in zip(reversed(leading), reversed(given), strict=False)
    )
    if not fits:
        raise ValueError(
            f"{elementwise!r}: the leading axes of parameters must be those of the argument, or "
            f"broadcast to them; expected {leading}, got {given}."
        )
