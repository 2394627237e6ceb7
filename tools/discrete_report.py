"""Trains MADE with its outputs: bits as they are, and real numbers by normals and by mixtures.

    python tools/discrete_report.py --uci DATA/made_uci.npz --miniboone DATA/miniboone.npz

Of the binary UCI sets of MADE's paper: one hidden layer of 500 units, ReLU, Adam at 1e-3, batches
of 100, until 15 epochs bring nothing on the validation rows, whose best weights are tested. Prints
the mean log-probability of the test rows in nats with its standard error, beside the best of the
paper (M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE, 2015, arXiv:1502.03509), which chose
among many networks and mask counts.

Of MINIBOONE, whose published training split is not at hand, `val` is trained on (a tenth of it held
out) and `test` tested: figures compare with each other alone.

Two minutes in all on two cores.
"""

import argparse
import time

import keras
import numpy as np

from tfp_flows import FlowModel, flows

PUBLISHED = {"mushrooms": -9.68, "nips": -280.25, "dna": -83.63}
REAL = {"normal": {}, "gaussian_mixture": {"num_components": 10}}


class Deadline(keras.callbacks.Callback):
    """Ends a training after some minutes."""

    def __init__(self, minutes):
        super().__init__()
        self.end = time.perf_counter() + 60.0 * minutes

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the clock."""
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def report(name, density, train, valid, test, minutes, note=""):
    """Trains one density, tests it, and prints a line."""
    start = time.perf_counter()
    model = FlowModel(density)
    model.compile(keras.optimizers.Adam(1e-3))
    best = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
    history = model.fit(
        train,
        batch_size=100,
        epochs=1000,
        validation_data=(valid,),
        callbacks=[best, Deadline(minutes)],
        verbose=0,
    )
    scores = model.log_prob(test).numpy()
    error = scores.std() / np.sqrt(len(scores))
    seconds = time.perf_counter() - start
    print(
        f"{name}: {scores.mean():.2f} +- {error:.2f} nats after {len(history.epoch)} epochs, "
        f"{seconds:.0f} s{note}",
        flush=True,
    )


def main():
    """Trains and tests on each set in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uci", help="made_uci.npz")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--miniboone", help="miniboone.npz")
    parser.add_argument("--minutes", type=float, default=5.0, help="at most, a training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    seed, minutes = arguments.seed, arguments.minutes
    if arguments.uci:
        with np.load(arguments.uci) as file:
            for name in arguments.sets:
                rows = [file[f"{name}_{part}_data"] for part in ("train", "valid", "test")]
                keras.utils.set_random_seed(seed)
                density = flows.made([rows[0].shape[1]], hidden_units=(500,), seed=seed)
                report(name, density, *rows, minutes, f"; published {PUBLISHED[name]}")
    if arguments.miniboone:
        with np.load(arguments.miniboone) as file:
            rows = np.random.default_rng(0).permutation(file["val"])
            rows = [rows[len(rows) // 10 :], rows[: len(rows) // 10], file["test"]]
        for output, kwargs in REAL.items():
            keras.utils.set_random_seed(seed)
            density = flows.made([43], output=output, hidden_units=(200,), seed=seed, **kwargs)
            report(f"miniboone, {output}", density, *rows, minutes)


if __name__ == "__main__":
    main()
