"""Learns the sound of spoken digits, sample by sample, and says some.

    python examples/audio.py                                      # ten made-up vowels, minutes
    python examples/audio.py --data spoken_digits.npz --minutes 10
    python examples/audio.py --density flow                       # with latents, see below

A WaveNet gives the density of every sample given those before it, which digit is said, and how far
into the recording it is. The waveform goes through

    x = 32768 + 100 sinh(y),     x the 16-bit sample, from 0, with noise of one step

which makes loud and quiet alike. Of y the WaveNet gives a mixture of four normal densities a
sample (`--density mixture`), the better density, or, as a flow, one (`--density flow`: an affine
map). A flow has latents, and can be walked back and forth; but a trained flow of sound amplifies
rounding from sample to sample, so that in float32 the latents of data lead back to other data: the
script measures and prints by how much. Densities and samples are not affected.

Digit and place go through a small network of their own that is trained with the WaveNet
(`FlowModel(context_network=...)`) to one context vector a sample.

In the end: bits a sample of held-out recordings, beside linear prediction (AR(16)) with a running
variance on the same windows; sound files and spectrograms of clips of each label; the seconds that
a second of them took (the real-time factor); and an export that was loaded again.

Data: without `--data`, vowels made of two formants, a gliding pitch and noise. Else a .npz file
with `audio` (int16, recordings end to end), `lengths`, `digit` (labels from 0), and `index` (0 to 4
are held out).

The run's folder (--out) gets real_*.wav and sample_*.wav, spectrograms.png, results.json,
history.csv, model.keras and export. A run that was killed goes on after its last backup when the
same command is given again.
"""

import argparse
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
import _audio
from _budget import Budget
from _command import InputError, require_positive, run_or_say
from results import record

import tfp_flows
from tfp_flows import FlowModel, flows, preprocessing

tfb, tfd = tfp.bijectors, tfp.distributions

LEVELS, MIDDLE = 65536, 32768
CONTEXT = 16
STEPS_PER_EPOCH = 100  # Between two backups.


@keras.saving.register_keras_serializable(package="examples")
class Script(keras.layers.Layer):
    """What is said when: from labels and places `[n, 2]` to a vector a sample `[n, T, 16]`."""

    def __init__(self, steps, num_labels, rate, **kwargs):
        super().__init__(**kwargs)
        self.steps, self.num_labels, self.rate = steps, num_labels, rate
        self._hidden = keras.layers.Dense(2 * CONTEXT, "gelu")
        self._out = keras.layers.Dense(CONTEXT)

    def get_config(self):
        """Returns the constructor's arguments."""
        own = {"steps": self.steps, "num_labels": self.num_labels, "rate": self.rate}
        return {**super().get_config(), **own}

    def build(self, input_shape):
        """Makes the weights."""
        self._hidden.build([None, self.steps, self.num_labels + 12])
        self._out.build([None, self.steps, 2 * CONTEXT])

    def call(self, conditions):
        """The vectors."""
        label, place = tf.cast(conditions[:, 0], tf.int32), conditions[:, 1:]
        seconds = (place + tf.range(self.steps, dtype=place.dtype)) / self.rate
        # Twelve overlapping bumps over the first 0.6 seconds.
        distance = seconds[..., tf.newaxis] / 0.05 - tf.range(12, dtype=place.dtype)
        said = tf.one_hot(label, self.num_labels, dtype=place.dtype)[:, tf.newaxis]
        said = tf.repeat(said, self.steps, axis=1)
        return self._out(self._hidden(tf.concat([said, tf.exp(-tf.square(distance))], axis=-1)))


def make_model(args, steps, num_labels, rate):
    """The untrained model of windows of `steps` samples; its weights fit any other number."""
    kwargs = {
        "filters": args.filters,
        "dilations": tuple(2**n for n in range(args.layers)),
        "context_size": [steps, CONTEXT],
        "seed": args.seed,
    }
    if args.density == "mixture":
        kwargs |= {"output": "gaussian_mixture", "num_components": 4}
    density = flows.wavenet([steps, 1], **kwargs)
    loudness = tfb.Chain([tfb.Shift(float(MIDDLE)), tfb.Scale(100.0), tfb.Sinh()])
    keras.utils.set_random_seed(args.seed)  # Of the context network.
    return FlowModel(
        tfd.TransformedDistribution(density, loudness),
        context_network=Script(steps, num_labels, rate),
        dequantization=preprocessing.UniformDequantization(LEVELS, seed=args.seed),
        name="audio",
    )


def as_data(rows):
    """Windows of int16 as events of levels from 0."""
    return (rows.astype(np.int32) + MIDDLE)[..., np.newaxis]


def as_clips(samples):
    """The int16 samples of events."""
    return (np.asarray(samples)[..., 0] - MIDDLE).astype(np.int16)


def fit(model, rows, conditions, held_out, args, out):
    """Trains, or goes on with training; returns the seconds it took."""
    data = tf.data.Dataset.from_tensor_slices((rows, conditions))
    data = data.shuffle(len(rows), seed=args.seed).repeat().batch(args.batch_size)
    data = data.map(lambda x, c: (tf.cast(x, tf.int32)[..., tf.newaxis] + MIDDLE, c))
    epochs = 10_000 if args.epochs is None else args.epochs
    minutes = args.minutes if args.minutes or args.epochs else 3.0
    budget = Budget(args.learning_rate, epochs * STEPS_PER_EPOCH, minutes, out / "progress.json")
    history = out / "history.csv"
    model.compile(keras.optimizers.Adam(args.learning_rate, global_clipnorm=1e4))
    model.fit(
        data.prefetch(2),
        steps_per_epoch=STEPS_PER_EPOCH,
        epochs=epochs,
        validation_data=held_out,
        validation_batch_size=args.batch_size,
        callbacks=[
            budget,
            keras.callbacks.CSVLogger(str(history), append=history.exists()),
            keras.callbacks.BackupAndRestore(str(out / "backup"), delete_checkpoint=False),
        ],
        verbose=2 if args.quiet else "auto",
    )
    return budget.elapsed


def bits_a_sample(model, rows, conditions, size=64):
    """Bits a sample of every window, a bound from above: with noise of one step."""
    parts = [
        model.log_prob(as_data(rows[n : n + size]), conditions[n : n + size])
        for n in range(0, len(rows), size)
    ]
    return -np.concatenate(parts).astype(np.float64) / (rows.shape[1] * math.log(2.0))


def round_trip(model, rows, conditions):
    """The largest error of latents, walked to data and back, and where."""
    x = tf.cast(as_data(rows), tf.float32)
    latents = model.inverse(x, context=conditions)
    again = model.inverse(model.forward(latents, context=conditions), context=conditions)
    return float(tf.reduce_max(tf.abs(again - latents)))


def say(model, labels, seed):
    """A clip of each label from its beginning, int16, and the seconds that a batch of them took."""
    conditions = np.stack([labels, np.zeros_like(labels)], axis=1).astype(np.float32)
    model.sample(len(labels), context=conditions, seed=seed)  # Traced.
    start = time.perf_counter()
    clips = model.sample(len(labels), context=conditions, seed=seed, quantized=True)
    clips = as_clips(clips)
    return clips, time.perf_counter() - start


def export(model, rows, conditions, path):
    """Exports the model, loads it again, and returns the largest difference in bits a sample."""
    shutil.rmtree(path, ignore_errors=True)
    model.export(path)
    served = tf.saved_model.load(str(path))
    x = as_data(rows)
    got = served.log_prob(tf.constant(x), tf.constant(conditions))["log_prob"]
    difference = np.abs(got - model.log_prob(x, conditions)).max()
    return float(difference) / (rows.shape[1] * math.log(2.0))


def prepare(out, settings, restart):
    """Readies the run's folder; a run with other settings is not gone on with."""
    path = out / "settings.json"
    if restart and out.is_dir():
        shutil.rmtree(out / "backup", ignore_errors=True)
        for name in ("settings.json", "progress.json", "history.csv", "results.json"):
            (out / name).unlink(missing_ok=True)
    if path.exists() and json.loads(path.read_text()) != settings:
        raise InputError(
            f"--out {out}: holds a run with other settings, {path.read_text()}. Give its command "
            "again to go on with it, another --out, or --restart to drop it."
        )
    if (out / "results.json").exists():
        raise InputError(f"--out {out}: holds a finished run. Name another, or give --restart.")
    out.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(settings))


def run(args):
    """Trains, measures, speaks and exports."""
    cuts, labels, held, names, rate = _audio.load(args.data)
    out = pathlib.Path(args.out)
    keep = ("data", "density", "steps", "filters", "layers", "batch_size", "learning_rate", "seed")
    prepare(out, {name: getattr(args, name) for name in keep}, args.restart)
    rows, conditions = _audio.windows(cuts, labels, ~held, args.steps, args.steps // 2)
    test, test_conditions = _audio.windows(cuts, labels, held, args.steps, args.steps)
    print(f"{len(rows)} windows of {args.steps} samples, {len(test)} held out", flush=True)
    model = make_model(args, args.steps, len(names), rate)
    few = np.linspace(0, len(test) - 1, min(len(test), 64)).astype(int)
    seconds = fit(model, rows, conditions, (as_data(test[few]), test_conditions[few]), args, out)

    flow = bits_a_sample(model, test, test_conditions)
    linear = _audio.linear_prediction_bits(rows, test)
    gain = linear - flow
    steps = int(model.optimizer.iterations)
    results = {
        "bits_a_sample": flow.mean(),
        "bits_a_sample_of_ar16": linear.mean(),
        "gain": gain.mean(),
        "gain_standard_error": gain.std() / math.sqrt(len(gain)),
        "training_minutes": seconds / 60.0,
        "steps": steps,
    }
    print(f"\nheld out, bits a sample ({len(test)} windows), after {steps} steps, {seconds:.0f} s")
    print(f"  WaveNet                           {flow.mean():7.3f}")
    print(f"  AR(16) with a running variance    {linear.mean():7.3f}")
    print(
        f"  gain                              {gain.mean():7.3f} +- "
        f"{results['gain_standard_error']:.3f}"
    )
    if args.density == "flow":
        error = results["round_trip"] = round_trip(model, test[:4], test_conditions[:4])
        print(
            f"  latents to data and back, in float32: off by up to {error:.1e}. Where a round trip "
            "counts, build the flow in float64."
        )

    longer = make_model(args, args.clip, len(names), rate)
    longer.sample(1, context=np.zeros([1, 2], np.float32))  # Makes the context network's weights.
    longer.set_weights(model.get_weights())
    labels_said = np.repeat(np.arange(len(names)), args.takes)
    clips, took = say(longer, labels_said, args.seed + 1)
    spoken = clips.size / rate
    results["real_time_factor"] = took / spoken
    print(
        f"  {len(clips)} clips in one batch, {spoken:.1f} s of sound, took {took:.1f} s: real-time "
        f"factor {took / spoken:.2f}"
    )
    clips = clips.reshape(len(names), args.takes, args.clip)
    real = [
        next(cuts[n] for n in np.flatnonzero(held) if labels[n] == k) for k in range(len(names))
    ]
    real = [np.pad(clip, (0, max(0, args.clip - len(clip))))[: args.clip] for clip in real]
    for name, truth, takes in zip(names, real, clips, strict=True):
        _audio.save_wav(out / f"real_{name}.wav", [truth], rate)
        _audio.save_wav(out / f"sample_{name}.wav", takes, rate)
    picture = out / "spectrograms.png"
    _audio.save_spectrograms(picture, {"recorded": real, "sampled": clips[:, 0]}, names, rate)

    model.save(out / "model.keras")
    again = tfp_flows.load(out / "model.keras")
    loaded = bits_a_sample(again, test[:8], test_conditions[:8])
    results["difference_of_the_file"] = np.abs(loaded - flow[:8]).max()
    results["difference_of_the_export"] = export(
        model, test[:8], test_conditions[:8], out / "export"
    )
    print(
        f"  exported to {out / 'export'}; loaded again it differs by "
        f"{results['difference_of_the_export']:.1e} bits a sample"
    )
    (out / "results.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
    shutil.rmtree(out / "backup", ignore_errors=True)  # Last: until here it could be gone on with.
    print(f"sound: {out}/sample_*.wav, picture: {picture}")
    if args.result:
        text = "made-up vowels" if args.data is None else pathlib.Path(args.data).stem
        one = record.cell(
            "sound",
            f"{text}: WaveNet with its label, {args.density}, {steps:,} steps",
            flow.mean(),
            standard_error=flow.std() / math.sqrt(len(flow)),
            budget={"minutes": args.minutes, "epochs": args.epochs, "steps": steps},
            seed=args.seed,
            minutes=seconds / 60.0,
            note=f"AR(16) with a running variance: {linear.mean():.3f}; gain, window by window: "
            f"{results['gain']:.3f} +- {results['gain_standard_error']:.3f}",
        )
        record.write(args.result, [one])


def parse(arguments=None):
    """Reads and checks the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", help="a .npz file of recordings, see above. Default: made-up vowels")
    add("--out", help="the run's folder. Default: runs/audio_DATA")
    add("--minutes", type=float, help="of training: 3, unless --epochs is given")
    add("--epochs", type=int, help=f"of {STEPS_PER_EPOCH} steps; what ends first")
    add("--density", choices=("mixture", "flow"), default="mixture", help="default: %(default)s")
    add("--steps", type=int, default=1024, help="samples in a window: %(default)s")
    add("--clip", type=int, default=4096, help="samples in what is said: %(default)s")
    add("--takes", type=int, default=4, help="clips of each label: %(default)s")
    add("--filters", type=int, default=32, help="width of the WaveNet: %(default)s")
    add("--layers", type=int, default=10, help="dilations 1, 2, 4, ...: %(default)s")
    add("--batch-size", type=int, default=16, help="default: %(default)s")
    add("--learning-rate", type=float, default=3e-3, help="its peak: %(default)s")
    add("--seed", type=int, default=0, help="default: %(default)s")
    add("--restart", action="store_true", help="drop what --out holds, start afresh")
    add("--quiet", action="store_true", help="a line an epoch, no bar")
    record.add_argument(parser)
    args = parser.parse_args(arguments)
    names = "minutes", "epochs", "steps", "clip", "takes", "filters", "layers", "batch_size"
    require_positive(parser, args, names)
    if min(args.steps, args.clip) <= 2 ** (args.layers - 1):
        parser.error(
            f"--steps and --clip must be more than {2 ** (args.layers - 1)}, what the last of "
            f"{args.layers} layers looks back, got {args.steps} and {args.clip}"
        )
    if args.out is None:
        args.out = f"runs/audio_{'vowels' if args.data is None else pathlib.Path(args.data).stem}"
    return args


def main(arguments=None):
    """Runs it all, or says what is wrong."""
    run_or_say(run, parse(arguments))


if __name__ == "__main__":
    main()
