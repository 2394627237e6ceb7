"""Fits MAF and RealNVP to a table: densities, samples, unusual rows, missing values.

    python examples/tabular.py                              # scikit-learn's breast cancer table
    python examples/tabular.py --data my_table.csv          # numeric columns, with a header
    python examples/tabular.py --data my.npz --key x --epochs 50 --out runs/mine

Ends with the test log-likelihood of both flows beside a full-covariance Gaussian, a corner plot of
data and samples (`corner.png`), the test rows ranked by how unusual they are (`unusual.csv`), and
missing values: three entries of test rows are hidden and drawn given the others, by Hamiltonian
Monte Carlo on the flow's density. Rows of your own table with missing values (empty, NaN, text) are
kept out of training, filled in with the medians of their draws, and written to `filled.csv`. Rows
are counted from 0, the header apart.

Log-likelihoods are in nats a row, in the units of the table. Discrete columns (counts, codes,
many equal values) have no density: a flow can put as much of it on them as it likes. The script
says which columns look discrete, and spreads them by uniform noise of the width of their steps.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, plots, preprocessing

tfd = tfp.distributions


def load(path, key):
    """Returns the table `[n, D]`, float64 with NaN for missing, and the names of its columns."""
    if path is not None and not path.exists():
        raise SystemExit(f"{path}: no such file")
    if path is None:
        from sklearn.datasets import load_breast_cancer

        bundle = load_breast_cancer()
        return bundle.data, list(bundle.feature_names)
    if path.suffix == ".npz":
        with np.load(path) as file:
            if key is None and len(file.files) != 1:
                raise SystemExit(f"{path} holds {file.files}: say which by --key")
            if key is not None and key not in file:
                raise SystemExit(f"{path} holds {file.files}, no '{key}'")
            table = np.asarray(file[key or file.files[0]], np.float64)
        if table.ndim != 2:
            raise SystemExit(f"{path}: expected a table [rows, columns], got {list(table.shape)}")
        return table, [f"column {n}" for n in range(table.shape[1])]
    with open(path) as file:
        names = [name.strip() for name in file.readline().split(",")]
    try:
        table = np.genfromtxt(path, delimiter=",", skip_header=1)
    except ValueError as error:
        raise SystemExit(f"{path}: {error}") from None
    if table.ndim != 2 or table.shape[1] != len(names):
        raise SystemExit(
            f"{path}: expected a header and rows of {len(names)} comma-separated numbers"
        )
    text = [n for n, column in zip(names, table.T, strict=True) if np.isnan(column).all()]
    if text:
        raise SystemExit(
            f"{path}: no numbers in the columns {text}. Leave them out or encode them."
        )
    return table, names


def spread_discrete(table, names, rng):
    """Adds uniform noise to columns of few values, of the width of their steps.

    Returns the table, and the values of each such column under its number.
    """
    table, found = table.copy(), {}
    for n in range(len(names)):
        values = np.unique(table[:, n][~np.isnan(table[:, n])])
        if len(values) < 0.05 * len(table):
            step = np.diff(values).min() if len(values) > 1 else 1.0
            table[:, n] += step * rng.random(len(table))
            found[n] = values
    if found:
        shown = ", ".join(names[n] for n in found)
        print(f"columns that look discrete, spread by noise: {shown}")
    return table, found


def split(numbers, rng):
    """Returns the numbers of training, held-out (for early stopping) and test rows."""
    numbers = rng.permutation(numbers)
    test, held_out = len(numbers) // 5, len(numbers) // 10
    return numbers[test + held_out :], numbers[test : test + held_out], numbers[:test]


def train(flow, parts, standardize, args):
    """Fits a flow, stopping early, and returns its model over the table's own units."""
    model = FlowModel(
        tfd.TransformedDistribution(flow, standardize, name=f"{flow.name}_of_the_table"),
    )
    model.compile(optimizer=keras.optimizers.AdamW(args.learning_rate, weight_decay=0.01))
    rows, held_out, _ = parts
    stop = keras.callbacks.EarlyStopping(patience=args.patience, restore_best_weights=True)
    history = model.fit(
        rows,
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(held_out,),
        callbacks=[stop],
        verbose=0,
    ).history
    print(f"  {flow.name}: {len(history['loss'])} epochs, best {-min(history['val_loss']):.2f}")
    return model


def gaussian(rows):
    """A full-covariance Gaussian; a little of its diagonal keeps it regular."""
    covariance = np.cov(rows.astype(np.float64), rowvar=False)
    covariance += 1e-6 * np.diag(np.diag(covariance))
    mean = rows.mean(0, dtype=np.float64)
    return tfd.MultivariateNormalTriL(mean, np.linalg.cholesky(covariance))


def rank_unusual(model, rows, numbers, names, normal, path, count=5):
    """Ranks rows by their density, and prints what is odd about the first given their others."""
    scores = model.log_prob(rows).numpy()
    ranking = np.argsort(scores)
    lines = [f"{numbers[row]},{scores[row]:.3f}\n" for row in ranking]
    path.write_text("row,nats\n" + "".join(lines))
    # Of a normal, (P (x - mean))_i / sqrt(P_ii) with P the inverse covariance is how far entry i
    # is from what the others let expect, in standard deviations that are left to it.
    precision = np.linalg.inv(normal.covariance().numpy())
    far = (rows - normal.mean().numpy()) @ precision / np.sqrt(np.diag(precision))
    print(
        f"\nthe most unusual of {len(rows)} test rows (median {np.median(scores):.1f} nats), and "
        "what is odd about them:\nthe distance from what the other columns let a Gaussian expect, "
        "in standard deviations"
    )
    for row in ranking[:count]:
        odd = np.argsort(-np.abs(far[row]))[:3]
        what = ", ".join(f"{names[n]} {far[row, n]:+.1f}" for n in odd)
        print(f"  row {numbers[row]:5d}  {scores[row]:9.1f} nats   {what}")


def draw_missing(flow, rows, missing, *, chains, steps, seed):
    """Draws the missing entries of standardised rows given the others, by HMC.

    Args:
      flow: distribution over standardised rows.
      rows: `[n, D]`; what stands at missing entries does not matter.
      missing: Boolean `[n, D]`.
      chains: chains a row.
      steps: kept steps, after as many of warm-up.
      seed: `int`.

    Returns:
      `[draws, n, D]`.
    """
    observed = tf.constant(np.where(missing, 0.0, rows)[:, None], tf.float32)
    missing = tf.constant(missing[:, None])
    zeros = tf.zeros([], tf.float32)

    def target(state):
        # Entries that are not missing get a normal of their own, and are ignored.
        filled = tf.where(missing, state, observed)
        idle = -0.5 * tf.reduce_sum(tf.where(missing, zeros, state) ** 2, axis=-1)
        return flow.log_prob(filled) + idle

    @tf.function
    def run():
        start = 0.1 * tf.random.stateless_normal([len(rows), chains, rows.shape[1]], [seed, 0])
        kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
            tfp.mcmc.HamiltonianMonteCarlo(
                target,
                # A step for each chain: rows differ in how tightly the others fix an entry.
                step_size=tf.fill([len(rows), chains, 1], 0.05),
                num_leapfrog_steps=5,
            ),
            num_adaptation_steps=int(0.8 * steps),
            target_accept_prob=0.75,
        )
        return tfp.mcmc.sample_chain(
            steps // 5,
            start,
            kernel=kernel,
            num_burnin_steps=steps,
            num_steps_between_results=4,
            trace_fn=None,
            seed=tf.constant([seed, 1]),
        )

    draws = tf.where(missing, run(), observed).numpy()  # [steps / 5, n, chains, D]
    return np.moveaxis(draws, 2, 1).reshape(-1, *rows.shape)


def check_filling(flow, rows, args, rng):
    """Hides entries, draws them again, and returns errors in standard deviations."""
    missing = np.stack([rng.permuted(np.arange(rows.shape[1]) < 3) for _ in rows])
    draws = draw_missing(flow, rows, missing, chains=2, steps=args.steps, seed=args.seed)
    truth, drawn = rows[missing], draws[:, missing]
    low, high = np.quantile(drawn, [0.1, 0.9], axis=0)
    return {
        "mean error of the draws' median": float(np.abs(np.median(drawn, 0) - truth).mean()),
        "mean error of the column's mean": float(np.abs(truth).mean()),
        "share within 10% to 90% of the draws": float(((low < truth) & (truth < high)).mean()),
    }


def main():
    """Trains, measures, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, help=".csv or .npz; default: breast cancer")
    parser.add_argument("--key", help="name of the array in an .npz file")
    parser.add_argument("--epochs", type=int, default=150, help="at most: %(default)s")
    parser.add_argument("--patience", type=int, default=20, help="epochs: %(default)s")
    parser.add_argument("--batch-size", type=int, default=64, help="default: %(default)s")
    parser.add_argument("--hidden", type=int, default=64, help="units a layer: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=300, help="HMC steps: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/tabular", help="folder: %(default)s"
    )
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    table, names = load(args.data, args.key)
    original = table
    table, discrete = spread_discrete(table, names, rng)
    incomplete = np.isnan(table).any(axis=1)
    if table.shape[1] < 2 or (~incomplete).sum() < 50:
        raise SystemExit(
            f"expected 2 or more columns and 50 or more rows without missing values, got "
            f"{table.shape[1]} columns and {(~incomplete).sum()} such rows"
        )
    numbers = split(np.flatnonzero(~incomplete), rng)
    parts = [table[part].astype(np.float32) for part in numbers]
    rows, held_out, test = parts
    size = table.shape[1]
    print(
        f"{len(table)} rows of {size} columns: {len(rows)} to train, {len(held_out)} held out to "
        f"stop early, {len(test)} to test, {incomplete.sum()} with missing values"
    )
    standardize = preprocessing.Standardize.fit(rows)
    # tanh: beyond the training rows the networks flatten out, where ReLU's go on growing, and a
    # few odd rows would rule the mean log-likelihood.
    network = {"hidden_units": (args.hidden,) * 2, "activation": "tanh", "seed": args.seed}
    maf = flows.maf([size], num_layers=5, **network)
    real_nvp = flows.real_nvp([size], num_couplings=8, mask="alternating", **network)
    models = {"MAF": train(maf, parts, standardize, args)}
    models["RealNVP"] = train(real_nvp, parts, standardize, args)

    normal = gaussian(rows)
    results = {"full-covariance Gaussian": float(np.mean(normal.log_prob(test.astype(np.float64))))}
    for name, model in models.items():
        results[name] = float(np.mean(model.log_prob(test)))
    print("\ntest log-likelihood                      nats a row")
    for name, value in results.items():
        print(f"  {name:<38}{value:12.2f}")

    samples = models["MAF"].sample(max(len(rows), 200), seed=args.seed).numpy()
    corner = args.out / "corner.png"
    figure = plots.pairs(
        rows,
        samples,
        names=("data", "samples of the MAF"),
        columns=range(min(5, size)),
        labels=names[:5],
    )
    figure.savefig(corner, dpi=110)
    ranking = args.out / "unusual.csv"
    rank_unusual(models["MAF"], test, numbers[2], names, normal, ranking)

    standardised = standardize.inverse(test[:60]).numpy()
    filling = check_filling(maf, standardised, args, rng)
    print(
        f"\n{min(3, size)} of {size} entries hidden in each of {len(standardised)} test rows, "
        "errors in standard deviations of their columns"
    )
    for name, value in filling.items():
        print(
            f"  {name:<38}{value:12.2f}{'' if 'error' in name else '   (of a true density: 0.80)'}"
        )
    if incomplete.any():
        z = standardize.inverse(table[incomplete].astype(np.float32)).numpy()
        draws = draw_missing(maf, z, np.isnan(z), chains=2, steps=args.steps, seed=args.seed)
        filled = standardize.forward(np.median(draws, axis=0).astype(np.float32)).numpy()
        for n, values in discrete.items():  # Back from the noise to the values.
            place = np.searchsorted(values, filled[:, n], side="right") - 1
            filled[:, n] = values[np.clip(place, 0, len(values) - 1)]
        known = original[incomplete]
        filled = np.where(np.isnan(known), filled, known)
        path = args.out / "filled.csv"
        np.savetxt(path, filled, delimiter=",", header=",".join(names), comments="")
        print(f"{incomplete.sum()} rows filled in with the medians of their draws: {path}")
    results.update(filling)
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\npicture: {corner}\nranking: {ranking}\ndone in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
