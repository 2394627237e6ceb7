"""Scores a stream of images by their log-density, and shows where that fails.

    python examples/anomaly.py                    # about a minute on two cores
    python examples/anomaly.py --serve            # the scores come over HTTP, from serve.py
    python examples/anomaly.py --epochs 2 --out /tmp/quick

A Glow is trained on the digits 0 to 7 of scikit-learn, exported, and loaded as a SavedModel. It
then scores digits of those classes that it has not seen, and four kinds of odd images: the digits 8
and 9, shuffled pixels, faint digits, and plain bars. Ends with two histograms and, for each kind,
the share of pairs in which the odd image gets the worse score (AUROC: 1 is perfect, 0.5 a coin).

THE CAVEAT. A high density does not mean that an image looks like the training data. A plain
white bar is simpler than any digit, and the flow, which never saw one, gives it a HIGHER density
than nearly every digit: by "low density is odd" bars pass as the most normal images of all. The
effect is known from natural images (E. Nalisnick et al., Do deep generative models know what they
don't know?, 2019, arXiv:1810.09136). The second column and the second histogram score how far the
log-density is from its mean on training images, either way (a test of typicality, E. Nalisnick et
al., 2019, arXiv:1906.02994). That finds most bars. It does not help with faint digits, whose
density is about the usual one: no score of the density alone can. Test a detector on the kinds of
odd inputs that you expect before you rely on it.
"""

import argparse
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
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

LEVELS = 17  # grey levels 0 to 16


def load(seed):
    """Returns training images, held-out ones, and odd ones by kind, uint8 `[n, 8, 8, 1]`."""
    rng = np.random.default_rng(seed)
    digits = load_digits()
    images, labels = digits.images.astype("uint8")[..., None], digits.target
    known = rng.permutation(np.flatnonzero(labels < 8))
    train, good = images[known[200:]], images[known[:200]]
    shuffled = rng.permuted(good.reshape(len(good), -1), axis=1).reshape(good.shape)
    bars = np.zeros_like(good)
    bars[:, :, 3:5] = rng.integers(15, 17, size=(len(bars), 1, 1, 1))
    odd = {
        "digits 8 and 9": rng.permutation(images[labels >= 8])[:200],
        "shuffled pixels": shuffled,
        "faint digits": good // 4,
        "plain bars": bars,
    }
    return train, good, odd


def train_and_export(train, folder, args):
    """Trains a Glow and exports it."""
    flow = flows.glow(
        [8, 8, 1], num_levels=2, num_steps=args.steps, hidden_filters=32, seed=args.seed
    )
    model = FlowModel(
        tfp.distributions.TransformedDistribution(flow, preprocessing.Logit(float(LEVELS))),
        dequantization=preprocessing.UniformDequantization(LEVELS),
    )
    batches = args.epochs * -(-len(train) // 64)
    schedule = keras.optimizers.schedules.CosineDecay(3e-3, batches)
    model.compile(optimizer=keras.optimizers.Adam(schedule, clipnorm=10.0))
    keras.utils.set_random_seed(args.seed)
    print(f"training a Glow on {len(train)} digits for {args.epochs} epochs", flush=True)

    def say(epoch, logs):
        if (epoch + 1) % 10 == 0 or epoch + 1 == args.epochs:
            print(f"epoch {epoch + 1}: {logs['bits_per_dim']:.3f} bits/dim", flush=True)

    progress = keras.callbacks.LambdaCallback(on_epoch_end=say)
    model.fit(train, batch_size=64, epochs=args.epochs, callbacks=[progress], verbose=0)
    model.export(folder)


def loaded_scorer(folder):
    """A function that gives log-densities, by the SavedModel in this process."""
    loaded = tf.saved_model.load(str(folder))

    def score(images):
        return loaded.signatures["log_prob"](x=tf.constant(images, tf.int32))["log_prob"].numpy()

    return score


def served_scorer(folder):
    """The same by `serve.py`, in a process of its own; returns it, too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = pathlib.Path(__file__).with_name("serve.py")
    server = subprocess.Popen([sys.executable, script, folder, "--port", str(port)])

    def request(method, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request(method, path, body)
        response = connection.getresponse()
        return response.status, json.loads(response.read())

    def score(images):
        status, answer = request("POST", "/v1/log_prob", json.dumps({"x": images.tolist()}))
        if status != 200:
            raise RuntimeError(f"the server answered {status}: {answer}")
        return np.array([-np.inf if v is None else v for v in answer["log_prob"]])

    while True:
        if server.poll() is not None:
            raise RuntimeError("the server did not start: is aiohttp installed?")
        try:
            if request("GET", "/healthz")[0] == 200:
                return score, server
        except OSError:
            time.sleep(0.2)


def in_pieces(score, images, rows=25):
    """Scores a stream, some images at a time, as they would come in."""
    return np.concatenate([score(images[n : n + rows]) for n in range(0, len(images), rows)])


def auroc(good, odd):
    """The share of pairs in which the odd one has the greater oddness."""
    differences = odd[:, None] - good[None]
    return float((differences > 0).mean() + 0.5 * (differences == 0).mean())


def save_histograms(good, odd, center, path):
    """Writes the two histograms: of the log-density, and of its distance from the usual one."""
    figure, axes = plt.subplots(1, 2, figsize=(12, 4.6))
    reach = 4.0 * good.std()
    panels = (
        (axes[0], lambda v: v, center - reach, "log-density in nats", "low density is odd"),
        (axes[1], lambda v: np.abs(v - center), 0.0, "distance from its usual value", "typicality"),
    )
    for axis, oddness, start, label, title in panels:
        values = {"digits 0 to 7, held out": good, **odd}
        shown = {name: oddness(v) for name, v in values.items()}
        bins = np.linspace(start, center + reach if start else reach, 50)
        for name, v in shown.items():
            first = name.startswith("digits 0")
            kind = {"color": "black", "linewidth": 2} if first else {"alpha": 0.9}
            axis.hist(np.clip(v, bins[0], bins[-1]), bins, histtype="step", label=name, **kind)
        label = f"{label} (what lies beyond: in the last bins)"
        axis.set(xlabel=label, ylabel="images (log scale)", title=title, yscale="log")
        axis.set_ylim(0.8, 3.0 * len(good))
    denser = [name for name, v in odd.items() if np.median(v) > np.percentile(good, 95)]
    if denser:
        warning = f"denser than 95% of the digits, and odd: {', '.join(denser)}"
        axes[0].text(0.98, 0.97, warning, transform=axes[0].transAxes, ha="right", va="top")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels))
    figure.tight_layout(rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Trains, exports, scores, and prints the two columns."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=4, help="Glow's steps a level: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("runs/anomaly"),
        help="folder of the results: %(default)s",
    )
    parser.add_argument("--serve", action="store_true", help="score over HTTP, by serve.py")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    folder = args.out / "export"
    shutil.rmtree(folder, ignore_errors=True)  # Of an earlier run.

    train, good, odd = load(args.seed)
    train_and_export(train, folder, args)
    server = None
    if args.serve:
        score, server = served_scorer(folder)
    else:
        score = loaded_scorer(folder)
    try:
        center = float(np.mean(in_pieces(score, train)))
        good = in_pieces(score, good)
        odd = {name: in_pieces(score, images) for name, images in odd.items()}
    finally:
        if server is not None:
            server.terminate()
            server.wait(20)

    print(f"\n{'odd images':<18}{'median nats':>12}{'by low density':>16}{'by typicality':>15}")
    print(f"{'(none: held out)':<18}{np.median(good):>12.1f}")
    results = {}
    for name, values in odd.items():
        low = auroc(-good, -values)
        typical = auroc(np.abs(good - center), np.abs(values - center))
        results[name] = {"low_density": low, "typicality": typical}
        print(f"{name:<18}{np.median(values):>12.1f}{low:>16.3f}{typical:>15.3f}")
    fooled = [name for name, found in results.items() if found["low_density"] < 0.5]
    if fooled:
        print(f"\nDenser than the digits that the model was trained on: {', '.join(fooled)}.")
        print("A low density alone would let them pass: see THE CAVEAT at the top of this script.")
    save_histograms(good, odd, center, args.out / "histograms.png")
    (args.out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    print(f"histograms, scores and the export are in {args.out}")


if __name__ == "__main__":
    main()
