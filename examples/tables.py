"""A table as it is: numbers on grids, counts, levels, angles, holes; a frame in, a frame out.

    python examples/tables.py                                    # 4,000 made-up bicycle rides
    python examples/tables.py --data diamonds.csv.gz \\
        --order cut=Fair,Good,"Very Good",Premium,Ideal --order color=J,I,H,G,F,E,D \\
        --order clarity=I1,SI2,SI1,VS2,VS1,VVS2,VVS1,IF

Every fifth row is held out. On those four questions, each beside what does not need a network:

  How probable are they?                  nats a row; beside independent columns, and beside a
                                          Gaussian copula with the same marginals
  Can a classifier tell samples from them?   AUC of gradient boosting; 0.5 is perfect
  How well are holes filled?              a fifth of the entries is deleted: nats and error of each;
                                          beside column-wise and nearest-neighbour imputation
  Which rows are odd, and why?            the most surprising entries

Columns of strings are categories unless `--order` says how they are ordered. The rides have the
hour of the day as an angle and a battery that is bounded.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter1d
from scipy.stats import norm
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import nan_euclidean_distances

from tfp_flows import tables


def rides(n, rng):
    """Made-up bicycle rides: when, how far, in what weather, by whom; some entries are missing."""
    member = rng.random(n) < 0.6
    commute = member & (rng.random(n) < 0.7)
    hour = np.where(rng.random(n) < 0.5, 8.0, 17.5) + rng.normal(0.0, 0.7, n)
    hour = np.where(commute, hour, rng.normal(15.0, 4.0, n)) % 24.0
    temperature = 14.0 - 6.0 * np.cos((hour - 3.0) / 12.0 * np.pi) + rng.normal(0.0, 3.0, n)
    distance = np.exp(np.where(commute, 1.2, 1.6) + 0.3 * rng.normal(size=n))
    stops = rng.poisson(0.3 * distance)
    battery = np.clip(100.0 - 4.0 * distance - 2.0 * rng.random(n) * 10.0, 0.0, 100.0)
    grade = 2.0 - 0.08 * np.abs(temperature - 20.0) - 0.1 * stops + 0.5 * rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "rider": np.where(member, "member", "guest"),
            "hour": hour,
            "temperature": np.round(temperature, 1),
            "distance": distance,
            "stops": stops,
            "battery": np.round(battery),
            "weather": np.digitize(grade, [0.5, 1.2]),
        }
    )
    frame["weather"] = np.array(["poor", "fair", "good"])[frame["weather"]]
    for name in ("temperature", "battery"):
        frame.loc[rng.random(n) < 0.05, name] = np.nan
    kinds = {
        "hour": tables.angle(24),
        "battery": tables.bounded(0, 100, step=1),
        "weather": tables.ordinal(["poor", "fair", "good"]),
    }
    return frame, kinds


# --- What needs no network. ---


class Marginals:
    """Each column by itself: a smoothed histogram over its grid, or over its quantiles."""

    def __init__(self, schema, train, everything):
        self.edges, self.shares, self.widths = [], [], []
        for n, column in enumerate(schema.columns.values()):
            known = train[:, n][~np.isnan(train[:, n])]
            step = 1.0 if column.kind == "categorical" else column.step
            if step:  # The range of the grid is given to it, held-out rows included.
                low, high = np.nanmin(everything[:, n]), np.nanmax(everything[:, n])
                edges = low + step * (np.arange(round((high - low) / step) + 2) - 0.5)
            else:
                edges = np.quantile(known, np.linspace(0.0, 1.0, min(200, len(known) // 20)))
                edges = np.unique(edges)
                edges[0], edges[-1] = np.nanmin(everything[:, n]), np.nanmax(everything[:, n])
                edges[-1] += 1e-9 * abs(edges[-1])
            self.edges.append(edges)
            self.shares.append(_smoothed(known, edges, grid=bool(step)))
            self.widths.append(np.ones(len(edges) - 1) if step else np.diff(edges))
        self._sums = [np.append(0.0, np.cumsum(shares)) for shares in self.shares]

    def cells(self, x, n):
        """Number of the cell of each value of column n; of missing ones 0."""
        number = np.searchsorted(self.edges[n], x[:, n], side="right") - 1
        return np.clip(number, 0, len(self.shares[n]) - 1)

    def log_prob(self, x):
        """Log-probability or -density of each entry, 0 where it is missing."""
        each = [
            np.log(shares / widths)[self.cells(x, n)]
            for n, (shares, widths) in enumerate(zip(self.shares, self.widths, strict=True))
        ]
        return np.where(np.isnan(x), 0.0, np.stack(each, axis=1))

    def to_normal(self, x, rng):
        """Each entry as a standard normal one, at random within its cell."""
        z = []
        for n, shares in enumerate(self.shares):
            cell = self.cells(x, n)
            u = self._sums[n][cell] + rng.random(len(x)) * shares[cell]
            z.append(norm.ppf(np.clip(u, 1e-12, 1.0 - 1e-12)))
        return np.where(np.isnan(x), np.nan, np.stack(z, axis=1))

    def from_normal(self, z):
        """The middles of the cells of standard normal entries."""
        found = []
        for n, (edges, sums) in enumerate(zip(self.edges, self._sums, strict=True)):
            cell = np.searchsorted(sums, norm.cdf(z[:, n]), side="right") - 1
            cell = np.clip(cell, 0, len(edges) - 2)
            # Rounded as the table's own are: a classifier would see the last digit.
            found.append(np.round(0.5 * (edges[cell] + edges[cell + 1]), 9))
        return np.stack(found, axis=1)


def _smoothed(known, edges, grid):
    """Shares of the cells, smoothed as suits a held-out tenth best."""
    last = np.arange(len(known)) % 10 == 9
    count = len(edges) - 1

    def blended(values, width, weight):
        shares = np.histogram(values, edges)[0] / len(values)
        shares = (1.0 - weight) * shares + weight * gaussian_filter1d(shares, width, mode="reflect")
        return (1.0 - 1e-4) * shares / shares.sum() + 1e-4 / count

    found = np.clip(np.searchsorted(edges, known[last], side="right") - 1, 0, count - 1)
    choices = [
        (width, weight)
        for width in ((1, 3, 10, 30, 100) if grid else (1,))
        for weight in (1e-3, 0.01, 0.1, 0.3, 0.6, 1.0)
        if width <= count
    ]
    best = max(choices, key=lambda c: np.log(blended(known[~last], *c)[found]).mean())
    return blended(known, *best)


class Copula:
    """A Gaussian copula over the marginals; pairs of entries that are both there count."""

    def __init__(self, marginals, train, rng):
        self._marginals = marginals
        z = pd.DataFrame(marginals.to_normal(train, rng))
        values, vectors = np.linalg.eigh(z.corr().to_numpy())
        self._root = vectors * np.sqrt(np.maximum(values, 1e-6))

    def log_prob(self, x, rng, draws=32):
        """Log-probability of complete rows, by draws within their cells."""
        covariance = self._root @ self._root.T
        precision = np.linalg.inv(covariance) - np.eye(len(covariance))
        log_det = np.linalg.slogdet(covariance)[1]
        found = []
        for _ in range(draws):
            z = self._marginals.to_normal(x, rng)
            found.append(-0.5 * (np.einsum("ni,ij,nj->n", z, precision, z) + log_det))
        most = np.max(found, axis=0)
        inside = most + np.log(np.exp(found - most).mean(axis=0))
        return inside + self._marginals.log_prob(x).sum(axis=1)

    def sample(self, n, rng):
        """Encoded rows."""
        return self._marginals.from_normal(rng.normal(size=(n, len(self._root))) @ self._root.T)


class Neighbours:
    """Imputation by the k training rows that are nearest in the entries that are there."""

    def __init__(self, schema, marginals, train, k=30, rows=10_000):
        self._marginals, self._k = marginals, k
        self._discrete = [c.kind == "categorical" for c in schema.columns.values()]
        self._train = train[:rows]
        self._scale = np.nanstd(train, axis=0)

    def __call__(self, x, hidden, bandwidth):
        """Log-probabilities and guesses of the hidden entries; 0 and NaN elsewhere."""
        shown = np.where(hidden, np.nan, x) / self._scale
        distance = nan_euclidean_distances(shown, self._train / self._scale)
        distance = np.where(np.isnan(distance), np.inf, distance)  # Nothing in common.
        near = np.argpartition(distance, self._k, axis=1)[:, : self._k]
        log_prob, guess = np.zeros_like(x), np.full_like(x, np.nan)
        alone = self._marginals.log_prob(x)
        for row, n in np.argwhere(hidden & ~np.isnan(x)):
            values = self._train[near[row], n]
            values = values[~np.isnan(values)]
            if not len(values):
                values = self._train[:, n][~np.isnan(self._train[:, n])]
            if self._discrete[n]:
                at = (values == x[row, n]).mean()
                guess[row, n] = np.bincount(values.astype(int)).argmax()
            else:  # A kernel around each of them, summed over the cell, or at the point.
                cell = self._marginals.cells(x[row : row + 1], n)[0]
                edges = self._marginals.edges[n][cell : cell + 2]
                width = bandwidth * max(values.std(), 0.02 * self._scale[n])
                at = np.diff(norm.cdf((edges[:, None] - values) / width), axis=0).mean()
                at /= self._marginals.widths[n][cell]
                guess[row, n] = np.median(values)
            log_prob[row, n] = np.log(0.95 * at + 0.05 * np.exp(alone[row, n]))
        return log_prob, guess


# --- The questions. ---


def auc(real, fake):
    """Held-out AUC of gradient boosting between real and fake encoded rows."""
    half = min(len(real), len(fake))
    x = np.round(np.concatenate([real[:half], fake[:half]]), 9)
    y = np.repeat([0, 1], half)
    order = np.random.default_rng(0).permutation(len(x))
    first, second = order[: len(x) // 2], order[len(x) // 2 :]
    classifier = HistGradientBoostingClassifier(random_state=0).fit(x[first], y[first])
    return roc_auc_score(y[second], classifier.predict_proba(x[second])[:, 1])


def errors(schema, x, guess, hidden, scale):
    """Mean absolute error of hidden numbers in deviations, and share of wrong levels."""
    unordered = np.array([c.kind == "categorical" for c in schema.columns.values()])
    hidden = hidden & ~np.isnan(x)
    off = np.abs(guess - x) / scale
    for n, column in enumerate(schema.columns.values()):
        if column.kind == "angle":
            turn = np.abs(guess[:, n] - x[:, n]) % column.period
            off[:, n] = np.minimum(turn, column.period - turn) / scale[n]
    numbers = off[:, ~unordered][hidden[:, ~unordered]].mean()
    if not unordered.any():
        return numbers, None
    wrong = (guess != x)[:, unordered][hidden[:, unordered]]
    return numbers, wrong.mean()


def typical(schema, draws):
    """Of many draws the median of numbers, and the commonest level."""
    guess = np.median(draws, axis=0)
    for n, column in enumerate(schema.columns.values()):
        if column.kind == "categorical":
            values = draws[:, :, n].astype(int)
            guess[:, n] = [np.bincount(v).argmax() for v in values.T]
    return guess


def main():
    """Trains, compares, fills in, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=pathlib.Path, help="CSV file; default: made-up rides")
    parser.add_argument(
        "--order", action="append", default=[], help="COLUMN=LEVEL,LEVEL,...: an ordinal column"
    )
    parser.add_argument("--rows", type=int, default=4000, help="of made-up ones: %(default)s")
    parser.add_argument("--epochs", type=int, default=60, help="at most: %(default)s")
    parser.add_argument("--batch-size", type=int, default=512, help="default: %(default)s")
    parser.add_argument("--width", type=int, default=192, help="of the network: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--holes", type=int, default=1000, help="rows to fill in: %(default)s at most"
    )
    parser.add_argument("--out", type=pathlib.Path, default="runs/tables", help="%(default)s")
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    if args.data is None:
        frame, kinds = rides(args.rows, rng)
    else:
        frame, kinds = pd.read_csv(args.data), {}
    for order in args.order:
        name, levels = order.split("=", 1)
        kinds[name] = tables.ordinal(levels.split(","))
    schema = tables.Schema.infer(frame, **kinds)
    held_out = np.arange(len(frame)) % 5 == 4
    train, test = frame[~held_out], frame[held_out]

    table = tables.TableFlow(schema, hidden_units=(args.width,) * 3, seed=args.seed)
    history = table.fit(train, epochs=args.epochs, batch_size=args.batch_size, verbose=0)
    print(f"\n{len(history.epoch)} epochs in {time.time() - start:.0f} s", flush=True)
    table.save(args.out / "table.keras")
    schema, x_train, x = table.schema, schema.encode(train), schema.encode(test)
    complete = ~np.isnan(x).any(axis=1)

    marginals = Marginals(schema, x_train, np.concatenate([x_train, x]))
    copula = Copula(marginals, x_train, rng)
    nats = {
        "independent columns": marginals.log_prob(x[complete]).sum(axis=1).mean(),
        "Gaussian copula": copula.log_prob(x[complete], rng).mean(),
        "table flow": table.log_prob(test[complete]).mean(),
    }
    drawn = table.sample(len(test), seed=args.seed)
    fake = schema.encode(drawn)
    told = {
        "Gaussian copula": auc(x[complete], copula.sample(len(test), rng)),
        "table flow": auc(x[complete], fake),
    }
    print("\nheld-out rows                 nats    AUC of samples")
    for name, value in nats.items():
        print(f"  {name:<22}{value:10.3f}{told.get(name, float('nan')):12.3f}")

    x = x[: args.holes]
    hidden = (rng.random(x.shape) < 0.2) & ~np.isnan(x)
    scale = np.nanstd(x_train, axis=0)
    holey = schema.decode(np.where(hidden, np.nan, x))
    draws = np.stack([schema.encode(one) for one in table.impute(holey, 50, seed=1)])
    near = Neighbours(schema, marginals, x_train)
    some = min(300, len(x_train) // 10)  # Kernels are as wide as suits these training rows best.
    holes = (rng.random([some, len(schema)]) < 0.2) & ~np.isnan(x_train[-some:])
    tuned = Neighbours(schema, marginals, x_train[:-some])
    width = max((0.3, 0.6, 1.0), key=lambda w: tuned(x_train[-some:], holes, w)[0].sum())
    log_near, guess_near = near(x, hidden, width)
    middle = typical(schema, np.nan_to_num(x_train, nan=0.0)[None].swapaxes(0, 1))[0]
    found = {
        "column-wise": (marginals.log_prob(x)[hidden].sum(), np.broadcast_to(middle, x.shape)),
        f"{near._k} nearest rows": (log_near[hidden].sum(), guess_near),
        "table flow": (
            table.log_prob(test[: args.holes], hidden=hidden).sum(),
            typical(schema, draws),
        ),
    }
    print(f"\n{hidden.mean():.0%} of the entries deleted     nats an entry   error   wrong levels")
    imputed = {}
    for name, (log_prob, guess) in found.items():
        off, wrong = errors(schema, x, guess, hidden, scale)
        imputed[name] = {"nats": log_prob / hidden.sum(), "error": off, "wrong_levels": wrong}
        shown = "" if wrong is None else f"{wrong:12.1%}"
        print(f"  {name:<22}{log_prob / hidden.sum():16.3f}{off:14.3f}{shown}")

    odd = table.rank(test[:2000])
    print("\nthe most surprising entries:")
    for _, entry in odd.head(5).iterrows():
        row = test.iloc[entry["row"]]
        print(f"  {entry['surprise']:6.1f} nats: {entry['column']} = {row[entry['column']]} in")
        print(f"     {row.to_dict()}")
    title = "held-out rows below the diagonal, samples above"
    names = ("held-out rows", "samples")
    figure = table.pairs(test, drawn, columns=schema.names[-6:], names=names, title=title)
    figure.savefig(args.out / "pairs.png", dpi=100)
    results = {"nats": nats, "auc": told, "imputation": imputed, "seconds": time.time() - start}
    (args.out / "results.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
    print(f"\npicture: {args.out / 'pairs.png'}\ndone in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
