"""What a step of training a continuous flow takes: flow matching and the likelihood, beside TFP's.

    python tools/continuous_report.py                 # two minutes on two cores
    python tools/continuous_report.py --size 43 --rows 100 --hidden 128 128

One network, one batch, the gradients by all weights, in graphs that were traced before, in turns:
the median of some rounds. TFP's is `tfb.FFJORD` with its Dormand-Prince solver of the same
tolerances and its adjoint equation for gradients. Of those with an exact trace the loss is to be
equal, and it is told how far the gradients are from those of a finer solution: the norm of the
difference over the norm.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from results import record

from tfp_flows import flows, objectives

tfb, tfd = tfp.bijectors, tfp.distributions


def of_tfp(flow, tolerance, exact):
    """TFP's continuous flow around the same network."""
    velocity = flow.bijector.velocity

    def derivative(t, x):
        return velocity(tf.fill(tf.shape(x)[:1], tf.cast(t, x.dtype)), x)

    # A dopri5 as ours, with a tolerance of each step.
    solver = tfp.math.ode.DormandPrince(rtol=tolerance, atol=tolerance)
    trace = tfp.bijectors.ffjord
    bijector = tfb.FFJORD(
        derivative,
        ode_solve_fn=solver.solve,
        trace_augmentation_fn=trace.trace_jacobian_exact
        if exact
        else trace.trace_jacobian_hutchinson,
    )
    return tfd.TransformedDistribution(flow.distribution, bijector)


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=6)
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 128])
    parser.add_argument("--tolerance", type=float, default=1e-5)
    parser.add_argument("--exact", action="store_true", help="exact traces, for small sizes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-tfp", action="store_true")
    record.add_argument(parser)
    args = parser.parse_args()
    trace = "exact" if args.exact else "hutchinson"
    build = {"hidden_units": args.hidden, "seed": 0, "trace": trace}
    adaptive = {"rtol": args.tolerance, "atol": args.tolerance}
    flow = flows.continuous([args.size], **build, **adaptive)
    rng = np.random.default_rng(0)
    for v in flow.trainable_variables:  # From the identity to a flow that bends.
        v.assign_add(rng.normal(size=v.shape, scale=0.1))
    x = tf.constant(rng.normal(size=[args.rows, args.size]), tf.float32)
    network = flow.bijector.submodules[0].layer

    def around(**kwargs):
        return tfd.TransformedDistribution(flow.distribution, flow.bijector.copy(**kwargs))

    def likelihood(distribution):
        return lambda: -tf.reduce_mean(distribution.log_prob(tf.identity(x)))

    matching = objectives.FlowMatching()
    seed = tf.constant([0, 1])
    losses = {
        "flow matching": lambda: tf.reduce_mean(matching.loss(flow, (x, None), seed)),
        "likelihood, rk4 of 10 steps": likelihood(around(solver="rk4", num_steps=10)),
        "likelihood, dopri5": likelihood(flow),
    }
    if not args.no_tfp:
        losses["likelihood, tfb.FFJORD"] = likelihood(of_tfp(flow, args.tolerance, args.exact))
    variables = [v.value for v in network.trainable_variables]

    def step(loss):
        @tf.function(autograph=False)
        def act():
            with tf.GradientTape() as tape:
                value = loss()
            return value, tape.gradient(value, variables)

        return act

    steps, traced = {name: step(loss) for name, loss in losses.items()}, {}
    for name, act in steps.items():
        start = time.perf_counter()
        act()
        traced[name] = time.perf_counter() - start
    times = {name: [] for name in steps}
    for _ in range(args.rounds):
        for name, act in steps.items():
            start = time.perf_counter()
            act()[0].numpy()
            times[name].append(time.perf_counter() - start)
    fine = step(likelihood(around(solver="rk4", num_steps=100)))()[1]
    norm = tf.linalg.global_norm(fine)
    print(f"size {args.size}, {args.rows} rows, network {args.hidden}, trace {trace}")
    print("| training | ms a step | to the first step, s | loss | gradient off by |")
    print("|---|---|---|---|---|")
    cells = []
    for name, act in steps.items():
        value, gradients = act()
        off = "-"
        if name.startswith("likelihood") and (args.exact or "FFJORD" not in name):
            difference = [a - b for a, b in zip(gradients, fine, strict=True)]
            off = f"{float(tf.linalg.global_norm(difference) / norm):.1e}"
        print(
            f"| {name} | {1e3 * np.median(times[name]):.1f} | {traced[name]:.1f} "
            f"| {float(value):.4f} | {off} |"
        )
        size = (args.size, args.rows, args.hidden, args.exact)
        other = (
            ""
            if size == (6, 100, [128, 128], True)
            else (f", {args.rows} x {args.size}, {args.hidden}, trace {trace}")
        )
        one = record.cell(
            "continuous",
            name + other,
            1e3 * np.median(times[name]),
            seed=0,
            reason="median of rounds: no error",
            note=f"{traced[name]:.1f} s to the first step; gradient off by {off}",
        )
        cells.append(one)
    if args.result:
        record.write(args.result, cells)
    counts = flow.bijector.num_evaluations(x, inverse=True).numpy()
    print(
        f"evaluations of dopri5: {counts.min()} to {counts.max()} a row, mean {counts.mean():.1f}"
    )


if __name__ == "__main__":
    main()
