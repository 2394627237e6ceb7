# %% [markdown]
# # How unusual is a row?
#
# A density gives each row a rank among the rows of its kind: the share of them that are less
# probable still. A flow of measurements of benign tumours, which then sees malignant ones.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import roc_auc_score

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

x, benign = load_breast_cancer(return_X_y=True)
x = np.log(x[:, :10] + 0.01)  # Ten measurements, all of them positive.
x = ((x - x[benign == 1].mean(axis=0)) / x[benign == 1].std(axis=0)).astype("float32")
own = x[benign == 1][np.random.default_rng(0).permutation((benign == 1).sum())]
train, reference, held_out = own[:200], own[200:280], own[280:]
malignant = x[benign == 0]

# %% [markdown]
# Few rows want a small flow, and training that ends when held-out rows say so: here those
# that rows are compared with afterwards.

# %%
flow = flows.maf([10], num_layers=3, hidden_units=(24,), seed=0)
model = FlowModel(flow)
model.compile(keras.optimizers.AdamW(3e-3, weight_decay=0.1))
stop = keras.callbacks.EarlyStopping(patience=15, restore_best_weights=True)
model.fit(
    train,
    validation_data=(reference,),
    batch_size=25,
    epochs=150,
    verbose=0,
    callbacks=[stop],
)
rareness = {"benign, held out": held_out, "malignant": malignant}
rareness = {k: model.rareness(v, reference=reference).numpy() for k, v in rareness.items()}

# %% [markdown]
# Rows like those of the reference have ranks that are uniform. Malignant ones crowd at the left.

# %%
figure, axis = plt.subplots(figsize=(6, 3.2))
for name, values in rareness.items():
    axis.hist(values, np.linspace(0, 1, 21), density=True, alpha=0.6, label=name)
    print(f"{name:17} {np.mean(values < 0.05):.0%} have a rareness below 0.05")
axis.set(xlabel="rareness: share of benign rows that are less probable", ylabel="density")
axis.legend()
plt.show()
scores = -np.concatenate([model.log_prob(held_out), model.log_prob(malignant)])
foreign = np.r_[np.zeros(len(held_out)), np.ones(len(malignant))]
print(f"area under the curve: {roc_auc_score(foreign, scores):.3f}")
