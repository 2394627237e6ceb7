"""The minutes that a training may take, and its learning rate on the way there."""

import json
import math
import time

import keras


class Budget(keras.callbacks.Callback):
    """Ends the training when the time is up, and lowers the learning rate on the way there.

    The rate rises over the first steps, then falls along a cosine to a hundredth. The time spent
    before an interruption counts.

    Args:
      peak: the largest learning rate.
      total_steps: steps after which the rate has fallen, whatever the time.
      minutes: of training, or `None`.
      path: file that notes the seconds spent, at the end of each epoch.
    """

    def __init__(self, peak, total_steps, minutes, path):
        super().__init__()
        self._peak, self._total = peak, total_steps
        self._seconds = math.inf if minutes is None else 60.0 * minutes
        self._path = path
        self._warmup = min(100, max(1, total_steps // 10))

    def on_train_begin(self, logs=None):
        """Starts the clock."""
        before = json.loads(self._path.read_text())["seconds"] if self._path.exists() else 0.0
        self._start = time.monotonic() - before

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the learning rate."""
        step = int(self.model.optimizer.iterations)
        done = min(1.0, max(step / self._total, self.elapsed / self._seconds))
        cosine = 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
        self.model.optimizer.learning_rate = (
            self._peak * cosine * min(1.0, (step + 1) / self._warmup)
        )

    def on_train_batch_end(self, batch, logs=None):
        """Looks at the clock."""
        if self.elapsed > self._seconds:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        """Notes the time spent."""
        self._path.write_text(json.dumps({"seconds": self.elapsed}))

    @property
    def elapsed(self):
        """Seconds of training so far, those before an interruption included."""
        return time.monotonic() - self._start
