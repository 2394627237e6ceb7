"""TensorFlow Probability's own flows with its tf_keras networks."""

import tensorflow as tf
import tensorflow_probability as tfp
import tf_keras

from peers import stepping, works

tfb, tfd = tfp.bijectors, tfp.distributions

# TFP leaves log-scales unbounded: small last layers and a small rate keep it finite.
LEARNING_RATE = 1e-4


def _mlp(hidden_units, outputs):
    small = tf_keras.initializers.RandomNormal(stddev=1e-3)
    layers = [tf_keras.layers.Dense(units, activation="relu") for units in hidden_units]
    return tf_keras.Sequential([*layers, tf_keras.layers.Dense(outputs, kernel_initializer=small)])


class _Affine(tf.Module):
    """shift and log-scale from one network, the log-scale bounded."""

    def __init__(self, hidden_units, transformed):
        super().__init__()
        self.network = _mlp(hidden_units, 2 * transformed)

    def __call__(self, x, output_units):
        shift, log_scale = tf.split(self.network(x), 2, axis=-1)
        return shift, tf.tanh(log_scale)


class _Spline(tf.Module):
    """A rational quadratic spline a dimension from one network, as TFP's docstring has it."""

    def __init__(self, hidden_units, transformed):
        super().__init__()
        self.transformed = transformed
        self.network = _mlp(hidden_units, transformed * (3 * works.SPLINE_BINS - 1))

    def __call__(self, x, output_units):
        bins, bound = works.SPLINE_BINS, works.SPLINE_BOUND
        raw = tf.reshape(self.network(x), [-1, self.transformed, 3 * bins - 1])
        widths, heights, slopes = tf.split(raw, [bins, bins, bins - 1], axis=-1)
        smallest = 1e-3

        def sizes(t):
            return tf.nn.softmax(t) * (2 * bound - bins * smallest) + smallest

        return tfb.RationalQuadraticSpline(
            bin_widths=sizes(widths),
            bin_heights=sizes(heights),
            knot_slopes=tf.nn.softplus(slopes + 0.541) + smallest,
            range_min=-bound,
        )


def _glow(steps):
    glow = tfb.Glow(
        output_shape=(32, 32, 3),
        num_glow_blocks=3,
        num_steps_per_block=steps,
        coupling_bijector_fn=lambda shape: tfb.GlowDefaultNetwork(shape, num_hidden=128),
        exit_bijector_fn=tfb.GlowDefaultExitNetwork,
        seed=0,
    )
    return glow, 32 * 32 * 3


def _couplings(dim, num, make, argument):
    low, bijectors = dim // 2, []
    for i in range(num):
        # A negative num_masked masks the last units: no permutation is needed.
        masked = dim - low if i % 2 == 0 else -low
        conditioner = make(dim - abs(masked))
        bijectors.append(tfb.RealNVP(num_masked=masked, **{argument: conditioner}))
    return tfb.Chain(bijectors), dim


def _maf(dim, num_layers, hidden_units):
    bijectors = []
    for i in range(num_layers):
        if i:
            bijectors.append(tfb.Permute(list(reversed(range(dim)))))
        made = tfb.AutoregressiveNetwork(
            params=2,
            event_shape=[dim],
            hidden_units=list(hidden_units),
            activation="relu",
            kernel_initializer=tf_keras.initializers.VarianceScaling(0.1),
        )
        bijectors.append(tfb.MaskedAutoregressiveFlow(made))
    return tfb.Chain(bijectors), dim


class Contender(stepping.FunctionContender):
    """TFP 0.25, trained with tf_keras Adam."""

    def __init__(self, work, xla, options):
        super().__init__(work, xla, options)
        tf_keras.utils.set_random_seed(0)
        if work.name == "glow":
            bijector, size = _glow(options["glow_steps"])
        elif work.name == "realnvp":
            bijector, size = _couplings(
                63, 10, lambda n: _Affine((512, 512), n), "shift_and_log_scale_fn"
            )
        elif work.name == "spline":
            bijector, size = _couplings(16, 6, lambda n: _Spline((128, 128), n), "bijector_fn")
        else:
            bijector, size = _maf(work.event_shape[0], *works.MAF_SIZES[work.name])
        base = tfd.Sample(tfd.Normal(0.0, 1.0), sample_shape=[size])
        distribution = tfd.TransformedDistribution(base, bijector)
        if work.name != "glow":
            distribution.log_prob(works.make_batches(work, 1)[0][:1])  # builds the networks
        variables = list(distribution.trainable_variables)
        optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
        optimizer.build(variables)
        self.set_up(
            distribution.log_prob,
            distribution.sample,
            variables,
            lambda gradients, targets: optimizer.apply_gradients(
                zip(gradients, targets, strict=True)
            ),
        )
