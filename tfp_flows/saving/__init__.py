"""Describing a composed distribution in JSON, and building it from the description.

TFP's bijectors and distributions know the arguments that they were built with; this walks them.
Stock TFP, this package, Keras layers, variables, LinearOperators and registered classes of your
own are understood, each object once, wherever it is shared. To read a description runs no code
that comes with it: every class and function is looked up among those that are known here, or
were registered by `keras.saving.register_keras_serializable`.
"""

from tfp_flows.saving.description import FORMAT_VERSION, describe, rebuild
from tfp_flows.saving.file import load

__all__ = ["FORMAT_VERSION", "describe", "load", "rebuild"]
