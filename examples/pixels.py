"""PixelCNN, Glow and TarFlow on the same images for the same minutes, and images completed.

    python examples/pixels.py                                          # digits, three minutes
    python examples/pixels.py --data fashion_mnist.npz --minutes 15    # fifteen each
    python examples/pixels.py --data cifar10_subset.npz --minutes 15 --models pixel_cnn glow

Three ways to the density of an image:

    pixel_cnn   a discretized mixture of logistics for each pixel, given those before it, row by
                row (Gated PixelCNN with PixelCNN++'s output): exact bits of integers
    glow        couplings and 1x1 convolutions: both directions in one pass
    tarflow     transformers over patches, in one order and back in turn

Each is trained for `--minutes`, tracing included, and its learning rate falls to where they end.
Reported are held-out bits/dim with the standard error of their mean. Glow and TarFlow are densities
of real numbers: their images have noise of one level added, and their bits/dim, the mean of four
draws of it, are bounds from above.

Then the lower halves of held-out images are drawn given the upper ones, which a PixelCNN does
exactly, pixel by pixel (`FlowModel.complete`): no other model here has such an order. (A TarFlow
of one block would; Glow would need importance sampling.) The mean of many such halves is
compared with the true one, beside the mean of all training images.

Data: digits (bundled with scikit-learn), or as `train_images.py`: mnist, fashion_mnist and cifar10
(downloaded by keras.datasets), or a .npz file with x_train and x_test (or x_heldout), integer
images [n, H, W] or [n, H, W, C] from 0 to 255.

The run's folder (--out) gets results.json, samples.png and completions.png.
"""

import argparse
import json
import math
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow_probability as tfp

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "tools"))
import _images
from _budget import Budget
from _command import require_positive, run_or_say
from results import record

from tfp_flows import FlowModel, flows, preprocessing

tfd = tfp.distributions

MODELS = ("pixel_cnn", "glow", "tarflow")
# Of Glow and TarFlow the height and width are multiples of it.
MULTIPLE = 4
NOISE_DRAWS = 4  # dequantizations that a score is the mean of
COMPLETIONS = 5


def make_model(name, shape, levels, args):
    """The untrained model of images of `levels` levels."""
    width = args.width
    if name == "pixel_cnn":
        density = flows.pixel_cnn(
            shape,
            output="discretized_logistic_mixture",
            num_levels=levels,
            num_components=5,
            filters=width,
            num_layers=5,
            first_kernel_size=min(7, 2 * (shape[1] // 2) - 1),
            seed=args.seed,
        )
        return FlowModel(density, name=name)
    if name == "glow":
        flow = flows.glow(shape, num_levels=2, num_steps=6, hidden_filters=width, seed=args.seed)
    else:
        flow = flows.tarflow(
            shape,
            patch_size=2 if shape[0] < 16 else 4,
            num_blocks=4,
            num_layers=2,
            width=2 * width,
            seed=args.seed,
        )
    # Black is no number that a density should be narrow around: the logit makes it a range.
    scaling = preprocessing.Logit(float(levels), alpha=1e-6 if shape[2] == 1 else 0.05)
    return FlowModel(
        tfd.TransformedDistribution(flow, scaling),
        dequantization=preprocessing.UniformDequantization(levels, seed=args.seed),
        name=name,
    )


def fit(model, images, args, out):
    """Trains for the minutes of the budget."""
    keras.utils.set_random_seed(args.seed)
    model.compile(keras.optimizers.Adam(args.learning_rate, clipnorm=100.0))
    spent = out / f"{model.name}.json"
    spent.unlink(missing_ok=True)
    budget = Budget(args.learning_rate, 10**9, args.minutes, spent)
    model.fit(
        images,
        batch_size=args.batch_size,
        epochs=10_000,  # The clock ends it.
        callbacks=[budget],
        verbose=0,
    )
    spent.unlink()
    return budget.elapsed


def score(model, images, size=200):
    """Log-probabilities of integer images in nats."""
    noise = model.dequantization
    parts = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        if noise is None:
            parts.append(model.log_prob(batch))
            continue
        draws = [model.log_prob(noise(batch, seed=(start, n))) for n in range(NOISE_DRAWS)]
        parts.append(np.mean(draws, axis=0, dtype=np.float64))
    return np.concatenate(parts).astype(np.float64)


def sample(model, shape, args):
    """Sixty-four images, of integers."""
    drawn = np.asarray(model.sample(64, seed=args.seed + 1, quantized=True))
    return _images.crop(drawn, shape)


def complete(model, images, args, n):
    """Images whose lower half is drawn given the upper one, `[n, rows, H, W, C]`."""
    upper = np.zeros(images.shape[1:], bool)
    upper[: images.shape[1] // 2] = True
    # What is hidden is not looked at: so that it plainly is not, it is thrown away here.
    draws, _ = model.complete(np.where(upper, images, 0), upper, n, seed=args.seed + 2)
    draws = draws.numpy()
    if (draws[:, :, : images.shape[1] // 2] != images[:, : images.shape[1] // 2]).any():
        raise FloatingPointError("complete: given pixels were changed")
    return draws


def measure_completions(draws, images, train):
    """Root mean square errors of lower halves, in levels: of the mean of draws, of a mean image."""
    half = images.shape[1] // 2
    truth = images[:, half:].astype(np.float64)
    errors = [
        np.sqrt(np.mean((guess[..., half:, :, :] - truth) ** 2))
        for guess in (draws.mean(axis=0), train.mean(axis=0))
    ]
    return [float(error) for error in errors]


def save_completions(path, images, draws, levels):
    """A row for each image: the true one, what is given of it, and completions."""
    given = images.copy()
    given[:, images.shape[1] // 2 :] = 0
    rows = np.concatenate([images[None], given[None], draws], axis=0)
    rows = rows.transpose(1, 0, 2, 3, 4).reshape(-1, *images.shape[1:])
    title = f"true, given, {len(draws)} completions"
    _images.save_grids(path, [(title, rows)], levels, columns=2 + len(draws))


def run(args):
    """Trains, compares, completes."""
    start = time.time()
    out = pathlib.Path(args.out)
    train, held_out, levels = _images.load(args.data)
    train, held_out = train[: args.limit], held_out[: args.limit]
    shape = train.shape[1:]
    out.mkdir(parents=True, exist_ok=True)
    print(f"{len(train)} images of {_images.text(shape)}, {len(held_out)} held out")
    print(f"\n{'model':<12}{'bits/dim':>9}{'+-':>7}{'steps':>8}{'parameters':>12}", flush=True)
    panels, results, completed = [("held out", held_out[:64])], {"models": {}}, None
    for name in args.models:
        multiple = 1 if name == "pixel_cnn" else MULTIPLE
        padded, test = (_images.pad(part, multiple) for part in (train, held_out))
        model = make_model(name, padded.shape[1:], levels, args)
        seconds = fit(model, padded, args, out)
        # Of the real pixels, whatever was padded.
        bits = preprocessing.bits_per_dim(score(model, test), shape)
        error = bits.std() / math.sqrt(len(bits))
        steps = int(model.optimizer.iterations)
        size = int(sum(np.prod(v.shape) for v in model.trainable_variables))
        print(f"{name:<12}{bits.mean():>9.3f}{error:>7.3f}{steps:>8}{size:>12,}", flush=True)
        results["models"][name] = {
            "bits_per_dim": bits.mean(),
            "standard_error": error,
            "exact": model.dequantization is None,
            "steps": steps,
            "seconds": seconds,
            "parameters": size,
        }
        panels.append((f"{name}, {bits.mean():.2f} bits/dim", sample(model, shape, args)))
        if name == "pixel_cnn":
            few = held_out[:8]
            completed = complete(model, few, args, COMPLETIONS * 4)
            ours, mean = measure_completions(completed, few, train)
            results["completion_error"], results["error_of_the_mean_image"] = ours, mean
            save_completions(
                out / "completions.png", few, completed[:COMPLETIONS].astype(np.uint8), levels
            )
    _images.save_grids(out / "samples.png", panels, levels)
    if completed is not None:
        print(
            f"\nlower halves given the upper ones, root mean square error in levels: "
            f"{ours:.2f} of the mean of {len(completed)} draws, {mean:.2f} of the mean image"
        )
    (out / "results.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
    print(f"pictures: {out / 'samples.png'}, {out / 'completions.png'}")
    print(f"done in {time.time() - start:.0f} s")
    if args.result:
        data = "8x8 digits" if args.data == "digits" else pathlib.Path(args.data).stem
        cells = [
            record.cell(
                "images",
                f"{data}: {name}",
                found["bits_per_dim"],
                standard_error=found["standard_error"],
                budget={"minutes": args.minutes},
                seed=args.seed,
                minutes=found["seconds"] / 60.0,
                note=f"{'exact' if found['exact'] else 'a bound'}; {found['steps']:,} steps, "
                f"{found['parameters']:,} weights, {len(held_out):,} held-out images",
            )
            for name, found in results["models"].items()
        ]
        record.write(args.result, cells)


def parse(arguments=None):
    """Reads and checks the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", default="digits", help="a name or a .npz path, see above: %(default)s")
    add("--models", nargs="+", choices=MODELS, default=list(MODELS), help="default: all")
    add("--minutes", type=float, default=0.6, help="of training, each: %(default)s")
    add("--width", type=int, default=32, help="of the networks: %(default)s; tarflow's: twice it")
    add("--batch-size", type=int, default=64, help="default: %(default)s")
    add("--learning-rate", type=float, default=2e-3, help="its peak: %(default)s")
    add("--limit", type=int, help="use the first so many images only")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--out", default="runs/pixels", help="the run's folder: %(default)s")
    record.add_argument(parser)
    args = parser.parse_args(arguments)
    require_positive(parser, args, ("minutes", "width", "batch_size", "learning_rate", "limit"))
    return args


def main(arguments=None):
    """Runs it all, or says what is wrong."""
    run_or_say(run, parse(arguments))


if __name__ == "__main__":
    main()
