"""How close planar flows come to four potentials of two dimensions: a table.

    python tools/potentials.py                           # some 10 minutes on two cores
    python tools/potentials.py --potentials U2 --depths 2 8 --restarts 4

The densities exp(-U(z)) / Z of table 1 of D. J. Rezende and S. Mohamed, Variational inference with
normalizing flows, 2015, arXiv:1505.05770, fitted by the reverse KL divergence without data. Z is a
sum over a grid, so what is printed is the divergence itself, KL(q || p) in nats, from 100,000 fresh
samples, with its standard error; the least is 0. The more planar layers, the less it should be, but
for the luck of a start: with `--restarts` the best of several counts.

U2 to U4 of the paper have no bounds along z_1, and no Z: here they rise beyond |z_1| = 4.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
from results import record

from tfp_flows import FlowModel, flows, objectives


def _w1(z):
    return tf.sin(0.5 * np.pi * z[..., 0])


def u1(z):
    """Two half-moons on a ring."""
    radius = tf.norm(z, axis=-1)
    ring = 0.5 * tf.square((radius - 2.0) / 0.4)
    sides = [-0.5 * tf.square((z[..., 0] + shift) / 0.6) for shift in (-2.0, 2.0)]
    return ring - tf.reduce_logsumexp(sides, axis=0)


def u2(z):
    """A wave."""
    return 0.5 * tf.square((z[..., 1] - _w1(z)) / 0.4) + _far(z)


def u3(z):
    """A wave that splits in two, by a bump."""
    w2 = 3.0 * tf.exp(-0.5 * tf.square((z[..., 0] - 1.0) / 0.6))
    return _two_waves(z, w2, 0.35, 0.35)


def u4(z):
    """A wave that splits in two, by a step."""
    return _two_waves(z, 3.0 * tf.sigmoid((z[..., 0] - 1.0) / 0.3), 0.4, 0.35)


def _two_waves(z, away, width, other_width):
    off = z[..., 1] - _w1(z)
    pair = [-0.5 * tf.square(off / width), -0.5 * tf.square((off + away) / other_width)]
    return -tf.reduce_logsumexp(pair, axis=0) + _far(z)


def _far(z):
    """Keeps the waves, which go on for ever, within |z_1| < 4: without it Z is infinite."""
    return tf.square(tf.nn.relu(tf.abs(z[..., 0]) - 4.0)) * 10.0


POTENTIALS = {"U1": u1, "U2": u2, "U3": u3, "U4": u4}


def log_z(potential, reach=8.0, points=2001):
    """The logarithm of the integral of exp(-U), by a grid."""
    axis = np.linspace(-reach, reach, points)
    grid = tf.constant(np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1))
    area = 2.0 * np.log(axis[1] - axis[0])
    return float(tf.reduce_logsumexp(-potential(grid))) + area


def build(name, depth, seed):
    """A flow of the table."""
    base = {"trainable_base": True, "seed": seed}
    if name == "planar":
        return flows.planar([2], num_layers=depth, **base)
    if name == "sylvester":
        return flows.sylvester([2], num_layers=depth, **base)
    return flows.real_nvp([2], num_couplings=depth, hidden_units=(64, 64), **base)


def fit(flow, potential, steps, samples):
    """Trains a flow, from a target that is warmed up to the potential, as in the paper."""
    beta = tf.Variable(0.01, trainable=False)
    target = objectives.ReverseKL(lambda z: -beta * potential(z), num_samples=samples)
    model = FlowModel(flow, objective=target)
    epochs = 20
    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    warm = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs=None: beta.assign(min(1.0, 0.05 + epoch / (0.4 * epochs)))
    )
    model.fit(steps_per_epoch=steps // epochs, epochs=epochs, callbacks=[warm], verbose=0)
    return model


def divergence(model, potential, log_normalizer, samples=100_000):
    """KL(q || p) in nats, and its standard error."""
    z, log_q = model.sample_and_log_prob(samples, seed=1)
    rows = (log_q + potential(z)).numpy() + log_normalizer
    return rows.mean(), rows.std() / samples**0.5


def main():
    """Prints the table, a row at a time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--potentials", nargs="+", choices=POTENTIALS, default=list(POTENTIALS))
    parser.add_argument("--depths", nargs="+", type=int, default=[2, 8, 32])
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--restarts", type=int, default=1, help="of which the best counts")
    parser.add_argument("--others", action="store_true", help="Sylvester and RealNVP as well")
    record.add_argument(parser)
    args = parser.parse_args()
    cells = []
    kinds = [("planar", depth) for depth in args.depths]
    if args.others:
        kinds += [("sylvester", 8), ("real_nvp", 8)]
    print("| potential | log Z | flow | KL, nats | seconds |\n|---|---|---|---|---|", flush=True)
    for name in args.potentials:
        potential = POTENTIALS[name]
        normalizer = log_z(potential)
        for kind, depth in kinds:
            start = time.time()
            seeds = range(args.seed, args.seed + args.restarts)
            models = [
                fit(build(kind, depth, seed), potential, args.steps, args.samples) for seed in seeds
            ]
            mean, error = min(divergence(model, potential, normalizer) for model in models)
            print(
                f"| {name} | {normalizer:.4f} | {kind}, K = {depth} | {mean:.4f} +- {error:.4f} "
                f"| {time.time() - start:.0f} |",
                flush=True,
            )
            several = f", best of {args.restarts} starts" if args.restarts > 1 else ""
            one = record.cell(
                "potentials",
                f"{name}: {kind}, K = {depth}{several}",
                mean,
                standard_error=error,
                budget={"steps": args.steps},
                seed=list(seeds) if several else args.seed,
                minutes=(time.time() - start) / 60.0,
            )
            cells.append(one)
            if args.result:  # After each: a run that is cut off keeps what it has.
                record.write(args.result, cells)


if __name__ == "__main__":
    main()
