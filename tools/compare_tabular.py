"""Trains MAF, RealNVP and their splines here and in zuko, alike, and compares the log-likelihoods.

    python tools/compare_tabular.py --miniboone DATA/miniboone.npz --bsds300 DATA/bsds300.npz \\
        --peer-python /tmp/peers/bin/python

    python tools/compare_tabular.py --miniboone DATA/miniboone.npz --bsds300 DATA/bsds300.npz \\
        --models maf maf_spline realnvp_spline --without-peer --cosine

    python tools/compare_tabular.py --miniboone DATA/miniboone.npz --seeds 0 --without-peer \\
        --models maf maf_monotone --minutes 5
    python tools/compare_tabular.py --miniboone DATA/miniboone.npz --without-peer \\
        --models continuous --epochs 450 --every 50 --cosine

Twenty minutes on two cores without splines, which take longer; `--models`, `--seeds` and one data
set a call cut it in pieces, which `--results FILE` collects: runs that are in the file are not run
again. Of other settings (`--cosine`, `--hidden`, ...) give another file.

"maf_monotone" has monotone networks behind affine maps, and is of this package alone, as is
"continuous": one network of the same hidden layers, three times as wide, by flow matching, whose
gradients are noisy: what is scored is the moving average of its weights (0.999), and weights decay
by 0.01 of the rate a step. Its rows are scored by an estimated trace, without bias, each by a probe
of its own; the held-out ones by 20 equal steps, the test rows by dopri5. Both models take
longer: `--minutes` bounds each training, for a look instead of a figure.

zuko runs in an environment of its own (PyTorch would share no memory with TensorFlow):

    python -m venv /tmp/peers
    /tmp/peers/bin/pip install torch==2.13.0 "numpy<2.4"
    /tmp/peers/bin/pip install --no-deps zuko

Both libraries get the same standardised rows, the same split, 5 transforms of the same
hidden layers with ReLU, orders reversed from one MADE to the next, alternating masks for
RealNVP, Adam at the same rate, the same batch size, the same most epochs, and the same early
stopping: the weights of the epoch that is best on the held-out rows are tested. What differs
is each library's own: initial weights, how a log-scale is bounded, for MAF which of scale and
shift comes first, and of splines where they end (here: affine maps with rational quadratic splines
in the box of their recipes; zuko: splines alone, to 5 deviations). Log-likelihoods are in nats, in
the units of the data.

MINIBOONE: keys `val` (split into training and held-out rows) and `test`; the published
training split is not at hand. BSDS300: keys `train`, `val`, `test`, patches of 64 integers.
"""

import argparse
import contextlib
import itertools
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from machine import ROOT, environment, only_one
from results import record

MODELS = ("maf", "realnvp", "maf_spline", "realnvp_spline", "maf_monotone", "continuous")
# Those that the other library is asked for too.
OF_BOTH = MODELS[:4]
# What is published, of larger networks and all rows, and why it is no target.
_MAF = (
    "G. Papamakarios, T. Pavlakou, I. Murray",
    "Masked autoregressive flow for density estimation",
    2017,
    "1705.07057",
    "table 1",
)
_SPLINES = (
    "C. Durkan, A. Bekasov, I. Murray, G. Papamakarios",
    "Neural spline flows",
    2019,
    "1906.04032",
    "table of densities, RQ-NSF (AR)",
)
_FFJORD = (
    "W. Grathwohl, R. T. Q. Chen, J. Bettencourt, I. Sutskever, D. Duvenaud",
    "FFJORD: Free-form continuous dynamics for scalable reversible generative models",
    2018,
    "1810.01367",
    "table of densities",
)
PUBLISHED = {
    ("miniboone", "maf"): (-11.75, _MAF),
    ("miniboone", "realnvp"): (-13.55, _MAF),
    ("miniboone", "maf_spline"): (-9.22, _SPLINES),
    ("miniboone", "continuous"): (-10.43, _FFJORD),
    ("bsds300", "maf"): (155.69, _MAF),
    ("bsds300", "realnvp"): (152.97, _MAF),
    ("bsds300", "maf_spline"): (157.31, _SPLINES),
    ("bsds300", "continuous"): (157.40, _FFJORD),
}
SHORT = {
    "miniboone": "the published training split is missing: 2,956 rows train",
    "bsds300": "80,000 patches of a million train",
}


def load(dataset, path, train_rows):
    """Returns standardised training, held-out and test rows, and the log-det of the scaling."""
    with np.load(path) as file:
        if dataset == "miniboone":
            rows = np.random.default_rng(0).permutation(file["val"])
            num = len(rows) // 10
            train, held_out, test = rows[num:], rows[:num], file["test"]
        else:
            rng = np.random.default_rng(0)
            parts = [file["train"][:train_rows], file["val"][:2000], file["test"][:20000]]
            parts = [(p + rng.random(p.shape)) / 256.0 for p in parts]
            parts = [(p - p.mean(1, keepdims=True))[:, :-1] for p in parts]
            train, held_out, test = parts
    mean, std = train.mean(0), train.std(0)
    parts = [((p - mean) / std).astype(np.float32) for p in (train, held_out, test)]
    return parts, -float(np.log(std).sum())


def train(make_step, evaluate, keep, restore, rows, held_out, seed, args):
    """The loop that both libraries share; returns best held-out value, epochs and seconds."""
    rng = np.random.default_rng(seed)
    best, since, start = -np.inf, 0, time.perf_counter()
    epoch = 0
    for epoch in range(1, args.epochs + 1):
        order = rng.permutation(len(rows))
        for first in range(0, len(rows) - args.batch_size + 1, args.batch_size):
            make_step(rows[order[first : first + args.batch_size]])
        if epoch % args.every and epoch < args.epochs:
            continue
        value = evaluate(held_out)
        seconds = time.perf_counter() - start
        if args.verbose:
            print(f"epoch {epoch}: {value:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True)
        if value > best:
            best, since = value, 0
            keep()
        else:
            since += 1
        if since >= args.patience or (args.minutes and seconds > 60.0 * args.minutes):
            break
    restore()
    return best, epoch, time.perf_counter() - start


def steps_of(rows, args):
    """Steps of all epochs that there may be."""
    return args.epochs * (len(rows) // args.batch_size)


def run_ours(model, data, seed, args):
    """tfp_flows, in its own loop so that the two loops are one."""
    import tensorflow as tf

    from tfp_flows import FlowModel, bijectors, elementwise, flows, objectives

    tf.config.threading.set_intra_op_parallelism_threads(args.threads)
    rows, held_out, test = data
    size = rows.shape[1]
    same = {"hidden_units": args.hidden, "seed": seed}
    if model.endswith("_spline"):
        same |= {"elementwise": "rational_quadratic_spline", "num_bins": args.bins}
    if model == "maf_monotone":
        same["elementwise"] = elementwise.Composed(["affine", "monotone_network"])
    objective = None
    if model == "continuous":
        same["hidden_units"] = [3 * width for width in args.hidden]
        flow = flows.continuous([size], solver="rk4", num_steps=20, **same)
        objective = objectives.FlowMatching()
    elif model.startswith("maf"):
        flow = flows.maf([size], num_layers=args.transforms, **same)
    else:
        flow = flows.real_nvp([size], num_couplings=args.transforms, mask="alternating", **same)
    import keras

    fit = FlowModel(flow, objective=objective)
    rate = args.rate
    if args.cosine:
        rate = keras.optimizers.schedules.CosineDecay(rate, steps_of(rows, args))
    optimizer = keras.optimizers.Adam(rate)
    if model == "continuous":
        optimizer = keras.optimizers.AdamW(
            rate, weight_decay=0.01, use_ema=True, ema_momentum=0.999
        )
    fit.compile(optimizer=optimizer)
    held, kept = tf.constant(held_out), []

    @contextlib.contextmanager
    def averaged():
        weights = fit.get_weights()
        optimizer.finalize_variable_values(fit.trainable_variables)
        yield
        fit.set_weights(weights)

    def keep():
        with averaged() if optimizer.use_ema else contextlib.nullcontext():
            kept[:] = fit.get_weights()

    def mean_log_prob(x):
        return float(np.mean([fit.log_prob(x[i : i + 5000]) for i in range(0, len(x), 5000)]))

    def mean_with_probes(flow, x, rows):
        with bijectors.training_mode():  # Each row has a probe of its own: of the mean it is small.
            parts = [flow.log_prob(x[i : i + rows]) for i in range(0, len(x), rows)]
        return float(np.mean(np.concatenate(parts)))

    def evaluate(_):
        with averaged() if optimizer.use_ema else contextlib.nullcontext():
            if model == "continuous":
                return mean_with_probes(flow, held, len(held))
            return float(tf.reduce_mean(fit.log_prob(held)))

    best, epochs, seconds = train(
        fit.train_on_batch,
        evaluate,
        keep,
        lambda: fit.set_weights(kept),
        rows,
        held_out,
        seed,
        args,
    )
    if model == "continuous":
        import tensorflow_probability as tfp

        finer = flow.bijector.copy(solver="dopri5", num_steps=200)
        finer = tfp.distributions.TransformedDistribution(flow.distribution, finer)
        return mean_with_probes(finer, test[:5000], 500), best, epochs, seconds
    test = test[: len(test) // 5000 * 5000] if len(test) > 5000 else test
    return mean_log_prob(test), best, epochs, seconds


def run_zuko(model, data, seed, args):
    """zuko, in PyTorch."""
    import copy

    import torch
    import zuko

    torch.set_num_threads(args.peer_threads)
    torch.manual_seed(seed)
    rows, held_out, test = data
    same = {"transforms": args.transforms, "hidden_features": args.hidden}
    if model.endswith("_spline"):
        same["bins"] = args.bins
        if model == "realnvp_spline":
            same["passes"] = 2  # a coupling
    kinds = {"maf": zuko.flows.MAF, "realnvp": zuko.flows.RealNVP}
    flow = kinds.get(model, zuko.flows.NSF)(rows.shape[1], **same)
    optimizer = torch.optim.Adam(flow.parameters(), lr=args.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps_of(rows, args))
    kept = {}

    def step(batch):
        loss = -flow().log_prob(torch.from_numpy(batch)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if args.cosine:
            schedule.step()

    def evaluate(x):
        with torch.no_grad():
            return float(flow().log_prob(torch.from_numpy(x)).mean())

    def keep():
        kept.update(copy.deepcopy(flow.state_dict()))

    best, epochs, seconds = train(
        step, evaluate, keep, lambda: flow.load_state_dict(kept), rows, held_out, seed, args
    )
    test = test[: len(test) // 5000 * 5000] if len(test) > 5000 else test
    return evaluate(test), best, epochs, seconds


def child(args):
    """Trains one library's models and prints a JSON line each."""
    dataset = "miniboone" if args.miniboone else "bsds300"
    data, log_det = load(dataset, args.miniboone or args.bsds300, args.train_rows)
    run = {"tfp_flows": run_ours, "zuko": run_zuko}[args.library]
    for model in args.models:
        for seed in args.seeds:
            value, held_out, epochs, seconds = run(model, data, seed, args)
            line = {"dataset": dataset, "model": model, "library": args.library, "seed": seed}
            line.update(nats=value + log_det, held_out=held_out + log_det)
            line.update(epochs=epochs, seconds=seconds)
            print(json.dumps(line), flush=True)


def parent(args):
    """Runs the children that are missing, and reports."""
    found = []
    if args.results and args.results.exists():
        found = [json.loads(line) for line in args.results.read_text().splitlines()]
    common = ["--hidden", *map(str, args.hidden)]
    names = "rate batch_size patience threads peer_threads train_rows transforms bins minutes every"
    for name in names.split():
        common += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    common += [f"--{name}" for name in ("cosine", "verbose") if getattr(args, name)]
    pythons = {"tfp_flows": sys.executable, "zuko": args.peer_python}
    if args.without_peer:
        del pythons["zuko"]
    asked = []
    for dataset, epochs in (("miniboone", args.epochs), ("bsds300", args.epochs_bsds300)):
        path = getattr(args, dataset)
        if path is None:
            continue
        for model, library in itertools.product(args.models, pythons):
            if library != "tfp_flows" and model not in OF_BOTH:
                continue
            runs = {(dataset, model, library, seed) for seed in args.seeds}
            asked += runs
            missing = sorted(runs - {key_of(f) for f in found})
            if not missing:
                continue
            command = [pythons[library], __file__, "--library", library, f"--{dataset}", str(path)]
            command += ["--models", model, "--seeds", *(str(run[-1]) for run in missing)]
            # zuko has an environment of its own: no path of this one goes along.
            env = environment(PYTHONPATH=str(ROOT))
            with subprocess.Popen(
                [*command, *common, "--epochs", str(epochs)],
                stdout=subprocess.PIPE,
                text=True,
                env=env,
            ) as process:
                for line in process.stdout:
                    found.append(json.loads(line))
                    print(line.rstrip(), file=sys.stderr, flush=True)
                    if args.results:
                        with open(args.results, "a") as file:
                            file.write(line)
            if process.returncode:
                raise SystemExit(f"{library} on {dataset} ended with code {process.returncode}")
    found = [f for f in found if key_of(f) in asked]
    if args.result:
        record.write(args.result, list(as_cells(found, args)))
    return report(found)


def as_cells(found, args):
    """Our figures as cells of the book of results, the mean over seeds."""
    keys = sorted({key_of(f)[:2] for f in found if f["library"] == "tfp_flows"})
    for dataset, model in keys:
        runs = {
            name: [f for f in found if key_of(f)[:3] == (dataset, model, name)]
            for name in ("tfp_flows", "zuko")
        }
        ours, others = ([f["nats"] for f in part] for part in runs.values())
        reason = SHORT[dataset]
        if len(ours) == 1:
            reason += "; one seed, error over rows not computed"
        value, source = PUBLISHED.get((dataset, model), (None, None))
        hidden = " x ".join(str(width) for width in args.hidden)
        epochs = args.epochs if dataset == "miniboone" else args.epochs_bsds300
        yield record.cell(
            "tabular",
            f"{dataset.upper()}: {model}, {args.transforms} transforms of {hidden} units"
            f"{', cosine' if args.cosine else ''}",
            np.mean(ours),
            standard_error=np.std(ours, ddof=1) / len(ours) ** 0.5 if len(ours) > 1 else None,
            published=source and record.source(value, *source),
            budget={"epochs": epochs, "minutes": args.minutes or None},
            seed=sorted(f["seed"] for f in runs["tfp_flows"]),
            minutes=sum(f["seconds"] for f in runs["tfp_flows"]) / 60.0,
            reason=reason,
            note=f"zuko: {np.mean(others):.2f}" if others else None,
        )


def key_of(run):
    """What tells the runs apart."""
    return run["dataset"], run["model"], run["library"], run["seed"]


def report(found):
    """Prints the table; returns 1 if an aim is missed."""
    print(f"{'data':<10} {'model':<14} {'library':<10} {'test nats':>17} {'epochs':>8} {'s':>6}")
    missed = False
    for dataset, model in sorted({(f["dataset"], f["model"]) for f in found}):
        means = {}
        for library in ("tfp_flows", "zuko"):
            key = (dataset, model, library)
            runs = [f for f in found if (f["dataset"], f["model"], f["library"]) == key]
            if not runs:
                continue
            nats = np.array([f["nats"] for f in runs])
            means[library] = nats.mean()
            epochs = np.mean([f["epochs"] for f in runs])
            seconds = np.mean([f["seconds"] for f in runs])
            spread = f"{nats.mean():9.2f} +- {nats.std():.2f}"
            print(
                f"{dataset:<10} {model:<14} {library:<10} {spread:>17} {epochs:8.1f} {seconds:6.0f}"
            )
        if len(means) < 2:
            continue
        difference = means["tfp_flows"] - means["zuko"]
        missed |= difference < -0.1
        verdict = "ok" if difference >= -0.1 else "MISSED"
        print(f"{'':<10} {'':<14} difference {difference:+.2f} nats, at least -0.10: {verdict}\n")
    return int(missed)


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--miniboone", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--bsds300", type=pathlib.Path, metavar="FILE")
    parser.add_argument("--peer-python", default="/tmp/peers/bin/python")
    parser.add_argument("--library", choices=("tfp_flows", "zuko"), help=argparse.SUPPRESS)
    parser.add_argument("--results", type=pathlib.Path, help="file of finished runs, added to")
    record.add_argument(parser)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS[:2])
    parser.add_argument("--without-peer", action="store_true", help="no zuko")
    parser.add_argument("--transforms", type=int, default=5, help="layers or couplings (default 5)")
    parser.add_argument("--bins", type=int, default=8, help="of a spline (default 8)")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60, help="the most (default 60)")
    parser.add_argument("--epochs-bsds300", type=int, default=20, help="the most (default 20)")
    parser.add_argument("--patience", type=int, default=10, help="held-out values (default 10)")
    parser.add_argument(
        "--every", type=int, default=1, help="epochs from one held-out value to the next"
    )
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rate", type=float, default=1e-3, help="of Adam (default 1e-3)")
    parser.add_argument("--cosine", action="store_true", help="let the rate fall to 0 as a cosine")
    parser.add_argument(
        "--minutes", type=float, default=0, help="of one training, at most (default: no limit)"
    )
    parser.add_argument("--verbose", action="store_true", help="say each epoch's held-out value")
    parser.add_argument("--train-rows", type=int, default=80000, help="of BSDS300")
    parser.add_argument("--threads", type=int, default=2, help="of tfp_flows")
    # Two threads of PyTorch wait for each other 25 times as long as they compute, if anything
    # else runs on the machine's two cores.
    parser.add_argument("--peer-threads", type=int, default=1, help="of zuko; no matter for nats")
    args = parser.parse_args()
    if args.library:
        return child(args)
    if args.miniboone is None and args.bsds300 is None:
        parser.error("give --miniboone, --bsds300 or both")
    with only_one():
        return parent(args)


if __name__ == "__main__":
    sys.exit(main())
