# %% [markdown]
# # Rotations between couplings
#
# Couplings need their entries mixed. A trained 1x1 convolution does it with a matrix that may
# stretch; Householder's reflections and Cayley's transform keep every length.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import bijectors

parts = {
    "InvertibleConv1x1": bijectors.InvertibleConv1x1(2, seed=1),
    "Householder": bijectors.Householder(2, seed=0),
    "Orthogonal (Cayley)": bijectors.Orthogonal(2, seed=1),
}
rng = np.random.default_rng(2)
for part in parts.values():
    for weight in part.trainable_variables:  # As if training had moved them.
        weight.assign_add(0.4 * rng.normal(size=weight.shape))

# %% [markdown]
# A letter before and after. The log-det is the logarithm of the area's factor: zero for the two
# that are orthogonal whatever their weights.

# %%
letter = np.array([[0, 0], [0, 3], [2, 3], [2, 2.3], [0.7, 2.3], [0.7, 1.7], [1.6, 1.7]])
letter = np.concatenate([letter, [[1.6, 1], [0.7, 1], [0.7, 0], [0, 0]]]).astype("float32")
figure, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharex=True, sharey=True)
axes[0].fill(*letter.T)
axes[0].set(title="before", aspect="equal")
for axis, (name, part) in zip(axes[1:], parts.items(), strict=True):
    moved = part.forward(letter)
    log_det = float(part.forward_log_det_jacobian(tf.zeros([1, 2]), event_ndims=1))
    axis.fill(*moved.numpy().T, color="C1")
    axis.set(title=f"{name}\nlog-det {log_det:.3f}", aspect="equal")
    _, by_numpy = np.linalg.slogdet(np.linalg.inv(part.matrix) if "1x1" in name else part.matrix)
    print(f"{name:20} log-det {log_det:7.4f}, of its matrix by NumPy {by_numpy:7.4f}")
figure.tight_layout()
plt.show()
