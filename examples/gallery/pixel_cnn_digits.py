# %% [markdown]
# # PixelCNN: images finished row by row
#
# A Gated PixelCNN of digits with five grey levels, each level with a probability of its own. It
# draws pixel by pixel, so an image whose upper half is given can be finished in any number of ways.

# %%
import keras
import numpy as np
import tensorflow as tf
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
# To finish an image, the pixels of the lower half are drawn in order, each by the chances that the
# network gives it. Left: digits whose lower halves are hidden; then seven ways to go on with each.

# %%
number = 6
drawn = np.repeat(test[:number], 8, axis=0)
drawn[:, 4:] = 0


@tf.function(autograph=False)
def logits(x):
    """Of each level, at every pixel."""
    return flow.network(flow.output.to_network(x))


rng = np.random.default_rng(0)
for row in range(4, 8):
    for column in range(8):
        here = logits(drawn.astype("float32"))[:, row, column].numpy()
        level = (here + rng.gumbel(size=here.shape)).argmax(axis=1)  # A draw of the softmax.
        drawn[:, row, column, 0] = np.where(np.arange(len(drawn)) % 8, level, 0)
plots.images(drawn, low=0, high=4)
