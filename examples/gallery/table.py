# %% [markdown]
# # A table with holes
#
# Columns of different kinds, some entries missing. One model of the rows scores, samples and fills
# in what is missing: many times, not once.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from tfp_flows import tables

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)
number = 1500
size = rng.choice(3, number, p=[0.3, 0.5, 0.2])
weight = np.exp(0.7 * size + 0.2 * rng.normal(size=number))
parts = rng.poisson(2 + 4 * size)
frame = {
    "size": np.array(["S", "M", "L"], object)[size],
    "weight": np.round(weight, 3),
    "parts": parts.astype(float),
}
for column in frame:
    frame[column][rng.random(number) < 0.1] = None

schema = tables.Schema(
    {
        "size": tables.ordinal(["S", "M", "L"]),
        "weight": tables.positive(),
        "parts": tables.count(),
    }
)
table = tables.TableFlow(schema, hidden_units=(48, 48), seed=0)
history = table.fit(frame, epochs=30, batch_size=128, verbose=0)

# %% [markdown]
# A row that says only that it weighs 2.8, between the sizes: which one has it, and how many parts?
# Draws, with what the simulation itself says beside them.

# %%
filled = table.impute({"size": [None], "weight": [2.8], "parts": [None]}, 1000, seed=1)
sizes = np.array([one["size"][0] for one in filled])
counts = np.array([one["parts"][0] for one in filled], float)
near = np.abs(np.log(weight / 2.8)) < 0.1
shares = {name: np.mean(sizes == name) for name in "SML"}
true = {name: np.mean(size[near] == k) for k, name in enumerate("SML")}
for name in "SML":
    print(f"size {name}: drawn {shares[name]:.2f}, of simulated rows so heavy {true[name]:.2f}")
figure, axis = plt.subplots(figsize=(6, 3))
bins = np.arange(-0.5, 24)
axis.hist(counts, bins, density=True, alpha=0.6, label="drawn")
axis.hist(parts[near], bins, density=True, histtype="step", color="k", label="simulated rows")
axis.set(xlabel="parts, given weight 2.8", ylabel="share")
axis.legend()
plt.show()

# %% [markdown]
# The oddest of three rows, and the entry that makes it so.

# %%
rows = {"size": ["S", "M", "S"], "weight": [1.0, 2.1, 1.1], "parts": [2, 5, 19]}
found = table.rank(rows)
for k in range(3):
    print(f"row {found['row'][k]}: {found['surprise'][k]:6.2f} nats, by its {found['column'][k]}")
