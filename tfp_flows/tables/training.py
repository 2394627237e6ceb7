"""How a table is trained."""

import keras
import numpy as np


def make_optimizer(learning_rate, steps):
    """Adam, whose rate falls to zero over the steps; an outlier's gradient is clipped."""
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, steps)
    return keras.optimizers.Adam(rate, global_clipnorm=10.0)


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
        self._patience, self._waited = patience, 0
        self._best, self._weights = np.inf, None

    def on_epoch_end(self, epoch, logs=None):
        """Scores, where it is time to."""
        last = epoch + 1 == self.params["epochs"]
        if (epoch + 1) % self._every and not last:
            return
        found = float(self._score())
        if logs is not None:
            logs["val_loss"] = found
        self._waited += 1
        if found < self._best:
            self._best, self._waited = found, 0
            self._weights = self.model.get_weights()
        if self._waited >= self._patience:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        """Sets the weights that scored best."""
        if self._weights is not None:
            self.model.set_weights(self._weights)
