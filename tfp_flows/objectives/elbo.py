"""The bound of a VAE with its terms weighted for training."""

import math

import keras
import tensorflow as tf

from tfp_flows._checks import number, positive_integer
from tfp_flows.objectives.base import Objective


@keras.saving.register_keras_serializable(package="tfp_flows")
class ELBO(Objective):
    """The negative evidence lower bound of a VAE, its divergence weighted and with free bits.

        loss = -log p(x | z) + beta * sum_l max(free_bits, KL_l)
        KL_l = log q(z_l | ...) - log p(z_l | ...)

    with one z of the posterior a row, and KL in the maximum the mean over the rows of the batch.
    The sum is over the layers of latents of a `distributions.LadderVAE`; a `VAE` has one. Without
    free bits there is no maximum, and the gradient is unbiased.
    At the defaults it is what a VAE is trained for without an objective, `-log_prob`. The weights
    are for training alone: `log_prob`, and "nats" in `evaluate`, stay the bound.

    A divergence that is dear from the first step on lets a VAE with a strong decoder, or a deep
    one, use no latent. Two remedies:

      warm-up    beta grows from 0 to 1 in the first steps (`objectives.WarmUp`, a callback).
      free bits  the divergence costs nothing below `free_bits` nats.

    Of several devices each takes the mean over its own rows: with free bits the weights are not
    those of one device, to the last bit, while the mean lies about there.

    Args:
      beta: number >= 0. Above 1: a beta-VAE. Default: 1.
      free_bits: number >= 0, in nats, of each layer of latents. Default: 0.

    Raises:
      TypeError, ValueError: for numbers out of range; by `FlowModel`, for a distribution that is
        no VAE.

    >>> from tfp_flows import distributions
    >>> import tensorflow_probability as tfp
    >>> prior = tfp.distributions.MultivariateNormalDiag(tf.zeros([2]))
    >>> vae = distributions.VAE(prior, keras.layers.Dense(4), keras.layers.Dense(3))
    >>> noise = vae.draw_noise([5], seed=[0, 1])
    >>> ELBO(free_bits=2.0).loss(vae, (tf.ones([5, 3]), None), noise).shape
    TensorShape([5])

    References:
      Free bits: D. P. Kingma et al., Improving variational inference with inverse autoregressive
      flow, 2016, arXiv:1606.04934, appendix C.8, equation 15; here a group is a layer.
      Warm-up: S. R. Bowman et al., Generating sentences from a continuous space, 2016,
      arXiv:1511.06349, section 3.1. beta: I. Higgins et al., beta-VAE, 2017.
    """

    def __init__(self, beta=1.0, free_bits=0.0):
        self.free_bits = _between(free_bits, "free_bits", "ELBO")
        beta = _between(beta, "beta", "ELBO")
        self._beta = tf.Variable(beta, trainable=False, dtype=tf.float32, name="beta")

    @property
    def beta(self):
        """The weight of the divergence, a variable: it may be set at any time, in `fit` too."""
        return self._beta

    def get_config(self):
        """The constructor's arguments, with the weight as it is."""
        return {"beta": float(self._beta.numpy()), "free_bits": self.free_bits}

    def check(self, distribution, title):
        """Refuses what is no VAE."""
        if not hasattr(distribution, "terms"):
            raise ValueError(
                f"{title}: objectives.ELBO is for a distributions.VAE or LadderVAE, got "
                f"{type(distribution).__name__} '{distribution.name}'. Leave the objective out."
            )
        if distribution.num_samples is not None:
            raise ValueError(
                f"{title}: objectives.ELBO weighs the terms of one draw, got a VAE of "
                f"num_samples={distribution.num_samples}. Leave the one or the other out."
            )

    @property
    def takes_noise(self):
        """It does."""
        return True

    @property
    def compares_rows(self):
        """Free bits are of the mean divergence of a batch."""
        return self.free_bits > 0.0

    def loss(self, distribution, batch, seed):
        """The weighted terms of each row; `seed` is what the VAE's `draw_noise` gave."""
        log_output, log_prior, log_posterior = distribution.terms(batch[0], noise=seed)
        divergence = log_posterior - log_prior
        if self.free_bits:
            free = tf.constant(self.free_bits, divergence.dtype)
            divergence = tf.where(tf.reduce_mean(divergence, axis=0) > free, divergence, free)
        if divergence.shape.rank > 1:
            divergence = tf.reduce_sum(divergence, axis=1)
        return tf.cast(self._beta, divergence.dtype) * divergence - log_output


class WarmUp(keras.callbacks.Callback):
    """Callback of `fit` that lets the weight of a VAE's divergence grow from `start` to 1.

        beta = min(1, start + (1 - start) * step / num_steps)

    by the optimizer's count of steps, so that a training that goes on from a backup goes on with
    the weight that it had. With `steps_per_execution` it is set once for all of them.

    Args:
      num_steps: `int >= 1`.
      start: number from 0 to 1. Default: 0.

    Raises:
      TypeError, ValueError: for numbers out of range; by `fit`, if the objective of the model is
        not `objectives.ELBO`.

    ```python
    model = FlowModel(vae, objective=objectives.ELBO())
    model.compile(optimizer="adam")
    model.fit(x, epochs=100, callbacks=[objectives.WarmUp(num_steps=1000)])
    ```
    """

    def __init__(self, num_steps, start=0.0):
        super().__init__()
        self.num_steps = positive_integer(num_steps, "num_steps", "WarmUp")
        self.start = _between(start, "start", "WarmUp", 1.0)

    def on_train_begin(self, logs=None):
        """Checks the objective."""
        objective = getattr(self.model, "objective", None)
        if not isinstance(objective, ELBO):
            raise ValueError(
                "WarmUp: it sets the beta of objectives.ELBO, but the model's objective is "
                f"{type(objective).__name__}. Build it with FlowModel(vae, "
                "objective=objectives.ELBO())."
            )

    def on_train_batch_begin(self, batch, logs=None):
        """Sets the weight of the next step."""
        share = int(self.model.optimizer.iterations.numpy()) / self.num_steps
        self.model.objective.beta.assign(min(1.0, self.start + (1.0 - self.start) * share))


def _between(value, name, title, most=math.inf):
    """`value` as a finite `float` from 0 to `most`."""
    found = number(value, name, title)
    if not 0.0 <= found <= most or found == math.inf:
        bound = "a finite number >= 0" if most == math.inf else f"a number from 0 to {most:g}"
        raise ValueError(f"{title}: {name} must be {bound}, got {value!r}.")
    return found
