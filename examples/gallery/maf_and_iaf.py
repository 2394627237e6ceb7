# %% [markdown]
# # MAF and IAF: one network, two directions
#
# A masked autoregressive flow goes from data to latents in one pass, and back entry by entry. An
# inverse autoregressive flow is such a map the other way round.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, bijectors, conditioners, elementwise, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

made = conditioners.MADE(16, 2, hidden_units=(32, 32), zero_output=False, seed=0)
maf = bijectors.MaskedAutoregressive(made)
iaf = bijectors.InverseAutoregressive(made)
x = tf.random.stateless_normal([5, 16], seed=[0, 1])
affine, parameters = elementwise.get("affine"), made(x)  # One pass of the network.
for name, found, expected in (
    ("MAF, data to latents", maf.inverse(x), affine.inverse(x, parameters)[0]),
    ("IAF, latents to data", iaf.forward(x), affine.forward(x, parameters)[0]),
):
    print(f"{name}: one pass, to {tf.reduce_max(tf.abs(found - expected)):.0e}")

# %% [markdown]
# Which direction is dear can be read off the graphs: the one pass is a handful of products of
# matrices, the way back is done in order, a unit of the network as soon as all that it sees is
# known.

# %%
directions = {"MAF": maf, "IAF": iaf}
for name, bijector in directions.items():
    for way in ("forward", "inverse"):
        graph = tf.function(getattr(bijector, way), autograph=False).get_concrete_function(x).graph
        inner = graph.as_graph_def().library.function
        count = len(graph.get_operations()) + sum(len(f.node_def) for f in inner)
        print(f"{name} {way}: {count} operations")

# %% [markdown]
# So take MAF where densities of data are wanted (training by likelihood), and IAF where samples and
# their own densities are (variational inference). Both fit the moons, with splines as their maps.

# %%
x = make_moons(2000, noise=0.05, random_state=0)[0].astype("float32")
spline = "affine_rational_quadratic_spline"
figure, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharex=True, sharey=True)
for axis, recipe in zip(axes, (flows.maf, flows.iaf), strict=True):
    model = FlowModel(recipe([2], num_layers=3, hidden_units=(32, 32), elementwise=spline, seed=0))
    model.compile(keras.optimizers.Adam(3e-3))
    loss = model.fit(x, batch_size=100, epochs=25, verbose=0).history["loss"][-1]
    axis.plot(*np.transpose(model.sample(1500, seed=1)), ".", ms=2)
    axis.set(title=f"{recipe.__name__}: {loss:.3f} nats a row", aspect="equal")
plt.show()
