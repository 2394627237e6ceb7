"""Densities that need no training: they come out as published only if the protocol is right.

    python tools/results/baselines.py --cifar10 cifar10_subset.npz --bsds300 bsds300_patches.npz \\
        --miniboone miniboone.npz

CIFAR-10, in bits/dim: images of 256 levels with uniform noise. Uniform: 8.00 whatever the images.
A normal density whose pixels are independent. A normal density with all covariances; published is
4.70 (A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel recurrent neural networks, 2016,
arXiv:1601.06759, the table of CIFAR-10), of 50,000 images. Fewer images than pixels have no such
covariance: here it is

    w S + (1 - w) T

S that of the images and their mirror images, T(i, j, c; k, l, d) the mean over all places that are
k - i and l - j apart, and w what is best for a tenth of the training images.

BSDS300 and MINIBOONE, in nats: a normal density with all covariances, on the data as
`tools/compare_tabular.py` has them; published: G. Papamakarios, T. Pavlakou, I. Murray, Masked
autoregressive flow for density estimation, 2017, arXiv:1705.07057, table 1.
"""

import argparse
import math
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import record
import tensorflow_probability as tfp

sys.path.append(str(record.ROOT / "tools"))
import compare_tabular

from tfp_flows import preprocessing

tfd = tfp.distributions
PIXEL_RNN = (
    "A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu",
    "Pixel recurrent neural networks",
    2016,
    "1601.06759",
    "table of bits/dim, CIFAR-10",
)
MAF = (
    "G. Papamakarios, T. Pavlakou, I. Murray",
    "Masked autoregressive flow for density estimation",
    2017,
    "1705.07057",
    "table 1, Gaussian",
)
TABULAR = {
    "bsds300": (96.67, "80,000 patches train, of a million; 20,000 test, of 250,000"),
    "miniboone": (-37.24, "the published training split is missing: 2,956 rows train"),
}


def log_normal(x, mean, covariance):
    """Log-densities of rows under a normal distribution, in nats."""
    lower = np.linalg.cholesky(covariance)
    off = np.linalg.solve(lower, (x - mean).T)
    constant = 0.5 * len(mean) * math.log(2.0 * math.pi) + np.log(np.diag(lower)).sum()
    return -0.5 * np.square(off).sum(axis=0) - constant


def stationary(covariance, shape):
    """Each entry is the mean of those of pixels as far apart, whatever their place.

    Such means need be no covariance: no direction has less than the variance of the noise.
    """
    height, width, channels = shape
    found = covariance.reshape(height, width, channels, height, width, channels)
    same = np.empty_like(found)
    for down in range(1 - height, height):
        rows = np.arange(max(0, -down), min(height, height - down))
        for right in range(1 - width, width):
            columns = np.arange(max(0, -right), min(width, width - right))
            i, j = (n.ravel() for n in np.meshgrid(rows, columns, indexing="ij"))
            # Advanced indices that are apart come first: [places, channels, channels].
            places = found[i, j, :, i + down, j + right, :]
            same[i, j, :, i + down, j + right, :] = places.mean(axis=0)
    values, vectors = np.linalg.eigh(same.reshape(covariance.shape))
    return (vectors * np.maximum(values, 1.0 / 12.0)) @ vectors.T


def cifar10(path):
    """Cells of images, in bits/dim."""
    with np.load(path) as file:
        images, test = (file[key] for key in ("x_train", "x_heldout"))
    noise, shape = preprocessing.UniformDequantization(256, seed=0), images.shape[1:]

    def bits(name, nats, **kwargs):
        values = np.asarray(preprocessing.bits_per_dim(nats, shape), np.float64)
        return cell("baselines", name, values, **kwargs)

    images, test = (
        np.asarray(noise(part, seed=(0, n)), np.float64) for n, part in enumerate((images, test))
    )
    uniform = tfd.Independent(tfd.Uniform(np.zeros(shape), np.full(shape, 256.0)), 3)
    yield bits(
        "CIFAR-10: uniform",
        uniform.log_prob(test).numpy(),
        published=record.source(8.0, *PIXEL_RNN),
        at_hand=True,
    )
    mirrored = images[:, :, ::-1].reshape(len(images), -1)
    rows, test = (part.reshape(len(part), -1) for part in (images, test))
    single = tfd.Normal(rows.mean(axis=0), rows.std(axis=0))
    yield bits("CIFAR-10: normal, pixels independent", single.log_prob(test).numpy().sum(axis=1))
    tenth = len(rows) // 10
    both = np.concatenate([rows[tenth:], mirrored[tenth:]])
    mean, covariance = both.mean(axis=0), np.cov(both.T, bias=True)
    same = stationary(covariance, shape)

    def score(x, weight):
        return log_normal(x, mean, weight * covariance + (1.0 - weight) * same)

    weight = max((0.3, 0.5, 0.7, 0.9), key=lambda w: score(rows[:tenth], w).mean())
    yield bits(
        "CIFAR-10: normal, all covariances",
        score(test, weight),
        published=record.source(4.7, *PIXEL_RNN),
        reason=f"{len(rows)} training images of 50,000, {len(test)} others of them for the test: a "
        "normal density without covariances has 8.0, so the published one has all",
        note=f"shrunk towards a stationary covariance, w = {weight:g}",
    )


def tabular(dataset, path):
    """The cell of a set of rows, in nats."""
    (train, _, test), log_det = compare_tabular.load(dataset, path, 80_000)
    train, test = (np.asarray(part, np.float64) for part in (train, test))
    nats = log_normal(test, train.mean(axis=0), np.cov(train.T, bias=True)) + log_det
    value, reason = TABULAR[dataset]
    name = f"{dataset.upper()}: normal, all covariances"
    yield cell("tabular", name, nats, published=record.source(value, *MAF), reason=reason)


def cell(chapter, name, values, **kwargs):
    """Prints the figure of some rows, and returns its cell."""
    error = values.std() / math.sqrt(len(values))
    print(f"{name}: {values.mean():.3f} +- {error:.3f} {record.CHAPTERS[chapter].unit}", flush=True)
    return record.cell(chapter, name, values.mean(), standard_error=error, seed=0, **kwargs)


def main():
    """Computes what there are data for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", help=".npz with x_train and x_heldout")
    parser.add_argument("--bsds300", help=".npz with train, val and test")
    parser.add_argument("--miniboone", help=".npz with val and test")
    record.add_argument(parser)
    args = parser.parse_args()
    parts = [cifar10(args.cifar10)] if args.cifar10 else []
    parts += [tabular(name, vars(args)[name]) for name in TABULAR if vars(args)[name]]
    if not parts:
        parser.error("give --cifar10, --bsds300 or --miniboone")
    cells, start = [], time.perf_counter()
    for part in parts:
        for one in part:
            one["minutes"] = (time.perf_counter() - start) / 60.0
            cells.append(one)
            start = time.perf_counter()
    if args.result:
        record.write(args.result, cells)


if __name__ == "__main__":
    main()
