# %% [markdown]
# # Guidance, and a step back from noise
#
# TarFlow's recipe for samples that look good: train on noisy images, some without their label; draw
# with what the label adds counted twice over; and take the step that the density itself shows.

# %%
import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tfp_flows import FlowModel, flows, objectives, plots

keras.utils.set_random_seed(0)  # The order of the rows in training.

digits = load_digits()
images = (digits.images[..., np.newaxis] / 8.0 - 1.0).astype("float32")  # Within -1 and 1.
classes = np.eye(10, dtype="float32")[digits.target]
flow = flows.tarflow(
    [8, 8, 1],
    patch_size=2,
    num_blocks=4,
    num_layers=1,
    width=48,
    num_heads=2,
    context_size=10,
    log_scale="exp",
    seed=0,
)
objective = objectives.NoisyLikelihood(noise_std=0.15, drop_label=0.1)
model = FlowModel(flow, objective=objective)
model.compile(keras.optimizers.Adam(3e-3, global_clipnorm=100.0))
history = model.fit(images, classes, batch_size=100, epochs=20, verbose=0)
print(f"{history.history['loss'][-1]:.2f} nats a noisy image")

# %% [markdown]
# Each row a digit, the same latents in all three grids. Guidance moves a sample to where its label
# is likelier than no label; the step back takes the noise of the training out.

# %%
context = np.repeat(np.eye(10, dtype="float32"), 8, axis=0)
guided = FlowModel(flows.guided(flow, guidance=1.0, annealed_guidance=True))
noisy = {
    "as trained": model.sample(80, context=context, seed=1, temperature=0.9),
    "guided": guided.sample(80, context=context, seed=1, temperature=0.9),
}
clean = objective.denoise(flow, noisy["guided"], context)
panels = {**noisy, "guided, and the step back": clean}
for name, samples in panels.items():
    by_label = [model.log_prob(samples, np.tile(row, [80, 1])) for row in np.eye(10, dtype="f4")]
    own = np.take_along_axis(np.array(by_label), np.repeat(np.arange(10), 8)[np.newaxis], axis=0)
    best_other = np.sort(by_label, axis=0)[-2]
    rough = np.mean(np.abs(samples[:, 2:] - 2 * samples[:, 1:-1] + samples[:, :-2]))
    ahead = np.median(own[0] - best_other)
    print(f"{name:26} own label {ahead:5.1f} nats ahead of the next, roughness {rough:.2f}")
real = np.mean(np.abs(images[:, 2:] - 2 * images[:, 1:-1] + images[:, :-2]))
print(f"roughness of the digits: {real:.2f}")
plots.images({k: tf.clip_by_value(v, -1.0, 1.0) for k, v in panels.items()}, low=-1, high=1)
