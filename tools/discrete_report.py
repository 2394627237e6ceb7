"""Trains MADE on the three binary UCI sets of its paper, integers as they are.

    python tools/discrete_report.py --data DATA/made_uci.npz [--sets mushrooms dna nips]

One hidden layer of 500 units, ReLU, Adam at 1e-3, batches of 100, until 15 epochs bring nothing on
the validation rows, whose best weights are tested. Prints the mean log-probability of the test rows
in nats with its standard error, beside the best of the paper (M. Germain, K. Gregor, I. Murray, H.
Larochelle, MADE, 2015, arXiv:1502.03509), which chose among many networks and mask counts.
Mushrooms take a minute on two cores, the others less.
"""

import argparse
import time

import keras
import numpy as np

from tfp_flows import FlowModel, flows

PUBLISHED = {"mushrooms": -9.68, "nips": -280.25, "dna": -83.63}


def main():
    """Trains and tests on each set in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="made_uci.npz")
    parser.add_argument("--sets", nargs="+", default=list(PUBLISHED), choices=PUBLISHED)
    parser.add_argument("--minutes", type=float, default=5.0, help="at most, a set")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with np.load(arguments.data) as file:
        parts = {
            name: [file[f"{name}_{part}_data"] for part in ("train", "valid", "test")]
            for name in arguments.sets
        }
    for name, (train, valid, test) in parts.items():
        keras.utils.set_random_seed(arguments.seed)
        model = FlowModel(flows.made([train.shape[1]], hidden_units=(500,), seed=arguments.seed))
        model.compile(keras.optimizers.Adam(1e-3))
        start = time.perf_counter()
        stop = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
        late = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs, start=start, model=model: setattr(
                model,
                "stop_training",
                model.stop_training or time.perf_counter() - start > 60.0 * arguments.minutes,
            )
        )
        history = model.fit(
            train,
            batch_size=100,
            epochs=1000,
            validation_data=(valid,),
            callbacks=[stop, late],
            verbose=0,
        )
        scores = model.log_prob(test).numpy()
        error = scores.std() / np.sqrt(len(scores))
        print(
            f"{name}: {scores.mean():.2f} +- {error:.2f} nats after {len(history.epoch)} epochs, "
            f"{time.perf_counter() - start:.0f} s; published {PUBLISHED[name]}",
            flush=True,
        )


if __name__ == "__main__":
    main()
