"""What `FlowModel` refuses before it computes."""

import numpy as np
import tensorflow as tf

from tfp_flows.models.inputs import (
    as_array,
    check_array,
    check_nan,
    is_arrays,
    unpack,
    with_weights,
)


class Checks:
    """The part of `FlowModel` that looks at data, variables and initialisation."""

    def _arrays(self, x, context=None, weight=None, batched=True):
        """Data as Keras takes them, checked: x, y and sample weights."""
        x, context, weight = (as_array(a, self) for a in (x, context, weight))
        self._check_data(x, context, batched)
        return with_weights(x, context, weight, self)

    def _check_data(self, x, context, batched=True):
        """Checks what can be seen of the data without running it."""
        if isinstance(x, tf.data.Dataset):
            x = x.element_spec
        elif x is not None and not is_arrays(x):
            return  # A generator, a loader, a distributed dataset: Keras draws from them.
        x, context, _ = unpack(x if context is None else (x, context), self)
        check_array(x, self, batched)
        self._check_context(context, "fit")

    def _check_context(self, context, method):
        if context is None and self.context_size is not None:
            raise ValueError(
                f"FlowModel '{self.name}': the distribution is conditional: a context of shape "
                f"[..., {self.context_size}] is required, got none. Give it to log_prob and sample "
                "as `context=`, to fit and evaluate as `y=`, to predict as `(x, context)`."
            )
        if context is not None and self.context_size is None:
            raise ValueError(
                f"FlowModel '{self.name}': got a context (or `y`), but no part of the "
                "distribution takes one: it would be ignored. Leave it out, or build the flow "
                "with `context_size`."
            )
        if context is None:
            return
        shape = tf.TensorShape(context.shape if hasattr(context, "shape") else np.shape(context))
        if shape.rank == 0 or (shape.rank and shape[-1] not in (None, self.context_size)):
            raise ValueError(
                f"FlowModel '{self.name}': expected a context of shape [..., {self.context_size}],"
                f" got {shape.as_list()}."
            )
        check_nan(context, f"FlowModel '{self.name}': the context holds")

    def _check_trainable(self):
        if self.trainable_variables:
            return
        reason = (
            "no tf.Variable and no Keras layer. Give its parts variables, e.g. "
            "tfb.Scale(tf.Variable(1.0)), or take a recipe from tfp_flows.flows."
        )
        if self.distribution.variables:
            reason = "all its variables are frozen. Set `trainable` of the model or its networks."
        raise ValueError(
            f"FlowModel '{self.name}': the distribution '{self.distribution.name}' has nothing to "
            f"train: {reason}"
        )

    def _uninitialized(self):
        """The parts whose data-dependent initialisation has not happened yet."""
        # Once initialised is initialised for good: the variables are not read again.
        with tf.init_scope():  # A value, in the trace of a larger model too.
            left = [part for part in self._actnorms if not bool(part.initialized.numpy())]
        object.__setattr__(self, "_actnorms", left)
        return left

    def _check_initialized(self, method):
        missing = self._uninitialized()
        if missing:
            raise ValueError(
                f"FlowModel.{method}: {len(missing)} parts were never initialised from data (the "
                f"first is {type(missing[0]).__name__} '{missing[0].name}'). Call "
                "`initialize(batch)` or `fit` first, or load trained weights."
            )
