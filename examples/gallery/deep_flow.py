# %% [markdown]
# # A deep flow as a loop
#
# Equal steps can run as one loop over stacked weights: one step is traced, however many there
# are, and memory hardly grows. The values are those of the steps one by one.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import bijectors, conditioners, masks


def coupling(flip):
    """One coupling of four entries."""
    mlp = conditioners.MLP(4, hidden_units=(16,), seed=int(flip))
    return bijectors.AffineCoupling(mlp, masks.halves(4, flip=flip))


pair = bijectors.Chain([coupling(False), coupling(True)])
loop = bijectors.Repeat(pair, 64, seed=0)
rng = np.random.default_rng(0)
for weight in loop.trainable_variables:  # Fresh couplings are the identity: move them.
    weight.assign_add(0.05 * rng.normal(size=weight.shape))
one_by_one = bijectors.Chain(loop.steps)

x = tf.random.stateless_normal([8, 4], seed=[0, 1])
print(f"128 couplings in {len(loop.trainable_variables)} variables")
difference = tf.reduce_max(tf.abs(loop.inverse(x) - one_by_one.inverse(x)))
print(f"the loop differs from its steps, one by one, by {difference:.0e}")

# %% [markdown]
# What the graph of one inverse holds, by depth: that of the loop stays as it is.

# %%
depths = [4, 8, 16, 32, 64]
sizes = {"one by one": [], "Repeat": []}
for depth in depths:
    deep = bijectors.Repeat(pair, depth, seed=0)
    for name, flow in {"one by one": bijectors.Chain(deep.steps), "Repeat": deep}.items():
        traced = tf.function(flow.inverse, autograph=False).get_concrete_function(x)
        graph = traced.graph.as_graph_def()
        inner = sum(len(f.node_def) for f in graph.library.function)
        sizes[name].append(len(graph.node) + inner)
figure, axis = plt.subplots(figsize=(6, 3.2))
for name, counts in sizes.items():
    axis.plot(2 * np.array(depths), counts, "o-", label=name)
axis.set(xlabel="couplings", ylabel="operations in the graph", title="what is traced")
axis.legend()
plt.show()
