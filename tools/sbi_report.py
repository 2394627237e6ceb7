"""Posteriors of two standard tasks of simulation-based inference, beside what is published.

    python tools/sbi_report.py --task gaussian_mixture --simulations 1000
    python tools/sbi_report.py --task slcp --simulations 10000 --results FILE

A conditional flow in the prior's box is trained on simulations alone, once for all observations.
For each observation a classifier is to tell 10,000 of its samples from 10,000 of the exact
posterior: C2ST, 0.5 is perfect. A run is five to fifteen minutes on two cores, most of them the
classifier's; `--results` collects the observations, and those in the file are not run again.

    Protocol       J.-M. Lueckmann et al., Benchmarking Simulation-Based Inference, 2021,
                   arXiv:2101.04653: its tasks, its ten observations of each, its classifier
                   (`metrics.c2st`)
    Reference      here: drawn exactly, from the closed forms below, not by that package
    Published      method NPE (a spline flow), each observation in the benchmark's own results
                   files; of the Gaussian mixture those of its second run, after a fault of the
                   task was mended

The settings are those of `examples/posterior.py`, not tuned on either task. Theta is uniform in a
box in both:

    gaussian_mixture   theta in [-10, 10]^2, x = theta + s e, e standard normal, s = 1 or 0.1 by a
                       coin
    slcp               theta in [-3, 3]^5, x four points of a normal distribution of two dimensions
                       with mean (theta_1, theta_2), deviations theta_3^2 and theta_4^2,
                       correlation tanh theta_5
"""

import argparse
import json
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from results import record

from tfp_flows import FlowModel, flows, metrics

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent / "examples"))
import _posterior


class GaussianMixture:
    """The mean of a mixture of a wide and a narrow normal distribution."""

    size, reach = 2, 10.0
    published = {
        1_000: (0.789, 0.703, 0.687, 0.699, 0.735, 0.684, 0.732, 0.678, 0.692, 0.763),
        10_000: (0.661, 0.560, 0.670, 0.607, 0.647, 0.570, 0.585, 0.585, 0.671, 0.596),
        100_000: (0.567, 0.545, 0.546, 0.536, 0.563, 0.509, 0.566, 0.548, 0.530, 0.569),
    }
    observations = np.array(
        [
            [-9.472713, -1.4950509],
            [-2.940192, -8.682056],
            [7.1683364, -3.0470583],
            [-8.047317, -0.021793246],
            [8.879822, 8.088118],
            [-4.697014, -0.3752453],
            [-6.806304, 7.828203],
            [-8.022675, 5.017334],
            [6.521385, 0.2811075],
            [8.4677, -9.219099],
        ]
    )

    def simulate(self, theta, rng):
        """Data `[n, 2]` of parameters `[n, 2]`."""
        scale = rng.choice([1.0, 0.1], size=[len(theta), 1])
        return theta + scale * rng.normal(size=theta.shape)

    def exact(self, x, n, rng):
        """`n` draws of the posterior: under a flat prior theta lies about x as x about theta."""
        found = np.empty([0, 2])
        while len(found) < n:
            theta = self.simulate(np.tile(x, [n, 1]), rng)
            found = np.concatenate([found, theta[(np.abs(theta) < self.reach).all(axis=1)]])
        return found[:n]


class SLCP:
    """Simple likelihood, complex posterior: four modes by the signs of two parameters."""

    size, reach = 5, 3.0
    published = {
        1_000: (0.988, 0.975, 0.965, 0.985, 0.966, 0.960, 0.992, 0.989, 0.961, 0.971),
        10_000: (0.944, 0.938, 0.799, 0.916, 0.849, 0.883, 0.950, 0.898, 0.932, 0.897),
        100_000: (0.915, 0.900, 0.736, 0.819, 0.820, 0.832, 0.870, 0.812, 0.799, 0.812),
    }
    # Four points each, one after another.
    observations = np.array(
        [
            [2.3718784, 0.49947417, 9.931435, 1.7136912,
             -10.436423, -1.9067793, -1.2343777, -0.09735],
            [-0.66452104, -2.9279308, -16.49147, 4.06107,
             4.232153, -4.652277, -4.9924355, -1.5655216],
            [3.5023372, 5.254722, 8.685451, 9.995327,
             0.40782332, -5.7111573, 10.605566, 12.695774],
            [-1.6371447, -0.037302777, -1.5622597, 0.031204943,
             -3.683134, 0.09953671, -1.7389069, 0.0309663],
            [-8.801672, 8.726709, -10.484016, 6.857725,
             -6.769688, 7.574161, 3.804308, 2.7593615],
            [0.069512725, 4.0657325, -1.1986864, 0.94379723,
             -1.4434359, 0.02170819, -4.4811616, -4.26959],
            [-3.0776706, -1.2080946, 25.778881, -2.244017,
             -0.77473235, -1.5114331, 5.919487, -1.6953411],
            [1.2463324, -2.414371, -2.9786007, -2.3214335,
             -17.3002, -3.298883, -13.487199, -3.023044],
            [4.755368, -2.3791986, 3.5834174, -1.444761,
             5.063205, -3.448882, 0.56577647, 1.3524654],
            [1.3710914, -2.39026, 1.8363019, -2.4391632,
             2.013802, -3.2097385, 2.4036794, -3.0089793],
        ]
    )  # fmt: skip
    _jitter = 1e-6  # of the variances, as the task has it
    _cells = 80

    def _variances(self, a, b, c):
        rho = np.tanh(c)
        return a**4 + self._jitter, b**4 + self._jitter, rho * a**2 * b**2

    def simulate(self, theta, rng):
        """Data `[n, 8]` of parameters `[n, 5]`."""
        first, second, both = self._variances(*theta[:, 2:].T)
        noise = rng.normal(size=[2, len(theta), 4])
        x = np.sqrt(first)[:, None] * noise[0]
        rest = np.sqrt(second - both**2 / first)
        y = (both / np.sqrt(first))[:, None] * noise[0] + rest[:, None] * noise[1]
        points = theta[:, None, :2] + np.stack([x, y], axis=-1)
        return points.reshape(len(theta), 8)

    def _log_marginal(self, shape, x):
        """Of theta_3 to theta_5, the mean integrated over the whole plane, up to a constant."""
        first, second, both = self._variances(*shape.T)
        points = x.reshape(4, 2)
        off = points - points.mean(axis=0)
        (xx, xy), (_, yy) = off.T @ off
        det = first * second - both**2
        trace = (second * xx - 2.0 * both * xy + first * yy) / det
        return -1.5 * np.log(det) - 0.5 * trace

    def exact(self, x, n, rng):
        """`n` draws of the posterior, by rejection.

        Given the covariance, the mean is normal about that of the points, and what of it is outside
        of the box is rejected with its covariance. Covariances are proposed by the cell of a grid,
        cells by the density at their middles, and accepted by its ratio to that of the middle.
        """
        low, high = np.array([0.0, 0.0, -self.reach]), np.full(3, self.reach)
        # Twice: the second grid covers only where the first one found something.
        for _ in range(2):
            width = (high - low) / self._cells
            axes = [low[k] + width[k] * (np.arange(self._cells) + 0.5) for k in range(3)]
            middles = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
            log_p = self._log_marginal(middles, x)
            kept = middles[log_p > log_p.max() - 25.0]
            low = np.maximum(kept.min(axis=0) - 1.5 * width, [0.0, 0.0, -self.reach])
            high = np.minimum(kept.max(axis=0) + 1.5 * width, self.reach)
        share = np.exp(log_p - log_p.max())
        found, batch = np.empty([0, 5]), 20 * n
        while len(found) < n:
            cell = rng.choice(len(share), batch, p=share / share.sum())
            shape = middles[cell] + width * rng.uniform(-0.5, 0.5, [batch, 3])
            ratio = np.exp(self._log_marginal(shape, x) - log_p[cell])
            shape = shape[rng.random(batch) * ratio.max() < ratio]
            mean = self.simulate(np.column_stack([np.zeros([len(shape), 2]), shape]), rng)
            # The mean of four points: half of the deviation of one.
            mean = x.reshape(4, 2).mean(axis=0) + 0.5 * mean[:, :2]
            shape[:, :2] *= rng.choice([-1.0, 1.0], [len(shape), 2])
            theta = np.column_stack([mean, shape])
            found = np.concatenate([found, theta[(np.abs(theta) < self.reach).all(axis=1)]])
        return found[:n]


TASKS = {"gaussian_mixture": GaussianMixture, "slcp": SLCP}


def prior(task, n, rng):
    """Parameters `[n, size]`."""
    return rng.uniform(-task.reach, task.reach, size=(n, task.size))


def trained(task, args, rng):
    """A `FlowModel` of theta given standardised data, and the function that standardises."""
    theta = prior(task, args.simulations, rng)
    x = task.simulate(theta, rng)
    center, scale = x.mean(axis=0), x.std(axis=0)

    def context(x):
        return ((x - center) / scale).astype("float32")

    flow = flows.maf(
        [task.size],
        num_layers=args.layers,
        hidden_units=(50, 50),
        elementwise="affine_rational_quadratic_spline",
        num_bins=10,
        support=(-task.reach, task.reach),
        context_size=x.shape[1],
        seed=args.seed,
    )
    model = FlowModel(flow)
    keras.utils.set_random_seed(args.seed)
    return model, context, _posterior.fit(model, theta, context(x), args)["val_loss"]


def summary_of(scores):
    """Mean, least and largest."""
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"


def main():
    """Trains, compares, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--simulations", type=int, default=1000, help="default: %(default)s")
    parser.add_argument(
        "--epochs", type=int, help="at most; default: 200 up to 1,000 simulations, 80 above"
    )
    parser.add_argument("--batch-size", type=int, default=200, help="default: %(default)s")
    parser.add_argument("--layers", type=int, default=4, help="of the flow: %(default)s")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="default: %(default)s")
    parser.add_argument(
        "--observations", type=int, nargs="+", default=range(1, 11), help="numbers; default: all"
    )
    parser.add_argument("--samples", type=int, default=10_000, help="of each: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--results", type=pathlib.Path, help="file of finished observations")
    record.add_argument(parser)
    args = parser.parse_args()
    args.epochs = args.epochs or (200 if args.simulations <= 1000 else 80)
    task, rng = TASKS[args.task](), np.random.default_rng(args.seed)
    own = {"task": args.task, "simulations": args.simulations, "seed": args.seed}
    own["samples"] = args.samples
    found = {}
    if args.results and args.results.exists():
        lines = [json.loads(line) for line in args.results.read_text().splitlines()]
        found = {f["observation"]: f["c2st"] for f in lines if own.items() <= f.items()}
    missing = [n for n in args.observations if n not in found]
    if missing:
        start = time.time()
        model, context, history = trained(task, args, rng)
        print(
            f"{args.task}, {args.simulations} simulations: {len(history)} epochs in "
            f"{time.time() - start:.0f} s, {min(history):.3f} nats on the held-out tenth",
            flush=True,
        )
    for number in missing:
        x = task.observations[number - 1]
        exact = task.exact(x, args.samples, np.random.default_rng(number))
        given = context(x[None])
        drawn = model.sample([args.samples, 1], context=given, seed=number).numpy()[:, 0]
        score = metrics.c2st(exact, drawn).value
        found[number] = score
        print(f"  observation {number:<4}{score:7.3f}", flush=True)
        if args.results:
            with open(args.results, "a") as file:
                file.write(json.dumps({**own, "observation": number, "c2st": score}) + "\n")
    scores = [found[n] for n in args.observations]
    print(f"C2ST, mean of {len(scores)}: {summary_of(scores)}")
    others = (
        [task.published[args.simulations][n - 1] for n in args.observations]
        if (args.simulations in task.published)
        else None
    )
    if others:
        print(f"published for NPE, the same: {summary_of(others)}")
    if args.result:
        record.write(args.result, [as_cell(args, scores, others)])


def as_cell(args, scores, others):
    """The mean over observations as a cell of the book of results."""
    published = others and record.source(
        np.mean(others).item(),
        "J.-M. Lueckmann, J. Boelts, D. Greenberg, P. Gonçalves, J. Macke",
        "Benchmarking simulation-based inference",
        2021,
        "2101.04653",
        "results file, NPE, the same observations",
    )
    name = {"gaussian_mixture": "Gaussian mixture", "slcp": "SLCP"}[args.task]
    few = list(args.observations)
    text = "" if len(few) == 10 else f", observations {', '.join(map(str, few))}"
    reason = f"no error over trainings: one training; over observations: {summary_of(scores)}"
    return record.cell(
        "posteriors",
        f"{name}, {args.simulations:,} simulations{text}",
        np.mean(scores),
        published=published,
        at_hand=published is not None and args.samples == 10_000,
        budget={"simulations": args.simulations, "epochs": args.epochs},
        seed=args.seed,
        reason=f"{reason}, published {summary_of(others)}" if others else reason,
    )


if __name__ == "__main__":
    main()
