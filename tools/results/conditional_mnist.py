"""Five class-conditional densities of MNIST in logit space, beside table 2 of MAF's paper.

    python tools/results/conditional_mnist.py --data mnist.npz --minutes 2.5
    python tools/results/conditional_mnist.py --data mnist.npz --minutes 60 --models maf --xla

Pixels k of 0 to 255 get noise u of [0, 1) once, and become

    logit(a + (1 - 2 a) (k + u) / 256),     a = 1e-6

The first 50,000 training images train, all test images test. Each model is one of p(x | class); the
figure is that of G. Papamakarios, T. Pavlakou, I. Murray, Masked autoregressive flow for density
estimation, 2017, arXiv:1705.07057, section 4.3, in nats:

    log p(x) = log mean over the ten classes of p(x | class)

    gaussian   a normal density with a covariance of each class, in closed form
    made       MADE, a normal density for each pixel
    made_mog   MADE, a mixture of ten
    real_nvp   five couplings
    maf        five layers

Networks have two hidden layers of 1,024 rectified units, batches 100 images. What differs from the
paper: pixels are standardised, Adam's rate falls from 1e-3 along a cosine by the share of the
minutes that is gone (paper: 1e-4, of MADE 1e-3, until 30 epochs bring nothing on 10,000 images),
and neither weight decay nor batch normalization is there.
"""

import argparse
import math
import os
import pathlib
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import record
import tensorflow as tf

sys.path.append(str(record.ROOT / "examples"))
from _budget import Budget

from tfp_flows import FlowModel, flows

CLASSES, ALPHA = 10, 1e-6
# The paper prints two standard errors.
PUBLISHED = {
    "gaussian": (-1344.7, 0.9),
    "made": (-1361.9, 0.95),
    "made_mog": (-1030.3, 0.85),
    "real_nvp": (-1326.3, 2.9),
    "maf": (-1302.9, 0.85),
}
NAMES = {
    "gaussian": "Gaussian, a covariance of each class",
    "made": "MADE",
    "made_mog": "MADE MoG",
    "real_nvp": "Real NVP (5)",
    "maf": "MAF (5)",
}


def load(path, rows):
    """Pixels in logit space and labels, to train on and to test."""
    with np.load(path) as file:
        parts = [file[key] for key in ("x_train", "y_train", "x_test", "y_test")]
    images, labels, test, test_labels = parts
    noise, logits = np.random.default_rng(0), []
    for pixels in (images[:50_000], test):
        grey = pixels.reshape(len(pixels), -1)
        grey = (grey + noise.random(grey.shape)) / 256.0
        grey = ALPHA + (1.0 - 2.0 * ALPHA) * grey
        logits.append(np.log(grey) - np.log1p(-grey))
    return logits[0], labels[:50_000], logits[1][:rows], test_labels[:rows]


def of_all_classes(conditional):
    """log p(x) `[rows]` of log p(x | class) `[rows, classes]`, all classes as likely."""
    most = conditional.max(axis=1, keepdims=True)
    return most[:, 0] + np.log(np.exp(conditional - most).mean(axis=1))


def gaussian(x, labels, test):
    """Test rows under a normal density fitted to each class, `[rows, classes]`."""
    found = []
    for label in range(CLASSES):
        rows = x[labels == label]
        lower = np.linalg.cholesky(np.cov(rows.T, bias=True))
        off = np.linalg.solve(lower, (test - rows.mean(axis=0)).T)
        log_det = np.log(np.diag(lower)).sum()
        found.append(-0.5 * np.square(off).sum(axis=0) - log_det)
    return np.stack(found, axis=1) - 0.5 * x.shape[1] * math.log(2.0 * math.pi)


def make_model(name, size, args):
    """The untrained density of rows of that size, given a class."""
    kwargs = {"hidden_units": (args.width,) * 2, "context_size": CLASSES, "seed": args.seed}
    if name == "made":
        return flows.made([size], output="normal", **kwargs)
    if name == "made_mog":
        return flows.made([size], output="gaussian_mixture", num_components=10, **kwargs)
    if name == "real_nvp":
        return flows.real_nvp([size], num_couplings=5, mask="alternating", **kwargs)
    return flows.maf([size], num_layers=5, **kwargs)


def trained(name, x, labels, test, args):
    """Trains a network; test rows given each class `[rows, classes]`, and the steps taken."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    x, test = (((part - mean) / deviation).astype(np.float32) for part in (x, test))
    classes = np.eye(CLASSES, dtype=np.float32)
    keras.utils.set_random_seed(args.seed)
    model = FlowModel(make_model(name, x.shape[1], args))
    model.compile(keras.optimizers.Adam(args.rate, global_clipnorm=100.0), jit_compile=args.xla)
    with tempfile.TemporaryDirectory() as folder:
        budget = Budget(args.rate, 10**9, args.minutes, pathlib.Path(folder) / "spent.json")
        model.fit(x, classes[labels], batch_size=100, epochs=10_000, callbacks=[budget], verbose=0)
    found = np.empty([len(test), CLASSES])
    for start in range(0, len(test), 1000):
        rows = test[start : start + 1000]
        for label in range(CLASSES):
            given = tf.tile(classes[label : label + 1], [len(rows), 1])
            found[start : start + 1000, label] = model.log_prob(rows, context=given)
    return found - np.log(deviation).sum(), int(model.optimizer.iterations)


def measure(name, data, args):
    """Trains and tests one model, prints its line and returns its cell."""
    begin = time.perf_counter()
    x, labels, test, test_labels = data
    steps, short = 0, []
    if name == "gaussian":
        conditional = gaussian(x, labels, test)
    else:
        conditional, steps = trained(name, x, labels, test, args)
        if steps * 100 < 30 * len(x):
            short.append(f"{args.minutes:g} minutes, {steps * 100 / len(x):.1f} epochs of training")
    if args.width != 1024:
        short.append(f"networks of {args.width} units")
    if len(test) < 10_000:
        short.append(f"{len(test)} of the 10,000 test images")
    nats = of_all_classes(conditional)
    error = nats.std() / math.sqrt(len(nats))
    right = (conditional.argmax(axis=1) == test_labels).mean()
    text = f"the class of {right:.1%} of the images is the likeliest"
    text = f"{steps:,} steps; {text}" if steps else text
    print(f"{NAMES[name]}: {nats.mean():.1f} +- {error:.1f} nats; {text}", flush=True)
    value, published_error = PUBLISHED[name]
    return record.cell(
        "conditional_mnist",
        NAMES[name],
        nats.mean(),
        standard_error=error,
        published=record.source(
            value,
            "G. Papamakarios, T. Pavlakou, I. Murray",
            "Masked autoregressive flow for density estimation",
            2017,
            "1705.07057",
            "table 2, MNIST, conditional",
            published_error,
        ),
        at_hand=not short,
        budget={"minutes": args.minutes} if steps else None,
        seed=args.seed,
        minutes=(time.perf_counter() - begin) / 60.0,
        reason="; ".join(short) or None,
        note=text,
    )


def main():
    """Trains, tests, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="mnist.npz: x_train, y_train, x_test, y_test")
    parser.add_argument("--models", nargs="+", choices=PUBLISHED, default=list(PUBLISHED))
    parser.add_argument("--minutes", type=float, default=2.5, help="of each: %(default)s")
    parser.add_argument("--width", type=int, default=1024, help="hidden units: %(default)s")
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam: %(default)s")
    parser.add_argument("--rows", type=int, default=10_000, help="to test: %(default)s")
    parser.add_argument("--xla", action="store_true", help="XLA compiles the steps")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    record.add_argument(parser)
    args = parser.parse_args()
    data, cells = load(args.data, args.rows), []
    for name in args.models:
        cells.append(measure(name, data, args))
        if args.result:  # After each model: a run that is cut off keeps what it has.
            record.write(args.result, cells)


if __name__ == "__main__":
    main()
