"""Trains MADE, PixelCNN or Gated PixelCNN on dynamically binarized MNIST for a budget of minutes.

    python tools/mnist_report.py --data mnist.npz --model pixel_cnn --minutes 30 --out runs/mnist
    python tools/mnist_report.py ... --bfloat16     # of the convolutional ones, on a GPU

Every pixel of every training image is drawn anew at each step, 1 with the probability of its grey
level; the 10,000 test images are drawn once, from seed 0. What is reported is the mean
negative log-probability of those in nats, at the end of the budget: nothing is chosen by it.
The learning rate rises over 100 steps and falls along a cosine to zero, by the share of the budget
that is spent, so that a faster machine takes more steps in the same time. `--passes` ends
it sooner: MADE, which would learn the training images by heart, has 100 by default.

The folder gets MODEL.json, written whole after every `--every` steps: the settings, the curve
(minutes, steps, passes through the images, nats of the training steps and of the test images), and
in the end `final`. A run that is killed goes on from its last point when the same command is given
again (`MODEL.backup`), minutes included, and the curve of one that is not is there all the same.
The budget counts from when TensorFlow is loaded, tracing and compiling included; the final test
takes some seconds more.

Models, of the shapes of the program whose figures stand beside them (EugenHotaj's
pytorch-generative: 85 and 457 passes), but where said:

    made               one hidden layer of 8,000 units; 84.87
    pixel_cnn          masked 7x7, then 15 residual blocks of 32 features, 16 inside; 81.45
    gated_pixel_cnn    `conditioners.PixelCNN`, 10 layers of 64 features (there 128); 81.50

The papers' own figures are of another, fixed binarization: MADE 88.40 with one mask and 86.64 with
32 (M. Germain et al., 2015, arXiv:1502.03509), PixelCNN 81.30 (A. van den Oord et al., 2016,
arXiv:1601.06759).

With `--result FILE` the figure is a cell of the book of results, too.

Several processes may share a GPU: each takes the memory that it needs.
"""

import argparse
import json
import math
import os
import pathlib
import shutil
import sys
import time

os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")

import keras
import numpy as np
import tensorflow as tf
from results import record

from tfp_flows import FlowModel, flows
from tfp_flows._files import written_whole
from tfp_flows.distributions import AutoregressiveDistribution

START = time.monotonic()
PUBLISHED = {"made": 84.87, "pixel_cnn": 81.45, "gated_pixel_cnn": 81.50}
SIZES = {"made": (8000, 1), "pixel_cnn": (32, 15), "gated_pixel_cnn": (64, 10)}
PUBLISHED_PASSES = 85
PASSES = {"made": 100.0}
WARMUP = 100


@keras.saving.register_keras_serializable(package="tools")
class MaskedConvolutions(keras.layers.Layer):
    """The first PixelCNN: one stack of masked convolutions, of images of one channel.

    A 7x7 convolution with mask A (what is above, and to the left in the row), then residual blocks
    of ReLU, 1x1, ReLU, 3x3 with mask B (those and the pixel itself), ReLU, 1x1.

    References: A. van den Oord, N. Kalchbrenner, K. Kavukcuoglu, Pixel Recurrent Neural Networks,
    2016, arXiv:1601.06759, section 3.4 and figure 5.
    """

    def __init__(self, filters=32, num_blocks=15, hidden_filters=32, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.filters, self.num_blocks = filters, num_blocks
        self.hidden_filters, self.seed = hidden_filters, seed

    def get_config(self):
        """Returns the constructor's arguments."""
        names = ("filters", "num_blocks", "hidden_filters", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def build(self, input_shape):
        """Makes the kernels."""
        inside, count = self.filters // 2, iter(range(10_000))

        def convolution(size, inputs, outputs, zero=False):
            number = next(count)
            normal = keras.initializers.HeNormal(seed=self.seed + number)
            initializer = "zeros" if zero else normal
            shape = (size, size, inputs, outputs)
            return (
                self.add_weight(name=f"kernel_{number}", shape=shape, initializer=initializer),
                self.add_weight(name=f"bias_{number}", shape=(outputs,), initializer="zeros"),
            )

        self._first = convolution(7, 1, self.filters)
        self._blocks = [
            (
                convolution(1, self.filters, inside),
                convolution(3, inside, inside),
                # At zero depth adds nothing, and learns what it is for.
                convolution(1, inside, self.filters, zero=True),
            )
            for _ in range(self.num_blocks)
        ]
        self._hidden = convolution(1, self.filters, self.hidden_filters)
        self._last = convolution(1, self.hidden_filters, 1, zero=True)

    def call(self, x):
        """The logit of every pixel."""
        h = _convolved(x, self._first, centre=False)
        for first, middle, last in self._blocks:
            inside = _convolved(tf.nn.relu(h), first)
            inside = _convolved(tf.nn.relu(inside), middle)
            h += _convolved(tf.nn.relu(inside), last)
        h = _convolved(tf.nn.relu(h), self._hidden)
        return _convolved(tf.nn.relu(h), self._last)


def _convolved(x, weights, centre=True):
    """A convolution that sees what is before a pixel, and the pixel itself if `centre`."""
    kernel, bias = (tf.cast(tf.convert_to_tensor(v), x.dtype) for v in weights)
    size = kernel.shape[0]
    if size > 1:
        before = np.arange(size * size) < size * size // 2 + centre
        kernel *= tf.constant(before.reshape(size, size, 1, 1), x.dtype)
    return tf.nn.conv2d(x, kernel, strides=1, padding="SAME") + bias


def make_density(name, shape, width, depth, seed):
    """The untrained density of one of the models."""
    if name == "made":
        return flows.made(shape, hidden_units=(width,) * depth, seed=seed)
    if name == "gated_pixel_cnn":
        return flows.pixel_cnn(
            shape, output="bernoulli", filters=width, num_layers=depth, seed=seed
        )
    network = MaskedConvolutions(width, depth, seed=seed)
    return AutoregressiveDistribution(network, shape, name="pixel_cnn")


def binarized(images, batch_size, seed):
    """Batches without end, of images in an order of their own each pass, drawn anew each time.

    A batch follows from its number alone, so that a run that goes on sees what it would have seen.
    The rows that are left over of a pass wait for the next one.
    """
    rows, steps = len(images), len(images) // batch_size
    with tf.device("CPU"):  # Where datasets are made.
        held = tf.constant(images)

    def batch(number):
        places = number % steps * batch_size + tf.range(batch_size, dtype=tf.int64)
        order = tf.stack([tf.constant(seed, tf.int64), number // steps])
        chosen = tf.random.experimental.index_shuffle(places, order, rows - 1)
        grey = tf.cast(tf.gather(held, chosen), tf.float32) / 255.0
        draw = tf.stack([tf.constant(seed, tf.int64), number])
        return tf.cast(tf.random.stateless_uniform(grey.shape, draw) < grey, tf.int32)

    numbers = tf.data.Dataset.range(np.iinfo(np.int64).max // batch_size)
    return numbers.map(batch, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


class Report(keras.callbacks.Callback):
    """Keeps to the budget, lowers the learning rate on the way, and writes the curve."""

    def __init__(self, path, report, settings):
        super().__init__()
        self._path, self._report, self._settings = path, report, settings
        self._most = math.inf
        if settings.passes is not None:
            self._most = settings.passes * settings.rows / settings.batch_size

    def on_train_begin(self, logs=None):
        """Takes up the minutes of an interrupted run, and drops what came after its backup."""
        step = int(self.model.optimizer.iterations)
        curve = [point for point in self._report["curve"] if point["steps"] <= step]
        self._report["curve"] = curve
        self._before = 60.0 * curve[-1]["minutes"] if curve else 0.0

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the learning rate."""
        step = int(self.model.optimizer.iterations)
        cosine = 0.5 * (1.0 + math.cos(math.pi * min(1.0, self._spent(step))))
        rate = self._settings.learning_rate * cosine * min(1.0, (step + 1) / WARMUP)
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the clock."""
        if self._spent(int(self.model.optimizer.iterations)) >= 1.0:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Writes the report with one more point."""
        step = int(self.model.optimizer.iterations)
        point = {
            "minutes": self._seconds() / 60.0,
            "steps": step,
            "passes": step * self._settings.batch_size / self._settings.rows,
            "train_nats": float(logs["loss"]),
            "test_nats": float(logs["val_loss"]),
        }
        self._report["curve"].append(point)
        write(self._path, self._report)
        text = ", ".join(f"{name} {value:.2f}" for name, value in point.items())
        print(f"{self._report['model']}: {text}", flush=True)

    def _seconds(self):
        return self._before + time.monotonic() - START

    def _spent(self, step):
        return max(self._seconds() / (60.0 * self._settings.minutes), step / self._most)


def write(path, report):
    """Writes a report whole, or not at all."""
    with written_whole(path, owner="mnist_report", overwrite=True) as partial:
        pathlib.Path(partial).write_text(json.dumps(report, indent=1) + "\n")


def load(path, limit):
    """Grey images uint8 `[n, H, W, 1]`, to train on and to test."""
    try:
        with np.load(path) as file:
            parts = [file[key][:limit] for key in ("x_train", "x_test")]
    except (OSError, ValueError, KeyError) as error:
        sys.exit(f"error: --data {path}: expected x_train and x_test in an .npz file ({error}).")
    for images in parts:
        if images.ndim != 3 or images.dtype != np.uint8:
            sys.exit(
                f"error: --data {path}: expected uint8 images [n, H, W], got {images.dtype} "
                f"{list(images.shape)}."
            )
    return [images[..., np.newaxis] for images in parts]


def train(settings):
    """Trains, or goes on with training, and writes the report."""
    out = pathlib.Path(settings.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{settings.model}.json"
    images, held_out = load(settings.data, settings.limit)
    if settings.batch_size > len(images):
        sys.exit(f"error: --batch-size must be at most {len(images)}, the number of images.")
    draw = np.random.default_rng(0).random(held_out.shape, dtype=np.float32)
    held_out = (draw < held_out / np.float32(255.0)).astype(np.int32)
    settings.rows = len(images)
    own = ("out", "data", "result")
    kept = {name: value for name, value in vars(settings).items() if name not in own}
    report = {"model": settings.model, "settings": kept, "curve": []}
    if path.exists():
        found = json.loads(path.read_text())
        if found["settings"] != kept:
            sys.exit(f"error: {path} is of other settings, {found['settings']}. Give another --out")
        if "final" in found:
            sys.exit(f"error: {path} is of a run that is done. Give another --out.")
        report = found
    gpus = tf.config.list_physical_devices("GPU")
    report |= {"published_nats": PUBLISHED[settings.model], "gpus": len(gpus)}

    density = make_density(
        settings.model, images.shape[1:], settings.width, settings.depth, settings.seed
    )
    model = FlowModel(density, bits_per_dim=False)
    model.conditioner_policy = "mixed_bfloat16" if settings.bfloat16 else "float32"
    model.compile(
        keras.optimizers.Adam(settings.learning_rate, global_clipnorm=settings.clip),
        jit_compile=settings.xla,
        # Between two of these Python has its say, for which a GPU would wait.
        steps_per_execution=math.gcd(settings.every, 10) if gpus else 1,
    )
    report["parameters"] = int(sum(np.prod(v.shape) for v in model.trainable_variables))
    backup = out / f"{settings.model}.backup"
    model.fit(
        binarized(images, settings.batch_size, settings.seed),
        steps_per_epoch=settings.every,
        epochs=1_000_000,  # The clock ends it.
        validation_data=(held_out,),
        validation_batch_size=settings.test_batch_size,
        callbacks=[
            Report(path, report, settings),
            keras.callbacks.BackupAndRestore(str(backup), delete_checkpoint=False),
        ],
        verbose=0,
    )
    model.conditioner_policy = "float32"  # The figure is exact, whatever the training was.
    size = settings.test_batch_size
    scores = [model.log_prob(held_out[n : n + size]) for n in range(0, len(held_out), size)]
    scores = np.concatenate(scores).astype(np.float64)
    report["final"] = {
        "test_nats": -scores.mean(),
        "standard_error": scores.std() / math.sqrt(len(scores)),
        "minutes": report["curve"][-1]["minutes"],
        "steps": report["curve"][-1]["steps"],
    }
    model.save_weights(str(out / f"{settings.model}.weights.h5"))
    write(path, report)
    shutil.rmtree(backup)  # Last: until here the run could be gone on with.
    final = report["final"]
    print(
        f"{settings.model}: {final['test_nats']:.2f} +- {final['standard_error']:.2f} nats on "
        f"{len(scores)} test images after {final['steps']} steps, {final['minutes']:.1f} min; "
        f"published {PUBLISHED[settings.model]}"
    )
    if settings.result:
        record.write(settings.result, [as_cell(settings, report)])


def as_cell(settings, report):
    """The figure as a cell of the book of results."""
    final, passes = report["final"], report["curve"][-1]["passes"]
    kind = {
        "made": "MADE, {1} x {0:,} units",
        "pixel_cnn": "PixelCNN, {1} blocks of {0} features",
        "gated_pixel_cnn": "Gated PixelCNN, {1} layers of {0} features",
    }[settings.model]
    title = "pytorch-generative, a library of generative models"
    where = "table of binarized MNIST in its README"
    short = []
    if passes < PUBLISHED_PASSES:
        short.append(f"{passes:.1f} passes through the images, published: {PUBLISHED_PASSES}")
    if settings.limit is not None:
        short.append(f"the first {settings.limit} images")
    return record.cell(
        "binarized_mnist",
        kind.format(settings.width, settings.depth),
        -final["test_nats"],
        standard_error=final["standard_error"],
        published=record.source(-PUBLISHED[settings.model], "E. Hotaj", title, 2020, None, where),
        at_hand=not short,
        budget={"minutes": settings.minutes, "epochs": settings.passes},
        seed=settings.seed,
        minutes=final["minutes"],
        reason="; ".join(short) or None,
        note=f"{final['steps']:,} steps, {report['parameters']:,} weights, {passes:.1f} passes",
    )


def main(arguments=None):
    """Reads the command line, and trains."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", required=True, help="mnist.npz, with x_train and x_test, grey levels 0 to 255")
    add("--model", required=True, choices=PUBLISHED)
    add("--minutes", type=float, default=30.0, help="of training: %(default)s")
    add("--out", default="runs/mnist", help="folder: %(default)s")
    add("--passes", type=float, help="through the images, at most. Default: 100 for made")
    add("--width", type=int, help="hidden units or features: 8000, 32, 64")
    add("--depth", type=int, help="hidden layers, blocks or gated layers: 1, 15, 10")
    add("--batch-size", type=int, default=256, help="default: %(default)s")
    add("--test-batch-size", type=int, default=500, help="default: %(default)s")
    add("--learning-rate", type=float, default=1e-3, help="its peak: %(default)s")
    add("--clip", type=float, default=100.0, help="norm of the gradient: %(default)s")
    add("--every", type=int, default=500, help="steps from a point to the next: %(default)s")
    add("--bfloat16", action="store_true", help="networks train in bfloat16; tested in float32")
    add("--xla", action="store_true", help="XLA compiles the steps")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--limit", type=int, help="use the first so many images only")
    record.add_argument(parser)
    settings = parser.parse_args(arguments)
    if settings.passes is None:
        settings.passes = PASSES.get(settings.model)
    width, depth = SIZES[settings.model]
    settings.width, settings.depth = settings.width or width, settings.depth or depth
    train(settings)


if __name__ == "__main__":
    main()
