"""Trains the flows that `tfp_flows.pretrained` loads, and fills in the numbers of their cards.

    python tools/pretrained.py glow_digits
    python tools/pretrained.py made_mnist --data mnist.npz
    python tools/pretrained.py wavenet_digits --data spoken_digits.npz

Each writes NAME.keras, the model without its optimizer, and its card NAME.json, of the words in
`tools/cards` and the numbers, digest and versions of this run, to --out: by default the package
itself. Where the data are in no package, NAME.npz has rows that the model drew itself and what it
scores them: the data of others are not handed on, and a file that scores its own samples as it
did is whole.

Data: the digits come with scikit-learn. mnist.npz has `x_train` and `x_test`, uint8;
spoken_digits.npz is described in `examples/audio.py`.
"""

import argparse
import hashlib
import json
import math
import pathlib
import platform
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import tfp_flows  # noqa: E402
from tfp_flows import FlowModel, flows, preprocessing  # noqa: E402
from tfp_flows._files import written_whole  # noqa: E402

tfb, tfd = tfp.bijectors, tfp.distributions

WORDS = ROOT / "tools" / "cards"
SEED = 0
DRAWN = 16  # rows in NAME.npz
LEVELS, MIDDLE = 65536, 32768  # of a 16-bit sample


def compiled(model, peak, steps, **kwargs):
    """The model, compiled with a rate that rises over a hundredth of the steps and falls to 0."""
    warmup = max(1, steps // 100)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - warmup, warmup_target=peak, warmup_steps=warmup
    )
    model.compile(keras.optimizers.Adam(rate, **kwargs))
    return model


def mean_and_error(values):
    """The mean over rows, and its standard error."""
    values = np.asarray(values, np.float64)
    return float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))


def number(what, values, unit):
    """An entry of the card's numbers."""
    mean, error = mean_and_error(values)
    return {
        "what": what,
        "value": round(mean, 4),
        "standard_error": round(error, 4),
        "unit": unit,
        "rows": len(values),
    }


# --- Digits, 8 x 8. ---


def split_of_digits():
    """Images uint8 `[n, 8, 8, 1]` and labels, for training and held out (297)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype("uint8")[..., None]
    order = np.random.default_rng(SEED).permutation(len(images))
    train, test = order[297:], order[:297]
    return (images[train], digits.target[train]), (images[test], digits.target[test])


def glow_digits(_, epochs):
    """A Glow of digits, given which."""
    train, test = split_of_digits()
    flow = flows.glow(
        [8, 8, 1], num_levels=2, num_steps=6, hidden_filters=64, context_size=8, seed=SEED
    )
    model = FlowModel(
        tfd.TransformedDistribution(flow, preprocessing.Logit(scale=17.0)),
        context_network=keras.layers.Embedding(10, 8),
        dequantization=preprocessing.UniformDequantization(17, seed=SEED),
        name="glow_digits",
    )
    compiled(model, 2e-3, epochs * -(-len(train[0]) // 64), clipnorm=10.0)
    model.fit(*train, batch_size=64, epochs=epochs, validation_data=test, verbose=2)
    classes = np.stack([model.log_prob(test[0], np.full(len(test[0]), k)) for k in range(10)])
    nats = classes[test[1], np.arange(len(test[1]))]
    return model, [
        number("held-out images, given the digit", -nats / (64 * math.log(2.0)), "bits/dim"),
        number("held-out images, given the digit", nats, "nats"),
        number(
            "the digit of a held-out image, by Bayes' rule",
            classes.argmax(0) == test[1],
            "share that is right",
        ),
    ]


# --- Binary MNIST. ---


def made_mnist(path, epochs):
    """A MADE of dynamically binarized MNIST."""
    with np.load(path, allow_pickle=False) as file:
        train, test = (file[k].reshape(-1, 784) for k in ("x_train", "x_test"))
    test = (np.random.default_rng(SEED).random(test.shape) < test / 255.0).astype("int32")

    def bits(images):
        return tf.cast(
            tf.random.uniform(tf.shape(images)) * 255.0 < tf.cast(images, tf.float32), tf.int32
        )

    data = tf.data.Dataset.from_tensor_slices(train).shuffle(len(train), seed=SEED)
    data = data.batch(100, drop_remainder=True).map(bits).prefetch(2)
    model = FlowModel(flows.made([784], hidden_units=(128,), seed=SEED), name="made_mnist")
    compiled(model, 3e-3, epochs * (len(train) // 100))
    model.fit(data, epochs=epochs, verbose=2)
    mean = (train.mean(axis=0) / 255.0 * len(train) + 1) / (len(train) + 2)
    independent = np.where(test == 1, np.log(mean), np.log1p(-mean)).sum(axis=1)
    return model, [
        number("test images, binarized once from seed 0", np.asarray(model.log_prob(test)), "nats"),
        number("the same, independent pixels", independent, "nats"),
    ]


# --- Spoken digits. ---


def wavenet_digits(path, epochs):
    """A WaveNet of windows of spoken digits, given which."""
    import _audio

    cuts, labels, held, _, _ = _audio.load(path)
    rows, conditions = _audio.windows(cuts, labels, ~held, 1024, 512)
    test, test_conditions = _audio.windows(cuts, labels, held, 1024, 1024)
    said, test_said = (c[:, 0].astype("int32") for c in (conditions, test_conditions))
    density = flows.wavenet(
        [1024, 1],
        filters=32,
        dilations=tuple(2**n for n in range(10)),
        output="gaussian_mixture",
        num_components=4,
        context_size=8,
        seed=SEED,
    )
    # x = 32768 + 100 sinh(y): loud and quiet alike.
    loudness = tfb.Chain([tfb.Shift(float(MIDDLE)), tfb.Scale(100.0), tfb.Sinh()])
    model = FlowModel(
        tfd.TransformedDistribution(density, loudness),
        context_network=keras.layers.Embedding(10, 8),
        dequantization=preprocessing.UniformDequantization(LEVELS, seed=SEED),
        name="wavenet_digits",
    )

    def levels(rows):
        return (rows.astype("int32") + MIDDLE)[..., np.newaxis]

    data = tf.data.Dataset.from_tensor_slices((rows, said)).shuffle(len(rows), seed=SEED)
    data = data.repeat().batch(16)
    data = data.map(lambda x, c: (tf.cast(x, tf.int32)[..., tf.newaxis] + MIDDLE, c)).prefetch(2)
    compiled(model, 3e-3, epochs * 100, global_clipnorm=1e4)
    model.fit(data, steps_per_epoch=100, epochs=epochs, verbose=2)
    nats = [
        model.log_prob(levels(test[n : n + 64]), test_said[n : n + 64])
        for n in range(0, len(test), 64)
    ]
    bits = -np.concatenate(nats).astype(np.float64) / (1024 * math.log(2.0))
    linear = _audio.linear_prediction_bits(rows, test)
    return model, [
        number("held-out windows of 1,024 samples, given the digit", bits, "bits a sample"),
        number("the same, AR(16) with a running variance", linear, "bits a sample"),
    ]


# --- The files. ---

# Name -> function, passes through the data (of WaveNet hundreds of steps), whether it needs --data.
MODELS = {
    "glow_digits": (glow_digits, 50, False),
    "made_mnist": (made_mnist, 50, True),
    "wavenet_digits": (wavenet_digits, 10, True),
}


def drawn(model):
    """Rows that the model draws, with their context, and what it scores them."""
    context = {} if model.context_size is None else {"context": np.arange(DRAWN) % 10}
    rows = model.sample(DRAWN, seed=1, quantized=True, **context)
    low = "uint8" if np.max(rows) < 256 else "uint16"
    return {
        "x": np.asarray(rows).astype(low),
        "log_prob": np.asarray(model.log_prob(rows, **context)),
        **context,
    }


def write(name, model, numbers, minutes, out):
    """Writes the files of a model."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "model.keras"
        model.save(whole)
        model = tfp_flows.load(whole, compile=False)
    path = out / f"{name}.keras"
    model.save(path)
    if MODELS[name][2]:
        np.savez_compressed(out / f"{name}.npz", **drawn(model))
    card = json.loads((WORDS / f"{name}.json").read_text(encoding="utf-8"))
    card["training"] |= {
        "seed": SEED,
        "minutes": round(minutes, 1),
        "versions": {
            "python": platform.python_version(),
            **{m.__name__: m.__version__ for m in (tfp_flows, tf, tfp, keras, np)},
        },
    }
    card["numbers"] = numbers
    card["weights"] = int(sum(np.prod(v.shape) for v in model.trainable_variables))
    card["bytes"] = path.stat().st_size
    card["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
    with written_whole(out / f"{name}.json", owner="pretrained", overwrite=True) as partial:
        pathlib.Path(partial).write_text(text, encoding="utf-8")
    print(json.dumps({k: card[k] for k in ("numbers", "bytes", "sha256")}, indent=1))


def main():
    """Trains one and writes its files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=MODELS)
    parser.add_argument("--data", help="the .npz file, where the data are in no package")
    parser.add_argument("--epochs", type=int, help="default: those of the card")
    package = ROOT / "tfp_flows" / "pretrained"
    parser.add_argument("--out", type=pathlib.Path, default=package, help="default: the package")
    args = parser.parse_args()
    train, epochs, needs_data = MODELS[args.name]
    if needs_data and not (args.data and pathlib.Path(args.data).is_file()):
        parser.error(f"{args.name} needs --data, a .npz file; got {args.data}")
    epochs = epochs if args.epochs is None else args.epochs
    if epochs < 1:
        parser.error(f"--epochs must be at least 1, got {epochs}")
    keras.utils.set_random_seed(SEED)  # The order of the rows, and the bits.
    start = time.monotonic()
    model, numbers = train(args.data, epochs)
    write(args.name, model, numbers, (time.monotonic() - start) / 60.0, args.out)


if __name__ == "__main__":
    main()
