"""What an export says about itself."""

import os

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow.core.protobuf import saved_model_pb2

from tfp_flows.version import __version__

FORMAT_VERSION = 1

_UNITS = {
    "log_prob": "nats",
    "bits_per_dim": "bits per entry of an event, in the data's own units",
    "samples": "the data's own",
    "x": "the data's own",
    "z": "the base distribution's",
}


def manifest(model, module, folder):
    """The description of an export, as a JSON-able dictionary.

    Args:
      model: the `FlowModel`.
      module: its `ServedFlow`.
      folder: where the SavedModel was written.
    """
    with open(os.path.join(folder, "saved_model.pb"), "rb") as file:
        saved = saved_model_pb2.SavedModel.FromString(file.read())
    written = saved.meta_graphs[0].signature_def
    variables = module.flow_variables
    return {
        "format": "tfp_flows export",
        "format_version": FORMAT_VERSION,
        "versions": {
            "tfp_flows": __version__,
            "tensorflow": tf.__version__,
            "tensorflow_probability": tfp.__version__,
            "keras": keras.__version__,
        },
        "model": model.name,
        "distribution": model.distribution.name,
        "event_shape": model.event_shape.as_list(),
        "dtype": model._example.dtype.name,
        "context_size": model.context_size,
        "num_levels": model._example.num_levels,
        "likelihood": model.likelihood,
        "num_samples": model.num_samples,
        "num_variables": len(variables),
        "variable_bytes": sum(v.shape.num_elements() * v.dtype.size for v in variables),
        "signatures": {
            name: _describe(function, written[name])
            for name, function in module.signatures_of.items()
        },
    }


def _describe(function, written):
    concrete = function.get_concrete_function()
    flat = tf.nest.flatten(concrete.structured_input_signature)
    inputs = {spec.name: spec for spec in flat if isinstance(spec, tf.TensorSpec)}
    # The tensor is what the C library and other loaders without signatures ask for.
    described = {
        "inputs": {
            name: {**_shape(spec), "tensor": written.inputs[name].name}
            for name, spec in inputs.items()
        },
        "outputs": {
            name: {**_shape(out), "unit": _UNITS[name], "tensor": written.outputs[name].name}
            for name, out in concrete.structured_outputs.items()
        },
    }
    if "temperature" in inputs:
        described["inputs"]["temperature"]["default"] = 1.0
    return described


def _shape(spec):
    return {"dtype": spec.dtype.name, "shape": spec.shape.as_list()}
