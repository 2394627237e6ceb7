# %% [markdown]
# # A continuous flow by maximum likelihood
#
# The density of a flow of an ordinary differential equation is an equation, too, and can be trained
# directly (FFJORD). How exact it is is a tolerance that one chooses.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

x = make_moons(2000, noise=0.1, random_state=0)[0]
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
options = {"hidden_units": (48, 48), "seed": 0}
model = FlowModel(flows.continuous([2], rtol=1e-3, atol=1e-3, **options))
model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-2, 300)))
history = model.fit(x, batch_size=200, epochs=30, verbose=0)
print(f"{history.history['loss'][-1]:.3f} nats a row, {model.likelihood}")

# %%
plots.density_2d(model.log_prob, [-2.5, -2.5], [2.5, 2.5], points=x[:400], num=80)

# %% [markdown]
# The same weights, solved more and more exactly: the density of a row, against that of the finest.

# %%
tolerances = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
found = []
for tolerance in tolerances:
    exacter = FlowModel(flows.continuous([2], rtol=tolerance, atol=tolerance, **options))
    exacter.set_weights(model.get_weights())
    found.append(exacter.log_prob(x[:200]).numpy())
errors = [np.abs(nats - found[-1]).max() for nats in found[:-1]]
for tolerance, error in zip(tolerances, errors, strict=False):
    print(f"tolerance {tolerance:.0e}: off by up to {error:.1e} nats")
figure, axis = plt.subplots(figsize=(5, 3.2))
axis.loglog(tolerances[:-1], errors, "o-")
axis.set(xlabel="tolerance", ylabel="largest error, nats", title="log-density of 200 rows")
figure.tight_layout()
plt.show()
