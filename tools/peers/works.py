"""The works measured by `tools/benchmark.py` and what every contender shares.

A contender is a class with `__init__(work, xla, options)` that builds the model,
`first_step()` that trains one step, and `calls`, a dictionary from the name of a
cell ("train", "log_prob", "sample") to a function of no arguments that does it
once and waits for the result. It imports TensorFlow itself; this module imports
NumPy only, because the driver reads it too.
"""

import dataclasses
import time

import numpy as np


@dataclasses.dataclass(frozen=True)
class Work:
    """One model, one batch size and the cells measured on it."""

    name: str
    title: str
    event_shape: tuple
    batch: int
    cells: tuple
    sample: int = 0
    # Measured graph and XLA side by side, whatever --xla says.
    both_modes: bool = False
    # Cells whose peak memory is taken in a fresh process each.
    memory_cells: tuple = ()
    # Bars for `ours` as a ratio to TFP; "first_step" is seconds from process start.
    targets: dict = dataclasses.field(default_factory=dict)


WORKS = {
    work.name: work
    for work in (
        Work(
            "glow",
            "Glow 32x32x3, 3 levels of {glow_steps} steps, hidden 128, batch 16",
            (32, 32, 3),
            16,
            ("train", "log_prob", "sample"),
            sample=64,
            targets={"train": 0.5, "sample": 0.75, "first_step": 0.7},
        ),
        Work(
            "realnvp",
            "RealNVP D 63, 10 couplings of 2x512, batch 256",
            (63,),
            256,
            ("train", "log_prob", "sample"),
            sample=10_000,
            targets={"train": 0.65},
        ),
        Work(
            "maf",
            "MAF D 43, 5 layers of 2x512, batch 256",
            (43,),
            256,
            ("train", "log_prob", "sample"),
            sample=256,
            targets={"train": 0.65, "sample": 1 / 5},
        ),
        Work(
            "maf_wide",
            "MAF D 784, 1 layer of 2x1024, batch 64",
            (784,),
            64,
            ("log_prob", "sample"),
            sample=64,
            memory_cells=("log_prob", "sample"),
            targets={"sample": 1 / 15},
        ),
        Work(
            "spline",
            "Spline coupling D 16, 8 bins, 6 couplings of 2x128, batch 1024",
            (16,),
            1024,
            ("train",),
            both_modes=True,
        ),
    )
}

# (num_layers, hidden_units) of the two masked autoregressive works.
MAF_SIZES = {"maf": (5, (512, 512)), "maf_wide": (1, (1024, 1024))}
SPLINE_BINS = 8
# Splines are the identity outside [-SPLINE_BOUND, SPLINE_BOUND].
SPLINE_BOUND = 4.0
NUM_BATCHES = 4


def make_batches(work, num=NUM_BATCHES):
    """Returns synthetic float32 data of shape `[num, batch] + event_shape`."""
    rng = np.random.default_rng(0)
    shape = (num, work.batch, *work.event_shape)
    if work.name == "glow":
        return rng.random(shape, dtype=np.float32) - np.float32(0.5)
    return rng.standard_normal(shape, dtype=np.float32)


def made_masks(dim, hidden_units):
    """Returns the 0/1 masks `[in, out]` of a MADE in natural order and its hidden degrees."""
    inputs = np.arange(1, dim + 1)
    degrees = [np.sort(np.arange(units) % (dim - 1)) + 1 for units in hidden_units]
    masks, previous = [], inputs
    for layer in degrees:
        masks.append((layer[None, :] >= previous[:, None]).astype(np.float32))
        previous = layer
    masks.append((inputs[None, :] > previous[:, None]).astype(np.float32))
    return masks, degrees


class Unsupported(Exception):
    """The library has no model for this work."""


class Contender:
    """What the child process drives; a subclass fills `calls`.

    `xla` is True, False, or None for whatever the contender chooses by itself.
    """

    # Said in the report beside the figures.
    notes = ""

    def __init__(self, work, xla, options):
        self.work = work
        self.xla = xla
        self.options = options
        self.calls = {}

    def first_step(self):
        """Trains one step."""
        self.calls["train"]()

    def device_memory_mb(self):
        """Returns the peak of what the framework took of the GPU, or None."""
        return None

    def time_calls(self, cell, num):
        """Returns `num` wall times of `cell`, in milliseconds."""
        call, times = self.calls[cell], []
        for _ in range(num):
            start = time.perf_counter()
            call()
            times.append((time.perf_counter() - start) * 1e3)
        return times
