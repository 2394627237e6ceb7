"""Neal's funnel by NUTS, as it is and through a flow that was trained for it: a table.

    python tools/funnel.py                               # some five minutes on two cores
    python tools/funnel.py --steps 8000 --draws 2000     # closer

    v ~ N(0, 3^2),  x_i ~ N(0, exp(v)),  i = 1, ..., 9

of R. M. Neal, Slice sampling, 2003, section 8. Where v is low the density is a narrow neck that no
step size of the wide mouth fits: NUTS diverges, or does not come there, and the spread of v, whose
true value is 3, comes out too small. A flow that is fitted by the reverse KL divergence, without
data, makes of it something like a normal density, and `tfp.mcmc.TransformedTransitionKernel` lets
NUTS walk there. What the flow misses costs steps, not correctness.

Printed: divergent transitions after the burn-in, the effective sample size of v (all chains), its
standard deviation, the largest R-hat of all entries, leapfrog steps a draw, and seconds. Ends with
1 if through the flow there is a divergence, the effective sample size is below 800, or the standard
deviation is more than 5% from 3.
"""

import argparse
import os
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from results import record

from tfp_flows import FlowModel, flows, objectives

SIZE, SPREAD = 10, 3.0


def log_density(x):
    """Log-density of the funnel, up to a constant; v is the first entry."""
    v, rest = x[..., 0], x[..., 1:]
    own = -0.5 * tf.square(v / SPREAD)
    return own - 0.5 * (SIZE - 1) * v - 0.5 * tf.exp(-v) * tf.reduce_sum(tf.square(rest), axis=-1)


def train(args):
    """A flow fitted to the funnel without data."""
    # Smooth, for NUTS follows its gradient, and not flat far out, where the neck is narrowest.
    network = {"hidden_units": (64, 64), "activation": "silu"}
    flow = flows.real_nvp([SIZE], num_couplings=6, seed=args.seed, **network)
    objective = objectives.ReverseKL(log_density, num_samples=args.samples)
    model = FlowModel(flow, objective=objective)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, args.steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    model.fit(steps_per_epoch=max(1, args.steps // 10), epochs=10, verbose=0)
    log_z = 0.5 * SIZE * np.log(2.0 * np.pi) + np.log(SPREAD)
    divergence = model.evaluate(steps=20, verbose=0) + log_z
    return flow.bijector, divergence


def nuts(bijector, args):
    """Draws of all chains `[draws, chains, SIZE]`, divergences and leapfrog steps after burn-in."""
    kernel = tfp.mcmc.NoUTurnSampler(log_density, step_size=0.3, max_tree_depth=8)
    if bijector is not None:
        kernel = tfp.mcmc.TransformedTransitionKernel(kernel, bijector)
    kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
        kernel,
        int(0.8 * args.burn_in),
        target_accept_prob=0.95,
        step_size_setter_fn=_of_nuts(lambda results, step: results._replace(step_size=step)),
        step_size_getter_fn=_of_nuts(lambda results: results.step_size),
        log_accept_prob_getter_fn=_of_nuts(lambda results: results.log_accept_ratio),
    )
    # Over-dispersed along v, and inside of the funnel for each.
    v = np.linspace(-2.0, 2.0, args.chains)[:, np.newaxis]
    noise = np.random.default_rng(args.seed).normal(size=(args.chains, SIZE - 1))
    start = np.concatenate([v, np.exp(0.5 * v) * noise], axis=1).astype(np.float32)

    def trace(_, results):
        own = _inner(results.inner_results)
        return own.has_divergence, own.leapfrogs_taken

    @tf.function(autograph=False)
    def run():
        return tfp.mcmc.sample_chain(
            args.draws,
            tf.constant(start),
            kernel=kernel,
            num_burnin_steps=args.burn_in,
            trace_fn=trace,
            seed=[args.seed, 1],
        )

    return run()


def _inner(results):
    """NUTS's own results, inside of a transformation or not."""
    return getattr(results, "inner_results", results)


def _of_nuts(act):
    """`act` on NUTS's own results; if it gives such, the results around them."""

    def acting(results, *arguments):
        own = act(_inner(results), *arguments)
        if not hasattr(own, "_replace") or not hasattr(results, "inner_results"):
            return own
        return results._replace(inner_results=own)

    return acting


def main():
    """Prints the table; returns 1 if an aim is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="of training")
    parser.add_argument("--samples", type=int, default=256, help="a step of training")
    parser.add_argument("--chains", type=int, default=20)
    parser.add_argument("--burn-in", type=int, default=300)
    parser.add_argument("--draws", type=int, default=500, help="of each chain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-plain", action="store_true", help="through the flow alone")
    record.add_argument(parser)
    args = parser.parse_args()
    start = time.perf_counter()
    bijector, divergence = train(args)
    seconds = time.perf_counter() - start
    print(f"KL(flow || funnel) = {divergence:.3f} nats after {args.steps} steps, {seconds:.0f} s\n")
    print("| NUTS | divergences | ESS of v | sd of v | R-hat | leapfrogs a draw | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    missed, cells = False, []
    kinds = {} if args.no_plain else {"as it is": None}
    for name, through in {**kinds, "through the flow": bijector}.items():
        start = time.perf_counter()
        draws, (diverged, leapfrogs) = nuts(through, args)
        seconds = time.perf_counter() - start
        v = draws[..., 0]
        size = float(tfp.mcmc.effective_sample_size(v, cross_chain_dims=1))
        reduction = float(tf.reduce_max(tfp.mcmc.potential_scale_reduction(draws)))
        count, spread = int(tf.reduce_sum(tf.cast(diverged, tf.int32))), np.std(v)
        print(
            f"| {name} | {count} | {size:.0f} | {spread:.3f} | {reduction:.3f} "
            f"| {np.mean(leapfrogs):.1f} | {seconds:.0f} |",
            flush=True,
        )
        truth = record.source(
            SPREAD, "R. M. Neal", "Slice sampling", 2003, None, "section 8: v is N(0, 9)"
        )
        reason = "of a deviation from few independent draws, none is computed"
        if through is None:
            reason = f"what the flow is compared with: NUTS cannot sample the funnel; {reason}"
        cells.append(
            record.cell(
                "funnel",
                f"NUTS {name}",
                spread,
                published=truth,
                at_hand=through is not None,
                seed=args.seed,
                minutes=seconds / 60.0,
                reason=reason,
                note=f"{count} divergences, {size:,.0f} effective samples of v, R-hat "
                f"{reduction:.3f}, {np.mean(leapfrogs):.1f} leapfrogs a draw; KL(flow, funnel) "
                f"= {divergence:.3f} nats",
            )
        )
        if through is not None:
            missed = count > 0 or size < 800 or abs(spread / SPREAD - 1.0) > 0.05
    if args.result:
        record.write(args.result, cells)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
