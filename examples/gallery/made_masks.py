# %% [markdown]
# # The masks of a MADE
#
# A masked autoencoder is an ordinary network with connections taken away, so that the output for
# an entry sees the entries before it alone. Its masks, and what they multiply to.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import conditioners

made = conditioners.MADE(6, 1, hidden_units=(12, 12), zero_output=False, seed=0)
inputs, hidden = made.input_degrees, made.hidden_degrees
print("degrees of the inputs:", inputs.tolist())
for number, degrees in enumerate(hidden, start=1):
    print(f"of hidden layer {number}:", degrees.tolist())

# %% [markdown]
# A hidden unit of degree d sees what has a degree of at most d, the output of degree d what is
# strictly below. With the degrees in order the masks are staircases.

# %%
chain = [inputs, *hidden, inputs]
drawn = [b[:, None] >= a for a, b in zip(chain[:-2], chain[1:-1], strict=True)]
drawn.append(chain[-1][:, None] > chain[-2])
drawn.append(np.linalg.multi_dot([m.astype(int) for m in drawn[::-1]]))
titles = ["inputs to layer 1", "layer 1 to layer 2", "layer 2 to outputs", "paths, all layers"]
figure, axes = plt.subplots(1, 4, figsize=(13, 3.8))
for axis, mask, title in zip(axes, drawn, titles, strict=True):
    shown = axis.imshow(mask, cmap="viridis")
    axis.set(title=title, xlabel="from", ylabel="to")
figure.colorbar(shown, ax=axes[-1], label="number of paths", shrink=0.7)
figure.tight_layout()
plt.show()

# %% [markdown]
# The layer's own Jacobian agrees: the entries where no path leads are zero to the last bit.

# %%
x = tf.random.stateless_normal([1, 6], seed=[0, 1])
with tf.GradientTape() as tape:
    tape.watch(x)
    y = made(x)
jacobian = tape.jacobian(y, x)[0, :, 0].numpy()
missing = drawn[-1] == 0
print("zeros where there is no path:", bool((jacobian[missing] == 0).all()))
