# %% [markdown]
# # A trained flow in one line
#
# Three small flows come with the package, each with a card: what it is, of which data, what it
# scores and what it is not for. They load from the package's own folder.

# %%
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf

from tfp_flows import plots, pretrained

for name in pretrained.available():
    card = pretrained.card(name)
    first = card["numbers"][0]
    score = f"{first['value']:.2f} +- {first['standard_error']:.2f} {first['unit']}"
    print(f"{name:15} {card['title']:27} {score:28} {card['bytes'] // 1000} kB")

# %% [markdown]
# A Glow that is told the digit, a column each, beside a MADE of bits. At a lower temperature the
# Glow's digits are cleaner, and more alike.

# %%
glow = pretrained.load("glow_digits")
drawn = {
    f"Glow, temperature {t}": glow.sample([6, 10], context=range(10), seed=0, temperature=t)
    for t in (0.5, 1.0)
}
panels = {k: tf.reshape(v, [-1, 8, 8]) for k, v in drawn.items()}
plots.images(panels, columns=10, low=0, high=17)

# %%
made = pretrained.load("made_mnist")
bits = made.sample(40, seed=0)
print(f"its own samples: {np.mean(made.log_prob(bits)):.1f} nats an image")
plots.images(tf.reshape(tf.cast(bits, tf.float32), [-1, 28, 28]), columns=10)

# %% [markdown]
# An eighth of a second of sound of three digits, as the WaveNet draws it: loudness and pitch of a
# voice, no word.

# %%
wavenet = pretrained.load("wavenet_digits")
sound = wavenet.sample(3, context=[0, 3, 6], seed=0, quantized=True).numpy()[..., 0] - 32768
figure, axes = plt.subplots(3, 1, figsize=(8, 4), sharex=True)
for axis, digit, wave in zip(axes, (0, 3, 6), sound, strict=True):
    axis.plot(np.arange(1024) / 8.0, wave, lw=0.8)
    axis.set(ylabel=f"'{digit}'")
axes[-1].set(xlabel="milliseconds")
figure.tight_layout()
plt.show()
