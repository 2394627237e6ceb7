"""Checks, at import, that the installed packages work together."""

import importlib.metadata as metadata

_INSTALL = 'pip install "tensorflow>=2.20,<2.22" "tensorflow-probability[tf]==0.25.*" "numpy<2.4"'

# Package, first version that works, first that does not, and why the bounds are there.
_BOUNDS = (
    ("tensorflow", (2, 20), (2, 22), "TFP 0.25 was tested on TensorFlow 2.20 and 2.21"),
    ("tensorflow-probability", (0, 25), (0, 26), "tfp_flows uses TFP 0.25's bijector cache"),
    ("keras", (3, 12), (4, 0), "tfp_flows is built on Keras 3"),
    ("tf_keras", (2, 20), (2, 22), "TFP 0.25 does not import without it"),
    ("numpy", (1, 26), (2, 4), "NumPy 2.4 breaks several TFP bijectors"),
)


def check():
    """Raises an `ImportError` of one line that says what to install."""
    for package, low, high, reason in _BOUNDS:
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package == "tensorflow" and _is_installed("tensorflow-cpu"):
                continue
            raise ImportError(f"tfp_flows needs {package} ({reason}): {_INSTALL}") from None
        found = tuple(int("".join(filter(str.isdigit, n)) or 0) for n in version.split(".")[:2])
        if not low <= found < high:
            wanted = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
            raise ImportError(
                f"tfp_flows needs {package}{wanted}, found {version} ({reason}): {_INSTALL}"
            )
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ImportError(
            f"tfp_flows needs Keras's TensorFlow backend, found '{keras.backend.backend()}': set "
            "KERAS_BACKEND=tensorflow before the first import of keras"
        )


def _is_installed(package):
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
