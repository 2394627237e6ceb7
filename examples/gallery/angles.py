# %% [markdown]
# # Angles
#
# Directions have no ends: a density of them should not care where the circle is cut. Circular
# splines are maps of the circle; here of two angles that go together, as those of a molecule do.

# %%
import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows

keras.utils.set_random_seed(0)  # The order of the rows in training.

rng = np.random.default_rng(0)
first = rng.vonmises(np.pi, 1.5, 6000)  # Half of it lies on either side of the cut.
second = rng.vonmises(2 * first, 6.0)
x = np.stack([first, second], axis=1).astype("float32")


# %% [markdown]
# A network of angles should see their cosines and sines, for it does not know that -pi is pi. The
# base is uniform on the circle.


# %%
@keras.saving.register_keras_serializable(package="mine")
class OfAngles(keras.layers.Layer):
    """Cosines and sines, then two dense layers."""

    def __init__(self, output_size, seed=0, **kwargs):
        super().__init__(**kwargs)
        self.output_size, self.seed = output_size, seed
        start = keras.initializers.GlorotUniform(seed)
        self.hidden = keras.layers.Dense(48, "silu", kernel_initializer=start)
        self.last = keras.layers.Dense(output_size, kernel_initializer="zeros")

    def call(self, x):
        return self.last(self.hidden(tf.concat([tf.cos(x), tf.sin(x)], axis=-1)))

    def get_config(self):
        return {**super().get_config(), "output_size": self.output_size, "seed": self.seed}


tfd = tfp.distributions
flow = flows.real_nvp(
    [2],
    num_couplings=4,
    conditioner=lambda inputs, outputs, context_size, seed: OfAngles(outputs, seed),
    elementwise="circular_rational_quadratic_spline",
    base=tfd.Independent(tfd.Uniform([-np.float32(np.pi)] * 2, [np.float32(np.pi)] * 2), 1),
    seed=0,
)
model = FlowModel(flow)
model.compile(keras.optimizers.Adam(3e-3))
history = model.fit(x, batch_size=200, epochs=20, verbose=0)
truth = tfd.VonMises(np.pi, 1.5).entropy() + tfd.VonMises(0.0, 6.0).entropy()
print(f"{history.history['loss'][-1]:.3f} nats a row; the truth has {truth:.3f}")

# %%
side = np.linspace(-np.pi, np.pi, 200, dtype="float32")[1:-1]
grid = np.stack(np.meshgrid(side, side), axis=-1)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2))
left.plot(*x[:3000].T, ".", ms=2)
right.pcolormesh(side, side, np.exp(model.log_prob(grid)))
for axis, title in ((left, "data"), (right, "density of the flow")):
    axis.set(title=title, xlabel="angle 1", ylabel="angle 2", aspect="equal")
plt.show()
edges = np.exp(model.log_prob(np.array([[-3.1415, 1.0], [3.1415, 1.0]], "float32")))
print(f"density on either side of the cut: {edges[0]:.3f} and {edges[1]:.3f}")
