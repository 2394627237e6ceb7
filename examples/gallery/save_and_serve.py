# %% [markdown]
# # From the model to a file, and to a server
#
# A `.keras` file goes on training; a SavedModel needs nothing but TensorFlow. Both give the numbers
# that the model gave.

# %%
import pathlib
import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_moons

import tfp_flows
from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

x = make_moons(2000, noise=0.05, random_state=0)[0].astype("float32")
model = FlowModel(flows.real_nvp([2], num_couplings=4, hidden_units=(32,), seed=0))
model.compile("adam")
model.fit(x, batch_size=100, epochs=5, verbose=0)

model.save("moons.keras")
again = tfp_flows.load("moons.keras")
print("file: equal densities:", bool(tf.reduce_all(again.log_prob(x) == model.log_prob(x))))

# %% [markdown]
# The export, read in a process that never imports this package.

# %%
model.export("served")
np.save("x.npy", x[:100])
pathlib.Path("consumer.py").write_text(
    """
import numpy as np
import tensorflow as tf

served = tf.saved_model.load("served").signatures
nats = served["log_prob"](x=tf.constant(np.load("x.npy")))
drawn = served["sample"](n=tf.constant(100), seed=tf.constant([1, 2]), temperature=tf.constant(1.0))
np.savez("out.npz", nats=nats["log_prob"], drawn=drawn["samples"])
"""
)
subprocess.run([sys.executable, "consumer.py"], check=True, capture_output=True)
nats, drawn = np.load("out.npz").values()
print(f"export: densities within {np.abs(nats - model.log_prob(x[:100])).max():.0e}")
print(f"export: samples within {np.abs(drawn - model.sample(100, seed=[1, 2])).max():.0e}")
print("functions:", ", ".join(sorted(tf.saved_model.load("served").signatures)))
