"""Flows among the other parts of Keras and TensorFlow Probability: four short programs.

    python examples/idioms.py                       # all four, about a minute on two cores
    python examples/idioms.py surrogate_posterior   # one of them

larger_model          a conditional flow as the last part of a Keras model
joint_distribution    a flow as the prior of a tfd.JointDistribution
neutra                tfp.mcmc on a target that a flow has made round (NeuTra)
surrogate_posterior   a flow that tfp.vi fits to a posterior

Each ends in a number beside one that it can be compared with.
"""

import argparse
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp

from tfp_flows import FlowModel, flows

tfb, tfd = tfp.bijectors, tfp.distributions


def larger_model(steps=300):
    """A Keras network gives the context of a flow, and both train by one `fit`.

    The data: from an angle, seen as two features, a point near one of two places on a circle. A
    network that predicts one Gaussian cannot have it; the flow can.

    Returns:
      The mean log-density of held-out points under the model, and under the Gaussian that fits
      each angle's points best.
    """
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 4096)
    sign = rng.choice([-1.0, 1.0], angle.size)
    point = np.stack([np.cos(angle), np.sin(angle)], 1) * sign[:, None]
    point = (point + rng.normal(size=point.shape, scale=0.1)).astype("float32")
    features = np.stack([np.cos(angle), np.sin(angle)], 1).astype("float32")

    flow = FlowModel(
        flows.real_nvp(
            [2],
            num_couplings=4,
            hidden_units=(32,),
            elementwise="rational_quadratic_spline",
            context_size=8,
            seed=0,
        )
    )
    x, seen = keras.Input([2]), keras.Input([2])
    hidden = keras.layers.Dense(32, activation="silu")(seen)
    context = keras.layers.Dense(8)(hidden)
    # A FlowModel is a layer that maps (x, context) to log p(x | context).
    model = keras.Model([x, seen], flow((x, context)))
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3), loss=lambda _, log_prob: -keras.ops.mean(log_prob)
    )
    train, held_out = slice(0, 3584), slice(3584, None)
    inputs = [point[train], features[train]]
    epochs = max(1, steps // 28)
    model.fit(inputs, np.zeros(3584), batch_size=128, epochs=epochs, verbose=0)
    log_prob = model.predict([point[held_out], features[held_out]], verbose=0).mean()
    # Of both places, at distance 1, and noise of 0.1: variances 1.01 along the line, 0.01 across.
    gaussian = -np.log(2 * np.pi) - 0.5 * np.log(1.01 * 0.01) - 1.0
    return float(log_prob), float(gaussian)


def joint_distribution(steps=200):
    """A flow as the prior of a latent vector that a Gaussian likelihood observes.

    The prior is trained on samples of two moons; the posterior of a point of which only the
    first coordinate was seen is then drawn by importance sampling.

    Returns:
      The largest difference between the joint density and the sum of its two parts (0 but for
      rounding), and how likely the posterior says that the point is on the upper moon.
    """
    rng = np.random.default_rng(0)
    t, upper = rng.uniform(0, np.pi, 2000), rng.integers(0, 2, 2000)
    moons = np.where(
        upper[:, None] == 1,
        np.stack([np.cos(t), np.sin(t)], 1),
        np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1),
    )
    moons = (moons + rng.normal(size=moons.shape, scale=0.05)).astype("float32")
    prior = flows.real_nvp([2], num_couplings=6, hidden_units=(32, 32), seed=0)
    model = FlowModel(prior)
    model.compile(optimizer=keras.optimizers.Adam(5e-3))
    model.fit(moons, batch_size=200, epochs=max(1, steps // 10), verbose=0)

    joint = tfd.JointDistributionNamed(
        {"point": prior, "seen": lambda point: tfd.Normal(point[..., 0], 0.1)}
    )
    draws = joint.sample(4096, seed=(0, 1))
    parts = prior.log_prob(tf.identity(draws["point"])) + tfd.Normal(
        draws["point"][..., 0], 0.1
    ).log_prob(draws["seen"])
    difference = tf.reduce_max(tf.abs(joint.log_prob(draws) - parts))
    weights = tf.nn.softmax(tfd.Normal(draws["point"][..., 0], 0.1).log_prob(-0.5))
    on_upper = tf.reduce_sum(weights * tf.cast(draws["point"][..., 1] > 0.25, tf.float32))
    return float(difference), float(on_upper)


def _funnel(x):
    """Neal's funnel in two dimensions: the width of the second depends on the first."""
    neck, rest = x[..., 0], x[..., 1]
    return tfd.Normal(0.0, 3.0).log_prob(neck) + tfd.Normal(0.0, tf.exp(0.5 * neck)).log_prob(rest)


def neutra(steps=400, samples=500):
    """Hamiltonian Monte Carlo on the funnel, as it is and through a flow that was fitted to it.

    Returns:
      The effective number of samples of the funnel's neck, of 4 chains of `samples` each,
      through the flow and without it.
    """
    flow = flows.real_nvp([2], num_couplings=4, hidden_units=(32,), log_scale="exp", seed=0)
    optimizer = keras.optimizers.Adam(3e-3)
    optimizer.build(flow.trainable_variables)

    @tf.function
    def step(number):
        with tf.GradientTape() as tape:
            x, log_q = flow.experimental_sample_and_log_prob(128, seed=tf.stack([1, number]))
            loss = tf.reduce_mean(log_q - _funnel(x))
        variables = flow.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    for number in tf.range(steps):
        step(number)

    @tf.function(autograph=False)
    def run(through_flow):
        kernel = tfp.mcmc.HamiltonianMonteCarlo(_funnel, step_size=0.3, num_leapfrog_steps=5)
        if through_flow:
            kernel = tfp.mcmc.TransformedTransitionKernel(kernel, flow.bijector)
        kernel = tfp.mcmc.SimpleStepSizeAdaptation(
            kernel,
            num_adaptation_steps=samples // 2,
            **(
                {
                    "step_size_getter_fn": lambda r: r.inner_results.accepted_results.step_size,
                    "log_accept_prob_getter_fn": lambda r: r.inner_results.log_accept_ratio,
                    "step_size_setter_fn": lambda r, s: r._replace(
                        inner_results=r.inner_results._replace(
                            accepted_results=r.inner_results.accepted_results._replace(step_size=s)
                        )
                    ),
                }
                if through_flow
                else {}
            ),
        )
        return tfp.mcmc.sample_chain(
            samples,
            current_state=tf.zeros([4, 2]),
            kernel=kernel,
            num_burnin_steps=samples // 2,
            trace_fn=None,
            seed=(2, 3),
        )

    def effective(chain):
        ess = tfp.mcmc.effective_sample_size(chain[..., 0], cross_chain_dims=1)
        return float(tf.reduce_min(ess))

    return effective(run(True)), effective(run(False))


def surrogate_posterior(steps=400):
    """An IAF that `tfp.vi.fit_surrogate_posterior` fits to the posterior of a regression.

    Returns:
      The largest error of the means and standard deviations of the two coefficients, in units
      of the exact posterior's standard deviations, of the flow and of a mean-field Gaussian.
    """
    rng = np.random.default_rng(0)
    x = np.stack([np.ones(20), rng.uniform(1, 3, 20)], 1).astype("float32")
    y = (x @ [1.0, -0.5] + rng.normal(size=20, scale=0.5)).astype("float32")
    precision = np.eye(2) + x.T @ x / 0.25
    covariance = np.linalg.inv(precision)
    mean, spread = covariance @ x.T @ y / 0.25, np.sqrt(np.diag(covariance))

    def target(weights):
        likelihood = tfd.Independent(tfd.Normal(tf.linalg.matvec(x, weights), 0.5), 1)
        return tfd.Sample(tfd.Normal(0.0, 1.0), 2).log_prob(weights) + likelihood.log_prob(y)

    loc, scale = tf.Variable(tf.zeros(2)), tfp.util.TransformedVariable(tf.ones(2), tfb.Softplus())
    surrogates = {
        "flow": flows.iaf([2], num_layers=2, hidden_units=(16,), trainable_base=True, seed=0),
        "mean field": tfd.MultivariateNormalDiag(loc, scale),
    }
    errors = []
    for surrogate in surrogates.values():
        optimizer = keras.optimizers.Adam(0.02)
        optimizer.build(surrogate.trainable_variables)  # Keras makes no variables inside a loop.
        tfp.vi.fit_surrogate_posterior(
            target,
            surrogate,
            optimizer=optimizer,
            num_steps=steps,
            sample_size=32,
            seed=(4, 5),
        )
        draws = surrogate.sample(10_000, seed=(6, 7)).numpy()
        error = np.abs(draws.mean(0) - mean), np.abs(draws.std(0) - spread)
        errors.append(float(np.max(error / spread)))
    return tuple(errors)


PROGRAMS = {
    "larger_model": (larger_model, "held-out log-density, and of the best Gaussian"),
    "joint_distribution": (
        joint_distribution,
        "error of the joint density, and P(upper moon), truly 1",
    ),
    "neutra": (neutra, "effective samples through the flow, and without"),
    "surrogate_posterior": (surrogate_posterior, "error of the flow, and of mean field (in sd)"),
}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("programs", nargs="*", metavar="program", help="default: all four")
    names = parser.parse_args().programs or list(PROGRAMS)
    if not set(names) <= set(PROGRAMS):
        parser.error(f"there are the programs {', '.join(PROGRAMS)}")
    for name in names:
        program, what = PROGRAMS[name]
        first, second = program()
        print(f"{name}: {what}: {first:.3g}, {second:.3g}", flush=True)
