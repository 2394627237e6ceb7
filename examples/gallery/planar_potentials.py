# %% [markdown]
# # Planar and Sylvester flows on a potential
#
# Variational inference needs no data: the flow is fitted to an unnormalised density, here a ring
# with two bright sides. More layers, a smaller divergence.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import FlowModel, flows, objectives

keras.utils.set_random_seed(0)  # The order of the rows in training.


def log_target(x):
    """Minus the first potential of Rezende and Mohamed."""
    ring = -0.5 * ((tf.norm(x, axis=-1) - 2.0) / 0.4) ** 2
    sides = tf.stack([-0.5 * ((x[..., 0] - s) / 0.6) ** 2 for s in (2.0, -2.0)])
    return ring + tf.reduce_logsumexp(sides, axis=0)


side = np.linspace(-4, 4, 200, dtype="float32")
grid = np.stack(np.meshgrid(side, side), axis=-1)
log_z = np.log(np.exp(log_target(grid)).sum() * (side[1] - side[0]) ** 2)

# %% [markdown]
# The loss is KL - log Z, and log Z of two dimensions is a sum over a grid: so the divergence itself
# can be told.

# %%
fitted = {
    "planar, 2 layers": flows.planar([2], num_layers=2, seed=0),
    "planar, 16 layers": flows.planar([2], num_layers=16, seed=0),
    "Sylvester, 8 layers": flows.sylvester([2], num_layers=8, seed=0),
}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), sharex=True, sharey=True)
axes[0].pcolormesh(side, side, np.exp(log_target(grid)))
axes[0].set(title="the target", aspect="equal")
for axis, (name, flow) in zip(axes[1:], fitted.items(), strict=True):
    model = FlowModel(flow, objective=objectives.ReverseKL(log_target))
    model.compile(keras.optimizers.Adam(1e-2))
    model.fit(steps_per_epoch=600, epochs=1, verbose=0)
    x, log_q = model.sample_and_log_prob(10_000, seed=1)
    kl = np.mean(log_q - log_target(x)) + log_z
    print(f"{name:20} KL {kl:.3f} nats")
    axis.hist2d(*x.numpy().T, bins=80, range=[[-4, 4], [-4, 4]])
    axis.set(title=f"{name}: KL {kl:.2f}", aspect="equal")
plt.show()
