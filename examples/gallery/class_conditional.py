# %% [markdown]
# # A classifier from ten densities
#
# One flow of digits given their class is ten densities. By Bayes' rule they classify, and they know
# what no classifier does: how likely the image is at all.

# %%
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import tfp_flows
from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order], labels[order]
pca = PCA(20, whiten=True, random_state=0).fit(images[:1400])
x = pca.transform(images).astype("float32")
context = np.eye(10, dtype="float32")[labels]

flow = flows.maf([20], num_layers=4, hidden_units=(64,), context_size=10, seed=0)
model = FlowModel(flow)
model.compile(keras.optimizers.AdamW(3e-3, weight_decay=0.02))
noise = 0.1 * np.random.default_rng(1).normal(size=[1400, 20]).astype("float32")
history = model.fit(x[:1400] + noise, context[:1400], batch_size=100, epochs=25, verbose=0)

# %% [markdown]
# The flow with all ten contexts is a plain distribution whose batch has ten members. The classes
# are as frequent as each other, so the largest density wins.

# %%
classes = tfp_flows.condition(flow, np.eye(10, dtype="float32"))
log_densities = classes.log_prob(x[1400:, np.newaxis])  # [397, 10]
guesses = tf.argmax(log_densities, axis=1).numpy()
accuracy = np.mean(guesses == labels[1400:])
print(f"accuracy on {len(guesses)} held-out digits: {accuracy:.3f}")

# %%
samples = model.sample([8, 10], context=np.eye(10, dtype="float32"), seed=1, temperature=0.8)
drawn = pca.inverse_transform(samples.numpy().reshape(80, 20)).reshape(-1, 8, 8)
plots.images(drawn.clip(0, 16), columns=10)
