"""A VAE whose posterior is a diagonal Gaussian, and the same with an inverse autoregressive flow.

    python examples/vae_iaf.py                                  # scikit-learn's digits
    python examples/vae_iaf.py --epochs 5 --out /tmp/quick
    python examples/vae_iaf.py --data mnist --epochs 10         # downloaded by keras.datasets
    python examples/vae_iaf.py --data mnist.npz --epochs 10     # x_train, x_test: [n, H, H] uint8

    encoder  x -> context
    latent   z_0 = mean(context) + scale(context) * epsilon,  z = IAF(z_0; context)
    decoder  z -> a logit a pixel

Both are a `distributions.VAE`, which `FlowModel` trains as it trains a flow.

Images are binary: digits are cut at half of the darkest grey, MNIST's grey levels are the chance
of a 1, drawn anew at every step. Both models have the same encoder, decoder, latent size, number of
steps and optimizer. The posterior with the flow costs one pass of each MADE for a sample and its
density. Ends with both models' ELBO and importance-weighted
estimate (IWAE, the log of the mean of k weights) on held-out images, their differences image by
image, reconstructions and samples (`images.png`), and what the posteriors look like
(`posteriors.png`).

What to expect: the flow makes the bound tighter, so the gap between ELBO and IWAE shrinks. How much
of it reaches the likelihood depends on the decoder, as in table 1 of the paper.

D. P. Kingma et al., Improving variational inference with inverse autoregressive flow, 2016,
arXiv:1606.04934. Y. Burda, R. Grosse, R. Salakhutdinov, Importance weighted autoencoders, 2016,
arXiv:1509.00519.
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
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows
from tfp_flows.distributions import VAE

tfd = tfp.distributions


def load(name, seed):
    """Returns training and held-out images in [0, 1], `[n, pixels]`, and their height."""
    if name != "digits":
        if name == "mnist":
            (train, _), (test, _) = keras.datasets.mnist.load_data()
        else:
            if not pathlib.Path(name).exists():
                raise SystemExit(f"--data: expected digits, mnist or a .npz file, got {name}")
            with np.load(name) as file:
                train, test = file["x_train"], file["x_test"]
        images = [a.reshape(len(a), -1).astype("float32") / 255.0 for a in (train, test)]
        return *images, train.shape[1]
    from sklearn.datasets import load_digits

    images = (load_digits().data > 8).astype("float32")
    images = images[np.random.default_rng(seed).permutation(len(images))]
    return images[300:], images[:300], 8


def build(pixels, latent, hidden, num_layers, seed):
    """A variational autoencoder of binary images.

    Args:
      pixels: number of pixels.
      latent: size of the latent.
      hidden: width of the encoder's and the decoder's layers.
      num_layers: layers of the posterior's IAF; 0 for a diagonal Gaussian.
      seed: seeds all weights.
    """
    keras.utils.set_random_seed(seed)
    context_size = 2 * latent + hidden // 4
    posterior = flows.gaussian([latent], context_size=context_size, seed=seed)
    if num_layers:
        posterior = flows.iaf(
            [latent],
            num_layers=num_layers,
            hidden_units=(4 * latent,) * 2,
            base=posterior,
            context_size=context_size,
            seed=seed,
        )

    def network(size):
        dense = keras.layers.Dense
        hidden_layers = [dense(hidden, activation="relu") for _ in range(2)]
        return keras.Sequential([*hidden_layers, dense(size)])

    prior = tfd.MultivariateNormalDiag(tf.zeros([latent]))
    return VAE(prior, network(context_size), network(pixels), posterior)


def binarized(images, batch_size, seed):
    """Batches in which a grey level is the chance that a pixel is 1, drawn anew every time."""
    rows = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=seed)
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).batch(2)

    def draw(x, seed):
        noise = tf.random.stateless_uniform(tf.shape(x), tf.cast(seed, tf.int32))
        return tf.cast(noise < x, tf.int32)

    return tf.data.Dataset.zip((rows.batch(batch_size), seeds)).map(draw)


def evaluate(vae, images, num_weights, batch=100):
    """Returns ELBO and IWAE estimate of each held-out image, in nats."""
    score = tf.function(lambda x: vae.log_prob(tf.repeat(x[tf.newaxis], num_weights, axis=0)))
    elbo, iwae = [], []
    for start in range(0, len(images), batch):
        weights = score(tf.constant(images[start : start + batch])).numpy()
        elbo.append(weights.mean(0))
        top = weights.max(0)
        iwae.append(top + np.log(np.exp(weights - top).mean(0)))
    return {"elbo": np.concatenate(elbo), "iwae": np.concatenate(iwae)}


def save_pictures(models, images, train, height, path):
    """Writes images, each model's reconstructions of them, and samples of its prior."""

    def tile(flat, columns=12):
        shown = flat[: 4 * columns].reshape(4, columns, height, height)
        shown = np.pad(shown, [(0, 0), (0, 0), (1, 1), (1, 1)])
        return shown.transpose(0, 2, 1, 3).reshape(4 * (height + 2), columns * (height + 2))

    figure, axes = plt.subplots(1 + len(models), 2, figsize=(10, 2.1 * (1 + len(models))))
    for axis, shown, what in zip(axes[0], (images, train), ("held out", "trained on"), strict=True):
        axis.imshow(tile(shown), cmap="gray_r", vmin=0, vmax=1)
        axis.set_title(what, fontsize=9)
    for row, (name, vae) in enumerate(models.items(), start=1):
        seen = vae.encode(images[:48]).sample(seed=0)
        means = [tf.sigmoid(vae.decode(z).context) for z in (seen, vae.prior.sample(48, seed=0))]
        for axis, shown, what in zip(
            axes[row],
            np.stack(means),
            ("reconstructions", "samples of the prior"),
            strict=True,
        ):
            axis.imshow(tile(shown), cmap="gray_r", vmin=0, vmax=1)
            axis.set_title(f"{name}: {what}", fontsize=9)
    for axis in axes.flat:
        axis.axis("off")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def save_posteriors(vae, images, path):
    """Writes samples of four posteriors: the two latents that depend on each other most."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9))
    z = vae.encode(images[:4]).sample(3000, seed=0).numpy()
    for axis, draws in zip(axes, z.transpose(1, 0, 2), strict=True):
        centred = (draws - draws.mean(0)) / draws.std(0)
        strength = np.abs(np.corrcoef(np.concatenate([centred, centred**2], 1), rowvar=False))
        size = centred.shape[1]
        strength = np.maximum(strength[:size, :size], strength[:size, size:])
        i, j = np.unravel_index(np.argmax(np.triu(strength, 1)), strength.shape)
        axis.plot(draws[:, i], draws[:, j], ".", ms=1.5, alpha=0.4)
        axis.set(xlabel=f"z[{i}]", ylabel=f"z[{j}]")
    figure.suptitle(
        "samples of the IAF's posterior of four images, in the two latents that depend on each "
        "other most",
        fontsize=10,
    )
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Trains both, measures, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="digits", help="digits, mnist or .npz: %(default)s")
    parser.add_argument("--epochs", type=int, default=120, help="of each: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--latent", type=int, default=12, help="size: %(default)s")
    parser.add_argument("--hidden", type=int, default=128, help="units: %(default)s")
    parser.add_argument("--layers", type=int, default=3, help="IAF layers: %(default)s")
    parser.add_argument("--weights", type=int, default=200, help="for IWAE: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/vae_iaf", help="folder: %(default)s"
    )
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    train, test, height = load(args.data, args.seed)
    binary = (np.random.default_rng(args.seed).random(test.shape) < test).astype("int32")

    models, scores, results = {}, {}, {}
    for name, num_layers in (("diagonal Gaussian", 0), ("IAF", args.layers)):
        begin = time.time()
        models[name] = build(train.shape[1], args.latent, args.hidden, num_layers, args.seed)
        model = FlowModel(models[name])
        steps = args.epochs * -(-len(train) // args.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
        model.compile(optimizer=keras.optimizers.Adam(rate))
        data = binarized(train, args.batch_size, args.seed)
        model.fit(data, epochs=args.epochs, verbose=0)
        scores[name] = evaluate(models[name], binary, args.weights)
        results[name] = {what: float(found.mean()) for what, found in scores[name].items()}
        results[name]["seconds"] = time.time() - begin
        print(f"{name}: trained and measured in {time.time() - begin:.0f} s", flush=True)

    print(f"\n{len(binary)} held-out images, nats     ELBO      IWAE-{args.weights}       gap")
    for name, found in results.items():
        gap = found["iwae"] - found["elbo"]
        print(f"  {name:<24}{found['elbo']:10.2f}{found['iwae']:13.2f}{gap:10.2f}")
    for what in ("elbo", "iwae"):
        gain = scores["IAF"][what] - scores["diagonal Gaussian"][what]
        error = gain.std() / len(gain) ** 0.5
        results[f"gain of {what}"] = [float(gain.mean()), float(error)]
        print(f"  IAF gains {gain.mean():+.2f} +- {error:.2f} in {what.upper()}, image by image")
    save_pictures(models, binary, train, height, args.out / "images.png")
    save_posteriors(models["IAF"], binary, args.out / "posteriors.png")
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"pictures: {args.out / 'images.png'}, {args.out / 'posteriors.png'}")
    print(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
