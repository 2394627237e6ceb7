"""Inverse autoregressive flows."""

from tfp_flows.bijectors.masked_autoregressive import MaskedAutoregressive


class InverseAutoregressive(MaskedAutoregressive):
    """IAF: every entry is transformed by a map whose parameters earlier latent entries give.

    With `g` the elementwise map and entries numbered in the order of the conditioner,

        forward:  y_i = g(x_i; parameters_i(x_1, ..., x_{i-1}, context))       all at once
        inverse:  x_i = g^-1(y_i; parameters_i(x_1, ..., x_{i-1}, context))    one after another
        log|det dy/dx| = sum_i log|dg/dx_i|

    Sampling, with its log-density, is one pass of the conditioner
    (`experimental_sample_and_log_prob`), which is what variational inference needs; the
    density of a point that was not sampled goes through the entries in order. It is
    `MaskedAutoregressive` with the directions exchanged, and all that is said there of the
    sequential direction holds.

    Shapes: `x`, `y` `[..., *event_shape]`, as a rule `[..., D]`; `context` `[..., context_size]`;
    the conditioner maps `[batch, ..., C]` to `[batch, ..., elementwise.num_parameters * C]`,
    parameter-major in the last axis.

    Args:
      conditioner, elementwise, name, **kwargs: as `MaskedAutoregressive`.

    Raises:
      TypeError, ValueError: as `MaskedAutoregressive`.

    >>> import tensorflow as tf
    >>> from tfp_flows import conditioners
    >>> made = conditioners.MADE(4, 2, hidden_units=(16,), context_size=3, seed=0)
    >>> iaf = InverseAutoregressive(made)
    >>> iaf.forward(tf.ones([5, 4]), context=tf.ones([5, 3])).shape
    TensorShape([5, 4])

    References:
      D. P. Kingma et al., Improving variational inference with inverse autoregressive flow,
      2016, arXiv:1606.04934, equations 9 and 10 and algorithm 1. There the map is
      sigma * z + (1 - sigma) * m with sigma = sigmoid(s); here it is the elementwise map, by
      default with a bounded log-scale.
    """

    _forward_is_sequential = False

    def __init__(
        self, conditioner, elementwise="affine", *, name="inverse_autoregressive", **kwargs
    ):
        super().__init__(conditioner, elementwise, name=name, **kwargs)
