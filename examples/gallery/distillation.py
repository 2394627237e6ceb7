# %% [markdown]
# # Distillation: a fast flow from a slow one
#
# A continuous flow samples by an equation, dozens of network calls each. Couplings that learn from
# its pairs of latents and data sample in one pass, and their density stays exact.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from tfp_flows import FlowModel, flows, metrics, objectives

keras.utils.set_random_seed(0)  # The order of the rows in training.

x = make_moons(4000, noise=0.05, random_state=0)[0]
x = ((x - x.mean(0)) / x.std(0)).astype("float32")
teacher = FlowModel(
    flows.continuous([2], hidden_units=(48, 48), solver="rk4", num_steps=8, seed=0),
    objective=objectives.FlowMatching(),
)
teacher.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-2, 100 * 20)))
teacher.fit(x, batch_size=200, epochs=100, verbose=0)

student = FlowModel(
    flows.real_nvp([2], num_couplings=8, hidden_units=(32, 32), seed=0),
    objective=objectives.Distillation(teacher.distribution, num_samples=128),
)
student.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(5e-3, 900)))
history = student.fit(steps_per_epoch=900, epochs=1, verbose=0)

# %% [markdown]
# The same latents, by both: colours tell which latent went where. The student has not only the
# teacher's samples, but its map.

# %%
z = teacher.distribution.distribution.sample(2000, seed=1)
colour = np.arctan2(z[:, 1], z[:, 0])
ends = {"teacher, by an equation": teacher.forward(z), "student, in one pass": student.forward(z)}
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), sharex=True, sharey=True)
for axis, (name, points) in zip(axes, ends.items(), strict=True):
    axis.scatter(*points.numpy().T, s=3, c=colour, cmap="twilight")
    axis.set(title=name, aspect="equal")
plt.show()
apart = np.linalg.norm(ends["teacher, by an equation"] - ends["student, in one pass"], axis=1)
print(f"the two ends of a latent lie {np.median(apart):.3f} apart (median), data have deviation 1")
for name, model in {"teacher": teacher, "student": student}.items():
    distance = metrics.sliced_wasserstein(model.sample(2000, seed=2), x[:2000])
    print(f"{name}: sliced Wasserstein distance from the data {distance.value:.3f}")
