"""A generative moment matching network: a generator trained by comparing samples alone.

    python examples/moment_matching.py
    python examples/moment_matching.py --objective sliced_wasserstein --out /tmp/moments.png

Noise goes through a small network, and the maximum mean discrepancy (or the sliced Wasserstein
distance) of what comes out from the data is made small. Nobody needs a density: not the network,
which has no inverse, and not the training. Prints the scores of samples against held-out data,
beside those of as many rows of the data themselves, and writes a picture of both.

Y. Li, K. Swersky, R. Zemel, Generative moment matching networks, 2015, arXiv:1502.02761.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib
import tensorflow_probability as tfp
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, distributions, metrics, objectives

matplotlib.use("Agg")
import matplotlib.pyplot as plt

tfd = tfp.distributions
OBJECTIVES = {"mmd": objectives.MMD(), "sliced_wasserstein": objectives.SlicedWasserstein()}

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("--objective", default="mmd", choices=OBJECTIVES, help="%(default)s")
parser.add_argument("--epochs", type=int, default=300, help="default: %(default)s")
parser.add_argument("--out", default="moment_matching.png", help="picture: %(default)s")
args = parser.parse_args()
data, test = (make_moons(4000, noise=0.05, random_state=n)[0].astype("float32") for n in (0, 1))

keras.utils.set_random_seed(0)
dense = keras.layers.Dense
network = keras.Sequential([*[dense(64, activation="relu") for _ in range(3)], dense(2)])
noise = tfd.Sample(tfd.Uniform(-1.0, 1.0), 2)
model = FlowModel(distributions.Sampler(network, noise), objective=OBJECTIVES[args.objective])
steps = 10 * args.epochs
model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(4e-3, steps)))
model.fit(data, batch_size=400, epochs=args.epochs, verbose=0)

figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True, sharey=True)
shown = {"data": data[:2000], "samples": model.sample(2000, seed=0).numpy()}
for axis, (name, rows) in zip(axes, shown.items(), strict=True):
    mmd = metrics.mmd(rows, test, scales=(0.1, 0.3, 1.0))  # Fine, as what is to be seen.
    distance = float(metrics.sliced_wasserstein(rows, test))
    print(f"{name}: MMD^2 {mmd.value:.5f} +- {mmd.standard_error:.5f}, SW {distance:.4f}")
    axis.plot(*rows.T, ".", ms=2)
    axis.set_title(name)
figure.tight_layout()
figure.savefig(args.out, dpi=110)
