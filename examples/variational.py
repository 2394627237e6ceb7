"""Fits flows to a density that is known up to a factor, without data, and draws them.

    python examples/variational.py                   # two or three minutes on two cores
    python examples/variational.py --steps 4000      # closer

Variational inference: the target is a function, here a wave that splits in two, and the flow is
drawn from and moved by the gradient of log q(x) - log p(x), whose mean is KL(q || p) up to the
target's unknown factor. `fit` takes no data but a number of steps.

A planar flow bends the plane once a layer, 5 numbers each. RealNVP has networks. A continuous flow
solves an equation for each sample, and is trained through the solver.
"""

import argparse
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import FlowModel, flows, objectives

REACH, POINTS = 4.5, 181


@keras.saving.register_keras_serializable(package="examples")
def split_wave(z):
    """Log-density, up to a factor, of the fourth potential of arXiv:1505.05770, table 1."""
    off = z[..., 1] - tf.sin(0.5 * np.pi * z[..., 0])
    away = 3.0 * tf.sigmoid((z[..., 0] - 1.0) / 0.3)
    waves = [-0.5 * tf.square(off / 0.4), -0.5 * tf.square((off + away) / 0.35)]
    # The wave would go on for ever.
    return tf.reduce_logsumexp(waves, axis=0) - 0.5 * tf.square(z[..., 0] / 2.0)


def build(seed=0):
    """The flows, by name."""
    base = {"trainable_base": True, "seed": seed}
    return {
        "planar, 16 layers": flows.planar([2], num_layers=16, **base),
        "RealNVP, 8 couplings": flows.real_nvp([2], num_couplings=8, hidden_units=(64, 64), **base),
        "continuous": flows.continuous(
            [2], hidden_units=(64, 64), solver="rk4", num_steps=8, **base
        ),
    }


def fit(flow, steps, num_samples=256):
    """A model of a flow, trained for the target."""
    model = FlowModel(flow, objective=objectives.ReverseKL(split_wave, num_samples=num_samples))
    rate = keras.optimizers.schedules.CosineDecay(5e-3, steps)
    model.compile(optimizer=keras.optimizers.Adam(rate, global_clipnorm=10.0))
    model.fit(steps_per_epoch=max(1, steps // 10), epochs=10, verbose=0)
    return model


def grid():
    """Points `[POINTS^2, 2]` of a square, and the area that each stands for."""
    axis = np.linspace(-REACH, REACH, POINTS, dtype="float32")
    points = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    return points, (axis[1] - axis[0]) ** 2


def draw(densities, path):
    """One panel for each density on the grid."""
    figure, axes = plt.subplots(1, len(densities), figsize=(3.2 * len(densities), 3.4))
    for axis, (name, density) in zip(axes, densities.items(), strict=True):
        axis.imshow(
            density.reshape(POINTS, POINTS),
            origin="lower",
            extent=[-REACH, REACH] * 2,
            cmap="magma",
            vmax=next(iter(densities.values())).max(),
        )
        axis.set_title(name, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main():
    """Fits, prints each divergence and draws the densities."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("variational.png"))
    args = parser.parse_args()
    points, area = grid()
    log_p = split_wave(points).numpy()
    log_z = np.logaddexp.reduce(log_p) + np.log(area)
    densities = {"the target": np.exp(log_p - log_z)}
    for name, flow in build().items():
        start = time.time()
        model = fit(flow, args.steps, args.samples)
        took = time.time() - start
        x, log_q = model.sample_and_log_prob(20_000, seed=1)
        rows = log_q.numpy() - split_wave(x).numpy() + log_z
        print(
            f"{name:24s} KL(q || p) = {rows.mean():.3f} +- {rows.std() / len(rows) ** 0.5:.3f} nats"
            f"   {took:.0f} s",
            flush=True,
        )
        densities[name] = np.exp(model.log_prob(points).numpy())
    draw(densities, args.out)
    print(f"densities: {args.out}")


if __name__ == "__main__":
    main()
