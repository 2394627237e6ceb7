# %% [markdown]
# # Splines against affine maps
#
# A checkerboard has sharp edges and gaps, which affine couplings can only stretch and shift into
# place. Splines bend: with as many couplings they find the tiles.

# %%
import keras
import numpy as np

from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)
x = rng.uniform(0, 4, size=(40_000, 2))
x = x[(np.floor(x).sum(axis=1) % 2) == 0].astype("float32") - 2.0

models = {}
for name in ("affine", "affine_rational_quadratic_spline"):
    flow = flows.real_nvp([2], num_couplings=4, hidden_units=(48, 48), elementwise=name, seed=0)
    model = FlowModel(flow)
    model.compile(keras.optimizers.Adam(3e-3))
    history = model.fit(x, batch_size=256, epochs=10, verbose=0)
    models[name] = model
    print(f"{name:34} {history.history['loss'][-1]:.3f} nats a row")
print(f"{'the best that there is: log 8':34} {np.log(8):.3f}")

# %%
scores = {"affine": models["affine"].log_prob, "spline": models[name].log_prob}
plots.density_2d(scores, [-2.5, -2.5], [2.5, 2.5], mass=())
