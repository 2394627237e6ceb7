"""Uniform dequantization of integer data."""

import numbers

import keras
import numpy as np
import tensorflow as tf

from tfp_flows.bijectors.stochastic import StochasticTransform

# At 65,535 a float32 has 8 bits left for the noise.
_MAX_LEVELS = 2**16


@keras.saving.register_keras_serializable(package="tfp_flows")
class UniformDequantization(StochasticTransform):
    """Adds uniform noise to integers: `y = x + u`, `u ~ U[0, 1)`, so that `floor(y) = x`.

    A density on integers as such can be made infinite by spikes on them. Of dequantized data
    the model's mean log-density is a lower bound of the log-probability of the integers,
    `log P(x) >= E_u log p(x + u)`, in the same units: see `bits_per_dim`.

    The noise depends only on the seed of the call (and on the shape), so that a training step
    can be repeated exactly. It must differ from step to step and from epoch to epoch: a model
    trained with fixed noise learns the noise. `FlowModel` takes care of that by itself. In a
    `tf.data` pipeline use `map_dataset`. Scores are another matter: see `shared_noise`.

    Args:
      num_levels: `int` from 2 to 65536; the data are integers in `[0, num_levels)`. Default:
        256. For Glow's 5-bit images give 32 and `x // 8`.
      seed: `int >= 0`, seed of `map_dataset`, which `None` (default) leaves random, and of
        `shared_noise`.
      dtype: float32 (default) or float64, of the result.

    Raises:
      TypeError: if `num_levels` or `seed` is no integer.
      ValueError: if one of them is out of range, or `dtype` is another.

    >>> dequantize = UniformDequantization(256)
    >>> x = np.array([0, 7, 255], np.uint8)
    >>> y = dequantize(x, seed=(0, 1))
    >>> np.testing.assert_array_equal(dequantize.quantize(y), x)

    Numerics: `255 + u` rounds up to 256 in float32 for `u` close to 1; such a result is replaced
    by the largest float below `x + 1`.

    Reference: B. Uria, I. Murray, H. Larochelle, RNADE, 2013, arXiv:1306.0186 (the noise);
    L. Theis, A. van den Oord, M. Bethge, A note on the evaluation of generative models, 2016,
    arXiv:1511.01844, section 3.1 (the bound).
    """

    def __init__(self, num_levels=256, *, seed=None, dtype=tf.float32):
        for name, value, low, high in [
            ("num_levels", num_levels, 2, _MAX_LEVELS),
            ("seed", 0 if seed is None else seed, 0, 2**31 - 1),
        ]:
            if not isinstance(value, numbers.Integral) or isinstance(value, bool):
                raise TypeError(
                    f"UniformDequantization: {name} must be an integer from {low} to {high}, got "
                    f"{value!r} of type {type(value).__name__}."
                )
            if not low <= value <= high:
                raise ValueError(
                    f"UniformDequantization: {name} must be an integer from {low} to {high}, got "
                    f"{value}."
                )
        super().__init__()
        self.num_levels = int(num_levels)
        self.seed = None if seed is None else int(seed)
        self.dtype = tf.as_dtype(dtype)
        if self.dtype not in (tf.float32, tf.float64):
            raise ValueError(
                f"UniformDequantization: dtype must be float32 or float64, got {self.dtype.name}. "
                "Lower ones have no room for the noise."
            )

    def __call__(self, x, *, seed):
        """Returns `x + u` with fresh noise for each `seed`.

        Args:
          x: integer tensor or array of any shape, values in `[0, num_levels)`. They are checked
            in eager mode; in a graph the caller sees to it.
          seed: `int`, or a pair of int32 as `tf.random` has it. The same seed gives the same noise.

        Returns:
          Tensor of the shape of `x` and of `dtype`, in `[0, num_levels)`.

        Raises:
          TypeError: if `x` is not of an integer dtype.
          ValueError: in eager mode, if a value lies outside `[0, num_levels)`.
        """
        x = tf.convert_to_tensor(x)
        seed = (seed, 0) if isinstance(seed, (int, np.integer)) else tf.cast(seed, tf.int32)
        noise = tf.random.stateless_uniform(tf.shape(x), seed, dtype=self.dtype)
        return self.inverse(x, noise)[0]

    data_dtype = tf.int32
    in_place = True

    def draw_noise(self, shape, seed, event_shape):
        """Noise `[*shape, *event_shape]` for `inverse`: see `StochasticTransform`."""
        return tf.random.stateless_uniform([*shape, *event_shape], seed, dtype=self.dtype)

    def inverse(self, x, noise, context=None):
        """Returns `x + noise`, below `x + 1`, and 0, its contribution to the log-likelihood."""
        return self._add(self._check(x), noise), 0.0

    def forward(self, z, seed=None, context=None):
        """The integers, int32, of continuous samples: `quantize`."""
        return tf.cast(self.quantize(z), tf.int32)

    def shared_noise(self, x, *, event_shape, seed=None):
        """Returns `x + u` with one draw of `u` for all events: the noise of scores.

        With it a score is a function of the event alone. It depends neither on the rows beside
        it nor on its place among them, nor on the device or the batch size, so that requests
        to a server can be merged; and the difference of two scores is not one of their noise.
        `FlowModel.log_prob`, `predict` and the exported `log_prob` use it.

        Over the seeds, the mean of `log p(x + u)` is the bound `E_u log p(x + u)` of each event,
        as with noise of its own for each: the estimate is unbiased. But events share the draw,
        so the error of their mean does not shrink as that of independent draws does when there
        are more events. For the held-out figure of a data set take `FlowModel.evaluate`, whose
        noise is a row's own, or average over seeds:
        `model.log_prob(dequantization.shared_noise(x, event_shape=model.event_shape, seed=k))`.

        Args:
          x: integer tensor or array `[..., *event_shape]`, values in `[0, num_levels)`, checked
            as by a call.
          event_shape: the static shape of one event.
          seed: `int` from 0 to 2^32 - 1. The same seed gives the same noise, on every device,
            compiled or not. Default: that of the constructor, or 0.

        Returns:
          Tensor of the shape of `x` and of `dtype`, in `[0, num_levels)`.

        Raises:
          TypeError: if `x` is not of an integer dtype.
          ValueError: if `event_shape` is not fully known or not that of `x`, or `seed` is out of
            range; in eager mode, if a value lies outside `[0, num_levels)`.

        >>> dequantize = UniformDequantization(256)
        >>> y = dequantize.shared_noise(np.array([[3, 5], [9, 9], [3, 5]]), event_shape=[2])
        >>> np.testing.assert_array_equal(y[0], y[2])
        """
        event_shape = tf.TensorShape(event_shape)
        if not event_shape.is_fully_defined():
            raise ValueError(
                "UniformDequantization.shared_noise: event_shape must be fully known, got "
                f"{event_shape}. Give the static shape of one event, without batch dimensions."
            )
        x = self._check(x)
        if x.shape.rank is not None and not (
            x.shape.rank >= event_shape.rank
            and x.shape[x.shape.rank - event_shape.rank :].is_compatible_with(event_shape)
        ):
            raise ValueError(
                "UniformDequantization.shared_noise: expected x of shape [..., "
                f"{', '.join(map(str, event_shape))}], got {x.shape}."
            )
        if seed is None:
            seed = self.seed or 0
        # NumPy never changes what RandomState draws, and in a graph the draw is a constant, which
        # converters that know no random numbers take.
        noise = np.random.RandomState(seed).random_sample(event_shape.as_list())
        return self._add(x, tf.constant(noise, self.dtype))

    def _add(self, x, noise):
        x = tf.cast(x, self.dtype)
        # For an integer n up to 2^p the product n (1 - 2^-p), p the bits of the significand,
        # rounds to the float just below n: n 2^-p is at least half and at most one spacing.
        below_next = (x + 1.0) * (1.0 - 2.0 ** -(24 if self.dtype == tf.float32 else 53))
        return tf.minimum(x + noise, below_next)

    def quantize(self, y):
        """Returns the integers of dequantized data or samples: `clip(floor(y), 0, num_levels - 1)`.

        Args:
          y: floating tensor or array of any shape, finite.

        Returns:
          Tensor of the shape of `y`, uint8 for up to 256 levels, else int32.

        Raises:
          TypeError: if `y` is not floating.
        """
        y = tf.convert_to_tensor(y)
        if not y.dtype.is_floating:
            raise TypeError(
                f"UniformDequantization.quantize: expected floating data, got {y.dtype.name}: are "
                "these quantized already?"
            )
        levels = tf.clip_by_value(tf.floor(y), 0.0, self.num_levels - 1.0)
        return tf.cast(levels, tf.uint8 if self.num_levels <= 256 else tf.int32)

    def map_dataset(self, dataset):
        """Dequantizes a `tf.data.Dataset`, batched or not, with new noise in every epoch.

        An element is `x`, a tuple `(x, ...)` or a dictionary with the key `"x"`; only `x` is
        changed. With a `seed` the noise of every epoch is the same in every run of the program.
        Put it after `cache()`, which would keep the noise of the first epoch.

        ```python
        dataset = tf.data.Dataset.from_tensor_slices(images).shuffle(10_000).batch(64)
        model.fit(UniformDequantization(256, seed=1).map_dataset(dataset), epochs=10)
        ```

        (`dataset.enumerate()` as a source of seeds does not do: it starts again at 0 with every
        epoch, unless the dataset was repeated first.)

        Args:
          dataset: `tf.data.Dataset` of integer data.

        Returns:
          `tf.data.Dataset` of the same structure, with `x` of `dtype`.

        Raises:
          TypeError: if `dataset` is no `tf.data.Dataset` or `x` is not of an integer dtype.
          ValueError: if an element is a dictionary without `"x"`.
        """
        if not isinstance(dataset, tf.data.Dataset):
            raise TypeError(
                "UniformDequantization.map_dataset: expected a tf.data.Dataset, got "
                f"{type(dataset).__name__}. For an array call the object itself."
            )
        seeds = tf.data.Dataset.random(seed=self.seed, rerandomize_each_iteration=True).batch(2)
        return tf.data.Dataset.zip((dataset, seeds)).map(
            self._map_element, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
        )

    def get_config(self):
        """The constructor arguments, for `keras.saving`."""
        return {"num_levels": self.num_levels, "seed": self.seed, "dtype": self.dtype.name}

    def _map_element(self, element, seed):
        seed = tf.cast(seed, tf.int32)
        if isinstance(element, dict):
            if "x" not in element:
                raise ValueError(
                    "UniformDequantization.map_dataset: expected dictionaries with the key 'x', "
                    f"got the keys {sorted(element)}. Map the dataset to (x, ...) first."
                )
            return {**element, "x": self(element["x"], seed=seed)}
        if isinstance(element, tuple):
            return (self(element[0], seed=seed), *element[1:])
        return self(element, seed=seed)

    def _check(self, x):
        x = tf.convert_to_tensor(x)
        if not x.dtype.is_integer:
            raise TypeError(
                f"UniformDequantization: expected integers in [0, {self.num_levels}), got "
                f"{x.dtype.name}. Whole numbers stored as floats: cast them, `tf.cast(x, "
                "tf.int32)`. Continuous data need no dequantization."
            )
        # No value of a uint8 is out of range of 256 levels: nothing to look through.
        if x.dtype.min >= 0 and x.dtype.max < self.num_levels or not tf.executing_eagerly():
            return x
        values = x.numpy()
        if values.size and not (values.min() >= 0 and values.max() < self.num_levels):
            raise ValueError(
                f"UniformDequantization: expected integers in [0, {self.num_levels}), got values "
                f"from {values.min()} to {values.max()}. Set num_levels, or reduce the data "
                "(`x // 8` makes 32 levels of 256)."
            )
        return x
