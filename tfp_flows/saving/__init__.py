"""Describing a composed distribution in JSON, and building it from the description.

TFP's bijectors and distributions know the arguments that they were built with; this walks them.
Stock TFP, this package, Keras layers, variables, LinearOperators and registered classes of your
own are understood, each object once, wherever it is shared. To read a description runs no code
that comes with it: every class and function is looked up among those that are known here, or
were registered by `keras.saving.register_keras_serializable`.

What is written to disk, and where it is read and written:

    a model              .keras        `FlowModel.save` (models/persistence); `saving.file.load`
      its configuration  config.json   `saving.description`, of the classes in `saving.known` and
                                       the layers in `saving.layers`, as large as `saving.bounds`
      its weights        .weights.h5   `saving.weights`: what they are, and their digests
    weights alone        .weights.h5   `FlowModel.save_weights`, `load_weights`; `saving.weights`
    a running training   a folder      `models.backup`: weights files and a description each
    a model to serve     a SavedModel  `export`

Whatever of these is written goes through `_files.written_whole`: it is there whole, or not at all.
"""

from tfp_flows.saving.description import FORMAT_VERSION, describe, rebuild
from tfp_flows.saving.file import load

__all__ = ["FORMAT_VERSION", "describe", "load", "rebuild"]
