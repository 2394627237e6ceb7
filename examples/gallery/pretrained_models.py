# %% [markdown]
# # A trained flow in one line
#
# A small Glow of digits comes with the package, and its card: what it is, of which data, what it
# scores and what it is not for. It loads from the package's own folder.

# %%
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from tfp_flows import plots, pretrained

for name in pretrained.available():
    card = pretrained.card(name)
    for number in card["numbers"]:
        print(f"{name}: {number['value']:.3f} +- {number['standard_error']:.3f} {number['unit']}")
    print("not for:", *card["limits"], sep="\n  ")

# %% [markdown]
# It is told the digit, a column each. At a lower temperature digits are cleaner, and more alike.

# %%
model = pretrained.load("glow_digits")
panels = {
    f"temperature {t}": tf.reshape(
        model.sample([8, 10], context=np.arange(10), seed=0, temperature=t), [-1, 8, 8]
    )
    for t in (0.5, 0.7, 1.0)
}
plots.images(panels, columns=10, low=0, high=17)

# %% [markdown]
# Ten densities classify. Last, the held-out images whose own digit is furthest behind the guess.

# %%
digits = load_digits()
held_out = np.random.default_rng(0).permutation(len(digits.images))[:297]
images, labels = digits.images[held_out].astype("uint8")[..., np.newaxis], digits.target[held_out]
by_label = np.stack([model.log_prob(images, np.full(297, k)) for k in range(10)])
guesses = by_label.argmax(axis=0)
print(f"{np.mean(guesses == labels):.3f} of the held-out images are read right")
ahead = by_label[labels, np.arange(297)] - by_label.max(axis=0)
worst = np.argsort(ahead)[:8]
print("labels: ", labels[worst], "\nguesses:", guesses[worst])
plots.images(images[worst], low=0, high=17)
