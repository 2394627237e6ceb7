# %% [markdown]
# # PixelRNN: memories that go along diagonals
#
# Instead of a window, a Diagonal BiLSTM has memories that pass over the image from both upper
# corners. Black and white digits, in nats an image.

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

bits = (load_digits().images > 8).astype("int32")[..., np.newaxis]
bits = bits[np.random.default_rng(0).permutation(len(bits))]
train, test = bits[:1500], bits[1500:]
flow = flows.pixel_rnn(
    [8, 8, 1], output="bernoulli", filters=16, num_layers=2, first_kernel_size=3, seed=0
)
model = FlowModel(flow)
model.compile(keras.optimizers.Adam(1e-2))
history = model.fit(train, batch_size=100, epochs=10, verbose=0)

# %%
mean = (train.sum(axis=0) + 1) / (len(train) + 2)
pixels = np.log(np.where(test == 1, mean, 1 - mean))
independent = pixels.sum(axis=(1, 2, 3)).mean()
print(f"PixelRNN {np.mean(model.log_prob(test)):.2f} nats, independent pixels {independent:.2f}")

# %%
plots.images({"held-out digits": test[:48], "samples": model.sample(48, seed=1)}, low=0, high=1)
