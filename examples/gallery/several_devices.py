# %% [markdown]
# # Two devices, one answer
#
# Trained under a strategy, a flow gets the weights that one device gives it on the same batches.
# Here the devices are two logical CPUs; GPUs and workers go the same way.

# %%
import keras
import numpy as np
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, distribute, flows

strategy = distribute.make_strategy(replicas=2)  # Before anything else of TensorFlow.
x = make_moons(1050, noise=0.05, random_state=0)[0].astype("float32")


def train():
    """Trains on batches of 100, of which the last has 50 rows."""
    keras.utils.set_random_seed(0)
    model = FlowModel(flows.maf([2], num_layers=2, hidden_units=(16,), seed=0))
    model.compile(keras.optimizers.Adam(1e-3, global_clipnorm=1.0))
    losses = model.fit(x, batch_size=100, epochs=5, verbose=0).history["loss"]
    return losses, model.get_weights()


with strategy.scope():
    together, weights = train()
alone, expected = train()

# %%
print(f"{strategy.num_replicas_in_sync} replicas: losses", np.round(together, 4))
print("1 device:   losses", np.round(alone, 4))
furthest = max(np.abs(a - b).max() for a, b in zip(weights, expected, strict=True))
print(f"the weights differ by {furthest:.0e} at most")
