"""Writing a model as a SavedModel."""

import json
import os

import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows._files import written_whole
from tfp_flows.export.manifest import manifest
from tfp_flows.export.signatures import ServedFlow

# Where SavedModels keep what users add.
MANIFEST = os.path.join("assets.extra", "manifest.json")


def export(model, path):
    """Writes a `FlowModel` as a SavedModel for serving: see `FlowModel.export`.

    Args:
      model: `FlowModel`, initialised.
      path: the new directory.

    ```python
    export(model, "served/1")
    loaded = tf.saved_model.load("served/1")
    log_prob = loaded.log_prob(x)["log_prob"]  # or x=x; with a context: (x, context)
    samples = loaded.sample(tf.constant(5), tf.constant([0, 1]))["samples"]
    served = loaded.signatures["log_prob"](x=x)["log_prob"]  # every input by name, none left out
    ```

    Everything answers with a dictionary, of the outputs that the manifest lists. `loaded` has to
    stay alive while its functions are used.
    """
    model._check_initialized("export")
    with written_whole(path, owner="FlowModel.export", overwrite=False) as partial:
        module = ServedFlow(model)
        # Gradients of the sequential directions are saved with them. Bernoulli samples have none,
        # and the attempt to trace one is an error.
        kind = model.distribution.reparameterization_type
        options = tf.saved_model.SaveOptions(
            experimental_custom_gradients=kind != tfp.distributions.NOT_REPARAMETERIZED
        )
        tf.saved_model.save(module, partial, signatures=module.signatures_of, options=options)
        file = os.path.join(partial, MANIFEST)
        os.makedirs(os.path.dirname(file))
        with open(file, "w", encoding="utf-8") as stream:
            json.dump(manifest(model, module, partial), stream, indent=2)
            stream.write("\n")
