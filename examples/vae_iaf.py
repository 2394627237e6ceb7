"""A VAE whose posterior is a diagonal Gaussian, and the same with an inverse autoregressive flow.

    python examples/vae_iaf.py                                  # scikit-learn's digits
    python examples/vae_iaf.py --epochs 5 --out /tmp/quick
    python examples/vae_iaf.py --data mnist --epochs 10         # downloaded by keras.datasets
    python examples/vae_iaf.py --data mnist.npz --epochs 10     # x_train, x_test: [n, H, H] uint8

    encoder  x -> mean, log-scale, context
    latent   z_0 = mean + scale * epsilon,  z = IAF(z_0; context)
    decoder  z -> a logit a pixel

Images are binary: digits are cut at half of the darkest grey, MNIST's grey levels are the chance
of a 1, drawn anew at every step. Both models have the same encoder, decoder, latent size, number of
steps and optimizer. The posterior with the flow costs one pass of each MADE for a sample and its
density (`experimental_sample_and_log_prob`). Ends with both models' ELBO and importance-weighted
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

from tfp_flows import flows

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


class VAE(keras.Model):
    """A variational autoencoder of binary images.

    Args:
      pixels: number of pixels.
      latent: size of the latent.
      hidden: width of the encoder's and the decoder's layers.
      num_layers: layers of the posterior's IAF; 0 for a diagonal Gaussian.
      seed: seeds all weights.
    """

    def __init__(self, pixels, latent, hidden, num_layers, seed):
        super().__init__()
        self.latent, self.context_size = latent, hidden // 4 if num_layers else 0
        keras.utils.set_random_seed(seed)
        dense = keras.layers.Dense
        self.encoder = keras.Sequential(
            [
                keras.Input([pixels]),
                dense(hidden, activation="relu"),
                dense(hidden, activation="relu"),
                dense(2 * latent + self.context_size),
            ]
        )
        self.decoder = keras.Sequential(
            [
                keras.Input([latent]),
                dense(hidden, activation="relu"),
                dense(hidden, activation="relu"),
                dense(pixels),
            ]
        )
        self.flow = None
        if num_layers:
            flow = flows.iaf(
                [latent],
                num_layers=num_layers,
                hidden_units=(4 * latent,) * 2,
                context_size=self.context_size,
                seed=seed,
            )
            # Keras trains the MADEs; the bijector holds their variables, not copies.
            self.mades = [layer.conditioner for layer in flow.bijector.bijectors]
            object.__setattr__(self, "flow", flow.bijector)
        self.prior = tfd.MultivariateNormalDiag(tf.zeros([latent]))

    def posterior(self, x):
        """Returns q(z | x) and the keyword arguments of its methods."""
        mean, log_scale, context = tf.split(
            self.encoder(x), [self.latent, self.latent, self.context_size], axis=-1
        )
        gaussian = tfd.MultivariateNormalDiag(mean, tf.exp(3.0 * tf.tanh(log_scale / 3.0)))
        if self.flow is None:
            return gaussian, {}
        posterior = tfd.TransformedDistribution(gaussian, self.flow)
        return posterior, {"bijector_kwargs": {"context": context}}

    def log_weights(self, x, n):
        """log p(x, z) - log q(z | x) for `n` samples of the posterior, `[n, batch]`."""
        posterior, kwargs = self.posterior(x)
        z, log_q = posterior.experimental_sample_and_log_prob(n, **kwargs)
        logits = self.decoder(tf.reshape(z, [-1, self.latent]))
        logits = tf.reshape(logits, [n, -1, x.shape[-1]])
        pixels = tfd.Independent(tfd.Bernoulli(logits=logits), 1)
        return pixels.log_prob(x) + self.prior.log_prob(z) - log_q

    def call(self, x):
        """The mean image of a sample of the posterior."""
        posterior, kwargs = self.posterior(x)
        return tf.sigmoid(self.decoder(posterior.sample(**kwargs)))

    def train_step(self, x):
        """A step up the ELBO; a grey level is the chance that a pixel is 1."""
        x = tf.cast(tf.random.uniform(tf.shape(x)) < x, x.dtype)
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(self.log_weights(x, 1))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
        return {"negative_elbo": loss}


def evaluate(model, images, num_weights, batch=100):
    """Returns ELBO and IWAE estimate of each held-out image, in nats."""
    score = tf.function(lambda x: model.log_weights(x, num_weights))
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
    for row, (name, model) in enumerate(models.items(), start=1):
        draws = tf.sigmoid(model.decoder(model.prior.sample(48, seed=0))).numpy()
        for axis, shown, what in zip(
            axes[row],
            (np.asarray(model(tf.constant(images[:48]))), draws),
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


def save_posteriors(model, images, path):
    """Writes samples of four posteriors: the two latents that depend on each other most."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9))
    posterior, kwargs = model.posterior(tf.constant(images[:4]))
    z = posterior.sample(3000, seed=0, **kwargs).numpy()
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
    binary = (np.random.default_rng(args.seed).random(test.shape) < test).astype("float32")

    models, scores, results = {}, {}, {}
    for name, num_layers in (("diagonal Gaussian", 0), ("IAF", args.layers)):
        begin = time.time()
        model = VAE(train.shape[1], args.latent, args.hidden, num_layers, args.seed)
        steps = args.epochs * -(-len(train) // args.batch_size)
        rate = keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)
        model.compile(optimizer=keras.optimizers.Adam(rate))
        model.fit(train, batch_size=args.batch_size, epochs=args.epochs, verbose=0)
        scores[name] = evaluate(model, binary, args.weights)
        models[name] = model
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
