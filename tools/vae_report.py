"""VAEs with flows on dynamically binarized MNIST: ELBO and log p, beside the published ones.

    python tools/vae_report.py --data mnist.npz --out runs/vae --minutes 10
    python tools/vae_report.py --data mnist.npz --out runs/vae --minutes 10 --models gaussian iaf
    python tools/vae_report.py --data mnist.npz --out runs/vae --steps 3000 --width 8 \\
        --batch-size 128 --rate 1e-3        # two processors
    python tools/vae_report.py --data mnist.npz --out runs/vae --minutes 30 --xla --rows 10000 \\
        --draws 1000 --layers 10        # a GPU

One encoder and one decoder, residual convolutions around 32 latents and a context of 64; each model
gets the same minutes of training, the first step's compilation not counted, or the same `--steps`,
which are fair on a machine that others use, too. Adam from 5e-4 down to 0 along a cosine and a
weight of the divergence that grows in the first tenth, both by the share of the budget that is
gone. A pixel is 1 with the chance that its grey level says, drawn anew at every
step; of held-out images once. Then the bound (one draw a row) and the importance-weighted estimate
of log p, each with its standard error over the rows.

    gaussian       diagonal normal posterior, normal prior
    iaf, spline, sylvester, planar      a flow in the posterior; normal prior
    iaf_both       IAF in the posterior, MAF in the prior
    affine_both    affine couplings in both, real NVP's; the published one has Glow's rotations
    spline_both    rational quadratic splines in couplings in both
    resnet         `flows.resnet_vae`: images of latents of two sizes, IAF steps, no such networks

Published (C. Durkan et al., Neural spline flows, 2019, arXiv:1906.04032: flows in prior and
posterior both; 1,000 importance samples; another, larger, encoder and decoder, and hours).

Writes OUT/MODEL.json after each model, and with `--result FILE` the cells of the book of results;
prints the table of all that are there.
"""

import argparse
import json
import math
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from results import record

from tfp_flows import FlowModel, flows, objectives
from tfp_flows.distributions import VAE

tfd = tfp.distributions
LATENT, CONTEXT = 32, 64
PUBLISHED = {
    "gaussian": (-85.61, -81.31),
    "iaf_both": (-82.56, -79.95),
    "affine_both": (-82.25, -79.72),
    "spline_both": (-82.08, -79.63),
}
MODELS = [
    "gaussian",
    "planar",
    "sylvester",
    "iaf",
    "spline",
    "iaf_both",
    "affine_both",
    "spline_both",
    "resnet",
]


def block(x, filters, stride=1, up=False):
    """Two convolutions beside a shortcut, at half or twice the size."""
    layers = keras.layers
    conv = layers.Conv2DTranspose if up else layers.Conv2D
    make = {"strides": stride, "padding": "same"}
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv(filters, stride, **make)(x)
    x = conv(filters, 3, **make)(layers.Activation("relu")(x))
    x = layers.Conv2D(filters, 3, padding="same")(layers.Activation("relu")(x))
    return layers.Add()([x, shortcut])


def networks(width):
    """The encoder, `[28, 28, 1]` to the context, and the decoder, latents to logits."""
    layers = keras.layers
    image = keras.Input([28, 28, 1])
    x = layers.Conv2D(width, 3, padding="same")(image)
    for stride, filters in ((1, 1), (2, 2), (1, 2), (2, 4), (1, 4)):
        x = block(x, filters * width, stride)
    x = layers.Flatten()(layers.Activation("relu")(x))
    encoder = keras.Model(image, layers.Dense(CONTEXT)(x))
    latent = keras.Input([LATENT])
    x = layers.Reshape([7, 7, 4 * width])(layers.Dense(49 * 4 * width)(latent))
    for stride, filters in ((1, 4), (2, 2), (1, 2), (2, 1), (1, 1)):
        x = block(x, filters * width, stride, up=stride > 1)
    x = layers.Conv2D(1, 3, padding="same")(layers.Activation("relu")(x))
    return encoder, keras.Model(latent, x)


def build(name, args):
    """The VAE of that name."""
    keras.utils.set_random_seed(args.seed)
    if name == "resnet":
        return flows.resnet_vae([28, 28, 1], filters=2 * args.width, seed=args.seed)
    encoder, decoder = networks(args.width)
    kind, _, both = name.partition("_")
    amortised = {"context_size": CONTEXT, "seed": args.seed}
    posterior = flows.gaussian([LATENT], **amortised)
    amortised.update(base=posterior)
    hidden = {"hidden_units": (args.hidden,) * 2}
    spline = {"elementwise": "rational_quadratic_spline", "num_bins": 8}
    prior = None
    if kind in ("planar", "sylvester"):
        make = {"planar": flows.planar, "sylvester": flows.sylvester}[kind]
        posterior = make([LATENT], num_layers=args.layers, **amortised)
    elif kind == "iaf":
        posterior = flows.iaf([LATENT], num_layers=args.layers, **hidden, **amortised)
        prior = flows.maf([LATENT], num_layers=args.layers, seed=args.seed + 1, **hidden)
    elif kind in ("spline", "affine"):
        more = {**hidden, **(spline if kind == "spline" else {})}
        # An ActNorm is set by data on their way to the latents, which nothing goes here.
        more.update(num_couplings=args.layers, actnorm=False)
        posterior = flows.real_nvp([LATENT], **more, **amortised)
        prior = flows.real_nvp([LATENT], seed=args.seed + 1, **more)
    if not both:
        prior = tfd.MultivariateNormalDiag(tf.zeros([LATENT]))
    return VAE(prior, encoder, decoder, posterior)


def binarized(images, batch_size, seed):
    """Batches without end, in which a grey level is the chance that a pixel is 1."""
    rows = tf.data.Dataset.from_tensor_slices(images).shuffle(len(images), seed=seed).repeat()
    seeds = tf.data.Dataset.random(seed=seed).batch(2)

    def draw(x, seed):
        noise = tf.random.stateless_uniform(tf.shape(x), tf.cast(seed, tf.int32))
        return tf.cast(255.0 * noise < tf.cast(x, tf.float32), tf.int32)

    data = tf.data.Dataset.zip((rows.batch(batch_size, drop_remainder=True), seeds))
    return data.map(draw, num_parallel_calls=2).prefetch(4)


class Budget(keras.callbacks.Callback):
    """Learning rate and warm-up by the share of the budget that is gone; stops at the end.

    The first step, which is compiled, takes none of the minutes.
    """

    def __init__(self, args):
        super().__init__()
        self.seconds, self.steps, self.rate = 60.0 * args.minutes, args.steps, args.rate
        self.start = None

    def share(self):
        """How much of the budget is gone, at most 1."""
        if self.start is None:
            return 0.0
        if self.steps is not None:
            return min(1.0, int(self.model.optimizer.iterations) / self.steps)
        return min(1.0, (time.perf_counter() - self.start) / self.seconds)

    def on_train_batch_begin(self, batch, logs=None):
        """Sets both for the next step."""
        share = self.share()
        rate = 0.5 * self.rate * (1.0 + math.cos(math.pi * share))
        self.model.optimizer.learning_rate.assign(rate)
        self.model.objective.beta.assign(min(1.0, 10.0 * share))

    def on_train_batch_end(self, batch, logs=None):
        """Looks at what is left."""
        self.start = self.start or time.perf_counter()
        self.model.stop_training = self.share() >= 1.0


def measure(name, train, test, args):
    """Trains one model and returns its figures."""
    vae = build(name, args)
    model = FlowModel(vae, objective=objectives.ELBO(beta=0.0))
    model.compile(
        optimizer=keras.optimizers.Adam(args.rate, global_clipnorm=100.0),
        jit_compile=args.xla,
    )
    data, budget = binarized(train, args.batch_size, args.seed), Budget(args)
    begin = time.perf_counter()
    model.fit(data, steps_per_epoch=10**9, callbacks=[budget], verbose=0)
    trained = time.perf_counter() - begin
    bound = np.concatenate(
        [vae.log_prob(test[n : n + 500], seed=[args.seed, n]) for n in range(0, len(test), 500)]
    )
    begin = time.perf_counter()
    estimate = model.estimate_log_prob(test, num_samples=args.draws, batch_size=100)
    log_p = estimate.log_prob.numpy()
    steps = int(model.optimizer.iterations)
    return {
        "model": name,
        "weights": int(sum(np.prod(v.shape) for v in vae.trainable_variables)),
        "steps": steps,
        "epochs": steps * args.batch_size / len(train),
        "seconds_of_training": trained,
        "elbo": float(bound.mean()),
        "elbo_error": float(bound.std() / len(bound) ** 0.5),
        "log_p": float(log_p.mean()),
        "log_p_error": float(log_p.std() / len(log_p) ** 0.5),
        "error_of_importance_samples": float(np.mean(estimate.standard_error)),
        "seconds_of_estimate": time.perf_counter() - begin,
        "rows": len(test),
        "device": str((tf.config.list_physical_devices("GPU") or ["CPU"])[0]),
        "arguments": {key: str(value) for key, value in vars(args).items()},
    }


def as_cells(found, args):
    """The bound and the estimate of log p of one model, as cells of the book of results."""
    name = found["model"]
    short = []
    minutes = found["seconds_of_training"] / 60.0
    if minutes < 120:
        short.append(f"{minutes:.0f} minutes, {found['epochs']:.1f} epochs; published: hours")
    if args.rows < 10_000 or args.draws < 1000:
        short.append(f"{args.rows} test images and {args.draws} draws of 10,000 and 1,000")
    cells = []
    for n, (key, text) in enumerate((("elbo", "ELBO"), ("log_p", f"log p, {args.draws} draws"))):
        published = None
        if name in PUBLISHED:
            published = record.source(
                PUBLISHED[name][n],
                "C. Durkan, A. Bekasov, I. Murray, G. Papamakarios",
                "Neural spline flows",
                2019,
                "1906.04032",
                "table of VAEs on MNIST",
            )
        cells.append(
            record.cell(
                "vae_mnist",
                f"{name}: {text}",
                found[key],
                standard_error=found[f"{key}_error"],
                published=published,
                at_hand=bool(published) and not short,
                budget={"steps": args.steps} if args.steps else {"minutes": args.minutes},
                seed=args.seed,
                minutes=(found["seconds_of_training"] + found["seconds_of_estimate"]) / 60.0,
                reason="; ".join(short) or None,
                note=f"{found['steps']:,} steps, {found['weights']:,} weights",
            )
        )
    return cells


def print_table(folder):
    """Prints what is there."""
    print("| model | weights | steps | ELBO | log p | published |")
    print("|---|---|---|---|---|---|")
    for name in MODELS:
        path = folder / f"{name}.json"
        if path.exists():
            found = json.loads(path.read_text())
            published = " / ".join(f"{x:.2f}" for x in PUBLISHED.get(name, ())) or "-"
            print(
                f"| {name} | {found['weights']:,} | {found['steps']:,} | {found['elbo']:.2f} +- "
                f"{found['elbo_error']:.2f} | {found['log_p']:.2f} +- {found['log_p_error']:.2f} | "
                f"{published} |"
            )


def main():
    """Trains, measures, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help=".npz with x_train and x_test, uint8")
    parser.add_argument("--out", type=pathlib.Path, default="runs/vae", help="%(default)s")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each: %(default)s")
    parser.add_argument("--steps", type=int, help="of each, in place of minutes")
    parser.add_argument("--layers", type=int, default=5, help="of each flow: %(default)s")
    parser.add_argument("--hidden", type=int, default=256, help="units: %(default)s")
    parser.add_argument("--width", type=int, default=16, help="filters at 28 x 28: %(default)s")
    parser.add_argument("--batch-size", type=int, default=256, help="default: %(default)s")
    parser.add_argument("--rate", type=float, default=5e-4, help="default: %(default)s")
    parser.add_argument("--rows", type=int, default=1000, help="held-out ones: %(default)s")
    parser.add_argument("--draws", type=int, default=200, help="for log p: %(default)s")
    parser.add_argument("--xla", action="store_true", help="compile the step")
    parser.add_argument("--seed", type=int, default=0)
    record.add_argument(parser)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    with np.load(args.data) as file:
        train, test = (file[key][..., np.newaxis] for key in ("x_train", "x_test"))
    rng = np.random.default_rng(args.seed)
    test = test[rng.permutation(len(test))[: args.rows]]
    test = (255.0 * rng.random(test.shape) < test).astype("int32")
    cells = []
    for name in args.models:
        found = measure(name, train, test, args)
        path = args.out / f"{name}.json"
        path.with_suffix(".part").write_text(json.dumps(found, indent=1) + "\n")
        path.with_suffix(".part").replace(path)
        if args.result:  # After each model: a run that is cut off keeps what it has.
            cells += as_cells(found, args)
            record.write(args.result, cells)
        print(f"{name}: ELBO {found['elbo']:.2f}, log p {found['log_p']:.2f}", flush=True)
    print_table(args.out)


if __name__ == "__main__":
    main()
