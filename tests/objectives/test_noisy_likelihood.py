"""TarFlow's recipe for samples: noise in training, the step back, labels dropped, guidance."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from drawn import perturbed

from tfp_flows import FlowModel, conditioners, flows, objectives

tfb, tfd = tfp.bijectors, tfp.distributions
EMPTY = {"a": [0.5, 0.5], "b": [[0.25]]}
SIZES = {"a": 2, "b": [4, 1]}
SMALL = {"width": 8, "num_blocks": 1, "num_layers": 1}


def tarflow(context_size, **kwargs):
    return perturbed(
        flows.tarflow(
            [4, 1],
            patch_size=2,
            num_blocks=2,
            width=8,
            num_layers=1,
            context_size=context_size,
            seed=0,
            **kwargs,
        )
    )


def test_one_step_back_from_a_normal_density_is_the_posterior_mean():
    """Data N(m, S), noise of variance v: E[x | y] = m + S (S + v I)^-1 (y - m)."""
    rng = np.random.default_rng(0)
    m, mixing, std = np.array([1.0, -2.0]), np.array([[0.8, 0.3], [0.0, 0.5]]), 0.7
    cov = mixing @ mixing.T
    scale = np.linalg.cholesky(cov + std**2 * np.eye(2))
    noisy = tfd.TransformedDistribution(
        tfd.Sample(tfd.Normal(tf.zeros([], tf.float64), 1.0), [2]),
        tfb.Chain([tfb.Shift(m), tfb.ScaleMatvecTriL(tf.constant(scale))]),
    )
    y = rng.normal(size=(3, 5, 2))
    wanted = m + (y - m) @ np.linalg.solve(cov + std**2 * np.eye(2), cov)
    got = objectives.NoisyLikelihood(std).denoise(noisy, y)
    np.testing.assert_allclose(got, wanted, rtol=1e-10)


def test_the_loss_is_of_rows_with_noise_of_that_deviation():
    """Under a standard normal density the mean of -log p(x + s e) is known."""
    flow = flows.real_nvp([2], num_couplings=1, hidden_units=(4,), seed=0)
    objective = objectives.NoisyLikelihood(0.5)
    x = np.broadcast_to(np.float32([1.0, -2.0]), [4000, 2])
    losses = objective.loss(flow, (tf.constant(x), None), [0, 1]).numpy()
    wanted = np.log(2 * np.pi) + 0.5 * (5.0 + 2 * 0.25)
    assert abs(losses.mean() - wanted) < 4.0 * losses.std() / 4000**0.5
    np.testing.assert_array_equal(losses, objective.loss(flow, (tf.constant(x), None), [0, 1]))
    assert (losses != objective.loss(flow, (tf.constant(x), None), [0, 2]).numpy()).mean() > 0.9


def test_dropped_rows_are_scored_under_the_null_context():
    flow = tarflow(SIZES)
    rng = np.random.default_rng(1)
    x = tf.constant(np.repeat(rng.normal(size=(1, 4, 1)), 600, 0), tf.float32)
    one = {"a": rng.normal(size=(1, 2)), "b": rng.normal(size=(1, 4, 1))}
    each = {k: tf.constant(np.repeat(v, 600, 0), tf.float32) for k, v in one.items()}
    empty = {"a": tf.fill([600, 2], 0.5), "b": tf.fill([600, 4, 1], 0.25)}
    objective = objectives.NoisyLikelihood(1e-6, drop_label=0.3, null_context=EMPTY)
    losses = objective.loss(flow, (x, each), [3, 4]).numpy()
    with_it, without = (
        -flow.log_prob(x[:1], context={k: v[:1] for k, v in c.items()}).numpy()
        for c in (each, empty)
    )
    dropped = np.isclose(losses, without, atol=1e-3)
    assert (dropped ^ np.isclose(losses, with_it, atol=1e-3)).all()
    assert abs(dropped.mean() - 0.3) < 4 * (0.21 / 600) ** 0.5


@pytest.mark.parametrize("annealed", [False, True])
def test_guidance_mixes_the_parameters_of_every_entry(annealed):
    """One block: z = (x - t) exp(-s), with t and s from the network with and without context."""
    flow = perturbed(
        flows.tarflow([2, 4, 1], patch_size=2, num_blocks=1, width=8, num_layers=1,
                      context_size=3, log_scale="exp", rate=1.0, seed=0)
    )  # fmt: skip
    sharper = flows.guided(flow, 1.5, annealed_guidance=annealed, null_context=[1 / 3] * 3)
    rng = np.random.default_rng(1)
    x, context = rng.normal(size=(5, 2, 4, 1)), np.eye(3)[[0, 1, 2, 0, 1]]
    x, context = x.astype("float32"), context.astype("float32")
    layer = flow.bijector.bijectors[0].conditioner
    with_it, without = layer(x, context=context), layer(x, context=tf.fill([5, 3], 1 / 3))
    # Two steps: the left and the right patch.
    w = 1.5 * np.array([0, 0, 1, 1] if annealed else [1, 1, 1, 1])[:, np.newaxis]
    mixed = (1 + w) * with_it - w * without
    shift, s = np.split(mixed, 2, axis=-1)
    np.testing.assert_allclose(
        sharper.bijector.inverse(x, context=context), (x - shift) * np.exp(-s), rtol=2e-4, atol=2e-4
    )
    assert {id(v) for v in sharper.trainable_variables} == {id(v) for v in flow.trainable_variables}


def test_guided_flows_are_flows():
    """Steps agree with the call, through preprocessing and both contexts; 0 is the flow itself."""
    flow = tfd.TransformedDistribution(
        tarflow(SIZES, dtype=tf.float64), tfb.Scale(tf.cast(3.0, tf.float64))
    )
    sharper = flows.guided(flow, 0.7, annealed_guidance=True, null_context=EMPTY, name="sharper")
    assert sharper.name == "sharper"
    rng = np.random.default_rng(2)
    context = {"a": rng.normal(size=(3, 2)), "b": rng.normal(size=(3, 4, 1))}
    z = rng.normal(size=(3, 4, 1))
    sharper.distribution.bijector.bijectors[1].check_conditioner()  # right to left
    model, plain = FlowModel(sharper), FlowModel(flow)
    x = model.forward(z, context)
    np.testing.assert_allclose(model.inverse(x, context), z, atol=1e-10)
    assert np.abs(x - plain.forward(z, context)).max() > 1e-2
    same = FlowModel(flows.guided(flow, 0.0)).forward(z, context)
    np.testing.assert_allclose(same, plain.forward(z, context), rtol=1e-12)


def test_trains_on_whole_numbers_and_is_kept_in_files(tmp_path):
    flow = flows.tarflow(
        [2, 2, 1], patch_size=1, num_blocks=1, width=8, num_layers=1, context_size=2, seed=0
    )
    objective = objectives.NoisyLikelihood(0.3, drop_label=0.1, null_context=[0.5, 0.5])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, size=256)
    x = np.broadcast_to(2.0 * labels[:, None, None, None] - 1.0, [256, 2, 2, 1]).astype("float32")
    context = np.eye(2, dtype="float32")[labels]
    model = FlowModel(flow, objective=objective)
    model.compile(keras.optimizers.Adam(0.02))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # They would be of values that are whole numbers.
        losses = model.fit(x, context, epochs=8, batch_size=64, verbose=0).history["loss"]
    assert losses[-1] < losses[0] - 1.0
    sharper = FlowModel(flows.guided(flow, 1.0), objective=objective)
    sharper.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    samples = again.sample(4, seed=0, context=context[:4])
    np.testing.assert_allclose(samples, sharper.sample(4, seed=0, context=context[:4]), atol=1e-5)
    assert again.objective.get_config() == objective.get_config()
    noisy = model.sample(64, seed=0, context=context[:64])
    clean = again.objective.denoise(flow, noisy, context[:64])
    gain = model.log_prob(clean, context[:64]) - model.log_prob(noisy, context[:64])
    assert np.mean(gain) > 0.1


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: objectives.NoisyLikelihood(0.0), ValueError, "noise_std must be positive"),
        (lambda: objectives.NoisyLikelihood(0.1, drop_label=1.0), ValueError, r"in \[0, 1\)"),
        (
            lambda: FlowModel(
                flows.tarflow([4, 1], **SMALL),
                objective=objectives.NoisyLikelihood(0.1, drop_label=0.1),
            ),
            ValueError,
            "takes no context. Set drop_label=0",
        ),
        (
            lambda: FlowModel(
                flows.tarflow([4, 1], context_size=2, **SMALL),
                objective=objectives.NoisyLikelihood(0.1, null_context=[0.0] * 3),
            ),
            ValueError,
            r"null_context must broadcast to \[..., 2\], got an array of shape \[3\]",
        ),
        (
            lambda: FlowModel(flows.made([4]), objective=objectives.NoisyLikelihood(0.1)),
            ValueError,
            "adds noise to real numbers",
        ),
        (
            lambda: flows.guided(tarflow(SIZES), 1.0, null_context=[0.0]),
            ValueError,
            "null_context must be of shape .* got one array",
        ),
        (lambda: flows.guided(flows.tarflow([4, 1], **SMALL), 1.0), ValueError, "takes a context"),
        (lambda: flows.guided(tarflow(2), -1.0), ValueError, "guidance must be finite and at"),
        (
            lambda: flows.guided(flows.maf([4], context_size=2, num_layers=1), 1.0),
            ValueError,
            "network .* lacks num_steps",
        ),
        (
            lambda: flows.guided(flows.real_nvp([4], context_size=2, num_couplings=1), 1.0),
            ValueError,
            "it is a ",
        ),
        (lambda: flows.guided(conditioners.MADE(4), 1.0), TypeError, "got MADE"),
    ],
)
def test_wrong_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()
