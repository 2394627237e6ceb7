"""Distillation: the pairs of a teacher, in closed form, in training and in files."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

import tfp_flows
from tfp_flows import FlowModel, bijectors, flows
from tfp_flows.objectives import Distillation

tfb, tfd = tfp.bijectors, tfp.distributions

SCALE, SHIFT = np.array([0.5, 2.0], "float32"), np.array([1.0, -1.0], "float32")
BASE = tfd.Sample(tfd.Normal(0.0, 1.0), [2])


def affine_flow(scale=(1.0, 1.0), shift=(0.0, 0.0)):
    """x = scale z + shift, of variables."""
    scale = tfp.util.TransformedVariable(tf.constant(scale), tfb.Exp(), name="scale")
    shift = tf.Variable(shift, name="shift")
    return tfd.TransformedDistribution(BASE, tfb.Chain([tfb.Shift(shift), tfb.Scale(scale)]))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_the_loss_is_the_formula(direction):
    teacher, student = affine_flow(SCALE, SHIFT), affine_flow([3.0, 1.5], [0.5, 0.0])
    z = BASE.sample(5, seed=[1, 2]).numpy()
    x = SCALE * z + SHIFT
    back = (x - [0.5, 0.0]) / [3.0, 1.5]
    errors = {"forward": [3.0, 1.5] * z + [0.5, 0.0] - x, "inverse": back - z}
    square = np.mean(errors[direction] ** 2, axis=1)
    nats = np.sum(0.5 * back**2 + np.log([3.0, 1.5]) + 0.5 * np.log(2 * np.pi), axis=1)
    for weight in (0.0, 0.7):
        objective = Distillation(teacher, likelihood=weight, direction=direction)
        with tf.GradientTape() as tape:
            loss = objective.loss(student, tf.constant(5), [1, 2])
        np.testing.assert_allclose(loss, square + weight * nats, rtol=1e-5)
        own, others = student.trainable_variables, teacher.trainable_variables
        gradients = tape.gradient(loss, [*own, *others])
        assert all(g is not None for g in gradients[: len(own)])
        assert all(g is None for g in gradients[len(own) :])


def test_a_student_that_can_becomes_its_teacher():
    """By the pairs alone: the maps are equal, and so are the densities."""
    teacher = affine_flow(SCALE, SHIFT)
    model = FlowModel(
        affine_flow(), objective=Distillation(teacher, likelihood=0.0, num_samples=64)
    )
    model.compile(optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(0.1, 150)))
    history = model.fit(steps_per_epoch=50, epochs=3, verbose=0).history
    assert set(history) == {"loss"} and model.evaluate(steps=2, verbose=0) < 1e-4
    x = teacher.sample(20, seed=3)
    np.testing.assert_allclose(model.log_prob(x), teacher.log_prob(x), atol=1e-2)
    np.testing.assert_allclose(teacher.bijector.bijectors[0].shift, SHIFT)


def test_the_teacher_is_out_of_training():
    """Its normalization by batches stays as it is, though the student is in training."""
    norm = bijectors.BatchNorm(2, mean=[1.0, 2.0], variance=[4.0, 9.0])
    teacher = tfd.TransformedDistribution(BASE, tfb.Chain([tfb.Invert(norm)]))
    model = FlowModel(affine_flow(), objective=Distillation(teacher, num_samples=4))
    model.compile(optimizer="sgd")
    model.fit(steps_per_epoch=1, verbose=0)
    np.testing.assert_array_equal(norm.mean, [1.0, 2.0])
    np.testing.assert_array_equal(norm.variance, [4.0, 9.0])


def test_a_file_keeps_all_but_the_teacher(tmp_path):
    objective = Distillation(
        affine_flow(), likelihood=0.5, direction="inverse", num_samples=8, seed=3
    )
    model = FlowModel(affine_flow(SCALE, SHIFT), objective=objective)
    model.save(tmp_path / "model.keras")
    again = tfp_flows.load(tmp_path / "model.keras")
    found = again.objective
    assert (found.likelihood, found.direction, found.num_samples, found.seed) == (
        0.5,
        "inverse",
        8,
        3,
    )
    x = tf.ones([2, 2])
    np.testing.assert_array_equal(again.log_prob(x), model.log_prob(x))
    again.compile()
    with pytest.raises(ValueError, match="teacher is not in the file.*of its own. Build a FlowM"):
        again.fit(steps_per_epoch=1, verbose=0)
    more = FlowModel(again.distribution, objective=Distillation(affine_flow(), num_samples=4))
    more.compile()
    more.fit(steps_per_epoch=1, verbose=0)


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda: Distillation(FlowModel(affine_flow())), TypeError, "got FlowModel. Give its `dis"),
        (lambda: Distillation("maf"), TypeError, "teacher must be a tfd.Distribution, got str.$"),
        (lambda: Distillation(BASE, likelihood=-1.0), ValueError, "at least 0 and finite, got -1"),
        (lambda: Distillation(BASE, direction="up"), ValueError, "direction must be one of"),
        (
            lambda: FlowModel(
                flows.nice([3], num_couplings=1, hidden_units=(4,), base="normal"),
                objective=Distillation(affine_flow()),
            ),
            ValueError,
            r"events have shape \[3\], and of the teacher \[2\]",
        ),
        (
            lambda: FlowModel(
                flows.nice([2], num_couplings=1, hidden_units=(4,)),
                objective=Distillation(affine_flow()),
            ),
            ValueError,
            "needs the teacher's base, but 'base' has another density",
        ),
        (
            lambda: FlowModel(
                flows.maf([2], num_layers=1, hidden_units=(4,), trainable_base=True),
                objective=Distillation(affine_flow()),
            ),
            ValueError,
            "'base' has 2 variables of its own",
        ),
        (
            lambda: FlowModel(
                flows.maf([2], num_layers=1, hidden_units=(4,), context_size=2),
                objective=Distillation(affine_flow()),
            ),
            ValueError,
            "for flows without a context, but the distribution takes a context",
        ),
        (
            lambda: FlowModel(
                affine_flow(),
                objective=Distillation(
                    flows.maf([2], num_layers=1, hidden_units=(4,), context_size=2)
                ),
            ),
            ValueError,
            "teacher: Distillation is for flows without",
        ),
    ],
)
def test_bad_input(act, error, message):
    with pytest.raises(error, match=message):
        act()
