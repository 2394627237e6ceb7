"""The models in this folder, and what their cards say."""

import hashlib
import json
import pathlib
import warnings

from tfp_flows import saving

_FOLDER = pathlib.Path(__file__).parent


def available():
    """The names of the models that `load` knows, sorted.

    Returns:
      List of `str`.

    >>> available()
    ['glow_digits', 'made_mnist', 'wavenet_digits']
    """
    return sorted(path.stem for path in _FOLDER.glob("*.json"))


def card(name):
    """The card of a model: what it is, and what it is not for.

    Args:
      name: `str`, one of `available()`.

    Returns:
      Dictionary of plain values: `title`, `what`, `data_shape`, `context`, `data` (with their
      `licence` and `split`), `training` (its `command`, `seed`, `budget`, `minutes` and
      `versions`), `numbers` (a list of `what`, `value`, `standard_error`, `unit` and `rows`),
      `limits`, `example`, `weights`, `bytes` and `sha256`.

    Raises:
      TypeError: if the name is no `str`.
      ValueError: if there is no such model.

    >>> card("glow_digits")["data_shape"]
    'integers from 0 to 16, `[n, 8, 8, 1]`'
    """
    _check_name("card", name)
    return json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def load(name):
    """A trained `FlowModel` that comes with the package.

    It is in the package's folder: no network is needed. The file is compared with the SHA-256 on
    its card before anything of it is read. The model is not compiled, and has no optimizer:
    `compile` and `fit` go on from its weights with one of yours.

    Args:
      name: `str`, one of `available()`.

    Returns:
      A new `FlowModel` at each call.

    Raises:
      TypeError: if the name is no `str`.
      ValueError: if there is no such model, or its file is not the one that the card is of.
      FileNotFoundError: if the file is missing from the installation.

    >>> load("glow_digits").event_shape
    TensorShape([8, 8, 1])

    ```python
    model = tfp_flows.pretrained.load("glow_digits")
    model.sample([4, 10], context=np.arange(10), temperature=0.7)  # four of each digit
    ```
    """
    _check_name("load", name)
    expected = card(name)["sha256"]
    path = _FOLDER / f"{name}.keras"
    if not path.is_file():
        raise FileNotFoundError(
            f"tfp_flows.pretrained.load: '{path}' is missing. Install the package again."
        )
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected:
        raise ValueError(
            f"tfp_flows.pretrained.load: '{path}' is not the file of its card and was not loaded: "
            f"expected SHA-256 {expected}, got {got}. Install the package again."
        )
    with warnings.catch_warnings():
        # That the small MADE lost dependencies is on its card, and no news to its user.
        warnings.filterwarnings("ignore", message="MADE .* cannot carry every dependency")
        return saving.load(path, compile=False)


def _check_name(function, name):
    title = f"tfp_flows.pretrained.{function}"
    if not isinstance(name, str):
        raise TypeError(f"{title}: expected a name, got {type(name).__name__}.")
    if name not in available():
        raise ValueError(f"{title}: no model '{name}'. There are {', '.join(available())}.")
