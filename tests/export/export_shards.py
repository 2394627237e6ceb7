"""The export of every case in the harness's table, in files that each take their share."""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from cases import CASES as MOST
from cases_autoregressive import CASES as AUTOREGRESSIVE
from export_models import arguments, call, moved, signatures_of

from tfp_flows import FlowModel

tfd = tfp.distributions
CASES = {**MOST, **AUTOREGRESSIVE}
SHARDS = 4


def shard(number):
    """Names of the cases of one file."""
    return sorted(CASES)[number::SHARDS]


def check_export(name, path):
    """Exports, loads, and compares every signature with the model."""
    case = CASES[name]
    x = np.asarray(case["x"], np.float32)
    context = None if case.get("context") is None else np.float32(case["context"])
    base = tfd.Sample(tfd.Normal(0.0, 1.0), x.shape[1:])
    bijector = case["make"]("float32")
    model = FlowModel(tfd.TransformedDistribution(base, bijector))
    kwargs = {} if context is None else {"context": context}
    data = bijector.forward(tf.constant(x), **kwargs).numpy()
    model.initialize(data if context is None else (data, context))
    moved(model)
    # Data of the moved flow: a domain may be bounded.
    data = np.array(bijector.forward(tf.constant(x), **kwargs))
    model.export(path)
    signatures = signatures_of(path)
    values = arguments(data, z=x, context=context, n=len(x))
    wanted = {
        "log_prob": model.log_prob(data, context),
        "samples": model.sample(len(x), seed=(1, 2), context=context),
        "x": tf.function(lambda z: bijector.forward(z, **kwargs))(x),
        "z": tf.function(lambda y: bijector.inverse(y, **kwargs))(data),
    }
    for signature, output in [
        ("log_prob", "log_prob"),
        ("sample", "samples"),
        ("forward", "x"),
        ("inverse", "z"),
    ]:
        found, expected = call(signatures[signature], values)[output], wanted[output]
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6, err_msg=output)
