# %% [markdown]
# # What a network sees
#
# The receptive fields of WaveNet, Gated PixelCNN and the Diagonal BiLSTM, measured by gradients:
# where does one output change if an input does?

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import conditioners


def seen(layer, shape, place):
    """Whether the output at a place depends on each input, by the gradient at three points."""
    x = tf.random.stateless_normal([3, *shape], seed=[0, 1])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(layer(x)[(slice(None), *place)])
    return tf.reduce_any(tape.gradient(y, x) != 0.0, axis=[0, -1]).numpy()


def wake(layer, shape):
    """Fresh residual paths are zero; random weights in their place show what could be seen."""
    layer(tf.zeros([1, *shape]))
    rng = np.random.default_rng(0)
    for weight in layer.trainable_variables:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    return layer


# %% [markdown]
# WaveNet's dilated convolutions: each layer doubles the reach, so 4 layers see 16 steps back. The
# step itself is not among them.

# %%
figure, axes = plt.subplots(4, 1, figsize=(8, 3.6), sharex=True)
for axis, number in zip(axes, range(1, 5), strict=True):
    dilations = tuple(2**k for k in range(number))
    wavenet = wake(conditioners.WaveNet([32, 1], filters=4, dilations=dilations), [32, 1])
    field = seen(wavenet, [32, 1], [24])
    axis.pcolormesh(np.r_[-0.5:32], [0, 1], field[np.newaxis], cmap="cividis")
    axis.axvline(24, color="C1")
    axis.set(yticks=[], title=f"dilations {dilations}: {field.sum()} steps")
    axis.title.set_fontsize(9)
axes[-1].set_xlabel("step (the line: the one that is predicted)")
figure.tight_layout()
plt.show()

# %% [markdown]
# Of images, row by row: everything within reach above and to the left, and nothing else. Stacked
# masked convolutions alone would miss a wedge to the upper right, the blind spot; two stacks do
# not. The Row LSTM's memories see a triangle up to the upper edge in a single layer; the BiLSTM's
# reach every earlier pixel, but for the last one of the row above, which its first kernel sees
# where it is near.

# %%
shape, place = [13, 13, 1], [7, 6]
layers = {"PixelCNN, 1 layer": 1, "PixelCNN, 4 layers": 4}
fields = {}
for title, number in layers.items():
    cnn = conditioners.PixelCNN(shape, filters=4, num_layers=number, first_kernel_size=3)
    fields[title] = seen(wake(cnn, shape), shape, place)
memories = {"Row LSTM": conditioners.RowLSTM, "Diagonal BiLSTM": conditioners.DiagonalBiLSTM}
for title, kind in memories.items():
    rnn = kind(shape, filters=4, num_layers=1, first_kernel_size=3)
    fields[f"{title}, 1 layer"] = seen(wake(rnn, shape), shape, place)
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4))
for axis, (title, field) in zip(axes, fields.items(), strict=True):
    axis.imshow(field, cmap="cividis")
    axis.plot(place[1], place[0], "s", color="C1")
    axis.set(title=f"{title}\n{field.sum()} of {7 * 13 + 6} earlier pixels", xticks=[], yticks=[])
figure.tight_layout()
plt.show()
