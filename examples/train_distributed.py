"""Trains one Glow on digits on one device, on several, or on several worker processes.

    python examples/train_distributed.py                          # one device, or all GPUs
    python examples/train_distributed.py --replicas 2             # two logical CPUs
    python examples/train_distributed.py --workers 2              # two processes on this machine

The three give the same weights: `--replicas` and `--workers` divide the same global batches. On a
machine with GPUs the first command uses all of them. For workers on several machines, start this
script on each with a `TF_CONFIG` of its own, and without `--workers`.

It saves every epoch: killed, and given the same command again, it goes on where it was. With
`--bfloat16` the networks compute in bfloat16 while training; samples are drawn in float32, so that
they invert exactly. Weights, log-dets and densities are float32 always.
"""

import argparse
import os
import pathlib
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

ROOT = pathlib.Path(__file__).resolve().parent.parent


def make_model(seed):
    """The model: preprocessing, Glow, and dequantization of 17 grey levels."""
    import tensorflow_probability as tfp

    from tfp_flows import FlowModel, flows, preprocessing

    glow = flows.glow([8, 8, 1], num_levels=2, num_steps=4, hidden_filters=48, seed=seed)
    return FlowModel(
        tfp.distributions.TransformedDistribution(glow, preprocessing.Logit(scale=17.0)),
        dequantization=preprocessing.UniformDequantization(num_levels=17, seed=seed),
    )


def train(args):
    """Trains under the strategy that fits; the chief reports."""
    import keras
    import numpy as np
    from _images import save_grids
    from sklearn.datasets import load_digits

    from tfp_flows import distribute

    strategy = distribute.make_strategy(replicas=args.replicas)
    cluster = distribute.read_cluster()
    chief = cluster is None or cluster.is_chief
    images = load_digits().images.astype("uint8")[..., np.newaxis]
    keras.utils.set_random_seed(args.seed)
    images = images[np.random.default_rng(args.seed).permutation(len(images))]
    with strategy.scope():
        model = make_model(args.seed)
        model.conditioner_policy = "mixed_bfloat16" if args.bfloat16 else "float32"
        model.compile(optimizer=keras.optimizers.Adam(2e-3, global_clipnorm=100.0))
    if chief:
        count = strategy.num_replicas_in_sync
        workers = 1 if cluster is None else len(cluster.workers)
        print(f"devices: {count}, in {workers} process{'es' if workers > 1 else ''}", flush=True)
    backup = keras.callbacks.BackupAndRestore(args.out / "backup", delete_checkpoint=False)
    model.fit(
        images[:1500],
        batch_size=args.batch_size,
        epochs=args.epochs,
        validation_data=(images[1500:],),
        callbacks=[backup],
        verbose=2,
    )
    nats, bits_per_dim = model.evaluate(images[1500:], verbose=0)
    if not chief:
        return
    model.conditioner_policy = "float32"
    samples = model.dequantization.quantize(model.sample(64, seed=0, temperature=0.7)).numpy()
    panels = [("real digits", images[:64]), ("samples, temperature 0.7", samples)]
    save_grids(args.out / "samples.png", panels, levels=17)
    print(f"held-out bits/dim {bits_per_dim:.3f}, nats {-nats:.1f}; see {args.out}/samples.png")


def main():
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, help="devices (default: all GPUs, or one CPU)")
    parser.add_argument("--workers", type=int, help="processes on this machine")
    parser.add_argument("--restarts", type=int, default=0, help="of --workers, if one fails (0)")
    parser.add_argument("--epochs", type=int, default=10, help="default 10")
    parser.add_argument("--batch-size", type=int, default=60, help="of all devices together (60)")
    parser.add_argument("--bfloat16", action="store_true", help="for the networks")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("runs/distributed"),
        help="folder of the backups and the picture (runs/distributed)",
    )
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    if args.workers is None:
        return train(args)
    command = [sys.executable, str(ROOT / "tools" / "launch.py"), "--workers", str(args.workers)]
    command += ["--restarts", str(args.restarts), "--", __file__]
    for name in ("replicas", "epochs", "batch_size", "seed", "out"):
        if getattr(args, name) is not None:
            command += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return subprocess.call(command + ["--bfloat16"] * args.bfloat16)


if __name__ == "__main__":
    sys.exit(main())
