"""How a table is trained."""

import keras
import numpy as np


def make_optimizer(learning_rate, steps):
    """Adam, whose rate falls to zero over the steps; an outlier's gradient is clipped."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.Adam(rate, global_clipnorm=10.0)


def split(x, weight, validation, seed, title):
    """Rows to train on, and a share of them to hold out.

    Args:
      x: encoded rows; those without an entry say nothing, and are dropped.
      weight: a number for each of them, or `None`.
      validation: the share; if it is no number none is held out here.
      seed: of which.
      title: the caller, for messages.

    Returns:
      Rows and weights of the one part, and of the other, or `None` twice.

    Raises:
      ValueError: if weights or share are out of range, or leave no rows to train on.
    """
    weight = np.ones(len(x)) if weight is None else np.asarray(weight, np.float64)
    if weight.shape != (len(x),) or not (np.isfinite(weight) & (weight >= 0.0)).all():
        raise ValueError(
            f"{title}: sample_weight must be a finite number >= 0 for each of the {len(x)} rows, "
            f"got an array of shape {list(weight.shape)}, or with others in it."
        )
    there = ~np.isnan(x).all(axis=1) & (weight > 0.0)
    x, weight = x[there], weight[there]
    held_out = of_held_out = None
    if isinstance(validation, (int, float)):
        if not 0.0 < validation < 1.0:
            raise ValueError(
                f"{title}: validation must be a share between 0 and 1, a frame, or None, got "
                f"{validation!r}."
            )
        order = np.random.default_rng(seed).permutation(len(x))
        count = int(round(validation * len(x)))
        if count:
            held_out, of_held_out = x[order[:count]], weight[order[:count]]
        x, weight = x[order[count:]], weight[order[count:]]
    if not len(x):
        raise ValueError(
            f"{title}: no rows to train on: all entries are missing, or all rows are held out."
        )
    return x, weight, held_out, of_held_out


class KeepBest(keras.callbacks.Callback):
    """Scores held-out rows every few epochs, and ends with the weights that scored best.

    Args:
      score: function of nothing that returns the held-out loss.
      cost: how many epochs' time a scoring takes; they are as far apart.
      patience: number of scorings without a better one after which training ends.
    """

    def __init__(self, score, cost, patience):
        super().__init__()
        self._score, self._every = score, max(1, round(cost))
        self._patience = patience
        # By the names that a backup of the training keeps.
        self.best, self.wait, self.best_weights = np.inf, 0, None

    def on_epoch_end(self, epoch, logs=None):
        """Scores, where it is time to."""
        last = epoch + 1 == self.params["epochs"]
        if (epoch + 1) % self._every and not last:
            return
        found = float(self._score())
        if logs is not None:
            logs["val_loss"] = found
        self.wait += 1
        if found < self.best:
            self.best, self.wait = found, 0
            self.best_weights = self.model.get_weights()
        if self.wait >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        """Sets the weights that scored best."""
        if self.best_weights is not None:
            self.model.set_weights(self.best_weights)
