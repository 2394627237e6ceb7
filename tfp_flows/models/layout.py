"""What each weight of a model is, so that a file of other weights is recognised."""

import h5py
import numpy as np

from tfp_flows.bijectors.base import FlowBijector
from tfp_flows.bijectors.network import Network

# Under which name a weights file keeps it.
_KEY = "layout"


def layout_of(model):
    """A line for each weight of a model, in their order: the part it is in, dtype and shape."""
    owners = {}
    for part in model.distribution.submodules:
        if isinstance(part, FlowBijector):
            for network in part.submodules:
                if isinstance(network, Network):
                    # Of nested ones the inner, which comes later, has the say.
                    owners[id(network.layer)] = f"{type(part).__name__} '{part.name}'"
    lines = []
    for layer in model.conditioners:
        owner = f"the conditioner of {owners.get(id(layer), 'a part')}"
        lines += [_line(f"{v.name} of {owner}", v) for v in layer.variables]
    return lines + [_line(v.value.name.split(":")[0], v) for v in model.other_variables.wrapped]


def store_layout(model, store):
    """Puts the layout of a model into a store of Keras."""
    store[_KEY] = np.frombuffer("\n".join(layout_of(model)).encode(), np.uint8)


def check_stored_layout(model, store):
    """Raises a `ValueError` unless a store of Keras holds the weights of such a model."""
    if _KEY not in set(store.keys()):
        raise ValueError("the file holds no weights of a FlowModel.")
    found = bytes(np.asarray(store[_KEY])).decode(errors="replace").splitlines()
    wanted = layout_of(model)
    for number, (line, own) in enumerate(zip(found, wanted, strict=False)):
        # Names may differ, the rest may not.
        if line.rsplit(":", 1)[-1] != own.rsplit(":", 1)[-1]:
            raise ValueError(
                f"the file holds the weights of another model. Weight {number} is <{line}> there "
                f"and <{own}> here. Build the model as it was when it was saved."
            )
    if len(found) != len(wanted):
        where, lines = ("there", found) if len(found) > len(wanted) else ("here", wanted)
        raise ValueError(
            f"the file holds the weights of another model: {len(found)} of them, where this model "
            f"has {len(wanted)}. The first that is only {where}: "
            f"<{lines[min(len(found), len(wanted))]}>."
        )


def check_weights_file(path, model):
    """As `check_stored_layout`, for a `.weights.h5` file, before a weight is changed."""
    if not str(path).endswith(".weights.h5"):
        return
    owner = f"FlowModel.load_weights: '{path}'"
    try:
        with h5py.File(path, "r") as file:
            check_stored_layout(model, file.get("vars", {}))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(f"{owner}: no weights file, or a damaged one: {error}.") from error
    except ValueError as error:
        raise ValueError(f"{owner}: {error}") from error


def holds_optimizer(path):
    """Whether a `.weights.h5` file holds the state of a trained optimizer."""
    if not str(path).endswith(".weights.h5"):
        return False
    with h5py.File(path, "r") as file:
        # Number of steps and learning rate alone: the optimizer of a model that never trained.
        return len(file.get("optimizer/vars", ())) > 2


def _line(name, variable):
    return f"{name}: {variable.dtype} {list(variable.shape)}"
