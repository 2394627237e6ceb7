# %% [markdown]
# # A set as the condition
#
# The posterior of a mean given ten measurements. A network that adds up what it makes of each
# measurement, and so does not care for their order, is trained with the flow.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np

from tfp_flows import FlowModel, flows

rng = np.random.default_rng(0)
theta = rng.normal(size=(4000, 1)).astype("float32")
sets = (theta[:, np.newaxis] + rng.normal(size=(4000, 10, 1))).astype("float32")

keras.utils.set_random_seed(0)
dense = keras.layers.Dense
network = keras.Sequential(
    [
        dense(32, activation="relu"),
        dense(32, activation="relu"),
        keras.layers.GlobalAveragePooling1D(),
        dense(8),
    ]
)
flow = flows.maf([1], num_layers=3, hidden_units=(32,), context_size=8, seed=0)
model = FlowModel(flow, context_network=network)
model.compile(keras.optimizers.Adam(3e-3))
history = model.fit(theta, sets, batch_size=128, epochs=25, verbose=0)

# %% [markdown]
# Here the posterior is known: normal, with mean 10/11 of the measurements' mean and variance 1/11.
# Its entropy is the best that the training can reach.

# %%
best = 0.5 * np.log(2 * np.pi * np.e / 11)
print(f"{history.history['loss'][-1]:.3f} nats; the exact posterior has {best:.3f}")
shuffled = model.log_prob(theta[:5], context=sets[:5, ::-1])
difference = np.abs(shuffled - model.log_prob(theta[:5], context=sets[:5])).max()
print(f"measurements in another order change the score by {difference:.0e}")
line = np.linspace(-2, 2, 200, dtype="float32")[:, np.newaxis]
figure, axis = plt.subplots(figsize=(6, 3.2))
for k in range(3):
    density = np.exp(model.log_prob(line, context=np.repeat(sets[k : k + 1], 200, axis=0)))
    exact = np.exp(-5.5 * (line - sets[k].sum() / 11) ** 2) * np.sqrt(11 / (2 * np.pi))
    axis.plot(line, density, color=f"C{k}", label="flow" if k == 0 else None)
    axis.plot(line, exact, "--", color=f"C{k}", label="exact" if k == 0 else None)
axis.set(xlabel="the mean", ylabel="posterior density", title="three sets of ten measurements")
axis.legend()
plt.show()
