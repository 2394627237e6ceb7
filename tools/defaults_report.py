"""Trains every recipe at its defaults, with the optimizers that people reach for.

    python tools/defaults_report.py --data FOLDER [--quick] [--recipes NAME ...] [--sets NAME ...]

Prints a row of a table a training: the loss of the fresh flow, the worst and the last losses in
nats (the mean of the last ten steps), the held-out loss, and the same of the flow of version 0.1,
whose affine maps had the rate 1, where it is another one. "diverged" stands where a loss or a
gradient was not finite, or where the training ended more than 0.05 nats an entry above where it
began (on noise ActNorm alone begins at the optimum). On Cauchy columns, whose likelihood nothing
here can fit, it has to stay finite.

FOLDER holds fashion_mnist.npz, cifar10_subset.npz, bsds300_patches.npz and miniboone.npz (arrays
as in Keras's and the papers' releases); without it the sets that need no file are trained on.
"""

import argparse
import dataclasses
import functools
import math
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import sklearn.datasets
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, elementwise, flows, preprocessing

RNG = np.random.default_rng(0)


# --- Data: training rows, held-out rows. ---


def digits(folder):
    """8x8 digits, which scikit-learn brings."""
    x = sklearn.datasets.load_digits().images.astype("uint8")[..., np.newaxis]
    return x[:1500], x[1500:]


def fashion(folder):
    """28x28 clothes."""
    with np.load(folder / "fashion_mnist.npz") as stored:
        return stored["x_train"][:2000, ..., np.newaxis], stored["x_test"][:300, ..., np.newaxis]


def cifar(folder):
    """32x32 photographs."""
    with np.load(folder / "cifar10_subset.npz") as stored:
        return stored["x_train"], stored["x_heldout"][:300]


def crops(folder):
    """8x8 pixels of each image: for depth and width that would take hours otherwise."""
    return [x[:, 12:20, 12:20] for x in cifar(folder)]


def noise_images(folder):
    """Normal pixels of deviation 0.3."""
    return np.split(RNG.normal(scale=0.3, size=(2300, 8, 8, 1)).astype("float32"), [2000])


def bsds(folder):
    """8x8 patches by the published protocol."""
    with np.load(folder / "bsds300_patches.npz") as stored:
        parts = [stored["train"][:20000], stored["test"][:2000]]
    parts = [(x + RNG.uniform(size=x.shape)) / 256.0 for x in parts]
    return [(x - x.mean(1, keepdims=True))[:, :63].astype("float32") for x in parts]


def miniboone(folder):
    """43 columns, normalized, with heavy tails."""
    with np.load(folder / "miniboone.npz") as stored:
        return stored["val"][:2900], stored["val"][2900:]


def noise(folder):
    """Normal columns of deviation 0.3."""
    return np.split(RNG.normal(scale=0.3, size=(2300, 6)).astype("float32"), [2000])


def cauchy(folder):
    """Columns without a mean."""
    return np.split(RNG.standard_cauchy(size=(2300, 6)).astype("float32"), [2000])


OF_FILES = (fashion, cifar, crops, bsds, miniboone)
SETS = [load.__name__ for load in (digits, noise_images, noise, cauchy, *OF_FILES)]

# --- Recipes. ---


def of(recipe, **kwargs):
    """A function of the event shape and of further arguments that makes the flow."""
    return functools.partial(recipe, seed=0, **kwargs)


@dataclasses.dataclass
class Recipe:
    """What is trained on what."""

    make: callable
    old: dict | None  # arguments for the flow of version 0.1, if it was another one
    data: tuple
    batch: int = 64
    share: float = 1.0  # of the steps
    glance: tuple = ()  # the data of `--quick`


VECTORS = (bsds, miniboone, noise, cauchy)
OLD_GLOW, OLD = {"coupling": elementwise.Affine()}, {"rate": 1.0}
SPLINE = {"elementwise": "rational_quadratic_spline"}
WIDE = {"hidden_units": (1024, 1024)}
RECIPES = {
    "glow 2x4, 64": Recipe(
        of(flows.glow, num_levels=2, num_steps=4, hidden_filters=64),
        OLD_GLOW,
        (digits, fashion, noise_images),
        batch=32,
        glance=(digits, noise_images),
    ),
    "glow 3x4, 128": Recipe(
        of(flows.glow, num_levels=3, num_steps=4, hidden_filters=128),
        OLD_GLOW,
        (cifar,),
        batch=16,
        glance=(cifar,),
    ),
    "glow 3x8, 512": Recipe(
        of(flows.glow, num_levels=3, num_steps=8, hidden_filters=512),
        OLD_GLOW,
        (crops,),
        batch=8,
        share=1 / 15,
    ),
    "glow 3x32, 512": Recipe(
        of(flows.glow, num_levels=3, num_steps=32, hidden_filters=512),
        OLD_GLOW,
        (crops,),
        batch=8,
        share=1 / 15,
    ),
    "real_nvp": Recipe(
        of(flows.real_nvp), None, (digits, fashion, *VECTORS), glance=(digits, *VECTORS)
    ),
    "real_nvp 16, 1024": Recipe(
        of(flows.real_nvp, num_couplings=16, **WIDE), OLD, (bsds, miniboone), share=1 / 3
    ),
    "real_nvp spline": Recipe(of(flows.real_nvp, **SPLINE), None, VECTORS, glance=VECTORS),
    "maf": Recipe(of(flows.maf), None, VECTORS, glance=VECTORS),
    "maf 10, 1024": Recipe(
        of(flows.maf, num_layers=10, **WIDE), OLD, (bsds, miniboone), share=1 / 3
    ),
    "iaf": Recipe(of(flows.iaf), None, (noise, cauchy), glance=(noise,)),
    "nice": Recipe(of(flows.nice), None, (digits, *VECTORS), glance=(digits, noise)),
}
OPTIMIZERS = {
    "Adam 1e-4": lambda: keras.optimizers.Adam(1e-4),
    "Adam 1e-3": lambda: keras.optimizers.Adam(1e-3),
    "Adam 3e-3": lambda: keras.optimizers.Adam(3e-3),
    "SGD 1e-3": lambda: keras.optimizers.SGD(1e-3, momentum=0.9, global_clipnorm=1.0),
}

QUICK = ("Adam 1e-3", "Adam 3e-3")

# --- One training. ---


def model_of(flow, x):
    """The model of a flow on these data, integers in their own units."""
    if x.dtype.kind == "f":
        return FlowModel(flow)
    levels = 17 if x.max() <= 16 else 256
    logit = preprocessing.Logit(scale=float(levels))
    return FlowModel(
        tfp.distributions.TransformedDistribution(flow, logit),
        dequantization=preprocessing.UniformDequantization(num_levels=levels, seed=0),
    )


class Losses(keras.callbacks.Callback):
    """The loss of every step."""

    def __init__(self):
        super().__init__()
        self.values = []

    def on_train_batch_end(self, batch, logs=None):
        """Notes one."""
        self.values.append(logs["loss"])
        self.model.reset_metrics()  # Else the mean since the beginning.


def train(recipe, load, data, optimizer, steps, **old):
    """Returns the losses at the start, at worst, in the end and held out, and whether it fell."""
    x, held_out = data
    model = model_of(recipe.make(x.shape[1:], **old), x)

    def score():
        return model.evaluate(held_out, batch_size=100, verbose=0, return_dict=True)["loss"]

    model.compile(optimizer=OPTIMIZERS[optimizer]())
    model.initialize(x[:256])
    start, losses = score(), Losses()
    rows = tf.data.Dataset.from_tensor_slices(x).shuffle(len(x), seed=0).repeat()
    try:
        model.fit(rows.batch(recipe.batch).take(steps), callbacks=[losses], verbose=0)
        last, end = float(np.mean(losses.values[-10:])), score()
    except FloatingPointError as error:
        print(f"<!-- {error} -->")
        last = end = math.nan
    good = math.isfinite(end) and (last < start + 0.05 * x[0].size or load is cauchy)
    return start, max(losses.values, default=math.nan), last, end if good else "diverged", good


def main():
    """Prints the table; ends with code 1 if a training of today's defaults diverged."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=pathlib.Path, help="folder of the data files")
    parser.add_argument("--steps", type=int, default=300, help="of a training; default 300")
    parser.add_argument("--quick", action="store_true", help="fewer data, 60 steps, and Adam alone")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--sets", nargs="*", choices=SETS, default=SETS, help="of the data")
    parser.add_argument("--optimizers", nargs="*", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--new-only", action="store_true", help="leave version 0.1's flows out")
    args = parser.parse_args()
    if args.quick:
        args.steps = min(args.steps, 60)
        args.optimizers = [name for name in args.optimizers if name in QUICK]
    print("| recipe | data | optimizer | fresh | worst | last | held out | in 0.1 | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    good = []
    for name in args.recipes:
        recipe = RECIPES[name]
        steps = max(20, round(args.steps * recipe.share))
        for load in recipe.glance if args.quick else recipe.data:
            if load.__name__ not in args.sets or (args.data is None and load in OF_FILES):
                continue
            data = load(args.data)
            for optimizer in args.optimizers:
                started = time.monotonic()
                *losses, fine = train(recipe, load, data, optimizer, steps)
                good.append(fine)
                seconds = time.monotonic() - started
                if recipe.old is None:
                    losses.append("the same")
                elif not args.new_only:
                    losses.append(train(recipe, load, data, optimizer, steps, **recipe.old)[-2])
                cells = [name, load.__name__, optimizer]
                cells += [v if isinstance(v, str) else f"{v:.5g}" for v in losses]
                print("|", " | ".join([*cells, f"{seconds:.0f}"]), "|", flush=True)
    print(f"\n{good.count(False)} of {len(good)} trainings diverged.")
    return int(not all(good))


if __name__ == "__main__":
    raise SystemExit(main())
