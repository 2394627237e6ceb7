# %% [markdown]
# # MADE: a density of bits
#
# Digits cut to black and white are 64 bits. A MADE gives the chance of each given those before it:
# its log-probabilities are exact, and no noise is needed.

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

bits = (load_digits().data > 8).astype("int32")
bits = bits[np.random.default_rng(0).permutation(len(bits))]
train, test = bits[:1500], bits[1500:]
model = FlowModel(flows.made([64], hidden_units=(300,), seed=0))
model.compile(keras.optimizers.AdamW(2e-3, weight_decay=0.05))
history = model.fit(train, batch_size=100, epochs=40, verbose=0)

# %% [markdown]
# Independent pixels know the mean image and nothing of what goes with what.

# %%
mean = (train.sum(axis=0) + 1) / (len(train) + 2)
independent = np.mean(np.sum(np.log(np.where(test == 1, mean, 1 - mean)), axis=1))
nats = np.mean(model.log_prob(test))
print(f"MADE {nats:.2f} nats an image; independent pixels {independent:.2f}")

# %%
draws = np.random.default_rng(1).random((48, 64)) < mean
panels = {"digits": test[:48], "samples of MADE": model.sample(48, seed=1), "independent": draws}
plots.images({k: np.reshape(v, [-1, 8, 8]).astype("float32") for k, v in panels.items()})
