"""Trains NICE, RealNVP or Glow on images, resumes if it is killed, and scores other images.

    python examples/train_images.py                                  # Glow on digits, minutes
    python examples/train_images.py --model nice --data mnist --minutes 20
    python examples/train_images.py --model glow --data my_images.npz --epochs 30 --out runs/mine
    python examples/train_images.py --out runs/mine --score photo.png more_images.npz

Data: digits (bundled with scikit-learn), mnist, fashion_mnist and cifar10 (downloaded by
keras.datasets), or a .npz file with the keys x_train and x_test (or x_heldout): integer images
[n, H, W] or [n, H, W, C] with pixels from 0 to 255.

The run's folder (--out) gets samples.png (beside real images), curve.png, history.csv,
results.json, settings.json, held_out.npz and model.weights.h5. A run that was killed goes on after
its last full epoch when the same command is given again.

--score says how unusual images are to a trained model: their bits/dim, and how many of the
held-out images have fewer. It writes scores.csv and scores.png. (A flow's likelihood judges
smoothness more than contents: simple images of another kind may score as usual.)
"""

import argparse
import csv
import json
import math
import os
import pathlib
import shutil
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import _images
from _budget import Budget
from _command import InputError, require_positive, run_or_say
from results import record

from tfp_flows import FlowModel, bijectors, flows, preprocessing

tfb = tfp.bijectors
tfd = tfp.distributions

# Per model: what is taken where the command line says nothing. The gradient of NICE's volume term
# alone is 28 for MNIST: a clip is to catch outliers only.
DEFAULTS = {
    "nice": {"learning_rate": 4e-3, "batch_size": 200, "width": 1000, "clip": 1000.0},
    "real_nvp": {"learning_rate": 1e-3, "batch_size": 64, "width": 32, "clip": 100.0},
    "glow": {"learning_rate": 1e-3, "batch_size": 64, "width": 64, "clip": 100.0},
}
# Kept from the run's folder by --score, and compared before a run goes on.
SETTINGS = [
    "model",
    "data",
    "limit",
    "batch_size",
    "seed",
    "learning_rate",
    "clip",
    "width",
    "levels",
]
SETTINGS += ["steps", "preprocessing", "alpha", "bfloat16"]
NOISE_DRAWS = 4  # dequantizations that a score is the mean of


def make_model(args, shape, num_levels, train=None):
    """The untrained model.

    Args:
      args: the settings.
      shape: `(H, W, C)`, padded if need be.
      num_levels: levels of a pixel.
      train: training images. They set constants of NICE's preprocessing; not needed if weights
        are loaded, which hold them.

    Returns:
      A `FlowModel` over images in their original units.
    """
    if args.model == "nice":
        distribution = make_nice(args, shape, num_levels, train)
    else:
        if args.model == "glow":
            flow = flows.glow(
                shape,
                num_levels=args.levels,
                num_steps=args.steps,
                hidden_filters=args.width,
                seed=args.seed,
            )
        else:
            flow = flows.real_nvp(
                shape, num_scales=args.levels, num_blocks=2, filters=args.width, seed=args.seed
            )
        if args.preprocessing == "center":
            bijector = preprocessing.center(num_levels)
        else:
            bijector = preprocessing.Logit(float(num_levels), alpha=args.alpha)
        distribution = tfd.TransformedDistribution(flow, bijector)
    return FlowModel(
        distribution,
        dequantization=preprocessing.UniformDequantization(num_levels, seed=args.seed),
        name=args.model,
    )


def make_nice(args, shape, num_levels, train):
    """NICE over pixels with their mean taken off, scaled to the order of 1.

    To scale pixels changes neither which densities NICE can express (its first and last layers
    could do the same) nor the units, since the scaling is part of the flow. But Adam moves all
    weights at one pace: without it, pixels that are always black, whose deviation is a
    thousandth of the others', would take most of the training to be told apart.
    """
    small = 0.02 * num_levels  # In scales below it, mere dequantization noise would look large.
    mean, scale, log_scale = np.zeros(shape), np.ones(shape), None
    if train is not None:
        mean = train.mean(0, dtype=np.float64) + 0.5
        deviation = np.sqrt(train.var(0, dtype=np.float64) + 1.0 / 12.0)
        scale = np.maximum(deviation, small)
        # A logistic of scale s has the standard deviation s pi / sqrt(3).
        log_scale = np.log(deviation / scale * math.sqrt(3.0) / math.pi)
    units = args.width if np.prod(shape) > 256 else min(args.width, 200)
    flow = flows.nice(shape, hidden_units=(units,) * 5, seed=args.seed)
    if log_scale is not None:
        (rescale,) = (m for m in flow.bijector.submodules if isinstance(m, bijectors.Rescale))
        rescale.log_scale.assign(log_scale.reshape(-1))
    # Variables, so that they are saved with the weights; untrained.
    constants = [tf.Variable(v, trainable=False, dtype=tf.float32) for v in (mean, scale)]
    pixels = tfb.Chain([tfb.Shift(constants[0]), tfb.Scale(constants[1])])
    return tfd.TransformedDistribution(flow, pixels)


def score(model, images):
    """Log-probabilities of uint8 images in nats, each the mean over a few dequantizations."""
    parts = []
    for start in range(0, len(images), 500):
        batch = images[start : start + 500]
        draws = [
            model.log_prob(model.dequantization(batch, seed=(start, n))) for n in range(NOISE_DRAWS)
        ]
        parts.append(np.mean(draws, axis=0, dtype=np.float64))
    return np.concatenate(parts)


def train(args):
    """Trains, or goes on with training, and writes the results."""
    out = pathlib.Path(args.out)
    images, held_out, num_levels = _images.load(args.data)
    if args.limit:
        images, held_out = images[: args.limit], held_out[: args.limit]
    shape = images.shape[1:]
    if args.alpha is None:
        args.alpha = 1e-6 if shape[2] == 1 else 0.05
    settings = {key: getattr(args, key) for key in SETTINGS}
    settings.update(shape=shape, num_levels=num_levels)
    settings = json.loads(json.dumps(settings))
    resuming = prepare_folder(out, settings, args.restart)
    padded, padded_held_out = (_images.pad(x, multiple_of(args)) for x in (images, held_out))
    if padded.shape != images.shape:
        print(
            f"images of {_images.text(shape)} are padded to {_images.text(padded.shape[1:])}; the "
            "progress bar's bits/dim count those pixels, the results do not"
        )

    # Another order of the batches after an interruption than from the start on.
    keras.utils.set_random_seed(args.seed + 1000 * resuming)
    model = make_model(args, padded.shape[1:], num_levels, padded)
    model.summary()
    model.compile(optimizer=keras.optimizers.Adam(args.learning_rate, clipnorm=args.clip))
    model.conditioner_policy = "mixed_bfloat16" if args.bfloat16 else "float32"
    epochs = args.epochs or (30 if args.data == "digits" else 10)
    if args.minutes is not None and args.epochs is None:
        epochs = 10_000  # The clock ends it.
    steps_per_epoch = -(-len(images) // args.batch_size)
    backup = out / "backup"
    budget = Budget(
        args.learning_rate,
        epochs * steps_per_epoch,
        args.minutes,
        out / "progress.json",
    )
    if resuming:
        print(f"going on with the run that was interrupted in {out} (--restart starts afresh)")
    start = time.time()
    model.fit(
        padded,
        batch_size=args.batch_size,
        epochs=epochs,
        validation_data=(padded_held_out[:1000],),
        callbacks=[
            budget,
            keras.callbacks.CSVLogger(str(out / "history.csv"), append=resuming),
            # Last, so that what the others wrote belongs to an epoch that is not lost.
            keras.callbacks.BackupAndRestore(
                str(backup), double_checkpoint=True, delete_checkpoint=False
            ),
        ],
    )
    model.conditioner_policy = "float32"  # All that follows is exact, whatever the training was.
    seconds = budget.elapsed

    model.save_weights(str(out / "model.weights.h5"))
    nats = score(model, padded_held_out)
    bits = preprocessing.bits_per_dim(nats, shape)
    np.savez(out / "held_out.npz", nats=nats, bits_per_dim=bits)
    rows = read_history(out / "history.csv")
    steps = int(model.optimizer.iterations)
    results = {
        "held_out_bits_per_dim": bits.mean(),
        "held_out_nats": nats.mean(),
        "held_out_nats_in_units_of_0_to_1": nats.mean() + np.prod(shape) * math.log(num_levels),
        "held_out_median_nats": np.median(nats),
        "held_out_images": len(held_out),
        "held_out_dimensions": int(np.prod(shape)),
        "standard_error_nats": nats.std() / math.sqrt(len(nats)),
        "training_images": len(images),
        "training_minutes": seconds / 60.0,
        "epochs": steps / steps_per_epoch,
        "steps": steps,
        "parameters": int(sum(np.prod(v.shape) for v in model.trainable_variables)),
        "command": " ".join(["python", *sys.argv]),
    }
    (out / "results.json").write_text(json.dumps(results, indent=2, default=float) + "\n")

    samples = model.sample(64, seed=args.seed + 1, temperature=args.temperature)
    samples = _images.crop(np.asarray(model.dequantization.quantize(samples)), shape)
    panels = [
        ("real images (held out)", held_out[:64]),
        (f"samples, temperature {args.temperature:g}", samples),
    ]
    _images.save_grids(out / "samples.png", panels, num_levels)
    ratio = np.prod(padded.shape[1:]) / np.prod(shape)
    # An epoch that the clock cut off is the mean of a few batches.
    rows = rows[: max(1, steps // steps_per_epoch)]
    _images.save_curve(out / "curve.png", rows, ratio, f"{args.model} on {args.data}")

    epochs = results["epochs"]
    print(f"\nheld out: {len(held_out)} images, after {steps} steps, {epochs:.1f} epochs")
    print(f"  bits/dim                  {bits.mean():12.4f}")
    print(f"  nats an image             {nats.mean():12.2f}  (median {np.median(nats):.2f})")
    unit = results["held_out_nats_in_units_of_0_to_1"]
    print(f"  nats, pixels in [0, 1)    {unit:12.2f}  +- {results['standard_error_nats']:.2f}")
    print(f"pictures: {out / 'samples.png'}, {out / 'curve.png'}")
    if args.result:
        record.write(args.result, [as_cell(args, results)])
    shutil.rmtree(backup)  # Last: until here the run could be gone on with.
    print(f"done in {time.time() - start:.0f} s")


def as_cell(args, results):
    """The figure as a cell of the book of results."""
    data, error = pathlib.Path(args.data).stem, results["standard_error_nats"]
    ours, dimensions = results["held_out_bits_per_dim"], results["held_out_dimensions"]
    chapter, published, reason = "images", None, None
    error /= dimensions * math.log(2.0)
    if args.model == "nice" and data == "mnist":
        chapter, ours = "nice_mnist", results["held_out_nats_in_units_of_0_to_1"]
        error = results["standard_error_nats"]
        published = record.source(
            1980.50,
            "L. Dinh, D. Krueger, Y. Bengio",
            "NICE: Non-linear independent components estimation",
            2014,
            "1410.8516",
            "section 5.1",
        )
        if results["epochs"] < 1500:
            reason = f"{results['epochs']:.1f} epochs, published: 1,500"
    return record.cell(
        chapter,
        f"{data}: {args.model}, width {args.width}",
        ours,
        standard_error=error,
        published=published,
        at_hand=published is not None and reason is None,
        budget={"minutes": args.minutes, "epochs": args.epochs},
        seed=args.seed,
        minutes=results["training_minutes"],
        reason=reason,
        note=f"{results['parameters']:,} weights, {results['steps']:,} steps, "
        f"{results['epochs']:.1f} epochs of {results['training_images']:,} images; "
        f"{results['held_out_images']:,} held out",
    )


def prepare_folder(out, settings, restart):
    """Readies the run's folder; returns whether it holds a run to go on with."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, expected a folder.")
    backup = out / "backup"
    if restart:
        shutil.rmtree(backup, ignore_errors=True)
    resuming = backup.is_dir() and any(backup.iterdir())
    if resuming:
        before = json.loads((out / "settings.json").read_text())
        changed = [key for key in settings if settings[key] != before.get(key)]
        if changed:
            listed = ", ".join(f"{k} {before.get(k)} -> {settings[k]}" for k in changed)
            raise InputError(
                f"--out {out}: holds an interrupted run with other settings ({listed}). Give its "
                "command again to go on with it, another --out, or --restart to drop it."
            )
        return True
    if (out / "results.json").exists() and not restart:
        raise InputError(
            f"--out {out}: holds a finished run. Name another folder, or give --restart to train "
            "anew and replace it. (--score uses it.)"
        )
    out.mkdir(parents=True, exist_ok=True)
    # What an earlier run left would be taken for this one's.
    for name in ("progress.json", "history.csv", "results.json", "model.weights.h5"):
        (out / name).unlink(missing_ok=True)
    (out / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    return False


def score_files(args):
    """Ranks images by how unusual they are to the model trained in `args.out`."""
    out = pathlib.Path(args.out)
    needed = [out / name for name in ("settings.json", "model.weights.h5", "held_out.npz")]
    missing = [path.name for path in needed if not path.exists()]
    if missing:
        raise InputError(
            f"--score: no finished run in {out} ({', '.join(missing)} missing). Train one first "
            f"with --out {out}, or name the folder of one by --out."
        )
    settings = json.loads(needed[0].read_text())
    shape, num_levels = tuple(settings["shape"]), settings["num_levels"]
    for key in settings.keys() & set(SETTINGS):
        setattr(args, key, settings[key])
    names, images = _images.load_to_score(args.score, shape, num_levels)
    padded = _images.pad(images, multiple_of(args))
    model = make_model(args, padded.shape[1:], num_levels)
    model.load_weights(str(needed[1]))
    bits = preprocessing.bits_per_dim(score(model, padded), shape)
    held_out = np.sort(np.load(needed[2])["bits_per_dim"])
    percentiles = 100.0 * np.searchsorted(held_out, bits) / len(held_out)

    order = np.argsort(-bits, kind="stable")
    with open(out / "scores.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rank", "image", "bits_per_dim", "percentile"])
        for rank, n in enumerate(order, start=1):
            writer.writerow([rank, names[n], f"{bits[n]:.4f}", f"{percentiles[n]:.2f}"])
    print(f"{len(images)} images against {len(held_out)} held-out ones, the most unusual first")
    print("percentile: share of the held-out images that are less unusual\n")
    print(f"{'rank':>6}  {'bits/dim':>9}  {'percentile':>10}  image")
    for rank, n in enumerate(order, start=1):
        if len(order) > 20 and rank == 11:
            print(f"{'...':>6}")
        if len(order) <= 20 or rank <= 10 or rank > len(order) - 10:
            print(f"{rank:>6}  {bits[n]:>9.3f}  {percentiles[n]:>9.1f}%  {names[n]}")
    count = min(64, -(-len(order) // 2))
    panels = [("most unusual", images[order[:count]])]
    if len(order) > count:
        panels.append(("most usual", images[order[::-1][:count]]))
    _images.save_grids(out / "scores.png", panels, num_levels, columns=min(8, count))
    print(f"\nall of them: {out / 'scores.csv'}, pictures: {out / 'scores.png'}")


def multiple_of(args):
    """What the height and width of the images must be a multiple of."""
    return {"nice": 1, "real_nvp": 2 ** (args.levels - 1), "glow": 2**args.levels}[args.model]


def read_history(path):
    """The rows of `history.csv`."""
    with open(path, newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def parse(arguments=None):
    """Reads and checks the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", choices=sorted(DEFAULTS), default="glow", help="default: %(default)s")
    add("--data", default="digits", help="a name or a .npz path, see above: %(default)s")
    add("--out", help="the run's folder. Default: runs/MODEL_DATA")
    add("--score", nargs="+", metavar="FILE", help="pictures or .npz files; trains nothing")
    group = parser.add_argument_group("budget: what ends first")
    group.add_argument("--epochs", type=int, help="default: 30 for digits, else 10")
    group.add_argument("--minutes", type=float, help="of training; no limit on the epochs then")
    group.add_argument("--limit", type=int, help="use the first so many images only")
    add = parser.add_argument_group("training").add_argument
    add("--batch-size", type=int, help="default: 200 for nice, else 64")
    add("--learning-rate", type=float, help="its peak, then a cosine: 4e-3 for nice, else 1e-3")
    add("--clip", type=float, help="norm of the gradient: 1000 for nice, else 100")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--restart", action="store_true", help="drop what --out holds, start afresh")
    add(
        "--bfloat16",
        action="store_true",
        help="networks compute in bfloat16 while training, not in the results: faster on a GPU, "
        "and on a CPU with AMX",
    )
    add = parser.add_argument_group("model").add_argument
    add("--width", type=int, help="of the networks: units (1000) or filters (32, glow: 64)")
    add("--levels", type=int, default=2, help="levels of glow, scales of real_nvp: %(default)s")
    add("--steps", type=int, default=6, help="glow's steps a level: %(default)s")
    add("--preprocessing", choices=("logit", "center"), default="logit", help="not for nice")
    add("--alpha", type=float, help="of the logit. Default: 1e-6 for grey images, 0.05 for colour")
    add("--temperature", type=float, default=0.8, help="of the samples shown: %(default)s")
    record.add_argument(parser)
    args = parser.parse_args(arguments)
    for name, value in DEFAULTS[args.model].items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    names = "epochs", "minutes", "limit", "batch_size", "learning_rate", "clip", "width"
    require_positive(parser, args, [*names, "levels", "steps", "temperature"])
    if args.alpha is not None and not 0 <= args.alpha < 0.5:
        parser.error(f"--alpha must be at least 0 and below 0.5, got {args.alpha}")
    if not 0 <= args.seed < 2**31 - 1001:
        parser.error(f"--seed must be from 0 to {2**31 - 1002}, got {args.seed}")
    if args.out is None:
        args.out = f"runs/{args.model}_{pathlib.Path(args.data).stem}"
    return args


def main():
    """Trains or scores."""
    args = parse()
    run_or_say(score_files if args.score else train, args)


if __name__ == "__main__":
    main()
