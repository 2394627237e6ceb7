"""A bar for work that is done in parts."""

import time

import keras

_SHORT = 2.0  # Seconds of work that need no bar.


class Bar:
    """Keras's progress bar, that is there from the moment on when the work has taken two seconds.

    Args:
      total: `int`, number of units of the work.
      unit: what one is called.
      verbose: `"auto"` or 1, a bar; 2, a line when the work is done, if it was long; 0, nothing.
      owner: name of the calling method, for messages.

    Raises:
      ValueError: for any other `verbose`.
    """

    def __init__(self, total, *, unit, verbose, owner):
        if verbose not in ("auto", 0, 1, 2):
            raise ValueError(f"{owner}: verbose must be 'auto', 0, 1 or 2, got {verbose!r}.")
        self._bar, self._done, self._start = None, 0, time.monotonic()
        if verbose:
            level = 1 if verbose == "auto" else int(verbose)
            self._bar = keras.utils.Progbar(total, verbose=level, unit_name=unit)

    def add(self, number=1):
        """Tells that so many units more are done."""
        self._done += number
        if self._bar is not None and time.monotonic() - self._start >= _SHORT:
            self._bar.update(self._done)
