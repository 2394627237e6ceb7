# %% [markdown]
# # Are the samples good?
#
# Two flows side by side: one has seen all the data, one only half of the clusters. Four scores,
# and what each of them says about the one that drops modes.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from tfp_flows import FlowModel, flows, metrics

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)


def clusters(n):
    """Rows of eight clusters on a circle."""
    angle = rng.integers(0, 8, n) * np.pi / 4
    middle = 2.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (middle + 0.2 * rng.normal(size=(n, 2))).astype("float32")


train, held_out = clusters(4000), clusters(600)
samples = {}
for name, rows in {"good": train, "bad": train[train[:, 0] > -0.5]}.items():
    spline = "affine_rational_quadratic_spline"
    flow = flows.real_nvp([2], num_couplings=4, hidden_units=(32, 32), elementwise=spline, seed=0)
    model = FlowModel(flow)
    rate = keras.optimizers.schedules.CosineDecay(5e-3, 25 * len(rows) // 128)
    model.compile(keras.optimizers.Adam(rate))
    model.fit(rows, batch_size=128, epochs=25, verbose=0)
    samples[name] = model.sample(600, seed=1).numpy()

# %% [markdown]
# The maximum mean discrepancy is near 0 for samples of the same distribution, with a p-value
# of equality; a classifier that tells the two apart reaches an accuracy of 0.5 at best. Precision
# asks whether samples look like data: the bad flow does well. Recall asks whether all data are
# covered: there it fails.

# %%
for name, drawn in samples.items():
    mmd = metrics.mmd(drawn, held_out, num_permutations=99)
    c2st = metrics.c2st(held_out, drawn, classifier="gradient_boosting")
    shares = metrics.precision_recall(drawn, held_out)
    print(
        f"{name:5} MMD^2 {mmd.value:7.4f} (p = {mmd.p_value:.2f})   C2ST {c2st.value:.2f}   "
        f"precision {shares.precision:.2f}   recall {shares.recall:.2f}"
    )
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), sharex=True, sharey=True)
shown = {"held-out data": held_out} | {f"samples, {k} flow": v for k, v in samples.items()}
for axis, (title, points) in zip(axes, shown.items(), strict=True):
    axis.plot(*points.T, ".", ms=3)
    axis.set(title=title, aspect="equal")
plt.show()
