"""What a model leaves behind."""

import gc
import weakref

import numpy as np

from tfp_flows import FlowModel, flows


def test_a_fitted_model_that_is_dropped_is_gone():
    """Nothing of the process's holds it: not TensorFlow's list of Python functions, for one."""
    model = FlowModel(flows.nice([2], num_couplings=1, hidden_units=(2,), seed=0))
    model.compile(optimizer="sgd")
    model.fit(np.zeros([4, 2], "float32"), verbose=0)
    model.evaluate(np.zeros([4, 2], "float32"), verbose=0)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
