"""Calls every signature of an exported flow with nothing but TensorFlow and NumPy.

    python tensorflow_only.py EXPORT INPUTS.npz OUTPUTS.npz [--tf1]

INPUTS holds an array for every input name; OUTPUTS gets "signature/output" arrays. With --tf1 the
session loader of TensorFlow 1 is used.
"""

import sys

import numpy as np
import tensorflow as tf


def with_tensorflow_2(folder, values):
    """Calls all signatures of `tf.saved_model.load`."""
    loaded = tf.saved_model.load(folder)
    outputs = {}
    for name, signature in loaded.signatures.items():
        specs = signature.structured_input_signature[1]
        arguments = {key: tf.cast(values[key], spec.dtype) for key, spec in specs.items()}
        for key, value in signature(**arguments).items():
            outputs[f"{name}/{key}"] = value.numpy()
    return outputs


def with_tensorflow_1(folder, values):
    """Runs all signatures in a session."""
    tf1, outputs = tf.compat.v1, {}
    with tf.Graph().as_default(), tf1.Session() as session:
        meta_graph = tf1.saved_model.load(session, ["serve"], folder)
        for name, signature in meta_graph.signature_def.items():
            if name.startswith("__"):  # TensorFlow's own.
                continue
            # `temperature` has a default, for this loader.
            feed = {t.name: values[key] for key, t in signature.inputs.items() if key in values}
            fetch = {key: t.name for key, t in signature.outputs.items()}
            for key, value in session.run(fetch, feed).items():
                outputs[f"{name}/{key}"] = value
    return outputs


if __name__ == "__main__":
    folder, inputs, outputs = sys.argv[1:4]
    call = with_tensorflow_1 if "--tf1" in sys.argv else with_tensorflow_2
    np.savez(outputs, **call(folder, dict(np.load(inputs))))
