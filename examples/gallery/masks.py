# %% [markdown]
# # The masks of couplings
#
# A coupling leaves one part of its input as it is and moves the other, by a network that sees
# the first part alone. The mask says which is which: True passes through.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import bijectors, masks

vectors = {
    "halves(8)": masks.halves(8),
    "halves(8, flip=True)": masks.halves(8, flip=True),
    "alternating(8)": masks.alternating(8),
    "explicit([0, 1, 5], 8)": masks.explicit([0, 1, 5], 8),
}
figure, axes = plt.subplots(4, 1, figsize=(4.5, 4.2))
for axis, (title, mask) in zip(axes, vectors.items(), strict=True):
    axis.pcolormesh(mask[np.newaxis], cmap="cividis", edgecolor="white", linewidth=1, vmax=1)
    axis.set(title=title, xticks=[], yticks=[], aspect="equal")
figure.suptitle("yellow passes, blue is moved")
figure.tight_layout()
plt.show()

# %% [markdown]
# Images have two kinds. A checkerboard splits the pixels; after a squeeze, which trades a block of
# 2 x 2 pixels for four channels, a channel mask splits the channels. Both reach every pixel.

# %%
checkerboard = masks.checkerboard([8, 8, 1])
squeezed = bijectors.Squeeze().forward(tf.reshape(tf.range(64.0), [1, 8, 8, 1]))
channel = np.broadcast_to(masks.channel([4, 4, 4]), [4, 4, 4])
back = bijectors.Squeeze().inverse(channel[np.newaxis].astype("float32"))
panels = {
    "checkerboard([8, 8, 1])": checkerboard[..., 0],
    "channel([4, 4, 4]), as the pixels\nthat it came from": back[0, ..., 0],
}
figure, axes = plt.subplots(1, 2, figsize=(7, 3.8))
for axis, (title, mask) in zip(axes, panels.items(), strict=True):
    axis.pcolormesh(np.flipud(mask), cmap="cividis", edgecolor="white", linewidth=1)
    axis.set(title=title, xticks=[], yticks=[], aspect="equal")
plt.show()
print("pixels in channel 0 after the squeeze:")
print(squeezed[0, ..., 0].numpy().astype(int))
