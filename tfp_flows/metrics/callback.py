"""Scoring samples while a model trains."""

import dataclasses

import keras
import numpy as np

from tfp_flows import _checks
from tfp_flows.metrics.mmd import mmd
from tfp_flows.metrics.wasserstein import sliced_wasserstein

_TITLE = "metrics.SampleScores"


class SampleScores(keras.callbacks.Callback):
    """A Keras callback that compares a model's samples with held-out rows, epoch by epoch.

    Its figures are in the epoch's logs beside the loss, under the metrics' names, so that
    `CSVLogger`, `EarlyStopping(monitor="mmd", mode="min")`, `ModelCheckpoint` and the `History`
    have them, if they come after it in the list. Of an `Estimate` the value is logged, of another
    dataclass (`precision_recall`) each field under its own name. Between two scored epochs the
    last figures stand.

    Args:
      held_out: array or tensor `[n, *event]`, rows that the model does not train on, in the units
        of its samples.
      metrics: dictionary from names to functions `f(samples, held_out)` that return a number, an
        `Estimate`, or a dataclass of numbers. Default: `mmd` and `sliced_wasserstein`.
      every: `int >= 1`: the first epoch is scored, and every so many from there. Default: 1.
      num_samples: `int`, how many samples are drawn. Default: as many as held-out rows.
      context: `[num_samples, context_size]` for a conditional flow, such as that of the held-out
        rows: (sample, context) is then not compared with (row, context) but sample with row.
      seed: `int`, of the samples, the same in all epochs: what moves then is the model.

    Raises:
      TypeError: if a metric is no function, or returns what is no number.
      ValueError: if there are no metrics, or a name is one of Keras's own.

    >>> from tfp_flows import FlowModel, flows
    >>> x = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    >>> model = FlowModel(flows.real_nvp([2], num_couplings=2, hidden_units=(8,), seed=0))
    >>> model.compile("adam")
    >>> scores = SampleScores(x[:32], {"mmd": mmd})
    >>> sorted(model.fit(x[32:], epochs=2, verbose=0, callbacks=[scores]).history)
    ['loss', 'mmd']
    """

    def __init__(self, held_out, metrics=None, *, every=1, num_samples=None, context=None, seed=0):
        super().__init__()
        if metrics is None:
            metrics = {"mmd": mmd, "sliced_wasserstein": sliced_wasserstein}
        if not isinstance(metrics, dict) or not metrics:
            raise ValueError(
                f"{_TITLE}: metrics must be a dictionary from names to functions of (samples, "
                f'held_out), got {metrics!r}. Write {{"mmd": metrics.mmd}}.'
            )
        for name, function in metrics.items():
            if not callable(function):
                raise TypeError(
                    f"{_TITLE}: metric '{name}' must be a function of (samples, held_out), got "
                    f"{type(function).__name__}."
                )
        self._held_out = np.asarray(held_out)
        self._metrics = dict(metrics)
        self._every = _checks.positive_integer(every, "every", _TITLE)
        if num_samples is None:
            num_samples = len(self._held_out)
        self._num_samples = _checks.positive_integer(num_samples, "num_samples", _TITLE)
        self._context = context
        self._seed = seed
        self._last = {}

    def on_train_begin(self, logs=None):
        """Forgets the figures of an earlier training."""
        self._last = {}

    def on_epoch_end(self, epoch, logs=None):
        """Draws samples, scores them, and adds the figures to the logs."""
        if epoch % self._every == 0 or not self._last:
            samples = self.model.sample(self._num_samples, seed=self._seed, context=self._context)
            samples = np.asarray(samples)
            self._last = {}
            for name, function in self._metrics.items():
                self._last.update(_figures(name, function(samples, self._held_out)))
        if logs is not None:
            taken = set(self._last) & set(logs)
            if taken:
                raise ValueError(
                    f"{_TITLE}: the logs have a '{taken.pop()}' already. Give the metric another "
                    "name."
                )
            logs.update(self._last)


def _figures(name, found):
    if dataclasses.is_dataclass(found) and not hasattr(found, "__float__"):
        return {field: float(value) for field, value in dataclasses.asdict(found).items()}
    try:
        return {name: float(found)}
    except (TypeError, ValueError):
        raise TypeError(
            f"{_TITLE}: metric '{name}' must return a number or a dataclass of numbers, got "
            f"{type(found).__name__}. Wrap it: lambda samples, held_out: ..."
        ) from None
