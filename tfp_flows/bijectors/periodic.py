"""Invertible convolution of any kernel size, with periodic borders."""

import numpy as np
import tensorflow as tf

from tfp_flows._checks import known_shape, optional_seed, positive_integer
from tfp_flows.bijectors import _linear
from tfp_flows.bijectors.base import FlowBijector, Weight


class PeriodicConvolution(FlowBijector):
    """A trained convolution of an image over its channels, whose borders are periodic.

        inverse:  x[h, w] = sum over a, b of W[a, b] y[h + a, w + b]      a, b = -r, ..., r
        forward:  y, solved for by the Fourier transform: y^(u, v) = W^(u, v)^-1 x^(u, v)
        log|det dx/dy| = sum over all frequencies u, v of log|det W^(u, v)|

    with W[a, b] a matrix `[C, C]` for each of the k x k taps, k = 2 r + 1, positions taken modulo
    `[H, W]`, and W^(u, v) = sum over a, b of W[a, b] exp(2 pi i (u a / H + v b / W)). The direction
    from data to latents is a plain convolution. Its log-det, exact, and the way back take a matrix
    of C x C for half of the H W frequencies, once a call, whatever the number of images.

    With k = 1 it is an `InvertibleConv1x1`. With more it mixes neighbours too, and borders with
    those across: it suits textures, and latents, more than pictures that have a frame.

    Args:
      event_shape: `[H, W, C]`, known.
      kernel_size: odd `int`, k, at most H and W. Default 3.
      seed: `int`, seeds the random rotation that the middle tap starts from; the others start from
        0. Default: drawn from NumPy's global state.
      kernel: variable `[k, k, C, C]`, with W[a, b] = transpose(kernel[a + r, b + r]), as
        `tf.nn.conv2d` has it; or an array to start from.
      name, **kwargs: as `FlowBijector`.

    Raises:
      TypeError: if `kernel_size` or `seed` is no integer.
      ValueError: if the event is no image of known size, the kernel size even or larger than the
        image, the seed negative, or `kernel` of another shape.

    Numerics: nothing keeps a kernel from being singular but the log-det, which then is -inf. The
    way back is as accurate as the condition numbers of the W^(u, v) allow.

    >>> convolution = PeriodicConvolution([4, 4, 2], seed=0)
    >>> x = tf.random.stateless_normal([2, 4, 4, 2], seed=[0, 1])
    >>> error = tf.reduce_max(tf.abs(convolution.inverse(tf.identity(convolution.forward(x))) - x))
    >>> bool(error < 1e-5)
    True

    References:
      E. Hoogeboom, R. van den Berg, M. Welling, Emerging convolutions for generative normalizing
      flows, 2019, arXiv:1901.11137, the periodic ones.
    """

    kernel = Weight("Variable `[k, k, C, C]`.")

    def __init__(
        self,
        event_shape,
        *,
        kernel_size=3,
        seed=None,
        kernel=None,
        name="periodic_convolution",
        **kwargs,
    ):
        title = self._title()
        shape = known_shape(event_shape, "event_shape", title, ranks=(3,))
        size = positive_integer(kernel_size, "kernel_size", title)
        if size % 2 == 0 or size > min(shape[:2]):
            raise ValueError(
                f"{title}: kernel_size must be odd and at most the height and width "
                f"{shape[0]} x {shape[1]}, got {size}."
            )
        self._drawn_by = (optional_seed(seed, title),)
        if kernel is not None:
            self._drawn_by = None
        super().__init__(event_shape=shape, is_constant_jacobian=True, name=name, **kwargs)
        start = self._random_start(size, *self._drawn_by) if self._drawn_by else 0.0
        self.add_weight("kernel", kernel, [size, size, shape[-1], shape[-1]], start)

    def redrawn(self, reseed):
        """Another random rotation, if it started from one."""
        if self._drawn_by is None:
            return ()
        return [(self._kernel, self._random_start(self.kernel.shape[0], reseed(*self._drawn_by)))]

    def _random_start(self, size, seed):
        channels = self._domain[-1]
        kernel = np.zeros([size, size, channels, channels])
        kernel[size // 2, size // 2] = _linear.random_rotation(channels, seed).T
        return kernel

    def _inverse_and_log_det(self, y, context):
        height, width, channels = self._domain
        reach = self.kernel.shape[0] // 2
        image = tf.reshape(y, [-1, height, width, channels])
        if reach:
            image = tf.concat([image[:, -reach:], image, image[:, :reach]], axis=1)
            image = tf.concat([image[:, :, -reach:], image, image[:, :, :reach]], axis=2)
        x = tf.nn.conv2d(image, self.kernel, 1, "VALID")
        return self._like(x, y), self._log_det(self._spectrum())

    def _forward_and_log_det(self, x, context):
        height, width, channels = self._domain
        spectrum = self._spectrum()
        image = tf.transpose(tf.reshape(x, [-1, height, width, channels]), [0, 3, 1, 2])
        waves = tf.signal.rfft2d(image)
        real = tf.concat([tf.math.real(waves), tf.math.imag(waves)], axis=1)
        solved = tf.einsum("hwij,njhw->nihw", tf.linalg.inv(spectrum), real)
        waves = tf.complex(solved[:, :channels], solved[:, channels:])
        y = tf.transpose(tf.signal.irfft2d(waves, [height, width]), [0, 2, 3, 1])
        return self._like(y, x), -self._log_det(spectrum)

    def _spectrum(self):
        """Matrices `[H, W // 2 + 1, 2 C, 2 C]` over real and imaginary parts, side by side.

        Of real images the other half of the frequencies are the conjugates of these.
        """
        height, width, _ = self._domain
        kernel = tf.transpose(self.kernel, [3, 2, 0, 1])
        size = kernel.shape[-1]
        kernel = tf.pad(kernel, [[0, 0], [0, 0], [0, height - size], [0, width - size]])
        # The transform has exp(-2 pi i u a / H), and the convolution the other sign.
        waves = tf.signal.rfft2d(tf.roll(kernel, [-(size // 2)] * 2, axis=[2, 3]))
        real, imaginary = tf.math.real(waves), -tf.math.imag(waves)
        blocks = tf.concat(
            [tf.concat([real, -imaginary], axis=1), tf.concat([imaginary, real], axis=1)], axis=0
        )
        return tf.transpose(blocks, [2, 3, 0, 1])

    def _log_det(self, spectrum):
        # |det| of the real matrix is the square of that of the complex one. But for the first and,
        # of an even width, the last, each column stands for its conjugate too.
        width = self._domain[1]
        times = np.ones(spectrum.shape[1])
        times[[0, *([width // 2] if width % 2 == 0 else [])]] = 0.5
        return tf.reduce_sum(_linear.log_abs_det(spectrum) * tf.constant(times, spectrum.dtype))

    def _like(self, image, value):
        if value.shape.rank == 4:
            return tf.ensure_shape(image, value.shape)
        return tf.ensure_shape(tf.reshape(image, tf.shape(value)), value.shape)
