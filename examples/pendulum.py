"""A thousand posteriors at once: a flow and a summary network, trained together on raw series.

    python examples/pendulum.py                        # two minutes on two cores
    python examples/pendulum.py --simulations 5000 --epochs 20

A pendulum swings and is damped; a ruler gives its deflection at 60 times, with noise. What are its
period, its damping time and its first deflection? The flow is given the 60 readings as they are: a
network of convolutions, `FlowModel(flow, context_network=...)`, makes the context of them, and
learns with the flow what to keep. After that no training is left to do: the posterior of any series
is one pass. The prior is a box, and `support=` keeps every sample in it.

    x(t) = a exp(-t / tau) cos(2 pi t / p) + noise

Then, for a thousand new series, drawn in one call:

  Are the posteriors as wide as they say?          ranks (SBC) and coverage
  Do simulations from them look like the data?     posterior predictive
  How far are they from the exact ones?            here the likelihood is known: the weights
                                                   prior x likelihood / flow would all be equal. The
                                                   share of draws that are left of unequal ones is
                                                   the effective sample size, 1 is perfect
"""

import argparse
import json
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import _posterior
import keras
import numpy as np

from tfp_flows import FlowModel, flows, metrics, plots

NAMES, UNITS = ["period", "damping time", "deflection"], ["s", "s", "cm"]
LOW, HIGH = np.array([1.0, 1.0, 2.0]), np.array([3.0, 10.0, 10.0])
TIMES = 0.1 * np.arange(60)  # s
NOISE = 1.0  # cm


# --- The task. ---


def prior(n, rng):
    """Parameters `[n, 3]`."""
    return rng.uniform(LOW, HIGH, size=(n, 3))


def swing(theta):
    """The deflections `[..., 60]` of parameters `[..., 3]`, without noise."""
    period, damping, deflection = (theta[..., n, None] for n in range(3))
    return deflection * np.exp(-TIMES / damping) * np.cos(2.0 * np.pi * TIMES / period)


def simulate(theta, rng):
    """Series `[..., 60]`."""
    clean = swing(theta)
    return clean + NOISE * rng.normal(size=clean.shape)


def log_likelihood(theta, x):
    """Log-density of series `[n, 60]` given parameters `[draws, n, 3]`: `[draws, n]`."""
    off = (swing(theta) - x) / NOISE
    return -0.5 * (off**2).sum(axis=-1) - len(TIMES) * np.log(NOISE * np.sqrt(2.0 * np.pi))


def effective_share(theta, log_q, x):
    """Of draws with weights prior x likelihood / q the share that equal weights would need.

    Args:
      theta: `[draws, n, 3]`.
      log_q: `[draws, n]`, the log-densities that they were drawn with.
      x: `[n, 60]`.

    Returns:
      Shares `[n]`, and the weights `[draws, n]`, which sum to 1.
    """
    log_w = log_likelihood(theta, x) - log_q  # The prior is flat, and the draws are in its box.
    w = np.exp(log_w - log_w.max(axis=0))
    w /= w.sum(axis=0)
    return 1.0 / (w**2).sum(axis=0) / len(w), w


# --- The posterior. ---


def summary_network(size):
    """From series `[n, 60]` to what matters of them, `[n, size]`."""
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Reshape([len(TIMES), 1]),
            layers.Rescaling(1.0 / 5.0),  # cm: to about unit size
            layers.Conv1D(32, 7, strides=2, activation="silu"),
            layers.Conv1D(64, 5, strides=2, activation="silu"),
            layers.Flatten(),
            layers.Dense(128, "silu"),
            layers.Dense(size),
        ]
    )


def train(args, rng):
    """A `FlowModel` of the parameters given a series, and its history."""
    keras.utils.set_random_seed(args.seed)
    flow = flows.maf(
        [3],
        num_layers=args.layers,
        hidden_units=(64, 64),
        elementwise="affine_rational_quadratic_spline",
        support=(LOW, HIGH),
        context_size=16,
        seed=args.seed,
    )
    model = FlowModel(flow, context_network=summary_network(16))
    theta = prior(args.simulations, rng)
    x = simulate(theta, rng).astype("float32")
    return model, _posterior.fit(model, theta, x, args, patience=10)


def main():
    """Simulates, trains, checks, draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=40_000, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=25, help="at most: %(default)s")
    parser.add_argument("--batch-size", type=int, default=250, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=4, help="of the flow: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=2e-3, help="default: %(default)s")
    parser.add_argument("--series", type=int, default=1000, help="new ones: %(default)s")
    parser.add_argument("--draws", type=int, default=199, help="of each: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=pathlib.Path, default="runs/pendulum", help="folder: %(default)s"
    )
    args = parser.parse_args()
    start = time.time()
    args.out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(args.seed)
    model, history = train(args, rng)
    losses = history["val_loss"]
    print(
        f"{args.simulations} simulations, {len(losses)} epochs, {time.time() - start:.0f} s: "
        f"{min(losses):.3f} nats on the held-out tenth",
        flush=True,
    )
    model.save(args.out / "posterior.keras")

    truths = prior(args.series, rng)
    x = simulate(truths, rng)
    clock = time.time()
    draws, log_q = model.sample_and_log_prob([args.draws, args.series], context=x, seed=1)
    draws, log_q = draws.numpy().astype("float64"), log_q.numpy().astype("float64")
    print(
        f"{args.draws} draws of each of {args.series} posteriors in {time.time() - clock:.1f} s",
        flush=True,
    )
    ranks = metrics.sbc_ranks(draws, truths)
    covered = metrics.coverage(draws, truths, levels=np.arange(0.1, 0.95, 0.1))
    shares, weights = effective_share(draws, log_q, x)
    print(f"\nranks of the truths: p = {ranks.p_value:.2g} (uniform?)")
    print(f"credible intervals hold the truth ({', '.join(NAMES)}):")
    for at in (4, 7, 8):
        found = ", ".join(f"{share:.1%}" for share in covered.observed[at])
        print(
            f"  {covered.levels[at]:.0%} intervals: {found}  (+- {covered.standard_error[at]:.1%})"
        )
    print(
        f"effective share of the draws under the exact posterior: median {np.median(shares):.2f}, "
        f"of the worst tenth below {np.quantile(shares, 0.1):.2f}"
    )

    figure = plots.calibration(ranks, covered, labels=NAMES)
    figure.savefig(args.out / "calibration.png", dpi=110)
    shown = np.argsort(truths[:, 2])[:: -(-len(truths) // 4)]  # from faint to clear ones
    figure = plots.predictive(
        simulate(draws[:, shown], rng),
        x[shown],
        at=TIMES,
        label="time (s)",
        unit="deflection (cm)",
        titles=[f"true deflection {d:.1f} cm" for d in truths[shown, 2]],
    )
    figure.savefig(args.out / "predictive.png", dpi=110)
    one = shown[len(shown) // 2]
    many, log_q = model.sample_and_log_prob([4000, 1], context=x[one : one + 1], seed=2)
    many, log_q = many.numpy().astype("float64"), log_q.numpy().astype("float64")
    weights = effective_share(many, log_q, x[one : one + 1])[1][:, 0]
    exact = many[rng.choice(len(many), len(many), p=weights), 0]
    figure = plots.pairs(
        many[:, 0],
        exact,
        names=("flow", "weighted by the likelihood"),
        labels=NAMES,
        units=UNITS,
        truth=truths[one],
    )
    figure.savefig(args.out / "posterior.png", dpi=110)
    results = {
        "simulations": args.simulations,
        "epochs": len(losses),
        "nats": min(losses),
        "sbc_p_value": ranks.p_value,
        "coverage": covered.observed.tolist(),
        "effective_share": {"median": np.median(shares), "tenth": np.quantile(shares, 0.1)},
        "seconds": time.time() - start,
    }
    (args.out / "results.json").write_text(json.dumps(results, indent=1, default=float) + "\n")
    print(f"\npictures: {args.out}/calibration.png, predictive.png, posterior.png")
    print(f"done in {time.time() - start:.0f} s")


if __name__ == "__main__":
    main()
