"""Infers the parameters of a simulator, and asks whether the posterior can be trusted.

    python examples/posterior.py                        # a minute or two on two cores
    python examples/posterior.py --simulations 1000
    python examples/posterior.py --observations 10      # all that the published figures are of

Two moons, a standard task of simulation-based inference: two parameters, uniform in a box, and a
simulator that throws a point onto a small crescent whose place depends on them. Given the point,
the parameters lie on two thin crescents. A conditional flow learns that from simulations alone,
by `fit(theta, x)`: neural posterior estimation. The box is a bijector, `tfb.Sigmoid`, inside the
flow, so that no sample ever leaves it.

Then four questions, each with a picture or a number:

  Do simulations from the posterior look like the observation?      posterior predictive
  Are the posteriors of a few hundred other data right on average?  ranks (SBC) and coverage
  Can a network tell the samples from the exact posterior's?        C2ST, beside published figures
  Which part is missing or made up?                                 precision and recall

The observations are those of the sbi benchmark, as are the protocol of C2ST (10,000 samples each)
and the published figures: J.-M. Lueckmann et al., Benchmarking Simulation-Based Inference, 2021,
arXiv:2101.04653, method NPE (a spline flow as here). The exact posterior is known in closed form.
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _posterior
import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows, metrics, plots

tfb, tfd = tfp.bijectors, tfp.distributions

# The benchmark's ten, and what NPE reached on them: mean, least and largest C2ST by simulations.
OBSERVATIONS = np.array(
    [
        [-0.6396706, 0.16234657],
        [-0.5676688, -0.33194834],
        [0.0030109584, -0.6457662],
        [-0.25049388, 0.633055],
        [-0.66463584, -0.42604533],
        [-0.12940255, 0.3873573],
        [0.19458583, 1.0400153],
        [0.13603824, 0.9160449],
        [-0.17962828, -0.5452459],
        [0.14563406, -1.170141],
    ]
)
PUBLISHED = {
    1_000: (0.725, 0.666, 0.804),
    10_000: (0.606, 0.542, 0.674),
    100_000: (0.542, 0.514, 0.584),
}


# --- The task. ---


def crescent(n, rng):
    """Points `[n, 2]` on the crescent that the simulator throws at."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, n)
    radius = rng.normal(0.1, 0.01, n)
    return np.stack([radius * np.cos(angle) + 0.25, radius * np.sin(angle)], axis=1)


def prior(n, rng):
    """Parameters `[n, 2]`."""
    return rng.uniform(-1.0, 1.0, size=(n, 2))


def simulate(theta, rng):
    """One observation `[n, 2]` of each row of parameters."""
    along, across = theta.sum(axis=1) / np.sqrt(2.0), (theta[:, 1] - theta[:, 0]) / np.sqrt(2.0)
    return crescent(len(theta), rng) + np.stack([-np.abs(along), across], axis=1)


def exact_posterior(observation, n, rng):
    """`n` draws of the parameters given one observation.

    Given the point on the crescent, the observation fixes |along| and across; the sign of along is
    a coin. A turn keeps volumes, so the prior does no more than cut off what is out of the box.
    """
    found = np.empty([0, 2])
    while len(found) < n:
        away = crescent(n, rng) - observation
        along, across = away[:, 0], -away[:, 1]
        possible = along >= 0.0
        along = along * rng.choice([-1.0, 1.0], n)
        theta = np.stack([along - across, along + across], axis=1) / np.sqrt(2.0)
        found = np.concatenate([found, theta[possible & (np.abs(theta) < 1.0).all(axis=1)]])
    return found[:n]


# --- The posterior. ---


class Posterior:
    """A conditional flow over the box, and the scaling of what it is given."""

    def __init__(self, theta, x, args):
        self._center, self._scale = x.mean(axis=0), x.std(axis=0)
        flow = flows.maf(
            [2],
            num_layers=args.layers,
            hidden_units=(50, 50),
            elementwise="affine_rational_quadratic_spline",
            num_bins=10,
            context_size=2,
            seed=args.seed,
        )
        # The box of the prior: the flow lives in all of the plane, its samples in the box.
        self.model = FlowModel(tfd.TransformedDistribution(flow, tfb.Sigmoid(low=-1.0, high=1.0)))
        keras.utils.set_random_seed(args.seed)
        self.history = _posterior.fit(self.model, theta, self._context(x), args)

    def _context(self, x):
        return ((x - self._center) / self._scale).astype("float32")

    def sample(self, num_draws, x, seed):
        """Draws `[num_draws, n, 2]` given each of n observations, all at once."""
        return self.model.sample([num_draws, len(x)], context=self._context(x), seed=seed).numpy()


# --- Pictures. ---


def save_posteriors(panels, path):
    """Writes, for each observation, exact draws, the flow's, and simulations from the latter."""
    figure, axes = plt.subplots(len(panels), 3, figsize=(10, 3.3 * len(panels)), squeeze=False)
    for row, (observation, exact, drawn, predicted, score) in zip(axes, panels, strict=True):
        middle = 0.5 * (exact.max(axis=0) + exact.min(axis=0))
        half = 0.6 * np.ptp(exact, axis=0).max()
        for axis, shown, title in (
            (row[0], exact, "exact posterior"),
            (row[1], drawn, f"flow (C2ST {score:.2f})"),
        ):
            axis.plot(*shown[:3000].T, ".", ms=1.5, alpha=0.4)
            axis.set(xlabel="theta 1", ylabel="theta 2", title=title, aspect="equal")
            axis.set(xlim=middle[0] + [-half, half], ylim=middle[1] + [-half, half])
        row[2].plot(*predicted[:3000].T, ".", ms=1.5, alpha=0.4, label="simulated")
        row[2].plot(*observation, "k+", ms=12, mew=2, label="observed")
        row[2].set(
            xlabel="x 1", ylabel="x 2", title="posterior predictive of the flow", aspect="equal"
        )
        row[2].legend(fontsize=7, loc="upper left")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main():
    """Simulates, trains, checks, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=10_000, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=80, help="at most: %(default)s")
    parser.add_argument("--batch-size", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=4, help="of the flow: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="default: %(default)s")
    parser.add_argument(
        "--observations", type=int, default=3, choices=range(1, 11), help="1 to 10: %(default)s"
    )
    parser.add_argument(
        "--samples", type=int, default=10_000, help="of each posterior, for C2ST: %(default)s"
    )
    parser.add_argument("--checks", type=int, default=500, help="data for the ranks: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/posterior", help="folder: %(default)s"
    )
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)

    theta = prior(args.simulations, rng)
    posterior = Posterior(theta, simulate(theta, rng), args)
    losses = posterior.history["val_loss"]
    print(
        f"{args.simulations} simulations, {len(losses)} epochs, {time.time() - start:.0f} s: "
        f"{min(losses):.3f} nats on the held-out tenth",
        flush=True,
    )
    results = {"simulations": args.simulations, "epochs": len(losses), "nats": min(losses)}

    truths = prior(args.checks, rng)
    draws = posterior.sample(99, simulate(truths, rng), seed=1)
    ranks = metrics.sbc_ranks(draws, truths)
    covered = metrics.coverage(draws, truths, levels=np.arange(0.1, 0.95, 0.1))
    print(f"\nranks of {args.checks} truths among 99 draws: p = {ranks.p_value:.2g} (uniform?)")
    print("credible intervals hold the truth (theta 1, theta 2):")
    for level in (0.5, 0.8, 0.9):
        at = np.argmin(np.abs(covered.levels - level))
        found, error = covered.observed[at], covered.standard_error[at]
        print(f"  {level:.0%} intervals: {found[0]:.1%}, {found[1]:.1%}  (+- {error:.1%})")
    results["sbc_p_value"] = ranks.p_value
    results["coverage"] = dict(
        zip(map("{:.1f}".format, covered.levels), covered.observed.tolist(), strict=True)
    )
    figure = plots.calibration(ranks, covered, labels=["theta 1", "theta 2"])
    figure.savefig(args.out / "calibration.png", dpi=110)

    panels, results["observations"] = [], []
    print("\nobservation    C2ST              precision  recall", flush=True)
    for number, observation in enumerate(OBSERVATIONS[: args.observations], start=1):
        exact = exact_posterior(observation, args.samples, rng)
        drawn = posterior.sample(args.samples, observation[None], seed=1 + number)[:, 0]
        score = metrics.c2st(exact, drawn)
        rows = min(2000, args.samples)
        shape = metrics.precision_recall(drawn[:rows], exact[:rows])
        print(
            f"  {number:<11}{score.value:7.3f} +- {score.standard_error:.3f}"
            f"{shape.precision:12.3f}{shape.recall:9.3f}",
            flush=True,
        )
        results["observations"].append(
            {"c2st": score.value, "precision": shape.precision, "recall": shape.recall}
        )
        panels.append((observation, exact, drawn, simulate(drawn, rng), score.value))
    save_posteriors(panels, args.out / "posteriors.png")
    results["c2st"] = float(np.mean([found["c2st"] for found in results["observations"]]))
    print(f"  mean       {results['c2st']:7.3f}")
    if args.simulations in PUBLISHED:
        mean, least, largest = PUBLISHED[args.simulations]
        print(
            f"published for NPE at {args.simulations} simulations: {mean}, the mean of ten "
            f"observations ({least} to {largest}); 0.5 is perfect"
        )
    (args.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print(f"\npictures: {args.out / 'posteriors.png'}, {args.out / 'calibration.png'}")
    print(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
