# %% [markdown]
# # A flow among scikit-learn's estimators
#
# `FlowDensity` has the methods of scikit-learn's own densities, so that its grids, pipelines and
# cross-validation take it. Four densities of a rolled-up sheet, each with the best of its grid.

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_swiss_roll
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KernelDensity

from tfp_flows.estimators import FlowDensity

x = make_swiss_roll(2500, noise=0.5, random_state=0)[0]
train, test = train_test_split((x - x.mean(0)) / x.std(0), test_size=500, random_state=0)

flow = FlowDensity(
    options={"num_layers": 3, "hidden_units": (48,), "elementwise": "rational_quadratic_spline"},
    epochs=15,
    patience=15,
    random_state=0,
)
densities = {
    "normal": GridSearchCV(GaussianMixture(random_state=0), {"n_components": [1]}, cv=2),
    "mixture": GridSearchCV(GaussianMixture(random_state=0), {"n_components": [5, 15, 30]}, cv=2),
    "kernels": GridSearchCV(KernelDensity(), {"bandwidth": [0.05, 0.1, 0.2, 0.4]}, cv=2),
    "flow": GridSearchCV(flow, {"learning_rate": [3e-3, 1e-2]}, cv=2),
}

# %%
for name, grid in densities.items():
    nats = grid.fit(train).best_estimator_.score_samples(test)
    error = nats.std() / np.sqrt(len(nats))
    print(f"{name:8} {nats.mean():.3f} +- {error:.3f} nats a held-out row, by {grid.best_params_}")

# %% [markdown]
# The sheet from its side, and what each draws.

# %%
figure, axes = plt.subplots(1, 5, figsize=(14, 3.2), sharex=True, sharey=True)
axes[0].plot(*train[:1000, ::2].T, ".", ms=2)
axes[0].set(title="data", aspect="equal")
for axis, (name, grid) in zip(axes[1:], densities.items(), strict=True):
    drawn = grid.best_estimator_.sample(1000)
    drawn = drawn[0] if isinstance(drawn, tuple) else drawn  # A mixture tells the parts, too.
    axis.plot(*drawn[:, ::2].T, ".", ms=2)
    axis.set(title=name, aspect="equal", xlim=(-2.5, 2.5), ylim=(-2.5, 2.5))
figure.tight_layout()
plt.show()
