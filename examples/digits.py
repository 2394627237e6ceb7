"""Trains a Glow on handwritten digits, and shows what it learned.

    python examples/digits.py                    # about two and a half minutes on two cores
    python examples/digits.py --epochs 2 --out /tmp/quick

Data: the 1,797 images of 8 x 8 pixels and 17 grey levels that scikit-learn bundles. Ends with
held-out bits/dim beside two baselines computed in the same run, three pictures, and a
SavedModel that is loaded again and scores the same.
"""

import argparse
import os
import pathlib
import shutil
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, preprocessing

tfd = tfp.distributions

LEVELS = 17  # grey levels 0 to 16
SHAPE = (8, 8, 1)
HELD_OUT = 297


def load(seed):
    """Returns training and held-out images, uint8 `[n, 8, 8, 1]`, and the held-out labels."""
    digits = load_digits()
    images = digits.images.astype("uint8")[..., None]
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[HELD_OUT:], order[:HELD_OUT]
    return images[train], images[test], digits.target[test]


def gaussian_baseline(train, test, seed):
    """Bits/dim of a full-covariance Gaussian fitted to the dequantized training images."""
    dequantize = preprocessing.UniformDequantization(LEVELS, seed=seed)

    def noisy(images, copies):
        copies = [dequantize(images, seed=n).numpy() for n in range(copies)]
        return np.concatenate(copies).reshape(-1, 64).astype("float64")

    rows = noisy(train, 8)
    gaussian = tfd.MultivariateNormalTriL(
        rows.mean(0), np.linalg.cholesky(np.cov(rows, rowvar=False))
    )
    nats = tf.reduce_mean(gaussian.log_prob(noisy(test, 8)))
    return float(preprocessing.bits_per_dim(nats, SHAPE))


def independent_baseline(train, test):
    """Bits/dim of a histogram per pixel, smoothed by a tenth of a count."""
    train, test = train.reshape(-1, 64), test.reshape(-1, 64)
    counts = np.stack([(train == level).sum(0) for level in range(LEVELS)], axis=1) + 0.1
    probabilities = counts / counts.sum(1, keepdims=True)
    return float(-np.log2(probabilities[np.arange(64), test]).mean())


def make_model(args, num_batches):
    """A two-level Glow over the dequantized images in their original units."""
    flow = flows.glow(
        SHAPE, num_levels=2, num_steps=args.steps, hidden_filters=args.filters, seed=args.seed
    )
    model = FlowModel(
        tfd.TransformedDistribution(flow, preprocessing.Logit(scale=float(LEVELS))),
        dequantization=preprocessing.UniformDequantization(LEVELS, seed=args.seed),
        name="digits_glow",
    )
    warmup = min(100, num_batches // 10)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, num_batches - warmup, warmup_target=args.learning_rate, warmup_steps=warmup
    )
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=10.0))
    return model


def save_samples(model, test, path):
    """Writes a grid of real digits beside a grid of samples."""
    model_samples = model.dequantization.quantize(model.sample(64, seed=1, temperature=0.8))
    figure, axes = plt.subplots(1, 2, figsize=(10, 5.2))
    for axis, images, title in zip(
        axes,
        (test[:64], np.asarray(model_samples)),
        ("real digits (held out)", "samples, temperature 0.8"),
        strict=True,
    ):
        axis.imshow(grid(images, 8), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
        axis.set_title(title)
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_interpolation(model, test, labels, path, columns=9):
    """Writes straight lines in latent space from a 0 to a 1, a 2 to a 3, and so on."""
    bijector = model.distribution.bijector
    flow = model.distribution.distribution.bijector
    ends = np.stack([test[np.flatnonzero(labels == digit)[0]] for digit in range(10)])
    latent = flow.inverse(bijector.inverse(tf.cast(ends, tf.float32) + 0.5))
    weight = tf.reshape(tf.linspace(0.0, 1.0, columns), [1, columns, 1, 1, 1])
    line = (1.0 - weight) * latent[0::2, None] + weight * latent[1::2, None]
    images = bijector.forward(flow.forward(line))
    images = np.asarray(model.dequantization.quantize(images)).reshape(-1, *SHAPE)
    figure, axis = plt.subplots(figsize=(9, 5.2))
    axis.imshow(grid(images, columns), cmap="gray_r", vmin=0, vmax=LEVELS - 1)
    axis.set_title("from one real digit (left) to another (right), straight in latent space")
    axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_curve(history, baselines, path):
    """Writes the training curve with the baselines."""
    figure, axis = plt.subplots(figsize=(7, 4.4))
    epochs = np.arange(1, len(history["bits_per_dim"]) + 1)
    axis.plot(epochs, history["bits_per_dim"], label="Glow, training")
    axis.plot(epochs, history["val_bits_per_dim"], label="Glow, held out")
    for (name, value), style in zip(baselines.items(), ("--", ":"), strict=True):
        axis.axhline(value, color="gray", linestyle=style, label=f"{name} ({value:.2f})")
    top = max(max(baselines.values()) + 0.4, history["val_bits_per_dim"][-1] + 0.2)
    axis.set(xlabel="epoch", ylabel="bits/dim (lower is better)", ylim=(None, top))
    axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def grid(images, columns):
    """Puts images `[n, 8, 8, 1]` side by side, with a blank line between."""
    padded = np.pad(images[..., 0], [(0, 0), (1, 1), (1, 1)])
    rows = len(images) // columns
    tiles = padded[: rows * columns].reshape(rows, columns, *padded.shape[1:])
    return tiles.transpose(0, 2, 1, 3).reshape(rows * padded.shape[1], -1)


def export_and_reload(model, test, path):
    """Exports the model, loads it with plain TensorFlow, and returns the largest difference."""
    shutil.rmtree(path, ignore_errors=True)
    model.export(path)
    served = tf.saved_model.load(path).signatures["log_prob"]
    scored = served(x=tf.constant(test, tf.int32))["log_prob"]
    return float(tf.reduce_max(tf.abs(scored - model.log_prob(test))))


def main():
    """Trains, measures, draws and exports."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=50, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=6, help="flow steps a level: %(default)s")
    parser.add_argument("--filters", type=int, default=64, help="network width: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="peak: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", default="runs/digits", help="folder for results: %(default)s")
    args = parser.parse_args()
    if args.epochs < 1 or args.batch_size < 1:
        parser.error("--epochs and --batch-size must be at least 1")
    start = time.time()
    out = pathlib.Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)  # the order of the batches

    train, test, labels = load(args.seed)
    baselines = {
        "full-covariance Gaussian": gaussian_baseline(train, test, args.seed),
        "independent pixels": independent_baseline(train, test),
    }
    model = make_model(args, args.epochs * -(-len(train) // args.batch_size))
    model.summary()
    history = model.fit(
        train,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(test,),
        callbacks=[keras.callbacks.CSVLogger(str(out / "history.csv"))],
    ).history
    nats, bits = model.evaluate(test, verbose=0)

    save_samples(model, test, out / "samples.png")
    save_interpolation(model, test, labels, out / "interpolation.png")
    save_curve(history, baselines, out / "curve.png")
    model.save_weights(str(out / "model.weights.h5"))
    difference = export_and_reload(model, test, str(out / "export"))

    print(f"\nheld-out digits ({len(test)} images)          bits/dim")
    for name, value in baselines.items():
        print(f"  {name:<38}{value:8.3f}")
    print(f"  {'Glow':<38}{bits:8.3f}    ({nats:.2f} nats an image)")
    print(
        f"\nexported to {out / 'export'}; loaded again, log_prob differs by {difference:.1e} nats"
    )
    print(f"pictures: {out / 'samples.png'}, {out / 'interpolation.png'}, {out / 'curve.png'}")
    print(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
