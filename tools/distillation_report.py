"""A continuous flow and the one-pass flows that learn from it: how much each loses, in nats.

    python tools/distillation_report.py                  # some two minutes on two cores
    python tools/distillation_report.py --epochs 60 --steps 4000

The teacher is trained on two moons by flow matching. The students are RealNVPs: of its pairs alone,
of pairs and likelihood (`objectives.Distillation`), and by maximum likelihood of as many samples of
the teacher. Told are the mean log-densities of held-out moons and of fresh samples of the teacher,
whose own mean there is minus its entropy, the mean square of a student's distance from its teacher
at the same latents, and the time of 10,000 samples.
"""

import argparse
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from results import record
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows, objectives


def moons(n, seed):
    """Rows of two moons."""
    return make_moons(n, noise=0.05, random_state=seed)[0].astype("float32")


def compiled(flow, objective, steps, rate):
    """A model with Adam and a rate that falls to 0."""
    model = FlowModel(flow, objective=objective)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=10.0))
    return model


def teach(args):
    """The teacher, with equal steps: its pairs are cheaper so."""
    x, batch = moons(20_000, 0), 200
    flow = flows.continuous([2], hidden_units=(64, 64, 64), seed=args.seed)
    model = compiled(flow, objectives.FlowMatching(), args.epochs * len(x) // batch, 3e-3)
    model.fit(x, batch_size=batch, epochs=args.epochs, verbose=0)
    bijector = flow.bijector.copy(solver="rk4", num_steps=8)
    return tfp.distributions.TransformedDistribution(flow.distribution, bijector)


def student(teacher, likelihood, args):
    """A student of pairs, or, if `likelihood` is `None`, of samples."""
    flow = flows.real_nvp([2], num_couplings=8, hidden_units=(64, 64), seed=args.seed)
    if likelihood is not None:
        objective = objectives.Distillation(teacher, likelihood=likelihood, num_samples=args.batch)
        model = compiled(flow, objective, args.steps, 2e-3)
        model.fit(steps_per_epoch=args.steps // 10, epochs=10, verbose=0)
        return model
    x = FlowModel(teacher).sample(args.steps * args.batch, seed=3)
    model = compiled(flow, None, args.steps, 2e-3)
    model.fit(x, batch_size=args.batch, verbose=0)
    return model


def main():
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=20, help="of the teacher")
    parser.add_argument("--steps", type=int, default=1000, help="of each student")
    parser.add_argument("--batch", type=int, default=256, help="rows a step of a student")
    parser.add_argument("--seed", type=int, default=0)
    record.add_argument(parser)
    args = parser.parse_args()
    cells = []
    teacher = teach(args)
    model = FlowModel(teacher)
    held_out, own = moons(2000, 1), model.sample(2000, seed=9)
    z = teacher.distribution.sample(2000, seed=5)
    wanted = model.forward(z)
    print("| flow | nats, held-out | nats, teacher's samples | distance^2 | 10,000 samples, ms |")
    print("|---|---|---|---|---|")

    def report(name, model):
        model.sample(10_000, seed=0)
        start = time.perf_counter()
        model.sample(10_000, seed=1).numpy()
        took = 1e3 * (time.perf_counter() - start)
        scores, own_scores = (np.asarray(model.log_prob(x)) for x in (held_out, own))
        nats = [scores.mean(), own_scores.mean()]
        distance = tf.reduce_mean(tf.reduce_sum((model.forward(z) - wanted) ** 2, axis=-1))
        print(
            f"| {name} | {nats[0]:.3f} | {nats[1]:.3f} | {distance:.4f} | {took:.0f} |", flush=True
        )
        one = record.cell(
            "distillation",
            name,
            nats[0],
            standard_error=scores.std() / len(scores) ** 0.5,
            budget={"epochs": args.epochs, "steps": args.steps},
            seed=args.seed,
            note=f"{nats[1]:.3f} nats on the teacher's samples, squared distance {distance:.4f}, "
            f"10,000 samples in {took:.0f} ms",
        )
        cells.append(one)

    report("continuous, the teacher", model)
    for name, likelihood in (
        ("RealNVP, pairs alone", 0.0),
        ("RealNVP, pairs and likelihood", 1.0),
        ("RealNVP, likelihood alone", None),
    ):
        report(name, student(teacher, likelihood, args))
    if args.result:
        record.write(args.result, cells)


if __name__ == "__main__":
    main()
