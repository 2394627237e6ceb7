"""A classifier made of densities: one Glow of digits given their class, scored under all ten.

    python examples/digits_classifier.py                 # about two minutes on two cores
    python examples/digits_classifier.py --epochs 2 --out /tmp/quick

The model is p(image | digit), trained by `fit(images, labels)`; an embedding, trained with it,
makes the context of a label. Bayes' rule makes it a classifier, and one that says when none of the
ten classes fits:

    p(digit | image) = p(image | digit) p(digit) / sum over all digits

Data: the 1,797 images of 8 x 8 pixels that scikit-learn bundles. Ends with the accuracy on held-out
images, the ranks of images that are no digits, and a picture of samples of each class.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, preprocessing

tfd = tfp.distributions

LEVELS = 17  # grey levels 0 to 16
HELD_OUT = 297


def load(seed):
    """Training images and labels, then held-out ones: uint8 `[n, 8, 8, 1]` and `[n]`."""
    digits = load_digits()
    images = digits.images.astype("uint8")[..., None]
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[HELD_OUT:], order[:HELD_OUT]
    return images[train], digits.target[train], images[test], digits.target[test]


def make_model(args, steps):
    """A Glow over images in their units, given the embedding of a label."""
    flow = flows.glow(
        [8, 8, 1],
        num_levels=2,
        num_steps=args.steps,
        hidden_filters=args.filters,
        context_size=args.embedding,
        seed=args.seed,
    )
    model = FlowModel(
        tfd.TransformedDistribution(flow, preprocessing.Logit(scale=float(LEVELS))),
        context_network=keras.layers.Embedding(10, args.embedding),
        dequantization=preprocessing.UniformDequantization(LEVELS, seed=args.seed),
    )
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=args.learning_rate, warmup_steps=min(100, steps // 10)
    )
    model.compile(keras.optimizers.Adam(rate, clipnorm=10.0))
    return model


def under_each_class(model, images, draws=4):
    """Log-densities `[n, 10]` of images under every digit, over several draws of the noise."""
    found = np.zeros([len(images), 10])
    for seed in range(draws):
        noisy = model.dequantization.shared_noise(images, event_shape=[8, 8, 1], seed=seed)
        for digit in range(10):
            found[:, digit] += model.log_prob(noisy, np.full(len(images), digit)).numpy() / draws
    return found


def save_samples(model, path):
    """Writes eight samples of each digit."""
    labels = np.arange(10)
    drawn = model.sample([8, 10], context=labels, seed=0, temperature=0.7, quantized=True)
    tiles = np.pad(np.asarray(drawn)[..., 0], [(0, 0), (0, 0), (1, 1), (1, 1)])
    figure, axis = plt.subplots(figsize=(6, 5))
    axis.imshow(tiles.transpose(0, 2, 1, 3).reshape(80, 100), cmap="gray_r", vmin=0, vmax=16)
    axis.set(xticks=4.5 + 10 * labels, xticklabels=labels, yticks=[])
    axis.set_title("samples given the digit, temperature 0.7")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Trains, classifies, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="flow steps a level: %(default)s")
    parser.add_argument("--filters", type=int, default=48, help="network width: %(default)s")
    parser.add_argument("--embedding", type=int, default=16, help="size: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/digits_classifier", help="folder: %(default)s"
    )
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    train, train_labels, test, labels = load(args.seed)
    model = make_model(args, args.epochs * -(-len(train) // args.batch_size))
    history = model.fit(
        train, train_labels, batch_size=args.batch_size, epochs=args.epochs, verbose=0
    ).history
    print(f"{args.epochs} epochs in {time.time() - start:.0f} s", flush=True)

    counts = np.bincount(train_labels, minlength=10)
    joint = under_each_class(model, test) + np.log(counts / counts.sum())
    accuracy = float((joint.argmax(axis=1) == labels).mean())
    bits = float(model.evaluate(test, labels, verbose=0)[1])
    print(f"held out: {accuracy:.1%} of {len(test)} right; {bits:.3f} bits/dim given the digit")

    # How well any class fits, among held-out digits.
    fits = np.sort(np.logaddexp.reduce(joint, axis=1))
    rng = np.random.default_rng(args.seed)
    strange = {
        "held-out digits": test[:50],
        "digits upside down": test[:50, ::-1],
        "digits in negative": 16 - test[:50],
        "noise": rng.integers(0, LEVELS, size=(50, 8, 8, 1)).astype("uint8"),
    }
    ranks = {}
    print("\nmedian rank of how well any class fits, 0 worst:")
    for name, images in strange.items():
        score = under_each_class(model, images) + np.log(counts / counts.sum())
        rank = np.searchsorted(fits, np.logaddexp.reduce(score, axis=1)) / len(fits)
        ranks[name] = float(np.median(rank))
        print(f"  {name:<20}{ranks[name]:6.2f}")
    save_samples(model, args.out / "samples.png")
    results = {"accuracy": accuracy, "bits_per_dim": bits, "ranks": ranks, "loss": history["loss"]}
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\npicture: {args.out / 'samples.png'}\ndone in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
