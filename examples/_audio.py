"""What `audio.py` needs besides the flow: recordings, the baseline, pictures and sound files."""

import pathlib
import wave
import zipfile

import matplotlib
import numpy as np
from _command import InputError

matplotlib.use("Agg")
import matplotlib.pyplot as plt

KEYS = ("audio", "lengths", "digit")
# Formants of ten American vowels, Hz, means over men: G. Peterson, H. Barney, Control methods used
# in a study of the vowels, 1952.
VOWELS = {
    "heed": (270, 2290),
    "hid": (390, 1990),
    "head": (530, 1840),
    "had": (660, 1720),
    "hod": (730, 1090),
    "hawed": (570, 840),
    "hood": (440, 1020),
    "whod": (300, 870),
    "hud": (640, 1190),
    "heard": (490, 1350),
}


# --- Recordings. ---


def load(path):
    """Loads recordings, or makes vowels if there is no path.

    Args:
      path: `.npz` file with `audio` (int16, all recordings end to end), `lengths`, `digit` (the
        label of each, from 0) and, if it has them, `index` (of several of a speaker and a label;
        0 to 4 are held out) and `rate` (8,000 if it is missing); or `None`.

    Returns:
      Recordings, a list of int16 arrays; labels; which are held out; names of the labels; and
      samples a second.

    Raises:
      InputError: if the file cannot be read, or holds something else.
    """
    if path is None:
        return vowels()
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {k: file[k] for k in (*KEYS, "index", "rate") if k in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"--data {path}: cannot be read as a .npz file ({error}).") from error
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise InputError(f"--data {path}: expected arrays {', '.join(KEYS)}; missing: {missing}.")
    audio, lengths, labels = (arrays[key] for key in KEYS)
    if audio.dtype != np.int16 or audio.ndim != 1:
        raise InputError(
            f"--data {path}: audio must be one row of int16, got {audio.dtype} {audio.shape}."
        )
    if lengths.sum() != len(audio) or labels.shape != lengths.shape or (lengths < 1).any():
        raise InputError(
            f"--data {path}: lengths must cut audio to its end, with a label for each: got "
            f"{len(lengths)} lengths of {lengths.sum()} samples in all, {len(labels)} labels and "
            f"{len(audio)} samples."
        )
    index = arrays.get("index", np.arange(len(labels)) % 10 + 4)
    cuts = np.split(audio, np.cumsum(lengths)[:-1])
    names = [str(label) for label in range(int(labels.max()) + 1)]
    return cuts, labels.astype(int), index < 5, names, int(arrays.get("rate", 8000))


def vowels(number=400, rate=8000, seed=0):
    """Vowels that nobody said: harmonics of a gliding pitch, shaped by two formants, and noise."""
    rng = np.random.default_rng(seed)
    cuts, labels = [], np.arange(number) % len(VOWELS)
    for first, second in np.array(list(VOWELS.values()))[labels]:
        time = np.arange(int(rate * rng.uniform(0.3, 0.6))) / rate
        length = time[-1]
        pitch = rng.uniform(90.0, 220.0) * (1.0 - rng.uniform(0.0, 0.2) * time / length)
        phase = 2.0 * np.pi * np.cumsum(pitch) / rate
        size = rng.uniform(0.9, 1.15)  # A shorter throat sounds higher.
        sound = np.zeros_like(time)
        for harmonic in range(1, int(0.45 * rate / pitch.max())):
            frequency = harmonic * pitch
            gain = sum(
                strength / (1.0 + ((frequency - size * formant) / width) ** 2)
                for formant, width, strength in ((first, 60.0, 1.0), (second, 90.0, 0.5))
            )
            sound += (gain + 0.01) / harmonic**0.3 * np.sin(harmonic * phase)
        sound *= np.minimum(1.0, np.minimum(time, length - time) / 0.04)
        sound *= 10.0 ** rng.uniform(2.8, 3.7) / sound.std()
        sound += rng.normal(size=len(time), scale=rng.uniform(5.0, 30.0))
        cuts.append(np.clip(np.round(sound), -32768, 32767).astype(np.int16))
    return cuts, labels, np.arange(number) % 50 < len(VOWELS), list(VOWELS), rate


def windows(cuts, labels, chosen, steps, hop):
    """Cuts the chosen recordings into windows.

    Returns:
      int16 `[n, steps]`, and `[n, 2]`: the label and the first sample's place in the recording.
    """
    rows, conditions = [], []
    for number in np.flatnonzero(chosen):
        for first in range(0, len(cuts[number]) - steps + 1, hop):
            rows.append(cuts[number][first : first + steps])
            conditions.append((labels[number], first))
    if not rows:
        longest = max((len(cuts[n]) for n in np.flatnonzero(chosen)), default=0)
        raise InputError(
            f"--steps {steps}: no recording is as long; of {int(np.sum(chosen))} the longest has "
            f"{longest} samples."
        )
    return np.stack(rows), np.array(conditions, np.float32)


# --- The baseline. ---


def linear_prediction_bits(train, test, order=16, rounds=3):
    """Bits a sample of test windows by linear prediction with a running variance.

        x_t ~ N(sum_k a_k x_{t-k}, v_t),     v_t = b v_{t-1} + (1 - b) e_{t-1}^2 + floor

    with `e` the residuals. The coefficients are fitted to training windows by least squares
    weighted by 1 / v, in turns with the variance, whose `b`, floor and start are the best of a grid
    there. Before a window are zeros, as for the flow.

    Returns:
      `[n]`, the mean of each window.
    """
    train, test = (part.astype(np.float64) for part in (train[:: -(-len(train) // 1000)], test))
    lags = _lags(train, order)
    weight = np.ones_like(train)
    for _ in range(rounds):
        root = np.sqrt(weight)[..., np.newaxis]
        columns, target = lags * root, train[..., np.newaxis] * root
        coefficients = np.linalg.lstsq(columns.reshape(-1, order), target.reshape(-1), rcond=None)[
            0
        ]
        residuals = train - lags @ coefficients
        square = np.mean(residuals**2)
        choices = [
            (decay, floor, start * square)
            for decay in (0.7, 0.8, 0.9, 0.95)
            for floor in (1.0, 8.0, 32.0)
            for start in (0.01, 1.0)
        ]
        best = min(choices, key=lambda choice: _bits(residuals, *choice).mean())
        weight = 1.0 / _variance(residuals, *best)
    return _bits(test - _lags(test, order) @ coefficients, *best).mean(axis=1)


def _lags(x, order):
    padded = np.pad(x, [(0, 0), (order, 0)])
    return np.stack([padded[:, order - k : -k] for k in range(1, order + 1)], axis=-1)


def _variance(residuals, decay, floor, start):
    running, found = np.full(len(residuals), start), []
    for column in residuals.T:
        found.append(running)
        running = decay * running + (1.0 - decay) * column**2
    return np.stack(found, axis=1) + floor


def _bits(residuals, *choice):
    variance = _variance(residuals, *choice)
    return 0.5 * (np.log(2.0 * np.pi * variance) + residuals**2 / variance) / np.log(2.0)


# --- What one sees and hears. ---


def save_wav(path, clips, rate):
    """Writes int16 clips, one after another, as a sound file."""
    pause = np.zeros(rate // 8, np.int16)
    clip = np.concatenate([part for clip in clips for part in (clip, pause)])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(clip, "<i2").tobytes())


def save_spectrograms(path, rows, names, rate):
    """Writes spectrograms, a column for each label.

    Args:
      path: file to write.
      rows: title -> clips, int16 `[labels, T]`.
      names: of the labels.
      rate: samples a second.
    """
    figure, axes = plt.subplots(
        len(rows), len(names), figsize=(2.0 * len(names), 2.4 * len(rows)), squeeze=False
    )
    for axis, name in zip(axes[0], names, strict=True):
        axis.set_title(name)
    for line, (title, clips) in zip(axes, rows.items(), strict=True):
        for axis, clip in zip(line, clips, strict=True):
            # A hiss below one step of the samples: the logarithm of silence is no colour.
            hiss = np.random.default_rng(0).normal(size=len(clip), scale=0.3)
            axis.specgram(
                clip + hiss, NFFT=128, noverlap=112, Fs=rate, cmap="magma", vmin=-30.0, vmax=50.0
            )
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"{title}\n0 to {rate / 2000:g} kHz")
    for axis, clip in zip(axes[-1], clips, strict=True):
        axis.set_xlabel(f"{len(clip) / rate:.2f} s")
    figure.tight_layout()
    figure.savefig(pathlib.Path(path), dpi=90)
    plt.close(figure)
