"""Trains MADE with its outputs: bits as they are, and real numbers by normals and by mixtures.

    python tools/discrete_report.py --uci DATA/made_uci.npz --miniboone DATA/miniboone.npz
    python tools/discrete_report.py --uci DATA/made_uci.npz --sets dna --direct --weight-decay 0.1
    python tools/discrete_report.py --uci DATA/made_uci.npz --masks 32

Of the binary UCI sets of MADE's paper: one hidden layer of 500 units, ReLU, Adam at 1e-3, batches
of 100, until 15 epochs bring nothing on the validation rows, whose best weights are tested. Prints
the mean log-probability of the test rows in nats with its standard error, beside the best of the
paper (M. Germain, K. Gregor, I. Murray, H. Larochelle, MADE, 2015, arXiv:1502.03509), which chose
among many networks. Like some of its networks, `--direct` adds connections from the inputs to the
outputs; `--masks` trains under as many orders and sets of masks, drawn at random, and tests their
mixture, as its mask sampling does.

Of MINIBOONE, whose published training split is not at hand, `val` is trained on (a tenth of it held
out) and `test` tested: figures compare with each other alone.

Two minutes in all on two cores.
"""

import argparse
import time

import keras
import numpy as np
from results import record

from tfp_flows import FlowModel, conditioners, flows
from tfp_flows.distributions import AutoregressiveDistribution

# With one set of masks, and with many.
PUBLISHED = {"mushrooms": (-9.68, -9.69), "nips": (-280.25, -277.28), "dna": (-83.63, -79.66)}
REAL = {"normal": {}, "gaussian_mixture": {"num_components": 10}}


@keras.saving.register_keras_serializable(package="tools")
class Direct(keras.layers.Layer):
    """MADE, and connections from every input to the outputs of those after it."""

    def __init__(self, size, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.size, self.seed = size, seed
        self._parts = [
            conditioners.MADE(size, 1, hidden_units=hidden, seed=seed) for hidden in ((500,), ())
        ]

    def get_config(self):
        """Returns the constructor's arguments."""
        return {**super().get_config(), "size": self.size, "seed": self.seed}

    def build(self, input_shape):
        """Makes the weights."""
        for part in self._parts:
            part.build(input_shape)

    def call(self, x):
        """The logit of every entry."""
        return self._parts[0](x) + self._parts[1](x)


class Deadline(keras.callbacks.Callback):
    """Ends a training after some minutes."""

    def __init__(self, minutes):
        super().__init__()
        self.end = time.perf_counter() + 60.0 * minutes

    def on_epoch_end(self, epoch, logs=None):
        """Looks at the clock."""
        if time.perf_counter() > self.end:
            self.model.stop_training = True


def report(name, density, train, valid, test, arguments):
    """Trains one density, tests it, prints a line, and returns its figures."""
    start = time.perf_counter()
    model = FlowModel(density)
    model.compile(
        keras.optimizers.AdamW(arguments.rate, weight_decay=arguments.weight_decay)
        if arguments.weight_decay
        else keras.optimizers.Adam(arguments.rate)
    )
    best = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
    history = model.fit(
        train,
        batch_size=100,
        epochs=1000,
        validation_data=(valid,),
        callbacks=[best, Deadline(arguments.minutes)],
        verbose=0,
    )
    scores = np.concatenate([model.log_prob(test[n : n + 500]) for n in range(0, len(test), 500)])
    error = scores.std() / np.sqrt(len(scores))
    minutes = (time.perf_counter() - start) / 60.0
    epochs, held_out = len(history.epoch), -min(history.history["val_loss"])
    text = f"{epochs} epochs; {held_out:.2f} nats on the validation rows"
    print(f"{name}: {scores.mean():.2f} +- {error:.2f} nats after {text}", flush=True)
    return {
        "ours": scores.mean(),
        "standard_error": error,
        "seed": arguments.seed,
        "budget": {"minutes": arguments.minutes},
        "minutes": minutes,
        "note": text,
    }


def made(size, arguments):
    """The density of one of the binary sets."""
    seed = arguments.seed
    if arguments.direct:
        return AutoregressiveDistribution(Direct(size, seed=seed), [size], name="made")
    many = {"order": "random", "degrees": "random", "num_masks": arguments.masks}
    return flows.made(
        [size], hidden_units=(500,), seed=seed, **(many if arguments.masks > 1 else {})
    )


def as_cell(name, found, arguments):
    """The figure of a binary set as a cell of the book of results."""
    text = {True: ", direct connections", False: ""}[arguments.direct]
    if arguments.masks > 1:
        text = f", mixture of {arguments.masks} orders and masks"
    if arguments.weight_decay:
        text += f", weight decay {arguments.weight_decay:g}"
    return record.cell(
        "binary_uci",
        f"{name}: MADE, 500 units{text}",
        published=record.source(
            PUBLISHED[name][arguments.masks > 1],
            "M. Germain, K. Gregor, I. Murray, H. Larochelle",
            "MADE: Masked Autoencoder for Distribution Estimation",
            2015,
            "1502.03509",
            "table of binary UCI sets, MADE" + " mask sampling" * (arguments.masks > 1),
        ),
        at_hand=True,
        **found,
    )


def main():
    """Trains and tests on each set in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--uci", help="made_uci.npz")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--miniboone", help="miniboone.npz")
    parser.add_argument("--minutes", type=float, default=5.0, help="at most, a training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam: %(default)s")
    parser.add_argument("--weight-decay", type=float, default=0.0, help="of AdamW: %(default)s")
    parser.add_argument("--direct", action="store_true", help="connect inputs to outputs")
    parser.add_argument("--masks", type=int, default=1, help="orders and masks: %(default)s")
    record.add_argument(parser)
    arguments = parser.parse_args()
    if arguments.direct and arguments.masks > 1:
        parser.error("--direct and --masks exclude each other")
    seed, cells = arguments.seed, []
    if arguments.uci:
        with np.load(arguments.uci) as file:
            for name in arguments.sets:
                rows = [file[f"{name}_{part}_data"] for part in ("train", "valid", "test")]
                keras.utils.set_random_seed(seed)
                found = report(name, made(rows[0].shape[1], arguments), *rows, arguments)
                cells.append(as_cell(name, found, arguments))
                one, many = PUBLISHED[name]
                print(f"  published {one}, of many masks {many}", flush=True)
    if arguments.miniboone:
        with np.load(arguments.miniboone) as file:
            rows = np.random.default_rng(0).permutation(file["val"])
            rows = [rows[len(rows) // 10 :], rows[: len(rows) // 10], file["test"]]
        for output, kwargs in REAL.items():
            keras.utils.set_random_seed(seed)
            density = flows.made([43], output=output, hidden_units=(200,), seed=seed, **kwargs)
            found = report(f"miniboone, {output}", density, *rows, arguments)
            cells.append(record.cell("tabular", f"MINIBOONE: MADE, {output}, 200 units", **found))
    if arguments.result:
        record.write(arguments.result, cells)


if __name__ == "__main__":
    main()
