"""The same works in plain TensorFlow, without any library: the least to reach.

One network call a layer for value and log-det, half-width couplings by slicing,
masks folded into the weights once a call, actnorm and the 1x1 convolution as one
product with a C x C matrix, splines without a gather. Keras' Adam trains it.
"""

import math

import keras
import numpy as np
import tensorflow as tf

from peers import stepping, works

LEARNING_RATE = 1e-3
HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _normal_log_prob(z, axes):
    size = math.prod(z.shape[a] for a in axes)
    return -0.5 * tf.reduce_sum(tf.square(z), axes) - size * HALF_LOG_2PI


class _Store:
    """Makes variables and keeps them in order."""

    def __init__(self):
        self.variables = []
        self.rng = np.random.default_rng(0)

    def __call__(self, value):
        self.variables.append(tf.Variable(np.asarray(value, np.float32)))
        return self.variables[-1]

    def normal(self, *shape, fan_in):
        return self(self.rng.standard_normal(shape) * np.sqrt(2 / fan_in))

    def zeros(self, *shape):
        return self(np.zeros(shape))


class _MLP:
    """Dense layers with relu; the last starts at zero."""

    def __init__(self, store, inputs, hidden_units, outputs):
        self.layers = []
        for units in hidden_units:
            self.layers.append(
                (store.normal(inputs, units, fan_in=inputs), store.zeros(units)),
            )
            inputs = units
        self.layers.append((store.zeros(inputs, outputs), store.zeros(outputs)))

    def __call__(self, h):
        for kernel, bias in self.layers[:-1]:
            h = tf.nn.relu(tf.nn.bias_add(tf.matmul(h, kernel), bias))
        kernel, bias = self.layers[-1]
        return tf.nn.bias_add(tf.matmul(h, kernel), bias)


# --- Couplings on vectors ---------------------------------------------------


class _Couplings:
    """log_prob runs data to latent; odd layers transform the first part."""

    def __init__(self, store, dim, num, hidden_units, per_dim):
        self.dim = dim
        self.low = dim - dim // 2
        self.networks = []
        for i in range(num):
            fixed = self.low if i % 2 == 0 else dim - self.low
            network = _MLP(store, fixed, hidden_units, (dim - fixed) * per_dim)
            self.networks.append(network)

    def _apply(self, i, x, transform):
        first, second = x[:, : self.low], x[:, self.low :]
        if i % 2 == 0:
            second, log_det = transform(second, self.networks[i](first))
        else:
            first, log_det = transform(first, self.networks[i](second))
        return tf.concat([first, second], -1), log_det

    def log_prob(self, x):
        total = 0.0
        for i in range(len(self.networks)):
            x, log_det = self._apply(i, x, self.to_latent)
            total += log_det
        return total + _normal_log_prob(x, [1])

    def sample(self, n):
        x = tf.random.normal([n, self.dim])
        for i in reversed(range(len(self.networks))):
            x, _ = self._apply(i, x, self.to_data)
        return x


class _RealNVP(_Couplings):
    def __init__(self, store):
        super().__init__(store, 63, 10, (512, 512), 2)

    @staticmethod
    def to_latent(x, raw):
        shift, log_scale = tf.split(raw, 2, -1)
        log_scale = tf.tanh(log_scale)
        return (x - shift) * tf.exp(-log_scale), -tf.reduce_sum(log_scale, -1)

    @staticmethod
    def to_data(x, raw):
        shift, log_scale = tf.split(raw, 2, -1)
        return x * tf.exp(tf.tanh(log_scale)) + shift, None


class _Spline(_Couplings):
    """Data to latent is the spline itself, which needs no square root."""

    def __init__(self, store):
        super().__init__(store, 16, 6, (128, 128), 3 * works.SPLINE_BINS - 1)

    @staticmethod
    def to_latent(x, raw):
        bins, bound, smallest = works.SPLINE_BINS, works.SPLINE_BOUND, 1e-3
        raw = tf.reshape(raw, [-1, x.shape[-1], 3 * bins - 1])

        def edges(t):
            sizes = tf.nn.softmax(t) * (2 * bound - bins * smallest) + smallest
            right = tf.cumsum(sizes, axis=-1) - bound
            return right - sizes, sizes

        left, width = edges(raw[..., :bins])
        low, height = edges(raw[..., bins : 2 * bins])
        slopes = tf.nn.softplus(raw[..., 2 * bins :] + 0.541) + smallest
        ends = tf.ones_like(slopes[..., :1])
        inside = tf.abs(x) < bound
        clipped = tf.where(inside, x, 0.0)[..., None]
        # The bin as a 0/1 vector: a product and a sum instead of a gather.
        above = tf.cast(clipped >= left, tf.float32)
        chosen = above - tf.concat([above[..., 1:], tf.zeros_like(above[..., :1])], -1)

        def pick(t):
            return tf.reduce_sum(t * chosen, -1)

        left, width, low, height = pick(left), pick(width), pick(low), pick(height)
        slope_0 = pick(tf.concat([ends, slopes], -1))
        slope_1 = pick(tf.concat([slopes, ends], -1))
        ratio = height / width
        t = (clipped[..., 0] - left) / width
        u = t * (1 - t)
        denominator = ratio + (slope_1 + slope_0 - 2 * ratio) * u
        y = low + height * (ratio * t * t + slope_0 * u) / denominator
        numerator = slope_1 * t * t + 2 * ratio * u + slope_0 * tf.square(1 - t)
        log_det = 2 * tf.math.log(ratio / denominator) + tf.math.log(numerator)
        log_det = tf.where(inside, log_det, 0.0)
        return tf.where(inside, y, x), tf.reduce_sum(log_det, -1)

    def sample(self, n):
        raise NotImplementedError("The spline work is a training step.")


# --- Masked autoregressive flow ---------------------------------------------


class _MAF:
    """Odd layers see the dimensions in reversed order.

    Sampling computes each hidden unit once: units sorted by degree make the weight
    matrices block triangular, so a step reads one block of rows of each matrix.
    """

    def __init__(self, store, dim, num_layers, hidden_units):
        self.dim = dim
        masks, degrees = works.made_masks(dim, hidden_units)
        self.layers = []
        for _ in range(num_layers):
            sizes = [dim, *hidden_units]
            kernels = [
                store.normal(a, b, fan_in=a) for a, b in zip(sizes, hidden_units, strict=False)
            ]
            kernels.append(store.normal(sizes[-1], 2 * dim, fan_in=1e4 * sizes[-1]))
            biases = [store.zeros(b) for b in (*hidden_units, 2 * dim)]
            self.layers.append((kernels, biases))
        # Columns of the last kernel: all shifts, then all raw log-scales.
        masks[-1] = np.concatenate([masks[-1]] * 2, 1)
        # Tensors, which a traced function captures; an array would be copied into its graph.
        self.masks = [tf.constant(mask) for mask in masks]
        # Units of each degree, padded with one past the last unit, which is zero.
        self.blocks = []
        for layer in degrees:
            groups = [np.flatnonzero(layer == d) for d in range(1, dim)]
            block = np.full((dim - 1, max(map(len, groups))), len(layer), np.int32)
            for row, group in zip(block, groups, strict=True):
                row[: len(group)] = group
            self.blocks.append(block)

    def _folded(self, kernels):
        return [kernel * mask for kernel, mask in zip(kernels, self.masks, strict=True)]

    def log_prob(self, x):
        total = 0.0
        for i, (kernels, biases) in enumerate(self.layers):
            if i:
                x = tf.reverse(x, [-1])
            h = x
            for j, kernel in enumerate(self._folded(kernels)):
                h = tf.nn.bias_add(tf.matmul(tf.nn.relu(h) if j else h, kernel), biases[j])
            shift, log_scale = tf.split(h, 2, -1)
            log_scale = tf.tanh(log_scale)
            x = (x - shift) * tf.exp(-log_scale)
            total -= tf.reduce_sum(log_scale, -1)
        return total + _normal_log_prob(x, [1])

    def sample(self, n):
        x = tf.random.normal([self.dim, n])
        for i in reversed(range(len(self.layers))):
            x = self._invert_layer(x, *self.layers[i])
            if i:
                x = tf.reverse(x, [0])
        return tf.transpose(x)

    def _invert_layer(self, z, kernels, biases):
        """Solves x = z * exp(log_scale(x)) + shift(x), `[dim, n]`, a dimension a pass.

        Units lie in rows, so that the units of one degree are adjacent in memory.
        """
        dim, n = self.dim, z.shape[1]
        (rows_1, rows_2), (pad_1, pad_2) = self.blocks, [b.shape[1] for b in self.blocks]

        def padded(t, axis):
            shape = list(t.shape)
            shape[axis] = 1
            return tf.concat([t, tf.zeros(shape)], axis)

        kernel_1, kernel_2, kernel_3 = self._folded(kernels)
        weights_1 = tf.gather(padded(tf.transpose(kernel_1), 0), rows_1)  # [dim-1, pad_1, dim]
        kernel_2 = tf.gather(padded(tf.transpose(kernel_2), 1), rows_1.reshape(-1), axis=1)
        weights_2 = tf.gather(padded(kernel_2, 0), rows_2)  # [dim-1, pad_2, (dim-1)*pad_1]
        kernel_3 = tf.gather(padded(kernel_3, 0), rows_2.reshape(-1), axis=0)
        # [dim, 2, (dim-1)*pad_2]: shift and log-scale of one dimension.
        weights_3 = tf.transpose(tf.reshape(kernel_3, [-1, 2, dim]), [2, 1, 0])
        bias_1 = tf.gather(padded(biases[0], 0), rows_1)[..., None]
        bias_2 = tf.gather(padded(biases[1], 0), rows_2)[..., None]
        bias_3 = tf.transpose(tf.reshape(biases[2], [2, dim]))[..., None]

        def solve(d, h_2):
            raw = tf.matmul(weights_3[d], h_2) + bias_3[d]
            # Not z[d : d + 1]: XLA wants the bounds of a slice at compile time.
            return z[d][None] * tf.exp(tf.tanh(raw[1:])) + raw[:1]

        def write(buffer, start, size, value):
            return tf.tensor_scatter_nd_update(buffer, (start + tf.range(size))[:, None], value)

        def body(d, x, h_1, h_2):
            new = tf.nn.relu(tf.matmul(weights_1[d], x) + bias_1[d])
            h_1 = write(h_1, d * pad_1, pad_1, new)
            new = tf.nn.relu(tf.matmul(weights_2[d], h_1) + bias_2[d])
            h_2 = write(h_2, d * pad_2, pad_2, new)
            return d + 1, write(x, d + 1, 1, solve(d + 1, h_2)), h_1, h_2

        h_1, h_2 = tf.zeros([(dim - 1) * pad_1, n]), tf.zeros([(dim - 1) * pad_2, n])
        x = tf.concat([solve(0, h_2), tf.zeros([dim - 1, n])], 0)
        loop = (tf.constant(0), x, h_1, h_2)
        return tf.while_loop(lambda d, *_: d < dim - 1, body, loop, maximum_iterations=dim - 1)[1]


# --- Glow -------------------------------------------------------------------


class _GlowStep:
    """Actnorm, 1x1 convolution and affine coupling, data to latent."""

    def __init__(self, store, channels, hidden):
        half = channels // 2
        self.channels, self.half = channels, half
        self.log_scale, self.bias = store.zeros(channels), store.zeros(channels)
        rotation = np.linalg.qr(store.rng.standard_normal((channels, channels)))[0]
        permutation, lower, upper = _lu(rotation)
        self.permutation = tf.constant(permutation, tf.float32)
        diagonal = np.diag(upper)
        self.sign = tf.constant(np.sign(diagonal), tf.float32)
        self.log_s = store(np.log(np.abs(diagonal)))
        self.lower, self.upper = store(lower), store(upper)
        self.below = tf.constant(np.tril(np.ones_like(rotation), -1), tf.float32)
        self.network = [
            (store.normal(3, 3, half, hidden, fan_in=9 * half), store.zeros(hidden)),
            (store.normal(1, 1, hidden, hidden, fan_in=hidden), store.zeros(hidden)),
            (store.zeros(3, 3, hidden, 2 * half), store.zeros(2 * half)),
        ]

    def initialize(self, x):
        """Sets the actnorm from a batch and returns the step's output."""
        mean, variance = tf.nn.moments(x, [0, 1, 2])
        log_scale = -0.5 * tf.math.log(variance + 1e-6)
        self.log_scale.assign(log_scale)
        self.bias.assign(-mean * tf.exp(log_scale))
        return self.to_latent(x)[0]

    def _matrix(self):
        lower = self.lower * self.below + tf.eye(self.channels)
        upper = self.upper * tf.transpose(self.below)
        upper += tf.linalg.diag(self.sign * tf.exp(self.log_s))
        # Row vectors: y = x A with A the transposed P L U.
        return tf.transpose(self.permutation @ lower @ upper)

    def _coupling(self, x):
        (k_1, b_1), (k_2, b_2), (k_3, b_3) = self.network
        h = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, k_1, 1, "SAME"), b_1))
        h = tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(h, k_2, 1, "SAME"), b_2))
        raw = tf.nn.bias_add(tf.nn.conv2d(h, k_3, 1, "SAME"), b_3)
        return raw[..., : self.half], tf.tanh(raw[..., self.half :])

    def to_latent(self, x):
        matrix = self._matrix()
        pixels = x.shape[1] * x.shape[2]
        flat = tf.reshape(x, [-1, self.channels])
        flat = tf.matmul(flat, tf.exp(self.log_scale)[:, None] * matrix)
        flat = tf.nn.bias_add(flat, tf.linalg.matvec(matrix, self.bias, transpose_a=True))
        x = tf.reshape(flat, [-1, *x.shape[1:]])
        fixed, moved = x[..., : self.half], x[..., self.half :]
        shift, log_scale = self._coupling(fixed)
        moved = (moved + shift) * tf.exp(log_scale)
        log_det = tf.reduce_sum(log_scale, [1, 2, 3])
        log_det += pixels * (tf.reduce_sum(self.log_scale) + tf.reduce_sum(self.log_s))
        return tf.concat([fixed, moved], -1), log_det

    def to_data(self, x):
        fixed, moved = x[..., : self.half], x[..., self.half :]
        shift, log_scale = self._coupling(fixed)
        x = tf.concat([fixed, moved * tf.exp(-log_scale) - shift], -1)
        inverse = tf.linalg.inv(self._matrix()) * tf.exp(-self.log_scale)
        flat = tf.matmul(tf.reshape(x, [-1, self.channels]), inverse)
        flat = tf.nn.bias_add(flat, -self.bias * tf.exp(-self.log_scale))
        return tf.reshape(flat, [-1, *x.shape[1:]])


def _lu(matrix):
    """Returns P, L, U with `matrix = P @ L @ U`, L with a unit diagonal."""
    size = len(matrix)
    upper, lower, order = matrix.copy(), np.eye(size), np.arange(size)
    for k in range(size - 1):
        pivot = k + np.argmax(np.abs(upper[k:, k]))
        upper[[k, pivot]] = upper[[pivot, k]]
        order[[k, pivot]] = order[[pivot, k]]
        lower[[k, pivot], :k] = lower[[pivot, k], :k]
        lower[k + 1 :, k] = upper[k + 1 :, k] / upper[k, k]
        upper[k + 1 :] -= lower[k + 1 :, k : k + 1] * upper[k]
    return np.eye(size)[order].T, lower, upper


class _Glow:
    def __init__(self, store, steps, levels=3, hidden=128):
        self.levels, self.priors, channels = [], [], 3
        for level in range(levels):
            channels *= 4
            self.levels.append([_GlowStep(store, channels, hidden) for _ in range(steps)])
            if level < levels - 1:
                channels //= 2
                self.priors.append(
                    (store.zeros(3, 3, channels, 2 * channels), store.zeros(2 * channels))
                )
        self.top = (32 >> levels, 32 >> levels, channels)

    def initialize(self, x):
        for level, steps in enumerate(self.levels):
            x = tf.nn.space_to_depth(x, 2)
            for step in steps:
                x = step.initialize(x)
            if level < len(self.priors):
                x = x[..., : x.shape[-1] // 2]

    def _prior(self, level, kept):
        kernel, bias = self.priors[level]
        raw = tf.nn.bias_add(tf.nn.conv2d(kept, kernel, 1, "SAME"), bias)
        mean, log_scale = tf.split(raw, 2, -1)
        return mean, tf.tanh(log_scale)

    def log_prob(self, x):
        total = 0.0
        for level, steps in enumerate(self.levels):
            x = tf.nn.space_to_depth(x, 2)
            for step in steps:
                x, log_det = step.to_latent(x)
                total += log_det
            if level < len(self.priors):
                x, out = tf.split(x, 2, -1)
                mean, log_scale = self._prior(level, x)
                total += _normal_log_prob((out - mean) * tf.exp(-log_scale), [1, 2, 3])
                total -= tf.reduce_sum(log_scale, [1, 2, 3])
        return total + _normal_log_prob(x, [1, 2, 3])

    def sample(self, n):
        x = tf.random.normal([n, *self.top])
        for level in reversed(range(len(self.levels))):
            if level < len(self.priors):
                mean, log_scale = self._prior(level, x)
                out = mean + tf.exp(log_scale) * tf.random.normal(mean.shape)
                x = tf.concat([x, out], -1)
            for step in reversed(self.levels[level]):
                x = step.to_data(x)
            x = tf.nn.depth_to_space(x, 2)
        return x


class Contender(stepping.FunctionContender):
    """Plain TensorFlow with Keras' Adam."""

    def __init__(self, work, xla, options):
        super().__init__(work, xla, options)
        store = _Store()
        if work.name == "glow":
            model = _Glow(store, options["glow_steps"])
            model.initialize(tf.constant(works.make_batches(work, 1)[0]))
        elif work.name == "realnvp":
            model = _RealNVP(store)
        elif work.name == "spline":
            model = _Spline(store)
        else:
            model = _MAF(store, work.event_shape[0], *works.MAF_SIZES[work.name])
        self.model = model
        optimizer = keras.optimizers.Adam(LEARNING_RATE)
        optimizer.build(store.variables)
        self.set_up(model.log_prob, model.sample, store.variables, optimizer.apply)
