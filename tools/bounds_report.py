"""Flow++'s ablation and augmentation, at equal time: what each part is worth in bits/dim.

    python tools/bounds_report.py --minutes 5
    python tools/bounds_report.py --data IMAGES.npz --levels 256 --minutes 60

Of the digits of scikit-learn (8x8, 17 grey levels), or of a file with the arrays `train` and `test`
of integers `[n, H, W, C]`. Each variant trains for the same processor time after its first epoch,
which traces and compiles, so that other programs on the machine take nothing from one alone; with
`--weights` their networks are as wide as brings each nearest to that number. Prints of the test
rows the mean bound in bits/dim, noise of its own for each, with the standard error over rows, and
the mean importance-weighted estimate of some rows.
"""

import argparse
import itertools
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow_probability as tfp
from results import record

from tfp_flows import FlowModel, distributions, flows, preprocessing

tfd = tfp.distributions


class Deadline(keras.callbacks.Callback):
    """Ends a training after some processor time, counted from the end of the first epoch."""

    def __init__(self, seconds):
        super().__init__()
        self.seconds, self.end = seconds, None

    def on_epoch_end(self, epoch, logs=None):
        """Starts the clock, or looks at it."""
        now = time.process_time()
        if self.end is None:
            self.end = now + self.seconds
        elif now > self.end:
            self.model.stop_training = True


def plus_plus(arguments, shape, **kwargs):
    """A Flow++ of the sizes asked for."""
    squeezed = "context_size" not in kwargs
    counts = {"num_channel": 2 * squeezed, "num_last": 0}
    return flows.flow_plus_plus(
        shape,
        num_checkerboard=2,
        filters=arguments.filters,
        num_blocks=arguments.blocks,
        seed=arguments.seed,
        **{**counts, **kwargs},
    )


def noise_of(arguments, shape, elementwise, attention):
    """The flow of the noise, or of the further channels, that sees the image."""
    kwargs = {} if elementwise == "affine" else {"closed": "forward", "num_components": 4}
    return plus_plus(
        arguments,
        shape,
        base="logistic",
        context_size=list(shape),
        elementwise=elementwise,
        attention=attention,
        **kwargs,
    )


def model_of(arguments, shape, *, learned=True, mixture=True, attention=True, augmented=False):
    """One variant: each part is a flag."""
    elementwise = "logistic_mixture_cdf" if mixture else "affine"
    kwargs = {"num_components": 4} if mixture else {}
    event = (*shape[:-1], (1 + augmented) * shape[-1])
    flow = plus_plus(arguments, event, elementwise=elementwise, attention=attention, **kwargs)
    if augmented:
        flow = distributions.Augmented(flow, noise_of(arguments, shape, "affine", attention))
    density = tfd.TransformedDistribution(flow, preprocessing.Logit(scale=float(arguments.levels)))
    dequantization = preprocessing.UniformDequantization(arguments.levels, seed=arguments.seed)
    if learned:
        noise = noise_of(arguments, shape, elementwise, attention)
        dequantization = preprocessing.VariationalDequantization(noise, arguments.levels)
    model = FlowModel(density, dequantization=dequantization)
    model.compile(keras.optimizers.Adam(arguments.rate, clipnorm=10.0))
    return model


def count(model):
    """The number of weights that are trained."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def model_near(arguments, shape, **variant):
    """A variant of the width asked for, or with about as many weights."""
    if arguments.weights is None:
        return model_of(arguments, shape, **variant)
    found = None
    for filters in itertools.count(4, 4):  # Attention has four heads.
        wider = argparse.Namespace(**{**vars(arguments), "filters": filters})
        keras.utils.set_random_seed(arguments.seed)
        found, before = model_of(wider, shape, **variant), found
        if count(found) >= arguments.weights:
            break
    over = count(found) - arguments.weights
    return before if before and arguments.weights - count(before) < over else found


# Rows of a test: the attention of 28x28 images takes 40 MB a row.
AT_ONCE = 128
VARIANTS = {
    "all of Flow++": {},
    "uniform noise": {"learned": False},
    "affine couplings": {"mixture": False},
    "no attention": {"attention": False},
    "none of the three": {"learned": False, "mixture": False, "attention": False},
    "none, augmented": {"learned": False, "mixture": False, "attention": False, "augmented": True},
}


def shrunk(images, size):
    """Images of the means of `size x size` pixels, in levels again."""
    n, height, width, channels = images.shape
    if height % size or width % size:
        raise SystemExit(f"--shrink {size} must divide the sizes of the images, {height}x{width}.")
    blocks = images.reshape(n, height // size, size, width // size, size, channels)
    return np.round(blocks.mean(axis=(2, 4))).astype(images.dtype)


def bits(nats, shape):
    """Mean and standard error over rows, in bits/dim."""
    values = np.asarray(preprocessing.bits_per_dim(nats, shape))
    return values.mean(), values.std() / np.sqrt(len(values))


def main():
    """Trains and tests each variant in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", help="file of the arrays train and test; default: digits")
    parser.add_argument("--levels", type=int, default=17)
    parser.add_argument("--shrink", type=int, default=1, help="means of so many pixels a side")
    parser.add_argument("--minutes", type=float, default=5.0, help="processor time of a training")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=VARIANTS)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--weights", type=int, help="of each, about; in place of filters")
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--samples", type=int, default=128, help="of the estimate")
    parser.add_argument("--rows", type=int, default=64, help="of the estimate")
    parser.add_argument("--seed", type=int, default=0)
    record.add_argument(parser)
    arguments = parser.parse_args()
    if arguments.shrink < 1:
        parser.error(f"--shrink must be at least 1, got {arguments.shrink}")
    cells = []
    if arguments.data:
        with np.load(arguments.data) as file:
            train, test = file["train"], file["test"]
    else:
        from sklearn.datasets import load_digits

        images = load_digits().images.astype("uint8")[..., None]
        train, test = images[:1500], images[1500:]
    train, test = (shrunk(images, arguments.shrink) for images in (train, test))
    shape = train.shape[1:]
    for name in arguments.variants:
        start = time.perf_counter()
        keras.utils.set_random_seed(arguments.seed)
        model = model_near(arguments, shape, **VARIANTS[name])
        history = model.fit(
            train,
            batch_size=arguments.batch,
            epochs=10**6,
            callbacks=[Deadline(60.0 * arguments.minutes)],
            verbose=0,
        )
        some = test[: arguments.rows]
        # Fixed noise is the same for all rows: `evaluate` has noise of its own for each.
        mean = model.evaluate(test, batch_size=AT_ONCE, verbose=0, return_dict=True)
        pieces = [test[n : n + AT_ONCE] for n in range(0, len(test), AT_ONCE)]
        _, error = bits(np.concatenate([model.log_prob(rows) for rows in pieces]), shape)
        estimate = model.estimate_log_prob(some, num_samples=arguments.samples)
        estimated, estimated_error = bits(estimate.log_prob, shape)
        weights = count(model)
        print(
            f"{name}: {mean['bits_per_dim']:.3f} +- {error:.3f} bits/dim ({model.likelihood}); "
            f"estimate of {arguments.samples} draws, {len(some)} rows: {estimated:.3f} +- "
            f"{estimated_error:.3f}; {weights:,} weights, {len(history.epoch)} epochs",
            flush=True,
        )
        data = pathlib.Path(arguments.data).stem if arguments.data else "8x8 digits"
        if arguments.shrink > 1:
            data += f" at {shape[0]}x{shape[1]}"
        one = record.cell(
            "images",
            f"{data}: Flow++, {name}, {arguments.minutes:g} minutes",
            mean["bits_per_dim"],
            standard_error=error,
            budget={"minutes": arguments.minutes},
            seed=arguments.seed,
            minutes=(time.perf_counter() - start) / 60.0,
            note=f"{model.likelihood}; {estimated:.3f} +- {estimated_error:.3f} with "
            f"{arguments.samples} draws of {len(some)} rows; {weights:,} weights, "
            f"{len(history.epoch)} epochs; the budget is processor time after the first epoch",
        )
        cells.append(one)
        if arguments.result:  # After each: a run that is cut off keeps what it has.
            record.write(arguments.result, cells)


if __name__ == "__main__":
    main()
