"""Packages that only some functions need."""

import importlib

# What a package is called where it is installed from, where that is not its module's name.
_PACKAGES = {"sklearn": "scikit-learn"}


def optional(module, title, extra):
    """An optional package's module, or which extra brings it.

    Args:
      module: its full name.
      title: who needs it, for the message.
      extra: the extra of this package that brings it.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        package = _PACKAGES.get(top, top)
        raise ImportError(
            f'{title} needs {package}: pip install "tfp_flows[{extra}]" (or pip install {package}).'
        ) from error
