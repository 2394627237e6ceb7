# %% [markdown]
# # PixelCNN: images finished row by row
#
# A Gated PixelCNN of digits with five grey levels, each level with a probability of its own. It
# draws pixel by pixel, so an image whose upper half is given can be finished in any number of ways.

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

levels = np.round(load_digits().images / 4).astype("int32")[..., np.newaxis]  # 0 to 4
train, test = levels[:1500], levels[1500:]
flow = flows.pixel_cnn(
    [8, 8, 1], output="categorical", num_levels=5, filters=24, num_layers=3, seed=0
)
model = FlowModel(flow)
model.compile(keras.optimizers.Adam(4e-3))
model.fit(train, batch_size=100, epochs=12, verbose=0)
nats, bits = model.evaluate(test, verbose=0)
print(f"{bits:.3f} bits/dim on held-out digits; uniform levels have {np.log2(5):.3f}")

# %%
plots.images({"held-out digits": test[:48], "samples": model.sample(48, seed=1)})

# %% [markdown]
# `complete` draws the pixels of the lower half in order, each by the chances that the network gives
# it: exactly, since all that is given comes first. Left: digits whose lower halves are hidden; then
# seven ways to go on with each.

# %%
upper = (np.arange(8) < 4)[:, np.newaxis, np.newaxis] & np.ones([8, 8, 1], bool)
draws, effective = model.complete(test[:6], upper, 7, seed=0)
print("independent draws, of 7:", effective.numpy())
rows = np.concatenate([np.where(upper, test[:6], 0)[np.newaxis], draws])
plots.images(rows.swapaxes(0, 1).reshape(-1, 8, 8, 1), low=0, high=4)
